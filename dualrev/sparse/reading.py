"""Reading the entries of a matrix from the compressed one: by slices where rows are alike, by a gather elsewhere.

Rows next to each other that read the same colours in the same order are a *block*: of ``k`` entries a row, entry ``j`` of the next row
stands one place further.  A block is a transposed slice of the compressed matrix, which takes a fraction of the time of a gather: the
observations of a bundle adjustment are one block, those of an arrowhead three.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jax import lax

#: More blocks are read by a gather; so are rows of more entries.
MOST_BLOCKS, MOST_WIDTH = 4, 64


class Block(NamedTuple):
    """``rows`` times ``len(starts)`` places: ``starts`` of the first row, and one more for each row that follows."""

    starts: tuple[int, ...]
    rows: int

    def read(self, flat: jax.Array) -> jax.Array | None:
        """The values at these places, row by row; None where no one slice holds them."""
        first, width = self.starts[0], len(self.starts)
        if width == 1:
            return lax.slice_in_dim(flat, first, first + self.rows)
        step = self.starts[1] - first
        begin = min(first, flat.size - width * step)
        if begin < 0 or step < self.rows or any(b - a != step for a, b in zip(self.starts, self.starts[1:], strict=False)):
            return None
        whole = lax.reshape(lax.slice_in_dim(flat, begin, begin + width * step), (width, step))
        part = lax.slice_in_dim(whole, first - begin, first - begin + self.rows, axis=1)
        return lax.reshape(lax.transpose(part, (1, 0)), (width * self.rows,))


def blocks_of(places: np.ndarray) -> list[Block] | None:
    """The places as blocks one after the other; None where they are too many."""
    found: list[Block] = []
    at = 0
    while at < len(places):
        if len(found) == MOST_BLOCKS:
            return None
        block = _block(places[at:])
        found.append(block)
        at += block.rows * len(block.starts)
    return found


def _block(places: np.ndarray) -> Block:
    """The block that these places begin with."""
    width = 1 + int(np.argmax(places[1: MOST_WIDTH + 1] == places[0] + 1)) if len(places) > 1 else 1
    goes_on = places[width:] - places[:-width] == 1
    stop = int(np.argmin(goes_on)) if not goes_on.all() else len(goes_on)
    rows = (stop + width) // width
    if rows < 2:
        return Block((int(places[0]),), 1)
    return Block(tuple(places[:width].tolist()), rows)


def taken(compressed: jax.Array, places: np.ndarray, is_unique: bool = False) -> jax.Array:
    """The entries of an array at places that exist, numbered as if it were flat."""
    if not len(places):
        return lax.full((0,), 0, compressed.dtype)
    blocks = blocks_of(places)
    if blocks is not None:
        flat = lax.reshape(compressed, (compressed.size,))
        parts = [part for block in blocks if (part := block.read(flat)) is not None]
        if len(parts) == len(blocks):
            return parts[0] if len(parts) == 1 else lax.concatenate(parts, 0)
    dtype = np.int32 if compressed.size < 2**31 else np.int64
    # A kernel that computes what it reads would divide a flat place into row and column again.
    index = np.unravel_index(places, compressed.shape) if compressed.ndim == 2 else (places,)
    return compressed.at[tuple(i.astype(dtype) for i in index)].get(mode="promise_in_bounds", unique_indices=is_unique)
