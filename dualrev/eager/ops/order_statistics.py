"""Medians, modes, quantiles, and cumulative extremes."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.dimensions import dim_of, of_vectors
from dualrev.eager.ops.extremes import sort, values_indices
from dualrev.eager.ops.outputs import all_into
from dualrev.eager.ops.registry import both

min_max = namedtuple("min_max", ["min", "max"])


def _sorted_places(x: jax.Array, dim: int) -> jax.Array:
    return jnp.argsort(jax.lax.stop_gradient(x), dim)


def _is_nan(x: jax.Array) -> jax.Array:
    return jnp.isnan(x) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.zeros(x.shape, jnp.bool_)


def _at(x: jax.Array, places: jax.Array, dim: int, keep: bool) -> tuple[jax.Array, jax.Array]:
    """The entries at places, one along the dimension, and the places."""
    values = jnp.take_along_axis(x, places, dim)
    return (values, places) if keep else (jnp.squeeze(values, dim), jnp.squeeze(places, dim))


def _middle(x: jax.Array, dim: int, skips_nan: bool) -> jax.Array:
    """Where the lower median stands along a dimension: the first NaN, unless those are skipped."""
    order, missing = _sorted_places(x, dim), _is_nan(x)  # NaN is sorted last
    n_missing = jnp.sum(missing, dim, keepdims=True)
    middle = jnp.maximum(x.shape[dim] - n_missing - 1, 0) // 2
    places = jnp.take_along_axis(order, middle, dim)
    return places if skips_nan else jnp.where(n_missing > 0, jnp.argmax(missing, dim, keepdims=True), places)


def _median_of(x: jax.Array, dim: int | None, keep: bool, skips_nan: bool) -> Any:
    if dim is not None:
        return _at(x, _middle(x, dim, skips_nan), dim, keep)
    flat = x.reshape(-1)
    if not flat.size:
        return (jnp.full((), jnp.nan, x.dtype),)
    value = jax.lax.stop_gradient(jnp.take_along_axis(flat, _middle(flat, 0, skips_nan), 0))
    # The entries that are equal to the median share the gradient.
    least = -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
    return (jnp.where(_is_nan(value[0]), value[0], jnp.max(jnp.where(flat == value, flat, least))),)


_median = family("Median:1", of_vectors(_median_of), many=True)
_median_of_all = family("Median", lambda x, skips_nan: of_vectors(_median_of)(x, None, False, skips_nan)[0])


def _median_along(name: str, x: Tensor, dim: int | None, keepdim: bool, skips_nan: bool) -> Any:
    if array_of(x).dtype.kind in "cb":
        raise NotImplementedError(f"\"{name}_{'out' if dim is not None else 'cpu'}\" not implemented for "
                                  f"'{dtypes.type_name(array_of(x).dtype)}'")
    if dim is None:
        return apply(_median_of_all(skips_nan), (x,))
    return values_indices(*apply(_median(_filled(name, x, dim), keepdim, skips_nan), (x,)))


def _filled(name: str, x: Tensor, dim: int) -> int:
    """The dimension, if it is not empty."""
    d = dim_of(dim, x.ndim)
    if x.ndim and x.shape[d] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.\nthe shape is {list(x.shape)}")
    return d


@both
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | values_indices:  # noqa: A002
    """The median, the lower one of two; with ``dim``, ``(values, indices)`` along it.

    >>> from dualrev import eager as torch
    >>> torch.tensor([4.0, 1.0, 3.0, 2.0]).median()
    tensor(2.)
    """
    return _median_along("median", input, dim, keepdim, False)


@both
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | values_indices:  # noqa: A002
    """As ``median``, of the entries that are not NaN."""
    return _median_along("nanmedian", input, dim, keepdim, True)


def _mode_of(x: jax.Array, dim: int, keep: bool) -> tuple[jax.Array, jax.Array]:
    order = _sorted_places(x, dim)
    values = jnp.moveaxis(jnp.take_along_axis(jax.lax.stop_gradient(x), order, dim), dim, -1)
    places = jnp.arange(values.shape[-1])
    begins = jnp.concatenate([jnp.ones((*values.shape[:-1], 1), jnp.bool_), values[..., 1:] != values[..., :-1]], -1)
    # How many equal entries end here; the first of the longest runs is that of the smallest value.
    lengths = places - jax.lax.cummax(jnp.where(begins, places, 0), values.ndim - 1)
    longest = jnp.moveaxis(jnp.argmax(lengths, -1, keepdims=True), -1, dim)
    return _at(x, jnp.take_along_axis(order, longest, dim), dim, keep)


_mode = family("Mode", of_vectors(_mode_of), many=True)


@both
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> values_indices:  # noqa: A002
    """``(values, indices)`` of the most frequent entries along a dimension, the smallest of several."""
    return values_indices(*apply(_mode(_filled("mode", input, dim), keepdim), (input,)))


_kth = family("Kthvalue", lambda x, k, dim, keep: of_vectors(lambda x, dim: _at(
    x, jnp.take(_sorted_places(x, dim), (k - 1).reshape(1), dim, mode="clip"), dim, keep))(x, dim), many=True)


@both
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> values_indices:  # noqa: A002
    """``(values, indices)`` of the ``k``-th smallest entries along a dimension, counted from 1."""
    d = dim_of(dim, input.ndim)
    if not 1 <= k <= (input.shape[d] if input.ndim else 1):
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {d}")
    return values_indices(*apply(_kth(d, keepdim), (input, np.asarray(k, np.int64))))


def _quantile_of(x: jax.Array, q: jax.Array, dim: int | None, keep: bool, interpolation: str, skips_nan: bool) -> jax.Array:
    dim = dim if x.ndim else None
    values = x.reshape(-1) if dim is None else jnp.moveaxis(x, dim, -1)
    values = jnp.take_along_axis(values, _sorted_places(values, values.ndim - 1), -1)
    last, points = values.shape[-1] - 1, q.reshape(-1)
    if skips_nan:
        ranks = jnp.maximum(points * (jnp.sum(~jnp.isnan(values), -1, keepdims=True) - 1).astype(x.dtype), 0)
    else:
        ranks = jnp.where(jnp.isnan(values[..., -1:]), jnp.asarray(last, x.dtype), points * last)
    if interpolation in ("lower", "higher", "nearest"):
        ranks = {"lower": jnp.floor, "higher": jnp.ceil, "nearest": jnp.round}[interpolation](ranks)
    below = jnp.floor(ranks)
    found = jnp.take_along_axis(values, below.astype(dtypes.long_dtype()), -1)
    if interpolation in ("linear", "midpoint"):
        above = jnp.take_along_axis(values, jnp.ceil(ranks).astype(dtypes.long_dtype()), -1)
        weight = jnp.full_like(ranks, 0.5) if interpolation == "midpoint" else ranks - below
        found = jnp.where(ranks == below, found, jnp.where(weight < 0.5, found + weight * (above - found),
                                                            above - (above - found) * (1 - weight)))
    found = jnp.moveaxis(found, -1, 0)
    if keep:
        found = found.reshape(found.shape[0], *(1,) * x.ndim) if dim is None else jnp.expand_dims(found, dim + 1)
    return found if q.ndim else found[0]


_quantile = family("Quantile", _quantile_of)
_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile_along(name: str, x: Tensor, q: Tensor | float, dim: int | None, keepdim: bool, interpolation: str) -> Tensor:
    dtype = array_of(x).dtype
    if x.numel() == 0:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if dtype not in (np.float32, np.float64):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype")
    if isinstance(q, Tensor) and q.ndim > 1:
        raise RuntimeError(f"{name}() q must be a scalar or 1D tensor")
    if isinstance(q, Tensor) and array_of(q).dtype != dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation}")
    points = array_of(q) if isinstance(q, Tensor) else np.asarray(q, dtype)
    if not isinstance(points, Tracer) and not np.all((np.asarray(points) >= 0) & (np.asarray(points) <= 1)):
        raise RuntimeError(f"{name}() q " + ("values must be in the range [0, 1]" if isinstance(q, Tensor) else
                                              f"must be in the range [0, 1] but got {q:g}"))
    d = None if dim is None else dim_of(dim, x.ndim)
    return apply(_quantile(d, keepdim, interpolation, name == "nanquantile"), (x, q if isinstance(q, Tensor) else points))


@both
def quantile(input: Tensor, q: Tensor | float, dim: int | None = None, keepdim: bool = False, *,  # noqa: A002
             interpolation: str = "linear", out: Tensor | None = None) -> Tensor:
    """The quantiles ``q``, between 0 and 1, of all entries or along a dimension; several stand in a first dimension.

    >>> from dualrev import eager as torch
    >>> torch.quantile(torch.tensor([0.0, 1.0, 2.0, 4.0]), 0.75)
    tensor(2.5000)
    """
    found = _quantile_along("quantile", input, q, dim, keepdim, interpolation)
    return found if out is None else all_into(out, found, "quantile")


@both
def nanquantile(input: Tensor, q: Tensor | float, dim: int | None = None, keepdim: bool = False, *,  # noqa: A002
                interpolation: str = "linear", out: Tensor | None = None) -> Tensor:
    """As ``quantile``, of the entries that are not NaN."""
    found = _quantile_along("nanquantile", input, q, dim, keepdim, interpolation)
    return found if out is None else all_into(out, found, "nanquantile")


def _running(x: jax.Array, dim: int, largest: bool) -> tuple[jax.Array, jax.Array]:
    still = jax.lax.stop_gradient(x)
    still = still.astype(jnp.uint8) if still.dtype == jnp.bool_ else still
    best = (jax.lax.cummax if largest else jax.lax.cummin)(still, dim)
    counted = jnp.arange(x.shape[dim]).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    places = jax.lax.cummax(jnp.where((still == best) | _is_nan(still), counted, 0), dim)
    return jnp.take_along_axis(x, places, dim), places


_cummax = family("Cummax", of_vectors(lambda x, dim: _running(x, dim, True)), many=True)
_cummin = family("Cummin", of_vectors(lambda x, dim: _running(x, dim, False)), many=True)
_logcumsumexp = family("Logcumsumexp", of_vectors(lambda x, dim: jax.lax.cumlogsumexp(x, dim)))


@both
def cummax(input: Tensor, dim: int) -> values_indices:  # noqa: A002
    """``(values, indices)`` of the largest entries so far along a dimension."""
    return values_indices(*apply(_cummax(dim_of(dim, input.ndim)), (input,)))


@both
def cummin(input: Tensor, dim: int) -> values_indices:  # noqa: A002
    """``(values, indices)`` of the smallest entries so far along a dimension."""
    return values_indices(*apply(_cummin(dim_of(dim, input.ndim)), (input,)))


@both
def logcumsumexp(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    """The logarithm of the cumulative sum of exponentials."""
    return apply(_logcumsumexp(dim_of(dim, input.ndim)), (input,))


@both
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> min_max:  # noqa: A002
    """``(min, max)`` of all entries, or along a dimension."""
    if dim is None and input.numel() == 0:
        raise RuntimeError("aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity.")
    return min_max(input.amin(dim, keepdim), input.amax(dim, keepdim))


@both
def msort(input: Tensor) -> Tensor:  # noqa: A002
    """The entries sorted along the first dimension."""
    return sort(input, 0).values
