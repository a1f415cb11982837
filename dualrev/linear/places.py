"""Places in an array: which entries an operation takes, and how cotangents of these become one of the array.

A place is static and hashable.  What it reads at run time, such as the starts of a dynamic slice, is kept beside it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent


@dataclass(frozen=True)
class Box:
    """Entries at fixed places: ``starts[d] + strides[d] * i`` for ``i`` below ``shape[d]``, along each axis ``d``."""

    starts: tuple[int, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def embed(self, piece: jax.Array, whole: ShapedArray) -> jax.Array:
        """The piece, and zero elsewhere."""
        if self.shape == whole.shape:
            return piece
        config = []
        for n, size, start, step in zip(self.shape, whole.shape, self.starts, self.strides, strict=True):
            used = start + (n - 1) * step + 1 if n else start
            config.append((start, size - used, step - 1))
        return lax.pad(piece, np.asarray(0, piece.dtype), config)


@dataclass(frozen=True)
class Window:
    """Entries at a place that is known at run time, by its starts: they are clamped as those of a dynamic slice are."""

    shape: tuple[int, ...]

    def embed(self, piece: jax.Array, whole: ShapedArray, *starts: jax.Array) -> jax.Array:
        # The primitive is bound directly: the public function would wrap negative starts a second time.
        return lax.dynamic_update_slice_p.bind(zeros.zeros_of(whole), piece, *starts)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Gathered:
    """The entries that a gather reads, by its indices; what it reads out of bounds has no place."""

    numbers: lax.GatherDimensionNumbers
    indices_are_sorted: bool
    unique_indices: bool
    mode: lax.GatherScatterMode

    def embed(self, piece: jax.Array, whole: ShapedArray, indices: jax.Array, onto: Tangent = None) -> jax.Array:
        """The piece, and zero elsewhere; or the sum of it and ``onto``."""
        numbers = lax.ScatterDimensionNumbers(
            update_window_dims=self.numbers.offset_dims,
            inserted_window_dims=self.numbers.collapsed_slice_dims,
            scatter_dims_to_operand_dims=self.numbers.start_index_map,
            operand_batching_dims=self.numbers.operand_batching_dims,
            scatter_indices_batching_dims=self.numbers.start_indices_batching_dims)
        return lax.scatter_add(zeros.zeros_of(whole) if onto is None else onto, indices, piece, numbers,
                               indices_are_sorted=self.indices_are_sorted, unique_indices=self.unique_indices, mode=self.mode)

    def kind(self, indices: jax.Array, piece: jax.Array) -> Hashable:
        """What two gathers without batching dimensions share if they can be one: numbers, mode, dtype and shape of a window."""
        window = tuple([piece.shape[d] for d in self.numbers.offset_dims])
        return (self.numbers.collapsed_slice_dims, self.numbers.start_index_map, self.mode, indices.dtype, indices.shape[-1], window)

    def flat(self, indices: jax.Array, piece: jax.Array) -> tuple[Gathered, jax.Array, jax.Array]:
        """The same as a gather of a list of windows, along the first axis."""
        inner = self.numbers.offset_dims
        outer = [d for d in range(piece.ndim) if d not in inner]
        windows = lax.transpose(piece, (*outer, *inner))
        n = math.prod(indices.shape[:-1])
        numbers = lax.GatherDimensionNumbers(tuple(range(1, 1 + len(inner))), self.numbers.collapsed_slice_dims,
                                             self.numbers.start_index_map)
        return (Gathered(numbers, False, False, self.mode), lax.reshape(indices, (n, indices.shape[-1])),
                lax.reshape(windows, (n, *windows.shape[len(outer):])))


Place: TypeAlias = Box | Window | Gathered


def box(x: ShapedArray, starts: Sequence[int], shape: Sequence[int], strides: Sequence[int] | None = None) -> Box:
    steps = strides or (1,) * x.ndim
    return Box(tuple(starts), tuple(shape), tuple([step if n > 1 else 1 for step, n in zip(steps, shape, strict=True)]))


def blocks(x: ShapedArray, axis: int, lengths: Sequence[int]) -> list[Box]:
    """Neighbouring parts of an array along an axis, which together are the array."""
    found, start = [], 0
    for n in lengths:
        found.append(box(x, [start if d == axis else 0 for d in range(x.ndim)], [n if d == axis else m for d, m in enumerate(x.shape)]))
        start += n
    return found

