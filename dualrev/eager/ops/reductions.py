"""Sums, means, extremes: along dimensions."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.pointwise import abs_of
from dualrev.eager.ops.registry import both, dim_of, dims_of

values_indices = namedtuple("values_indices", ["values", "indices"])


def _float(x: Any, dtype: Any) -> Any:
    return x if dtype is None else x.astype(dtype)


def _integers(x: Any) -> Any:
    # Sums of small integers and truths are whole numbers of the widest kind.
    return x.astype(jax.dtypes.canonicalize_dtype(jnp.int64)) if x.dtype.kind in "biu" else x


_sum = family("Sum", lambda x, dim, keep, dtype: jnp.sum(_integers(x) if dtype is None else x.astype(dtype), dim, keepdims=keep))
_mean = family("Mean", lambda x, dim, keep, dtype: jnp.mean(_float(x, dtype), dim, keepdims=keep))
_prod = family("Prod", lambda x, dim, keep, dtype: jnp.prod(_float(_integers(x), dtype), dim, keepdims=keep))
_sum_dim = family("Sum:1", lambda x, dim, keep, dtype: jnp.sum(_integers(x) if dtype is None else x.astype(dtype), dim, keepdims=keep))
_mean_dim = family("Mean:1", lambda x, dim, keep, dtype: jnp.mean(_float(x, dtype), dim, keepdims=keep))
_amax = family("Amax", lambda x, dim, keep: jnp.max(x, dim, keepdims=keep))
_amin = family("Amin", lambda x, dim, keep: jnp.min(x, dim, keepdims=keep))
_var = family("Var", lambda x, dim, keep, correction: jnp.var(x, dim, ddof=correction, keepdims=keep))
_std = family("Std", lambda x, dim, keep, correction: jnp.std(x, dim, ddof=correction, keepdims=keep))
_logsumexp = family("Logsumexp", lambda x, dim, keep: jax.scipy.special.logsumexp(x, dim, keepdims=keep))
_all = family("All", lambda x, dim, keep: jnp.all(x, dim, keepdims=keep))
_any = family("Any", lambda x, dim, keep: jnp.any(x, dim, keepdims=keep))
_cumsum = family("Cumsum", lambda x, dim, dtype: jnp.cumsum(_float(_integers(x), dtype), dim))
_cumprod = family("Cumprod", lambda x, dim, dtype: jnp.cumprod(_float(_integers(x), dtype), dim))
_arg = family("Argmax", lambda x, dim, keep, largest: (jnp.argmax if largest else jnp.argmin)(
    x if dim is not None else _some(x, "argmax" if largest else "argmin", IndexError), dim, keepdims=keep))


def _dtype(dtype: Any) -> Any:
    return None if dtype is None else dtypes.numpy_of(dtype)


@both
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A001, A002
    """The sum of the entries, of all or along dimensions.

    >>> from dualrev import eager as torch
    >>> torch.ones(2, 3).sum(dim=1)
    tensor([3., 3.])
    """
    return apply((_sum if dim is None else _sum_dim)(dims_of(dim, input.ndim), keepdim, _dtype(dtype)), (input,))


@both
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """The mean of the entries, of all or along dimensions."""
    if dtype is None and not jnp.issubdtype(array_of(input).dtype, jnp.inexact):
        raise RuntimeError("mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
                           f"Got: {dtypes.type_name(array_of(input).dtype)}\nconvert it first: x.float().mean()")
    return apply((_mean if dim is None else _mean_dim)(dims_of(dim, input.ndim), keepdim, _dtype(dtype)), (input,))


@both
def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """The product of the entries, of all or along a dimension."""
    return apply(_prod(dims_of(dim, input.ndim), keepdim, _dtype(dtype)), (input,))


def _correction(unbiased: Any, correction: Any) -> int:
    return correction if correction is not None else int(bool(unbiased))


@both
def var(input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None) -> Tensor:  # noqa: A002
    """The variance; ``correction`` is taken off the number of entries, 1 by default."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return apply(_var(dims_of(dim, input.ndim), keepdim, _correction(unbiased, correction)), (input,))


@both
def std(input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None) -> Tensor:  # noqa: A002
    """The standard deviation; ``correction`` as of ``var``."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return apply(_std(dims_of(dim, input.ndim), keepdim, _correction(unbiased, correction)), (input,))


@both
def amax(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The largest entry; equal ones share the gradient."""
    return apply(_amax(dims_of(dim, input.ndim), keepdim), (input,))


@both
def amin(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The smallest entry; equal ones share the gradient."""
    return apply(_amin(dims_of(dim, input.ndim), keepdim), (input,))


def _extreme(x: Any, dim: int, keep: bool, largest: bool) -> Any:
    if x.ndim == 0:
        return x, jnp.zeros((), jax.dtypes.canonicalize_dtype(jnp.int64))
    places = (jnp.argmax if largest else jnp.argmin)(x, dim, keepdims=True)
    values = jnp.take_along_axis(x, places, dim)
    return (values, places) if keep else (jnp.squeeze(values, dim), jnp.squeeze(places, dim))


_max_dim = family("Max", lambda x, dim, keep: _extreme(x, dim, keep, True), many=True)
_min_dim = family("Min", lambda x, dim, keep: _extreme(x, dim, keep, False), many=True)


def _some(x: Any, name: str, kind: type[Exception] = RuntimeError, more: str = "") -> Any:
    """The array, if it has entries to choose from."""
    if x.size == 0:
        raise kind(f"{name}(): Expected reduction dim to be specified for input.numel() == 0.{more}\nthe shape is {list(x.shape)}")
    return x


_MORE = " Specify the reduction dim with the 'dim' argument."
_MAX, _MIN = Op("Max:1", lambda x: jnp.max(_some(x, "max", more=_MORE))), Op("Min:1", lambda x: jnp.min(_some(x, "min", more=_MORE)))


@both
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:  # noqa: A001, A002
    """The largest entry; with ``dim``, ``(values, indices)`` along it; with a tensor, the larger of each pair."""
    if isinstance(dim, Tensor) or other is not None:
        return input.maximum(dim if other is None else other)
    if dim is None:
        return apply(_MAX, (input,))
    return values_indices(*apply(_max_dim(dim_of(dim, input.ndim), keepdim), (input,)))


@both
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:  # noqa: A001, A002
    """The smallest entry; with ``dim``, ``(values, indices)`` along it; with a tensor, the smaller of each pair."""
    if isinstance(dim, Tensor) or other is not None:
        return input.minimum(dim if other is None else other)
    if dim is None:
        return apply(_MIN, (input,))
    return values_indices(*apply(_min_dim(dim_of(dim, input.ndim), keepdim), (input,)))


@both
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """Where the largest entry stands."""
    return apply(_arg(None if dim is None else dim_of(dim, input.ndim), keepdim, True), (input,))


@both
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """Where the smallest entry stands."""
    return apply(_arg(None if dim is None else dim_of(dim, input.ndim), keepdim, False), (input,))


@both
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The logarithm of the sum of exponentials."""
    return apply(_logsumexp(dims_of(dim, input.ndim), keepdim), (input,))


@both
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:  # noqa: A001, A002
    """Whether all entries hold."""
    return apply(_all(dims_of(dim, input.ndim), keepdim), (input,))


@both
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:  # noqa: A001, A002
    """Whether an entry holds."""
    return apply(_any(dims_of(dim, input.ndim), keepdim), (input,))


@both
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """Sums of the entries so far."""
    return apply(_cumsum(dim_of(dim, input.ndim), _dtype(dtype)), (input,))


@both
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """Products of the entries so far."""
    return apply(_cumprod(dim_of(dim, input.ndim), _dtype(dtype)), (input,))


def _norm_of(x: Any, p: Any, dim: Any, keep: bool) -> Any:
    if x.dtype.kind in "biu":
        raise RuntimeError("linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
                           f"{dtypes.type_name(x.dtype)}\nconvert it first: x.float().norm()")
    if p == "fro":
        p = 2
    if p == 2:
        squares = jnp.sum(jnp.square(jnp.abs(x)), dim, keepdims=keep)
        # At zero the gradient is zero, as PyTorch has it.
        is_zero = squares == 0
        return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squares)))
    if p == 1:
        return jnp.sum(abs_of(x), dim, keepdims=keep)
    if p in (float("inf"), float("-inf")):
        return (jnp.max if p > 0 else jnp.min)(jnp.abs(x), dim, keepdims=keep)
    if p == 0:
        return jnp.sum(x != 0, dim, keepdims=keep).astype(x.dtype)
    return jnp.sum(jnp.abs(x) ** p, dim, keepdims=keep) ** (1 / p)


_norm = family("LinalgVectorNorm", _norm_of)


@both
def norm(input: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """The p-norm of all entries together, or along dimensions."""
    return apply(_norm(2 if p is None else p, dims_of(dim, input.ndim), keepdim), (input if dtype is None else input.to(dtype),))


_sort = family("Sort", lambda x, dim, descending, stable: _sorted(x, dim, descending), many=True)


def _sorted(x: Any, dim: int, descending: bool) -> Any:
    order = jnp.argsort(x, dim, descending=descending)
    return jnp.take_along_axis(x, order, dim), order


@both
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:  # noqa: A002
    """``(values, indices)`` in order."""
    return values_indices(*apply(_sort(dim_of(dim, input.ndim), descending, stable), (input,)))


@both
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:  # noqa: A002
    """The order of the entries."""
    return sort(input, dim, descending).indices


@both
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:  # noqa: A002
    """``(values, indices)`` of the ``k`` largest entries."""
    values, indices = sort(input, dim, largest)
    return values_indices(values.narrow(dim, 0, k), indices.narrow(dim, 0, k))


_EQUAL = Op("Equal", lambda x, y: jnp.array_equal(x, y))


@both
def equal(input: Tensor, other: Tensor) -> bool:  # noqa: A002
    """Whether two tensors have the same shape and entries."""
    return bool(array_of(apply(_EQUAL, (input, other))))


@both
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:  # noqa: A002
    """Whether all entries are equal within tolerances."""
    return bool(jnp.allclose(array_of(input), array_of(other), rtol, atol, equal_nan))


@both
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:  # noqa: A002
    """How many entries are not zero, of all or along dimensions."""
    return input.ne(0).sum(dim)
