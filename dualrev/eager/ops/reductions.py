"""Reductions: sums, means, variances and norms, of all entries or along dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Dims, DType
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.dimensions import dim_of, dims_of, of_vectors
from dualrev.eager.ops.promotion import broadcasting
from dualrev.eager.ops.registry import both
from dualrev.eager.ops.unary import abs_of


def root(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0, as PyTorch has it for norms and deviations."""
    is_zero = x == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, x)))


def _float(x: jax.Array, dtype: np.dtype | None) -> jax.Array:
    return x if dtype is None else x.astype(dtype)


def _integers(x: jax.Array) -> jax.Array:
    # Integers and truth values are summed in the widest integer dtype.
    return x.astype(dtypes.long_dtype()) if x.dtype.kind in "biu" else x


def _in(reduce: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A reduction whose result has the dtype that is asked for; integers otherwise the widest."""
    def reduced(x: jax.Array, dim: Any, keep: bool, dtype: np.dtype | None) -> jax.Array:
        x = _integers(x) if dtype is None else x.astype(dtype)
        return reduce(x, dim, dtype=x.dtype, keepdims=keep)

    return reduced


def _default(x: jax.Array) -> jax.Array:
    """Whole numbers as floats of the default dtype."""
    return x.astype(dtypes.get_default_dtype().numpy) if x.dtype.kind in "biu" else x


_sum = family("Sum", _in(jnp.sum))
_mean = family("Mean", lambda x, dim, keep, dtype: jnp.mean(_float(x, dtype), dim, keepdims=keep))
_prod = family("Prod", _in(jnp.prod))
_sum_dim = family("Sum:1", _in(jnp.sum))
_mean_dim = family("Mean:1", lambda x, dim, keep, dtype: jnp.mean(_float(x, dtype), dim, keepdims=keep))
_var = family("Var", lambda x, dim, keep, correction: jnp.var(x, dim, ddof=correction, keepdims=keep))
_std = family("Std", lambda x, dim, keep, correction: root(jnp.var(x, dim, ddof=correction, keepdims=keep)))
_logsumexp = family("Logsumexp", lambda x, dim, keep: jax.scipy.special.logsumexp(_default(x), dim, keepdims=keep))
_all = family("All", lambda x, dim, keep: jnp.all(x, dim, keepdims=keep))
_any = family("Any", lambda x, dim, keep: jnp.any(x, dim, keepdims=keep))
_cumsum = family("Cumsum", of_vectors(lambda x, dim, dtype: jnp.cumsum(_float(_integers(x), dtype), dim)))
_cumprod = family("Cumprod", of_vectors(lambda x, dim, dtype: jnp.cumprod(_float(_integers(x), dtype), dim)))


def _dtype(dtype: DType | None) -> np.dtype | None:
    return None if dtype is None else dtypes.numpy_of(dtype)


@both
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:  # noqa: A001, A002
    """The sum of the entries, of all or along dimensions.

    >>> from dualrev import eager as torch
    >>> torch.ones(2, 3).sum(dim=1)
    tensor([3., 3.])
    """
    return apply((_sum if dim is None else _sum_dim)(dims_of(dim, input.ndim), keepdim, _dtype(dtype)), (input,))


@both
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The mean of the entries, of all or along dimensions."""
    if dtype is None and not jnp.issubdtype(array_of(input).dtype, jnp.inexact):
        raise RuntimeError("mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
                           f"Got: {dtypes.type_name(array_of(input).dtype)}\nconvert it first: x.float().mean()")
    return apply((_mean if dim is None else _mean_dim)(dims_of(dim, input.ndim), keepdim, _dtype(dtype)), (input,))


@both
def prod(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The product of the entries, of all or along a dimension."""
    return apply(_prod(dims_of(dim, input.ndim), keepdim, _dtype(dtype)), (input,))


def _check_inexact(x: Tensor) -> None:
    if array_of(x).dtype.kind in "biu":
        raise RuntimeError("std and var only support floating point and complex dtypes\nconvert it first: x.float().std()")


def _correction(unbiased: bool | None, correction: int | None) -> int:
    return correction if correction is not None else int(bool(unbiased))


@both
def var(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None) -> Tensor:  # noqa: A002
    """The variance; the divisor is the number of entries minus ``correction``, 1 by default."""
    if isinstance(dim, bool):
        unbiased, dim = dim, None
    _check_inexact(input)
    return apply(_var(dims_of(dim, input.ndim), keepdim, _correction(unbiased, correction)), (input,))


@both
def std(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None) -> Tensor:  # noqa: A002
    """The standard deviation; ``correction`` as of ``var``."""
    if isinstance(dim, bool):
        unbiased, dim = dim, None
    _check_inexact(input)
    return apply(_std(dims_of(dim, input.ndim), keepdim, _correction(unbiased, correction)), (input,))


@both
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The logarithm of the sum of exponentials."""
    return apply(_logsumexp(dims_of(dim, input.ndim), keepdim), (input,))


@both
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:  # noqa: A001, A002
    """Whether all entries are true."""
    return apply(_all(dims_of(dim, input.ndim), keepdim), (input,))


@both
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:  # noqa: A001, A002
    """Whether any entry is true."""
    return apply(_any(dims_of(dim, input.ndim), keepdim), (input,))


@both
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The cumulative sum."""
    return apply(_cumsum(dim_of(dim, input.ndim), _dtype(dtype)), (input,))


@both
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The cumulative product."""
    return apply(_cumprod(dim_of(dim, input.ndim), _dtype(dtype)), (input,))


def norm_of(x: jax.Array, p: Any, dim: tuple[int, ...] | None, keep: bool, dtype: Any = None) -> jax.Array:
    x = x if dtype is None else x.astype(dtype)
    if x.dtype.kind in "biu":
        raise RuntimeError("linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
                           f"{dtypes.type_name(x.dtype)}\nconvert it first: x.float().norm()")
    if p == "fro":
        p = 2
    if p == "nuc":
        values = jnp.linalg.svd(jnp.moveaxis(x, (0, 1) if dim is None else dim, (-2, -1)), full_matrices=False)[1]
        return jnp.expand_dims(jnp.sum(values, -1), (0, 1) if dim is None else dim) if keep else jnp.sum(values, -1)
    if p == 2:
        return root(jnp.sum(jnp.square(jnp.abs(x)), dim, keepdims=keep))
    if p == 1:
        return jnp.sum(abs_of(x), dim, keepdims=keep)
    if p in (float("inf"), float("-inf")):
        return (jnp.max if p > 0 else jnp.min)(abs_of(x), dim, keepdims=keep)
    if p == 0:
        return jnp.sum(x != 0, dim, keepdims=keep).astype(x.dtype)
    # At entries and norms of zero the gradient is zero, as PyTorch has it.
    a = abs_of(x)
    powers = jnp.where(a == 0, 0 if p > 0 else jnp.inf, jnp.where(a == 0, 1, a) ** p)
    total = jnp.sum(powers, dim, keepdims=keep)
    return jnp.where(total == 0, 0, jnp.where(total == 0, 1, total) ** (1 / p))


_norm = family("LinalgVectorNorm", norm_of)


@both
def norm(input: Tensor, p: float | str | None = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The p-norm of all entries together, or along dimensions."""
    return apply(_norm(2 if p is None else p, dims_of(dim, input.ndim), keepdim, _dtype(dtype)), (input,))


@both
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:  # noqa: A002
    """The number of nonzero entries, of all or along dimensions."""
    return input.ne(0).sum(dim)


_nansum = family("Nansum", lambda x, dim, keep: jnp.nansum(x, dim, keepdims=keep))
_nanmean = family("Nanmean", lambda x, dim, keep: jnp.nanmean(x, dim, keepdims=keep))


def _as(input: Tensor, dtype: DType | None) -> Tensor:  # noqa: A002
    return input if dtype is None else input.to(dtype)


@both
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The sum of the entries that are not NaN."""
    return apply(_nansum(dims_of(dim, input.ndim), keepdim), (_as(input, dtype),))


@both
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The mean of the entries that are not NaN."""
    return apply(_nanmean(dims_of(dim, input.ndim), keepdim), (_as(input, dtype),))


_dist = family("Dist", lambda x, y, p: norm_of(broadcasting(jnp.subtract)(x, y), p, None, False))


@both
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:  # noqa: A002
    """The norm of the difference."""
    return apply(_dist(p), (input, other))
