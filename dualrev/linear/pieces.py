"""Cotangents of parts of one array, collected: what a program that takes entries one by one sends back.

An entry ``x[i]`` has a cotangent of one number; as a cotangent of ``x`` it is that number and zero elsewhere.  Added up as arrays,
``n`` entries cost ``n`` arrays of length ``n``.  :class:`Pieces` keeps them as they are, and joins them once, when the cotangent of
``x`` is complete: pieces of equal places are summed, neighbours are concatenated, and only what overlaps is added.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

import jax
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray, is_extended
from dualrev._jax.sharding import explicit_sharding
from dualrev._jax.traces import is_eager
from dualrev.linear import zeros
from dualrev.linear.joining import assembled, joined
from dualrev.linear.places import Box, Gathered, Place, Window
from dualrev.linear.zeros import Tangent

#: A place, what it reads at run time, and the cotangent of the entries there.
Part: TypeAlias = tuple[Place, tuple[jax.Array, ...], jax.Array]

#: From this number of entries on, a window is added in place: below, a compiler adds up whole arrays in one kernel.
LARGE = 512

#: Up to this number of parts, un-jitted, the array is made by one compiled program, which is kept for equal places.
FEW = 8


def can_be_collected(x: ShapedArray) -> bool:
    """Whether the places of an array are known: its lengths are numbers, and its type does not say where on a mesh it lies."""
    return all(isinstance(n, int) for n in x.shape) and not is_extended(x.dtype) and explicit_sharding(x) is None


class Pieces:
    """A cotangent of an array that is the sum of ``base`` and of pieces, each of which is zero outside of its place.

    Whoever made it may add to it; it becomes an array by :meth:`array`.
    """

    __slots__ = ("base", "parts", "whole")

    def __init__(self, whole: ShapedArray):
        #: The abstract value of the array.
        self.whole = whole
        self.base: Tangent = None
        self.parts: dict[Hashable, Part] = {}

    def put(self, place: Place, at: Sequence[jax.Array], piece: jax.Array) -> Pieces:
        """Add a piece at a place, which reads ``at`` at run time.  Pieces of equal places are summed at once."""
        if isinstance(place, Window) and not any(isinstance(start, jax.Array) for start in at):
            starts = [min(max(int(start), 0), n - m) for start, n, m in zip(at, self.whole.shape, place.shape, strict=True)]
            place, at = Box(tuple(starts), place.shape, (1,) * len(starts)), ()
        if not isinstance(place, Gathered) and piece.shape != place.shape:
            piece = lax.reshape(piece, place.shape)
        # Indices of a gather may be an array of NumPy: the entry keeps it alive.
        key = (place, tuple([id(x) if isinstance(x, (jax.Array, np.ndarray)) else int(x) for x in at]))
        found = self.parts.get(key)
        self.parts[key] = (place, tuple(at), piece if found is None else zeros.add(found[2], piece))
        return self

    def plus(self, other: jax.Array | Pieces) -> Pieces:
        if not isinstance(other, Pieces):
            self.base = zeros.add(self.base, other)
            return self
        self.base = zeros.add(self.base, other.base)
        for key, (place, at, piece) in other.parts.items():
            found = self.parts.get(key)
            self.parts[key] = (place, at, piece if found is None else zeros.add(found[2], piece))
        return self

    def cast(self, dtype: np.dtype) -> Pieces:
        """The same in another dtype."""
        if self.whole.dtype == dtype:
            return self
        found = Pieces(self.whole.update(dtype=dtype))
        found.base = None if self.base is None else zeros.cast(self.base, dtype)
        found.parts = {key: (place, at, zeros.cast(piece, dtype)) for key, (place, at, piece) in self.parts.items()}
        return found

    def array(self) -> jax.Array:
        """The cotangent as an array."""
        places = tuple([place for place, _, _ in self.parts.values()])
        at = [at for _, at, _ in self.parts.values()]
        pieces = [piece for _, _, piece in self.parts.values()]
        if len(pieces) <= FEW and is_eager((*pieces, *[x for values in at for x in values], self.base)):
            compiled: jax.Array = _compiled_sum(self.whole, places, self.base, at, pieces)
            return compiled
        return _sum(self.whole, places, self.base, at, pieces)


def add(x: Tangent | Pieces, y: Tangent | Pieces) -> Tangent | Pieces:
    """The sum of two cotangents, either of which may be pieces or the symbolic zero."""
    if type(x) is Pieces:
        return x if y is None else x.plus(y)
    if type(y) is Pieces:
        return y if x is None else y.plus(x)
    return zeros.add(x, y)  # type: ignore[arg-type]  # none is pieces


def cast(ct: jax.Array | Pieces, dtype: np.dtype) -> jax.Array | Pieces:
    """A cotangent in another dtype."""
    return ct.cast(dtype) if type(ct) is Pieces else zeros.cast(ct, dtype)  # type: ignore[arg-type]


def as_array(ct: Tangent | Pieces) -> Tangent:
    """A cotangent that is no pieces."""
    return ct.array() if type(ct) is Pieces else ct  # type: ignore[return-value]


def _sum(whole: ShapedArray, places: Sequence[Place], base: Tangent, at: Sequence[Sequence[jax.Array]],
         pieces: Sequence[jax.Array]) -> jax.Array:
    parts = list(zip(places, at, pieces, strict=True))
    total = assembled([(place, piece) for place, _, piece in parts if isinstance(place, Box)], whole)
    total = zeros.add(base, total)
    for gathered, indices, piece in _gathers(parts):
        total = gathered.embed(piece, whole, indices, onto=total)
    for place, starts, piece in parts:
        if isinstance(place, Window):
            if total is None or math.prod(whole.shape) < LARGE:
                total = zeros.add(total, place.embed(piece, whole, *starts))
            else:
                now = lax.dynamic_slice_p.bind(total, *starts, slice_sizes=place.shape)
                total = lax.dynamic_update_slice_p.bind(total, zeros.add(now, piece), *starts)
    return zeros.zeros_of(whole) if total is None else total


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled_sum(whole: ShapedArray, places: tuple[Place, ...], base: Tangent, at: Sequence[Sequence[jax.Array]],
                  pieces: Sequence[jax.Array]) -> jax.Array:
    return _sum(whole, places, base, at, pieces)


def _gathers(parts: Iterable[tuple[Place, Sequence[jax.Array], jax.Array]]) -> list[tuple[Gathered, jax.Array, jax.Array]]:
    """The gathers among the parts, with those that read windows of one kind as one gather."""
    found: list[tuple[Gathered, jax.Array, jax.Array]] = []
    alike: dict[Hashable, list[tuple[Gathered, jax.Array, jax.Array]]] = {}
    for place, at, piece in parts:
        if isinstance(place, Gathered):
            (indices,) = at
            if place.numbers.operand_batching_dims:
                found.append((place, indices, piece))
            else:
                alike.setdefault(place.kind(indices, piece), []).append((place, indices, piece))
    for several in alike.values():
        if len(several) == 1:
            found.extend(several)
        else:
            flats = [place.flat(indices, piece) for place, indices, piece in several]
            found.append((flats[0][0], joined([f[1] for f in flats], 0), joined([f[2] for f in flats], 0)))
    return found

