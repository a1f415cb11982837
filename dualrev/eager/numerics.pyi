"""Further functions of ``torch``, declared for editors and type checkers: statistics, indices, special functions, linear algebra.

Nothing here runs: the modules of ``ops`` define these functions and register them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Dims, Scalar, Sizes
from dualrev.eager.core.size import Size
from dualrev.eager.graph.methods import values_indices
from dualrev.eager.graph.statistical_methods import (
    hist_edges,
    mantissa_exponent,
    min_max,
    qr_parts,
    sign_log,
    svd_parts,
    triangular_solution,
)
from dualrev.eager.graph.tensor import Operand, Tensor

def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1,  # noqa: A002
           out: Tensor | None = None) -> Tensor: ...
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1,  # noqa: A002
         out: Tensor | None = None) -> Tensor: ...
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False,  # noqa: A002
            out: Tensor | tuple[Tensor, ...] | None = None) -> min_max[Tensor]: ...
def argwhere(input: Tensor) -> Tensor: ...  # noqa: A002
def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor: ...  # noqa: A002
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1,  # noqa: A002
            out: Tensor | None = None) -> Tensor: ...
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor: ...  # noqa: A002
def block_diag(*tensors: Tensor) -> Tensor: ...
def broadcast_shapes(*shapes: Sizes) -> Size: ...
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]: ...
def bucketize(input: Tensor | Scalar, boundaries: Tensor, *, out_int32: bool = False, right: bool = False,  # noqa: A002
              out: Tensor | None = None) -> Tensor: ...
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = 'use_mm_for_euclid_dist_if_necessary') -> Tensor: ...
def chain_matmul(*matrices: Any, out: Tensor | None = None) -> Tensor: ...
def cholesky(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def cholesky_inverse(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def cholesky_solve(input: Tensor, input2: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def clamp_max(input: Tensor, max: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def clamp_min(input: Tensor, min: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def column_stack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor: ...
def conj_physical(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def corrcoef(input: Tensor) -> Tensor: ...  # noqa: A002
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor: ...  # noqa: A002
def cummax(input: Tensor, dim: int, *, out: Tensor | tuple[Tensor, ...] | None = None) -> values_indices[Tensor]: ...  # noqa: A002
def cummin(input: Tensor, dim: int, *, out: Tensor | tuple[Tensor, ...] | None = None) -> values_indices[Tensor]: ...  # noqa: A002
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1) -> Tensor: ...
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor: ...  # noqa: A002
def diagflat(input: Tensor, offset: int = 0) -> Tensor: ...  # noqa: A002
def dsplit(input: Tensor, indices_or_sections: Sizes) -> tuple[Tensor, ...]: ...  # noqa: A002
def dstack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor: ...
def float_power(input: Operand, exponent: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def frexp(input: Tensor, *, out: Tensor | tuple[Tensor, ...] | None = None) -> mantissa_exponent[Tensor]: ...  # noqa: A002
def gcd(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def cond(pred: bool | Tensor, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()) -> Any: ...
def lobpcg(A: Tensor, k: int | None = None, B: Tensor | None = None, X: Tensor | None = None, n: int | None = None,
           iK: Tensor | None = None, niter: int | None = None, tol: float | None = None, largest: bool | None = None,
           method: str | None = None, tracker: Any = None, ortho_iparams: dict[str, int] | None = None,
           ortho_fparams: dict[str, float] | None = None, ortho_bparams: dict[str, bool] | None = None) -> tuple[Tensor, Tensor]: ...
def histogramdd(input: Tensor, bins: int | Sequence[int] | Sequence[Tensor], *, range: Sequence[float] | None = None,  # noqa: A002
                weight: Tensor | None = None, density: bool = False) -> Any: ...
def sym_float(a: Any) -> float: ...
def sym_int(a: Any) -> int: ...
def sym_not(a: object) -> bool: ...
def sym_ite(b: bool, t: Any, f: Any) -> Any: ...
def sym_max(a: float, b: float) -> float: ...
def sym_min(a: float, b: float) -> float: ...
def sym_sum(*args: Any) -> Any: ...
def set_default_tensor_type(t: Any, /) -> None: ...
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def histogram(input: Tensor, bins: int | Tensor, *, range: Sequence[float] | None = None,  # noqa: A002
              weight: Tensor | None = None, density: bool = False) -> hist_edges[Tensor]: ...
def hsplit(input: Tensor, indices_or_sections: Sizes) -> tuple[Tensor, ...]: ...  # noqa: A002
def i0(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def igamma(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def igammac(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def imag(input: Tensor) -> Tensor: ...  # noqa: A002
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1,  # noqa: A002
              out: Tensor | None = None) -> Tensor: ...
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def index_fill(input: Tensor, dim: int, index: Tensor, value: Operand) -> Tensor: ...  # noqa: A002
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True,  # noqa: A002
                 out: Tensor | None = None) -> Tensor: ...
def is_conj(input: Tensor) -> bool: ...  # noqa: A002
def is_inference(input: Tensor) -> bool: ...  # noqa: A002
def is_neg(input: Tensor) -> bool: ...  # noqa: A002
def is_signed(input: Tensor) -> bool: ...  # noqa: A002
def isin(elements: Tensor | Scalar, test_elements: Tensor | Scalar, *, assume_unique: bool = False,
         invert: bool = False, out: Tensor | None = None) -> Tensor: ...
def isneginf(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def isposinf(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def isreal(input: Tensor) -> Tensor: ...  # noqa: A002
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False, *,  # noqa: A002
             out: Tensor | tuple[Tensor, ...] | None = None) -> values_indices[Tensor]: ...
def lcm(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def ldexp(input: Tensor, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logcumsumexp(input: Tensor, dim: int, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logdet(input: Tensor) -> Tensor: ...  # noqa: A002
def logit(input: Tensor, eps: float | None = None, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def lu(input: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]: ...  # noqa: A002
def lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True, *,
              out: Tensor | tuple[Tensor, ...] | None = None) -> tuple[Any, ...]: ...
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor: ...  # noqa: A002
def matrix_exp(input: Tensor) -> Tensor: ...  # noqa: A002
def median(input: Tensor, dim: int | None = None, keepdim: bool = False, *,  # noqa: A002
           out: Tensor | tuple[Tensor, ...] | None = None) -> Tensor | values_indices[Tensor]: ...
def mode(input: Tensor, dim: int = -1, keepdim: bool = False, *,  # noqa: A002
         out: Tensor | tuple[Tensor, ...] | None = None) -> values_indices[Tensor]: ...
def msort(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def mvlgamma(input: Tensor, p: int, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False, *,  # noqa: A002
              out: Tensor | tuple[Tensor, ...] | None = None) -> Tensor | values_indices[Tensor]: ...
def nanquantile(input: Tensor, q: Tensor | float, dim: int | None = None, keepdim: bool = False, *,  # noqa: A002
                interpolation: str = 'linear', out: Tensor | None = None) -> Tensor: ...
def nextafter(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def polygamma(n: int, input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def positive(input: Tensor) -> Tensor: ...  # noqa: A002
def qr(input: Tensor, some: bool = True, *, out: Tensor | tuple[Tensor, ...] | None = None) -> qr_parts[Tensor]: ...  # noqa: A002
def quantile(input: Tensor, q: Tensor | float, dim: int | None = None, keepdim: bool = False, *,  # noqa: A002
             interpolation: str = 'linear', out: Tensor | None = None) -> Tensor: ...
def real(input: Tensor) -> Tensor: ...  # noqa: A002
def renorm(input: Tensor, p: float, dim: int, maxnorm: float, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def resolve_conj(input: Tensor) -> Tensor: ...  # noqa: A002
def resolve_neg(input: Tensor) -> Tensor: ...  # noqa: A002
def result_type(tensor1: Operand, tensor2: Operand) -> dtypes.dtype: ...
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True,  # noqa: A002
                   out: Tensor | None = None) -> Tensor: ...
def searchsorted(sorted_sequence: Tensor, input: Tensor | Scalar, *, out_int32: bool = False, right: bool = False,  # noqa: A002
                 side: str | None = None, sorter: Tensor | None = None, out: Tensor | None = None) -> Tensor: ...
def set_printoptions(precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None,
                     sci_mode: bool | None = None) -> None: ...
def signbit(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sinc(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def slogdet(input: Tensor, *, out: Tensor | tuple[Tensor, ...] | None = None) -> sign_log[Tensor]: ...  # noqa: A002
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]: ...  # noqa: A002
def std_mean(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *,  # noqa: A002
             correction: int | None = None) -> tuple[Tensor, Tensor]: ...
def svd(input: Tensor, some: bool = True, compute_uv: bool = True, *,  # noqa: A002
        out: Tensor | tuple[Tensor, ...] | None = None) -> svd_parts[Tensor]: ...
def take(input: Tensor, index: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def tensor_split(input: Tensor, indices_or_sections: Sizes | Tensor, dim: int = 0) -> tuple[Tensor, ...]: ...  # noqa: A002
def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Sizes] | Tensor = 2, out: Tensor | None = None) -> Tensor: ...
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1) -> Tensor: ...
def trapz(y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1) -> Tensor: ...
def triangular_solve(input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,  # noqa: A002
                     unitriangular: bool = False, *,
                     out: Tensor | tuple[Tensor, ...] | None = None) -> triangular_solution[Tensor]: ...
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,  # noqa: A002
           dim: int | None = None) -> Tensor | tuple[Tensor, ...]: ...
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,  # noqa: A002
                       dim: int | None = None) -> Tensor | tuple[Tensor, ...]: ...
def var_mean(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *,  # noqa: A002
             correction: int | None = None) -> tuple[Tensor, Tensor]: ...
def vdot(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def view_as_complex(input: Tensor) -> Tensor: ...  # noqa: A002
def view_as_real(input: Tensor) -> Tensor: ...  # noqa: A002
def vsplit(input: Tensor, indices_or_sections: Sizes) -> tuple[Tensor, ...]: ...  # noqa: A002
