"""Arrays put together from pieces at fixed places: neighbours are concatenated, and only what overlaps is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.sharding import vary_as
from dualrev._jax.traces import is_eager
from dualrev.linear import zeros
from dualrev.linear.places import Box
from dualrev.linear.zeros import Tangent

#: Part of an array: where it starts, and its entries.
Region: TypeAlias = tuple[tuple[int, ...], jax.Array]

#: XLA computes up to this number of pieces within the loop that concatenates them; of more, each is a kernel of its own.
FUSED = 8

#: The number of entries of a piece up to which the kernel of its own is what it costs.
SMALL = 64

#: Small pieces of one size are laid out with zeros between them up to this multiple of their number, and beyond by a scatter.
SPREAD = 4

#: The number of concrete arrays that are concatenated at once, so that few programs are compiled for any number of them.
CHUNK = 64


def assembled(parts: Sequence[tuple[Box, jax.Array]], whole: ShapedArray) -> Tangent:
    """The sum of pieces that are zero outside of their boxes; None where there is none."""
    total: Tangent = None
    regions: list[Region] = []
    for box, piece in parts:
        if not piece.size:
            continue
        if all(step == 1 or n == 1 for step, n in zip(box.strides, box.shape, strict=True)):
            regions.append((box.starts, piece))
        else:
            total = zeros.add(total, box.embed(piece, whole))
    for starts, piece in layers(regions):
        total = zeros.add(total, Box(starts, piece.shape, (1,) * piece.ndim).embed(piece, whole))
    if total is None and parts:
        return zeros.zeros_of(whole)
    return total


def layers(regions: Sequence[Region]) -> list[Region]:
    """The same sum as regions of which none could be joined with another: as few as the overlaps ask for.

    Along the axis with the fewest overlaps, regions of one interval are put together first, along the other axes; intervals that do
    not overlap are then concatenated.
    """
    if len(regions) <= 1:
        return list(regions)
    axis = min((d for d in range(len(regions[0][0])) if len(_intervals(regions, d)) > 1),
               key=lambda d: _depth(list(_intervals(regions, d))))
    rows: list[list[Region]] = []
    ends: list[int] = []
    for (start, n), slab in sorted(_intervals(regions, axis).items(), key=lambda item: item[0]):
        for region in layers(slab):
            free = next((k for k, end in enumerate(ends) if end <= start), None)
            if free is None:
                rows.append([region])
                ends.append(start + n)
            else:
                rows[free].append(region)
                ends[free] = start + n
    return [_row(row, axis) for row in rows]


def _intervals(regions: Sequence[Region], axis: int) -> dict[tuple[int, int], list[Region]]:
    found: dict[tuple[int, int], list[Region]] = {}
    for region in regions:
        found.setdefault((region[0][axis], region[1].shape[axis]), []).append(region)
    return found


def _depth(intervals: Sequence[tuple[int, int]]) -> int:
    """The largest number of intervals that have a place in common."""
    depth = deepest = 0
    for _, step in sorted([*((start, 1) for start, _ in intervals), *((start + n, -1) for start, n in intervals)]):
        depth += step
        deepest = max(depth, deepest)
    return deepest


def _row(row: Sequence[Region], axis: int) -> Region:
    """Regions in the order of an axis, along which they do not overlap, as one, with zeros where there is a gap."""
    if len(row) == 1:
        return row[0]
    ndim = row[0][1].ndim
    low = [min(starts[d] for starts, _ in row) for d in range(ndim)]
    high = [max(starts[d] + piece.shape[d] for starts, piece in row) for d in range(ndim)]
    pieces: list[jax.Array] = []
    at = [starts[axis] for starts, _ in row]
    for starts, piece in row:  # of one size along the other axes
        if any(d != axis and piece.shape[d] != high[d] - low[d] for d in range(ndim)):
            sizes = tuple([piece.shape[d] if d == axis else high[d] - low[d] for d in range(ndim)])
            inner = tuple([0 if d == axis else starts[d] - low[d] for d in range(ndim)])
            piece = Box(inner, piece.shape, (1,) * ndim).embed(piece, typeof(piece).update(shape=sizes))
        pieces.append(piece)
    return tuple(low), _spaced(pieces, [start - low[axis] for start in at], high[axis] - low[axis], axis)


def _spaced(pieces: Sequence[jax.Array], starts: Sequence[int], length: int, axis: int) -> jax.Array:
    """Pieces along an axis, the first one at 0, with zeros between them."""
    first = pieces[0]
    n = first.shape[axis]
    if _is_many(pieces):
        steps = [start % n for start in starts]
        if any(steps) or length > SPREAD * n * len(pieces):
            return _scattered(pieces, starts, length, axis)
        filled = dict(zip(starts, pieces, strict=True))
        nothing = zeros_like(first, first.shape)
        return joined([filled.get(start, nothing) for start in range(0, length, n)], axis)
    parts: list[jax.Array] = []
    run: list[jax.Array] = []
    at = 0
    for start, piece in zip(starts, pieces, strict=True):
        if run and (start > at or piece.shape != run[0].shape):
            parts.append(joined(run, axis))
            run = []
        if start > at:
            parts.append(zeros_like(piece, tuple([start - at if d == axis else m for d, m in enumerate(piece.shape)])))
        run.append(piece)
        at = start + piece.shape[axis]
    parts.append(joined(run, axis))
    return joined(parts, axis)


def _is_many(pieces: Sequence[jax.Array]) -> bool:
    """Whether pieces are so many, so small and so alike that they are laid out together."""
    return len(pieces) > FUSED and pieces[0].size <= SMALL and all(piece.shape == pieces[0].shape for piece in pieces)


def _scattered(pieces: Sequence[jax.Array], starts: Sequence[int], length: int, axis: int) -> jax.Array:
    """Pieces of one shape along an axis, at increasing starts, by one scatter."""
    first = pieces[0]
    stacked = joined([lax.expand_dims(piece, (0,)) for piece in pieces], 0)
    numbers = lax.ScatterDimensionNumbers(tuple(range(1, 1 + first.ndim)), (), (axis,))
    indices = np.asarray(starts, np.int32)[:, None]
    shape = tuple([length if d == axis else n for d, n in enumerate(first.shape)])
    return lax.scatter_add(zeros_like(first, shape), jnp.asarray(indices), stacked, numbers, indices_are_sorted=True,
                           unique_indices=True, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)


def joined(pieces: Sequence[jax.Array], axis: int) -> jax.Array:
    """Pieces one after the other along an axis."""
    if len(pieces) == 1:
        return pieces[0]
    if is_eager(pieces):
        while len(pieces) > CHUNK:
            pieces = [_concatenated(pieces[i: i + CHUNK], axis) for i in range(0, len(pieces), CHUNK)]
        return _concatenated(pieces, axis)
    if _is_many(pieces):
        return _together(pieces, axis)
    return lax.concatenate(pieces, axis)


def _together(pieces: Sequence[jax.Array], axis: int) -> jax.Array:
    """As :func:`joined`, of many small pieces of one shape: in a form that XLA computes by one loop.

    Concatenations of ``FUSED`` pieces along a new axis, then of these along another one, and so on: XLA would make one of those that
    share an axis, and not fuse it.
    """
    shape = pieces[0].shape
    level = list(pieces)
    while len(level) > 1:
        groups = [level[i: i + FUSED] for i in range(0, len(level), FUSED)]
        short = FUSED - len(groups[-1])
        if len(groups) > 1 and short:
            groups[-1].append(zeros_like(level[0], (short, *level[0].shape)))
        level = [lax.concatenate([x if x.ndim > level[0].ndim else lax.expand_dims(x, (0,)) for x in group], 0) for group in groups]
    n = level[0].size // pieces[0].size
    stacked = lax.slice_in_dim(lax.reshape(level[0], (n, *shape)), 0, len(pieces))
    if any(m != 1 for m in shape[:axis]):
        stacked = lax.transpose(stacked, (*range(1, axis + 1), 0, *range(axis + 1, len(shape) + 1)))
    return lax.reshape(stacked, (*shape[:axis], len(pieces) * shape[axis], *shape[axis + 1:]))


def zeros_like(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Zeros of another shape than ``x``."""
    return vary_as(lax.full(shape, 0, x.dtype), typeof(x))


_compiled_concatenate = jax.jit(lax.concatenate, static_argnums=1)


def _concatenated(pieces: Sequence[jax.Array], axis: int) -> jax.Array:
    found: jax.Array = _compiled_concatenate(tuple(pieces), axis)
    return found
