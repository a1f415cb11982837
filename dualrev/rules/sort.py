"""Sorting and the k largest: a permutation, found once, that also permutes the tangents."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from dualrev._jax.avals import typeof
from dualrev._jax.primitives import primitive
from dualrev._jax.sharding import explicit_sharding, vary_as
from dualrev.linear.maps import Tangent
from dualrev.table.pushforward import pushforward


def take_along(x: Array, indices: Array, axis: int, mode: lax.GatherScatterMode = lax.GatherScatterMode.PROMISE_IN_BOUNDS) -> Array:
    """``x`` at ``indices`` along ``axis``; they are in bounds unless ``mode`` allows others, and no entry is taken twice."""
    others = tuple(i for i in range(x.ndim) if i != axis)
    numbers = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(axis,), start_index_map=(axis,),
                                         operand_batching_dims=others, start_indices_batching_dims=others)
    return lax.gather(x, lax.expand_dims(indices, (x.ndim,)), numbers, (1,) * x.ndim, unique_indices=True, mode=mode,
                      fill_value=0 if mode is lax.GatherScatterMode.FILL_OR_DROP else None)


def sort_with_permutation(*operands: Array, dimension: int, **params: object) -> tuple[list[Array], Array]:
    """The sorted operands, and where along ``dimension`` each entry came from."""
    x = typeof(operands[0])
    long = isinstance(x.shape[dimension], int) and x.shape[dimension] >= 2**31
    index = jnp.int64 if long else jnp.int32
    places = vary_as(lax.broadcasted_iota(index, x.shape, dimension, out_sharding=explicit_sharding(x)), x)
    *outs, permutation = lax.sort_p.bind(*operands, places, dimension=dimension, **params)
    return outs, permutation


def sort_push(ts: Sequence[Tangent], *_: Array, saved: Array, dimension: int) -> list[Tangent]:
    return [None if t is None else take_along(t, saved, dimension) for t in ts]


pushforward(lax.sort_p, sort_push, saves=sort_with_permutation, follows=True)


def top_k_with_indices(x: Array, **params: object) -> tuple[list[Array], Array]:
    outs = lax.top_k_p.bind(x, **params)
    return outs, outs[1]


def top_k_push(t: Array, _: Array, *, saved: Array, axis: int) -> list[Tangent]:
    return [take_along(t, saved, axis), None]


pushforward(lax.top_k_p, top_k_push, saves=top_k_with_indices)


def approx_top_k_with_indices(x: Array, **params: object) -> tuple[list[Array], Array]:
    outs = primitive("approx_top_k").bind(x, **params)
    return outs, outs[1]


def approx_top_k_push(t: Array, _: Array, *, saved: Array, reduction_dimension: int) -> list[Tangent]:
    """Results beyond the number of entries have the index -1, and tangent zero."""
    axis = reduction_dimension % saved.ndim
    outside = lax.full_like(saved, t.shape[axis])
    indices = lax.select(lax.lt(saved, lax.full_like(saved, 0)), outside, saved)
    return [take_along(t, indices, axis, lax.GatherScatterMode.FILL_OR_DROP), None]


pushforward(primitive("approx_top_k"), approx_top_k_push, saves=approx_top_k_with_indices)
