"""Sorting and the k largest: a permutation, found once, that moves the tangents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from dualrev.rules.programs import pushforward


def take_along(x: Any, indices: Any, axis: int) -> Any:
    """``x`` at ``indices`` along ``axis``; they are in bounds, and no entry is taken twice."""
    others = tuple(i for i in range(x.ndim) if i != axis)
    numbers = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(axis,), start_index_map=(axis,),
                                         operand_batching_dims=others, start_indices_batching_dims=others)
    return lax.gather(x, lax.expand_dims(indices, (x.ndim,)), numbers, (1,) * x.ndim, unique_indices=True,
                      mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)


def sort_with_permutation(*operands: Any, dimension: int, **params: Any) -> tuple[list[Any], Any]:
    """The sorted operands, and where along ``dimension`` each entry came from."""
    shape = operands[0].shape
    index = jnp.int32 if shape[dimension] < 2**31 else jnp.int64
    *outs, permutation = lax.sort_p.bind(*operands, lax.broadcasted_iota(index, shape, dimension), dimension=dimension, **params)
    return outs, permutation


def sort_push(ts: Sequence[Any], *_: Any, saved: Any, dimension: int) -> list[Any]:
    return [None if t is None else take_along(t, saved, dimension) for t in ts]


pushforward(lax.sort_p, sort_push, saves=sort_with_permutation, follows=True)


def top_k_with_indices(x: Any, **params: Any) -> tuple[list[Any], Any]:
    outs = lax.top_k_p.bind(x, **params)
    return outs, outs[1]


def top_k_push(t: Any, _: Any, *, saved: Any, axis: int) -> list[Any]:
    return [take_along(t, saved, axis), None]


pushforward(lax.top_k_p, top_k_push, saves=top_k_with_indices)
