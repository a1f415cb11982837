"""Windows of one array, stacked; and rows of a stack, in any order: as slices where they follow each other, else as one gather."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.programs.entries.alike import progression


def of_windows(x: jax.Array, starts: Sequence[tuple[int, ...]], sizes: tuple[int, ...]) -> jax.Array:
    """Windows of one size, stacked along a new first axis: a slice, split into windows, if they tile a part of the array in order."""
    found = _tiles(starts, sizes)
    if found is None:
        numbers = lax.GatherDimensionNumbers(tuple(range(1, 1 + x.ndim)), (), tuple(range(x.ndim)))
        return lax.gather(x, np.asarray(starts, np.int32), numbers, sizes, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
    low, high, steps, counts = found
    part = lax.slice(x, low, high, steps)
    if any(size != 1 for size in sizes):
        part = lax.reshape(part, tuple(itertools.chain(*zip(counts, sizes, strict=True))))
        part = lax.transpose(part, (*range(0, 2 * x.ndim, 2), *range(1, 2 * x.ndim, 2)))
    return lax.reshape(part, (len(starts), *sizes))


def _tiles(starts: Sequence[tuple[int, ...]],
           sizes: tuple[int, ...]) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """``(low, high, strides, number along each axis)`` of windows in order that tile a part of an array."""
    along = [sorted(set(axis)) for axis in zip(*starts, strict=True)]
    if math.prod(map(len, along)) != len(starts) or list(itertools.product(*along)) != list(starts):
        return None
    low, high, steps = [], [], []
    for places, size in zip(along, sizes, strict=True):
        found = progression(places)
        if found is None or (len(places) > 1 and size > 1 and found[1] != size):
            return None
        low.append(places[0])
        high.append(places[-1] + size)
        steps.append(found[1] if size == 1 else 1)
    return low, high, steps, [len(places) for places in along]


def rows(x: jax.Array, at: Sequence[int]) -> jax.Array:
    """``x[at]``, of places within bounds."""
    found = progression(at)
    if found is None:
        numbers = lax.GatherDimensionNumbers(tuple(range(1, x.ndim)), (0,), (0,))
        return lax.gather(x, np.asarray(at, np.int32)[:, None], numbers, (1, *x.shape[1:]),
                          mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
    first, step = found
    if step == 1 and len(at) == x.shape[0]:
        return x
    return lax.slice_in_dim(x, first, at[-1] + 1, step)


def side_by_side(stacked: jax.Array, axis: int, new: bool) -> jax.Array:
    """The rows of a stack, stacked along another axis, or concatenated along it."""
    found = lax.transpose(stacked, (*range(1, axis + 1), 0, *range(axis + 1, stacked.ndim))) if axis else stacked
    if new:
        return found
    shape = stacked.shape[1:]
    return lax.reshape(found, (*shape[:axis], stacked.shape[0] * shape[axis], *shape[axis + 1:]))


def written(x: jax.Array, entries: jax.Array, starts: Sequence[tuple[int, ...]], sizes: tuple[int, ...]) -> jax.Array:
    """``x`` with windows of one size written, which are stacked and do not overlap: the places are in order."""
    found = _tiles(starts, sizes)
    stacked = lax.reshape(entries, (len(starts), *sizes))
    if found is None or any(step != 1 for step in found[2]):
        numbers = lax.ScatterDimensionNumbers(tuple(range(1, 1 + x.ndim)), (), tuple(range(x.ndim)))
        return lax.scatter(x, jnp.asarray(starts, jnp.int32), stacked, numbers, unique_indices=True, indices_are_sorted=True,
                           mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
    low, high, _, counts = found
    part = lax.reshape(stacked, (*counts, *sizes))
    part = lax.transpose(part, tuple(itertools.chain(*[(d, x.ndim + d) for d in range(x.ndim)])))
    part = lax.reshape(part, tuple([b - a for a, b in zip(low, high, strict=True)]))
    if part.shape == x.shape:
        return part
    return lax.dynamic_update_slice(x, part, [np.int32(start) for start in low])
