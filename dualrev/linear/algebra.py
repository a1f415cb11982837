"""Linear maps made of linear maps: multiples, sums, compositions, transposes.

Making one evaluates nothing: it applies its parts when it is pushed or pulled, and keeps no array but theirs.  They are maps
of flat values, as :class:`~dualrev.linear.maps.Tape` is; a user holds a :class:`~dualrev.functional.linearized.Linearized` around one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, TypeGuard

import jax
import numpy as np
from jax import lax

from dualrev._jax.avals import DType
from dualrev.linear import zeros
from dualrev.linear.maps import Kept, LinearMap, Tangent, Tangents
from dualrev.linear.residuals import kept
from dualrev.options.settings import Active, Settings, under

#: The multiple of a map: a number of Python's, or a scalar array.
Factor: TypeAlias = complex | jax.Array


class MadeOfMaps(LinearMap):
    """The base class of the maps in this file: their parts can be inspected."""

    __slots__ = ()

    @abstractmethod
    def inner_maps(self) -> Sequence[LinearMap]: ...

    def kept(self) -> Iterator[Kept]:
        for part in self.inner_maps():
            yield from kept(part)


class ScaledMap(MadeOfMaps):
    r""":math:`c A`: ``t`` to ``c (A t)``, and ``u`` to ``Aᵀ (c u)``.  A factor that is a Python number is static."""

    __slots__ = ("factor", "inner")

    name = "scale"

    def __init__(self, factor: Factor, inner: LinearMap):
        self.factor, self.inner = factor, inner

    def inner_maps(self) -> Sequence[LinearMap]:
        return [self.inner]

    def kept(self) -> Iterator[Kept]:
        yield from super().kept()
        if not is_number(self.factor):
            yield self.factor, self.name, ""  # type: ignore[misc]  # it is an array

    def _times(self, t: Tangent) -> Tangent:
        if t is None:
            return None
        factor = self.factor
        if is_number(factor):
            return lax.mul(t, lax.full_like(t, factor))
        factor = lax.convert_element_type(factor, t.dtype)
        return lax.mul(t, lax.broadcast(factor, t.shape))

    def push(self, *tangents: Tangent) -> Tangents:
        return tuple([self._times(t) for t in self.inner.push(*tangents)])

    def pull(self, *cotangents: Tangent) -> Tangents:
        return self.inner.pull(*[self._times(ct) for ct in cotangents])


class SumMap(MadeOfMaps):
    """The sum of maps between the same spaces; ``in_dtypes`` are those of the cotangents that it returns."""

    __slots__ = ("in_dtypes", "parts")

    name = "sum"

    def __init__(self, parts: Sequence[LinearMap], in_dtypes: tuple[DType, ...]):
        self.parts, self.in_dtypes = tuple(parts), in_dtypes

    def inner_maps(self) -> Sequence[LinearMap]:
        return self.parts

    def push(self, *tangents: Tangent) -> Tangents:
        first, *others = [part.push(*tangents) for part in self.parts]
        total = list(first)
        for moved in others:
            total = [zeros.add(x, y) for x, y in zip(total, moved, strict=True)]
        return tuple(total)

    def pull(self, *cotangents: Tangent) -> Tangents:
        total: list[Tangent] = [None] * len(self.in_dtypes)
        for part in self.parts:
            moved = part.pull(*cotangents)
            total = [zeros.add(x, None if y is None else zeros.cast(y, dtype))
                     for x, y, dtype in zip(total, moved, self.in_dtypes, strict=True)]
        return tuple(total)


class ComposedMap(MadeOfMaps):
    """``outer`` after ``inner``.

    ``places`` are the outputs of ``inner`` that are active inputs of ``outer``, and ``dtypes`` those of all outputs of ``inner``.
    """

    __slots__ = ("dtypes", "inner", "outer", "places")

    name = "composition"

    def __init__(self, outer: LinearMap, inner: LinearMap, places: tuple[int, ...], dtypes: tuple[DType, ...]):
        self.outer, self.inner, self.places, self.dtypes = outer, inner, places, dtypes

    def inner_maps(self) -> Sequence[LinearMap]:
        return [self.inner, self.outer]

    def push(self, *tangents: Tangent) -> Tangents:
        between = self.inner.push(*tangents)
        return self.outer.push(*[between[i] for i in self.places])

    def pull(self, *cotangents: Tangent) -> Tangents:
        between: list[Tangent] = [None] * len(self.dtypes)
        for i, ct in zip(self.places, self.outer.pull(*cotangents), strict=True):
            between[i] = None if ct is None else zeros.cast(ct, self.dtypes[i])
        return self.inner.pull(*between)


class TransposedMap(MadeOfMaps):
    """The transpose of a map of active inputs to all outputs, as such a map again.

    ``active`` says which inputs of ``inner`` are active, and ``places`` which of its outputs are: the inputs of the transpose.
    """

    __slots__ = ("active", "dtypes", "inner", "n_out", "places")

    name = "transpose"

    def __init__(self, inner: LinearMap, active: tuple[Active, ...], places: tuple[int, ...], n_out: int, dtypes: tuple[DType, ...]):
        self.inner, self.active, self.places, self.n_out, self.dtypes = inner, active, places, n_out, dtypes

    def inner_maps(self) -> Sequence[LinearMap]:
        return [self.inner]

    def push(self, *cotangents: Tangent) -> Tangents:
        given: list[Tangent] = [None] * self.n_out
        for i, ct in zip(self.places, cotangents, strict=True):
            given[i] = ct
        found = iter(self.inner.pull(*given))
        return tuple([next(found) if moves else None for moves in self.active])

    def pull(self, *tangents: Tangent) -> Tangents:
        moving = [None if t is None else zeros.cast(t, dtype)
                  for t, moves, dtype in zip(tangents, self.active, self.dtypes, strict=True) if moves]
        moved = self.inner.push(*moving)
        return tuple([moved[i] for i in self.places])


class SettledMap(MadeOfMaps):
    """A map that is applied under settings of its own, where it is part of one with others."""

    __slots__ = ("inner", "settings")

    name = "settings"

    def __init__(self, inner: LinearMap, settings: Settings):
        self.inner, self.settings = inner, settings

    def inner_maps(self) -> Sequence[LinearMap]:
        return [self.inner]

    def push(self, *tangents: Tangent) -> Tangents:
        return tuple(under(self.settings, self.inner.push, *tangents))

    def pull(self, *cotangents: Tangent) -> Tangents:
        return tuple(under(self.settings, self.inner.pull, *cotangents))


def is_number(x: object) -> TypeGuard[complex]:
    """A number of Python's, which programs hold as a constant."""
    return isinstance(x, (int, float, complex)) and not isinstance(x, (bool, np.generic))


def _flatten_scaled(m: ScaledMap) -> tuple[tuple[LinearMap] | tuple[LinearMap, Factor], complex | None]:
    return ((m.inner,), m.factor) if is_number(m.factor) else ((m.inner, m.factor), None)


def _unflatten_scaled(number: complex | None, parts: Sequence[Any]) -> ScaledMap:
    return ScaledMap(number if number is not None else parts[1], parts[0])


jax.tree_util.register_pytree_node(
    ScaledMap, _flatten_scaled, _unflatten_scaled
)
jax.tree_util.register_pytree_node(SumMap, lambda m: (m.parts, m.in_dtypes), lambda dtypes, parts: SumMap(parts, dtypes))
jax.tree_util.register_pytree_node(
    ComposedMap, lambda m: ((m.outer, m.inner), (m.places, m.dtypes)), lambda aux, parts: ComposedMap(*parts, *aux)
)
jax.tree_util.register_pytree_node(
    TransposedMap, lambda m: ((m.inner,), (m.active, m.places, m.n_out, m.dtypes)), lambda aux, parts: TransposedMap(*parts, *aux)
)
jax.tree_util.register_pytree_node(
    SettledMap, lambda m: ((m.inner,), m.settings), lambda settings, parts: SettledMap(parts[0], settings)
)
