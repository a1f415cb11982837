"""Norms, ranks, condition numbers, exponentials, powers and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core.annotations import Dims, DType
from dualrev.eager.core.dtypes import bfloat16, float16
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.linalg.basics import inv
from dualrev.eager.ops import linear_algebra, matrix_products
from dualrev.eager.ops.decompositions import EIGVALSH, EXPM, SVDVALS, matrices, squares
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.reductions import norm_of
from dualrev.eager.ops.registry import FUNCTIONS
from dualrev.eager.ops.scaled_products import chain
from dualrev.eager.ops.unary import abs_of


def _matrix_norm_of(x: jax.Array, order: Any, dims: tuple[int, int], keep: bool) -> jax.Array:
    if order == "fro":
        return norm_of(x, 2, dims, keep)
    moved = jnp.moveaxis(x, dims, (-2, -1))
    if order in ("nuc", 2, -2):
        s = jnp.linalg.svd(moved, full_matrices=False, compute_uv=True)[1]
        found = jnp.sum(s, -1) if order == "nuc" else jnp.max(s, -1) if order == 2 else jnp.min(s, -1)
    else:
        sums = jnp.sum(abs_of(moved), -2 if abs(order) == 1 else -1)
        found = jnp.max(sums, -1) if order > 0 else jnp.min(sums, -1)
    return jnp.expand_dims(found, dims) if keep else found


_frobenius = family("LinalgVectorNorm", _matrix_norm_of)
#: By way of the singular values, which nobody can change; the largest one is the result.
_nuclear, _spectral = [family("LinalgMatrixNorm", _matrix_norm_of, guards=guards) for guards in ((), (~0,))]
_of_sums = family("LinalgMatrixNorm", _matrix_norm_of, guards=(0, ~0))
_NORMS: dict[Any, Callable[..., Op]] = {"fro": _frobenius, "nuc": _nuclear, 2: _spectral, -2: _spectral}


def norm(input: Tensor, ord: float | str | None = None, dim: Dims = None, keepdim: bool = False, *,  # noqa: A002
         dtype: DType | None = None) -> Tensor:
    """The norm of a vector or a matrix, or of those along one or two dimensions; without an order, that of all entries."""
    dims = None if dim is None else ((dim,) if isinstance(dim, int) else tuple(dim))
    if ord is None or (dims is not None and len(dims) == 1) or (dims is None and input.ndim == 1):
        if isinstance(ord, str):
            raise RuntimeError(f"linalg.matrix_norm: If ord={ord} is used, the dimensions must be two")
        return input.norm(2 if ord is None else ord, dims, keepdim, dtype=dtype)
    if dims is None and input.ndim != 2:
        raise RuntimeError("linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
                           f"{input.ndim}D.")
    return matrix_norm(input, ord, (-2, -1) if dims is None else dims, keepdim, dtype=dtype)


def matrix_norm(input: Tensor, ord: float | str = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *,  # noqa: A002
                dtype: DType | None = None) -> Tensor:
    """The norm of matrices: "fro", "nuc", infinity, 1 or 2, or minus these numbers."""
    if ord not in ("fro", "nuc", 1, -1, 2, -2, float("inf"), float("-inf")):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    if dtype is None and input.dtype in (bfloat16, float16):  # by more bits, as PyTorch adds them up
        return matrix_norm(input.float(), ord, dim, keepdim).to(input.dtype)
    matrices(input, "linalg.matrix_norm")
    dims = tuple([dim_of(d, input.ndim) for d in dim])
    if len(dims) != 2 or dims[0] == dims[1]:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple of different dimensions. Got {list(dim)}")
    return apply(_NORMS.get(ord, _of_sums)(ord, dims, bool(keepdim)), (input if dtype is None else input.to(dtype),))


def matrix_rank(input: Tensor, tol: float | Tensor | None = None, *, atol: float | Tensor | None = None,  # noqa: A002
                rtol: float | Tensor | None = None, hermitian: bool = False) -> Tensor:
    """The number of singular values, or of absolute eigenvalues where ``hermitian``, above ``max(atol, rtol * largest)``."""
    matrices(input, "torch.linalg.matrix_rank", "input")
    values = apply(EIGVALSH("L"), (input.detach(),)).abs() if hermitian else apply(SVDVALS, (input.detach(),))
    if tol is not None:
        atol, rtol = tol, 0.0
    if rtol is None:
        given = atol is not None and (isinstance(atol, Tensor) or atol > 0)
        rtol = 0.0 if given else float(jnp.finfo(array_of(input).dtype).eps) * max(input.shape[-2:])
    if values.shape[-1] == 0:
        return values.sum(-1).long()
    cut = values.amax(-1, keepdim=True) * (rtol.unsqueeze(-1) if isinstance(rtol, Tensor) else rtol)
    if atol is not None:
        cut = cut.maximum(atol.unsqueeze(-1) if isinstance(atol, Tensor) else FUNCTIONS["full_like"](cut, atol))
    return (values > cut).sum(-1)


def cond(input: Tensor, p: float | str | None = None) -> Tensor:  # noqa: A002
    """The condition number in a norm, by default the ratio of the largest singular value to the smallest."""
    matrices(input, "linalg.cond")
    if p in (None, 2, -2):
        values = apply(SVDVALS, (input,))
        first, last = values[..., 0], values[..., -1]
        return last / first if p == -2 else first / last
    squares(input, "linalg.cond")
    return matrix_norm(input, p) * matrix_norm(inv(input), p)  # type: ignore[arg-type]


def matrix_exp(A: Tensor) -> Tensor:
    """The exponential of a matrix."""
    return apply(EXPM, (squares(A, "linalg.matrix_exp"),))


def matrix_power(input: Tensor, n: int) -> Tensor:  # noqa: A002
    """The product of a matrix with itself, ``n`` times."""
    return linear_algebra.matrix_power(input if mode.autocast is not None else squares(input, "linalg.matrix_power"), n)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:  # noqa: A002
    """The cross product along a dimension of size 3, by default the last one."""
    if input.ndim != other.ndim:
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    if input.shape[dim] != 3 or other.shape[dim] != 3:
        raise RuntimeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[dim]} and {other.shape[dim]}")
    a, b = FUNCTIONS["broadcast_tensors"](input, other)
    return matrix_products.cross(a, b, dim)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonal of matrices."""
    return A.diagonal(offset, dim1, dim2)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices, in the order that costs least; the first and the last may be vectors."""
    return chain(tensors)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The products of vectors along a dimension, the first of which is conjugated."""
    return ((x.conj() if x.is_complex() else x) * y).sum(dim)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers of each entry, from 0 to ``N - 1``, in a last dimension."""
    if x.ndim < 1:
        raise RuntimeError(f"Expected dim of input to be at least 1, but got {x.ndim}")
    n = x.shape[-1] if N is None else N
    if n <= 1:
        raise RuntimeError(f"N must be greater than 1.\nit is {n}")
    return FUNCTIONS["stack"]([x ** k if k else FUNCTIONS["ones_like"](x) for k in range(n)], -1)


_householder = family("LinalgHouseholderProduct", lambda a, taus: jax.lax.linalg.householder_product(a, taus))


def _ormqr_of(a: jax.Array, taus: jax.Array, other: jax.Array, left: bool, transpose: bool) -> jax.Array:
    m, k = a.shape[-2:]
    batch = [(0, 0)] * (a.ndim - 2)
    q = jax.lax.linalg.householder_product(jnp.pad(a, [*batch, (0, 0), (0, max(m - k, 0))]),
                                           jnp.pad(taus, [*batch, (0, max(m - taus.shape[-1], 0))]))
    q = jnp.conj(jnp.swapaxes(q, -1, -2)) if transpose else q
    return q @ other if left else other @ q


_ormqr = family("Ormqr", _ormqr_of)


def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:  # noqa: A002
    """A product of Householder matrices times a matrix, from the ``left`` or the right."""
    return apply(_ormqr(bool(left), bool(transpose)), (input, tau, other))


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first columns of a product of Householder matrices."""
    return apply(_householder(), (matrices(A, "torch.linalg.householder_product"), tau))
