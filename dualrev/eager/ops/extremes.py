"""Largest and smallest entries, their indices, and sorting."""

from __future__ import annotations

from collections import namedtuple

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Dims
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.dimensions import dim_of, dims_of, of_vectors
from dualrev.eager.ops.registry import both

values_indices = namedtuple("values_indices", ["values", "indices"])
_amax = family("Amax", lambda x, dim, keep: jnp.max(x, dim, keepdims=keep))
_amin = family("Amin", lambda x, dim, keep: jnp.min(x, dim, keepdims=keep))
_arg = family("Argmax", of_vectors(lambda x, dim, keep, largest: (jnp.argmax if largest else jnp.argmin)(
    x if dim is not None else _some(x, "argmax" if largest else "argmin", IndexError), dim, keepdims=keep)))


@both
def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The largest entry; equal ones share the gradient."""
    return apply(_amax(dims_of(dim, input.ndim), keepdim), (input,))


@both
def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The smallest entry; equal ones share the gradient."""
    return apply(_amin(dims_of(dim, input.ndim), keepdim), (input,))


def _extreme(x: jax.Array, dim: int, keep: bool, largest: bool) -> tuple[jax.Array, jax.Array]:
    if x.ndim == 0:
        return x, jnp.zeros((), dtypes.long_dtype())
    places = (jnp.argmax if largest else jnp.argmin)(x, dim, keepdims=True)
    values = jnp.take_along_axis(x, places, dim)
    return (values, places) if keep else (jnp.squeeze(values, dim), jnp.squeeze(places, dim))


_max_dim = family("Max", lambda x, dim, keep: _extreme(x, dim, keep, True), many=True)
_min_dim = family("Min", lambda x, dim, keep: _extreme(x, dim, keep, False), many=True)


def _some(x: jax.Array, name: str, kind: type[Exception] = RuntimeError, more: str = "") -> jax.Array:
    """The array, if it is not empty."""
    if x.size == 0:
        raise kind(f"{name}(): Expected reduction dim to be specified for input.numel() == 0.{more}\nthe shape is {list(x.shape)}")
    return x


_MORE = " Specify the reduction dim with the 'dim' argument."
_MAX, _MIN = Op("Max:1", lambda x: jnp.max(_some(x, "max", more=_MORE))), Op("Min:1", lambda x: jnp.min(_some(x, "min", more=_MORE)))


@both
def max(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *,  # noqa: A001, A002
        other: Tensor | None = None) -> Tensor | values_indices:
    """The largest entry; with ``dim``, ``(values, indices)`` along it; with a tensor, the larger of each pair."""
    if isinstance(dim, Tensor) or other is not None:
        return input.maximum(dim if other is None else other)  # type: ignore[arg-type]
    if dim is None:
        return apply(_MAX, (input,))
    return values_indices(*apply(_max_dim(dim_of(dim, input.ndim), keepdim), (input,)))


@both
def min(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *,  # noqa: A001, A002
        other: Tensor | None = None) -> Tensor | values_indices:
    """The smallest entry; with ``dim``, ``(values, indices)`` along it; with a tensor, the smaller of each pair."""
    if isinstance(dim, Tensor) or other is not None:
        return input.minimum(dim if other is None else other)  # type: ignore[arg-type]
    if dim is None:
        return apply(_MIN, (input,))
    return values_indices(*apply(_min_dim(dim_of(dim, input.ndim), keepdim), (input,)))


@both
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The index of the largest entry."""
    return apply(_arg(None if dim is None else dim_of(dim, input.ndim), keepdim, True), (input,))


@both
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:  # noqa: A002
    """The index of the smallest entry."""
    return apply(_arg(None if dim is None else dim_of(dim, input.ndim), keepdim, False), (input,))


_sort = family("Sort", of_vectors(lambda x, dim, descending, stable: _sorted(x, dim, descending)), many=True)


def _sorted(x: jax.Array, dim: int, descending: bool) -> tuple[jax.Array, jax.Array]:
    order = jnp.argsort(x, dim, descending=descending)
    return jnp.take_along_axis(x, order, dim), order


@both
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> values_indices:  # noqa: A002
    """``(values, indices)`` of the sorted entries."""
    return values_indices(*apply(_sort(dim_of(dim, input.ndim), descending, stable), (input,)))


@both
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:  # noqa: A002
    """The indices that sort the entries."""
    return sort(input, dim, descending).indices


@both
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> values_indices:  # noqa: A002
    """``(values, indices)`` of the ``k`` largest entries."""
    values, indices = sort(input, dim, largest)
    if not 0 <= k <= (input.shape[dim_of(dim, input.ndim)] if input.ndim else 1):
        raise RuntimeError("selected index k out of range")
    if input.ndim == 0:
        return values_indices(values, indices)
    return values_indices(values.narrow(dim, 0, k), indices.narrow(dim, 0, k))
