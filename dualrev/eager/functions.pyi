"""The functions of ``torch`` that take tensors, declared for editors and type checkers.

Nothing here runs: the modules of ``ops`` define these functions and register them.
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

from dualrev.eager.core.annotations import Dims, DType, Scalar, Sizes
from dualrev.eager.graph.methods import values_indices
from dualrev.eager.graph.tensor import Operand, Tensor
from dualrev.eager.ops.arguments import memory_format
from dualrev.eager.serialization import load as load
from dualrev.eager.serialization import save as save

def mul(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def maximum(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def minimum(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def floor_divide(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def remainder(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def fmod(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def atan2(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logaddexp(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def xlogy(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def hypot(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def eq(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def ne(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def lt(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def le(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def gt(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def ge(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logical_and(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logical_or(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logical_xor(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def bitwise_and(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def bitwise_or(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def bitwise_left_shift(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def bitwise_right_shift(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def bitwise_xor(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def add(input: Operand, other: Operand, *, alpha: float = 1, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sub(input: Operand, other: Operand, *, alpha: float = 1, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def subtract(input: Operand, other: Operand, *, alpha: float = 1, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def multiply(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def divide(input: Operand, other: Operand, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def true_divide(input: Operand, other: Operand, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def less(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def less_equal(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def greater(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def greater_equal(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def not_equal(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def arctan2(input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def rsub(input: Operand, other: Operand) -> Tensor: ...  # noqa: A002
def pow(input: Operand, exponent: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A001, A002
def fmax(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def fmin(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def copysign(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logaddexp2(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def heaviside(input: Tensor, values: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor: ...  # noqa: A002
def equal(input: Tensor, other: Tensor) -> bool: ...  # noqa: A002
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool: ...  # noqa: A002
def is_tensor(obj: object) -> bool: ...
def is_floating_point(input: Tensor) -> bool: ...  # noqa: A002
def is_nonzero(input: Tensor) -> bool: ...  # noqa: A002
def clone(input: Tensor, *, memory_format: memory_format | None = None) -> Tensor: ...  # noqa: A002
def detach(input: Tensor) -> Tensor: ...  # noqa: A002
def amax(input: Tensor, dim: Dims = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def amin(input: Tensor, dim: Dims = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
@overload
def max(input: Tensor) -> Tensor: ...  # noqa: A001
@overload
def max(input: Tensor, dim: int, keepdim: bool = False, *, out: tuple[Tensor, Tensor] | None = None) -> values_indices[Tensor]: ...  # noqa: A001
@overload
def max(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A001
@overload
def min(input: Tensor) -> Tensor: ...  # noqa: A001
@overload
def min(input: Tensor, dim: int, keepdim: bool = False, *, out: tuple[Tensor, Tensor] | None = None) -> values_indices[Tensor]: ...  # noqa: A001
@overload
def min(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A001
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True, *,  # noqa: A002
         out: tuple[Tensor, Tensor] | None = None) -> values_indices[Tensor]: ...
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor: ...  # noqa: A002
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *,  # noqa: A002
         out: tuple[Tensor, Tensor] | None = None) -> values_indices[Tensor]: ...
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor: ...  # noqa: A002
def select(input: Tensor, dim: int, index: int) -> Tensor: ...  # noqa: A002
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def index_select(input: Tensor, dim: int, index: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def scatter(input: Tensor, dim: int, index: Tensor, src: Operand | None = None, *, value: Scalar | None = None,  # noqa: A002
            reduce: str | None = None, out: Tensor | None = None) -> Tensor: ...
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
@overload
def nonzero(input: Tensor, *, as_tuple: Literal[False] = False, out: Tensor | None = None) -> Tensor: ...
@overload
def nonzero(input: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor: ...
def concat(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor: ...
def concatenate(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor: ...
def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor: ...
@overload
def atleast_1d(tensor: Tensor, /) -> Tensor: ...
@overload
def atleast_1d(tensors: Sequence[Tensor], /) -> tuple[Tensor, ...]: ...
@overload
def atleast_1d(first: Tensor, second: Tensor, /, *more: Tensor) -> tuple[Tensor, ...]: ...
@overload
def atleast_2d(tensor: Tensor, /) -> Tensor: ...
@overload
def atleast_2d(tensors: Sequence[Tensor], /) -> tuple[Tensor, ...]: ...
@overload
def atleast_2d(first: Tensor, second: Tensor, /, *more: Tensor) -> tuple[Tensor, ...]: ...
@overload
def atleast_3d(tensor: Tensor, /) -> Tensor: ...
@overload
def atleast_3d(tensors: Sequence[Tensor], /) -> tuple[Tensor, ...]: ...
@overload
def atleast_3d(first: Tensor, second: Tensor, /, *more: Tensor) -> tuple[Tensor, ...]: ...
def hstack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor: ...
def vstack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor: ...
def row_stack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor: ...
def trace(input: Tensor) -> Tensor: ...  # noqa: A002
def inverse(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def det(input: Tensor) -> Tensor: ...  # noqa: A002
def matrix_power(input: Tensor, n: int, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def mv(input: Tensor, vec: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def dot(input: Tensor, tensor: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def outer(input: Tensor, vec2: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def ger(input: Tensor, vec2: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def inner(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def einsum(*args: Any) -> Tensor: ...
def cross(input: Tensor, other: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def kron(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def numel(input: Tensor) -> int: ...  # noqa: A002
@overload
def reshape(input: Tensor, *shape: int) -> Tensor: ...
@overload
def reshape(input: Tensor, shape: Sequence[int]) -> Tensor: ...
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor: ...  # noqa: A002
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor: ...  # noqa: A002
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor: ...  # noqa: A002
def swapaxes(input: Tensor, dim0: int, dim1: int) -> Tensor: ...  # noqa: A002
def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor: ...  # noqa: A002
def t(input: Tensor) -> Tensor: ...  # noqa: A002
@overload
def permute(input: Tensor, *dims: int) -> Tensor: ...
@overload
def permute(input: Tensor, dims: Sequence[int]) -> Tensor: ...
def movedim(input: Tensor, source: int, destination: int) -> Tensor: ...  # noqa: A002
def moveaxis(input: Tensor, source: int, destination: int) -> Tensor: ...  # noqa: A002
def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor: ...  # noqa: A002
def squeeze(input: Tensor, dim: Dims = None) -> Tensor: ...  # noqa: A002
def unsqueeze(input: Tensor, dim: int) -> Tensor: ...  # noqa: A002
def split(input: Tensor, split_size: Sizes, dim: int = 0) -> tuple[Tensor, ...]: ...  # noqa: A002
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]: ...  # noqa: A002
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]: ...  # noqa: A002
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor: ...  # noqa: A002
def ravel(input: Tensor) -> Tensor: ...  # noqa: A002
def adjoint(input: Tensor) -> Tensor: ...  # noqa: A002
def repeat_interleave(input: Tensor, repeats: int | Tensor, dim: int | None = None, *, output_size: int | None = None) -> Tensor: ...  # noqa: A002
@overload
def flip(input: Tensor, *dims: int) -> Tensor: ...
@overload
def flip(input: Tensor, dims: Sequence[int]) -> Tensor: ...
def roll(input: Tensor, shifts: Sizes, dims: Sizes | None = None) -> Tensor: ...  # noqa: A002
def tril(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def triu(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def diag(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
@overload
def tile(input: Tensor, *dims: int) -> Tensor: ...
@overload
def tile(input: Tensor, dims: Sequence[int]) -> Tensor: ...
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor: ...  # noqa: A002
def fliplr(input: Tensor) -> Tensor: ...  # noqa: A002
def flipud(input: Tensor) -> Tensor: ...  # noqa: A002
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor: ...  # noqa: A002
def neg(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def exp(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def exp2(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def expm1(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def log(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def log2(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def log10(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def log1p(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sin(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def cos(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def tan(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def asin(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def acos(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def atan(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sinh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def cosh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def tanh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def asinh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def acosh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def atanh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sigmoid(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sqrt(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def rsqrt(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def square(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def reciprocal(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def abs(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A001, A002
def sign(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def sgn(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def floor(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def ceil(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def trunc(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def frac(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def erf(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def erfc(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def erfinv(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def lgamma(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def digamma(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def logical_not(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def isnan(input: Tensor) -> Tensor: ...  # noqa: A002
def isinf(input: Tensor) -> Tensor: ...  # noqa: A002
def isfinite(input: Tensor) -> Tensor: ...  # noqa: A002
def conj(input: Tensor) -> Tensor: ...  # noqa: A002
def angle(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def bitwise_not(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def deg2rad(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def rad2deg(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def negative(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def absolute(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def arcsin(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def arccos(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def arctan(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def arcsinh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def arccosh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def arctanh(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def fix(input: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor: ...  # noqa: A001, A002
def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None, *,  # noqa: A002
               out: Tensor | None = None) -> Tensor: ...
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None, out: Tensor | None = None) -> Tensor: ...  # noqa: A001, A002
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None,  # noqa: A002
         out: Tensor | None = None) -> Tensor: ...
def prod(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None,  # noqa: A002
         out: Tensor | None = None) -> Tensor: ...
def var(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None,  # noqa: A002
        out: Tensor | None = None) -> Tensor: ...
def std(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None,  # noqa: A002
        out: Tensor | None = None) -> Tensor: ...
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def all(input: Tensor, dim: Dims = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A001, A002
def any(input: Tensor, dim: Dims = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A001, A002
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def norm(input: Tensor, p: float | str | None = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None,  # noqa: A002
         out: Tensor | None = None) -> Tensor: ...
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor: ...  # noqa: A002
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None,  # noqa: A002
           out: Tensor | None = None) -> Tensor: ...
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None,  # noqa: A002
            out: Tensor | None = None) -> Tensor: ...
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor: ...  # noqa: A002
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def clip(input: Tensor, min: Operand | None = None, max: Operand | None = None, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Operand, other: Operand, *, out: Tensor | None = None) -> Tensor: ...
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor: ...  # noqa: A002
def lerp(input: Tensor, end: Tensor, weight: Operand, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def complex(real: Tensor, imag: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A001
def polar(abs: Tensor, angle: Tensor, *, out: Tensor | None = None) -> Tensor: ...  # noqa: A002
def is_complex(input: Tensor) -> bool: ...  # noqa: A002
