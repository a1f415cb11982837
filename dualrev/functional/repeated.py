"""Pulls and pushes of concrete tapes of one structure, compiled as a whole once they have been seen often.

Un-jitted, a tape is pulled one operation at a time, each a compiled program: what takes time is calling them.  In a loop over steps
of training, each step writes a tape of the same structure: the same operations on arrays of the same types, wired alike.  From the
``SEEN``-th on, the pull of such a tape is one compiled program; residuals and cotangents are its operands.

A structure is told by the identity of what operations have in common at all points, their linearizations and sites.  These are held
weakly: a program goes with the first of them.  Barriers between operations keep the compiler from computing two of them in one
kernel, where it would round differently; XLA:CPU of jax 0.10 drops them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
from jax import lax
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev._jax.invalid_values import INVALID_VALUE
from dualrev._jax.sharding import in_mesh_context
from dualrev._jax.traces import is_eager
from dualrev._jax.trees import PyTreeDef
from dualrev.calls.linearization import Linearization, StagedMap
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.linear.pieces import Pieces
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import current
from dualrev.table.operations import OpMap, Site

#: A structure is compiled when it is seen for this time.  Its operations were compiled one by one before, which took longer.
SEEN = 8
#: The number of compiled structures that are kept.  When so many have been compiled, the next ones have to be seen as often again.
KEPT = 64
#: The number of structures that are counted at a time.
COUNTED = 1024
#: The fewest entries and the most operations of a tape that is compiled: few are not worth it, and many take long.
FEWEST, MOST = 3, 160

#: What an operation has in common at all points.
Common: TypeAlias = Linearization | Site

_seen: dict[Hashable, int] = {}
_programs: dict[Hashable, Callable[..., Tangents]] = {}
_n_compiled = 0


class _Apart(LinearMap):
    """A map whose results are computed apart from what reads them."""

    __slots__ = ("of",)

    def __init__(self, of: LinearMap):
        self.of = of

    def push(self, *tangents: Tangent) -> Tangents:
        return tuple(_apart(self.of.push(*tangents)))  # type: ignore[arg-type]  # pushes have no pieces

    def pull(self, *cotangents: Tangent) -> Tangents:
        return tuple(_apart(self.of.pull(*cotangents)))  # type: ignore[arg-type]

    def pull_parts(self, *cotangents: Tangent) -> Sequence[Tangent | Pieces]:
        return _apart(self.of.pull_parts(*cotangents))


def _apart(results: Sequence[Tangent | Pieces]) -> list[Tangent | Pieces]:
    arrays = iter(lax.optimization_barrier([x for x in results if x is not None and not isinstance(x, Pieces)]))
    return [x if x is None or isinstance(x, Pieces) else next(arrays) for x in results]


class _Structure:
    """What tapes of one structure have in common, and what one of them holds beside that: ``residuals``, of each operation."""

    __slots__ = ("commons", "key", "residuals")

    def __init__(self) -> None:
        self.key: list[Hashable] = []
        self.commons: list[Common] = []
        self.residuals: list[Sequence[Any]] = []

    def add(self, tape: Tape) -> bool:
        """Add a tape; False where it holds a map that must be pulled by itself."""
        key, commons, residuals = self.key, self.commons, self.residuals
        if len(tape.entries) + len(commons) > MOST:
            return False
        for linear_map, ins, outs in tape.entries:
            kind = type(linear_map)
            common: Common
            if kind is StagedMap:
                common = linear_map.linearization  # type: ignore[attr-defined]
            elif kind is OpMap and linear_map.site.row.compiles and linear_map.site.key is not None:  # type: ignore[attr-defined]
                common = linear_map.site  # type: ignore[attr-defined]
            elif kind is Tape:
                if not self.add(linear_map):  # type: ignore[arg-type]
                    return False
                key += ins, outs
                continue
            else:
                return False
            commons.append(common)
            residuals.append(linear_map.residuals)  # type: ignore[attr-defined]
            key += id(common), ins, outs
        key += len(tape.entries), tape.in_slots, tape.out_slots, tape.wide
        return True


#: Gives an operation its map at the residuals of a point.
Maker: TypeAlias = Callable[[Iterator[Sequence[Any]]], LinearMap]


def _maker(linear_map: LinearMap, forget: Callable[[object], object]) -> Maker:
    """The function from residuals to the map of the same structure, which holds nothing of this one."""
    if isinstance(linear_map, Tape):
        makers = [(_maker(m, forget), ins, outs) for m, ins, outs in linear_map.entries]
        layout = linear_map.n_slots, linear_map.in_slots, linear_map.out_slots, linear_map.wide
        return lambda residuals: Tape([(make(residuals), ins, outs) for make, ins, outs in makers], *layout)
    kind: Any = type(linear_map)
    held = weakref.ref(linear_map.linearization if kind is StagedMap else linear_map.site, forget)  # type: ignore[attr-defined]
    return lambda residuals: _Apart(kind(held(), next(residuals)))


def apply(direction: str, linear_map: LinearMap, vectors: Tangents) -> Tangents:
    """A push or a pull of a linear map; of a concrete tape whose structure was seen often, in one compiled program."""
    if type(linear_map) is Tape and len(linear_map.entries) >= FEWEST and is_eager(vectors) and not in_mesh_context():
        found = _at_once(direction, linear_map, vectors)
        if found is not None:
            return found
    results: Tangents = getattr(linear_map, direction)(*vectors)
    return results


def _at_once(direction: str, tape: Tape, vectors: Tangents) -> Tangents | None:
    """The results of one compiled program; None where there is none (yet)."""
    structure = _Structure()
    if not structure.add(tape):
        return None
    leaves, tree = tree_flatten(structure.residuals)
    if not is_eager(leaves):
        return None
    key = (direction, current.get(), tree, *structure.key, *[getattr(x, "shape", None) for x in leaves],
           *[None if t is None else getattr(t, "shape", ()) for t in vectors])
    program = _programs.get(key)
    if program is None:
        if not _is_often(key):
            return None
        program = _compiled(direction, tape, tree, lambda _: _programs.pop(key, None))
        if len(_programs) >= KEPT:
            _programs.pop(next(iter(_programs)), None)
        _programs[key] = program
    try:
        found: Tangents = program(leaves, vectors)
    except INVALID_VALUE:  # one operation at a time tells which it was
        return None
    return found


def _is_often(key: Hashable) -> bool:
    """Count a structure, and say whether it has been seen often enough."""
    global _n_compiled
    count = _seen.get(key, 0) + 1
    if count >= SEEN * (1 + _n_compiled // KEPT):
        _seen.pop(key, None)
        _n_compiled += 1
        return True
    if len(_seen) >= COUNTED:
        _seen.clear()
    _seen[key] = count
    return False


def _compiled(direction: str, tape: Tape, residuals: PyTreeDef, forget: Callable[[object], object]) -> Callable[..., Tangents]:
    """The push or pull of all tapes of one structure, from the leaves of their residuals and the vectors."""
    make = _maker(tape, forget)

    def run(leaves: Sequence[jax.Array], vectors: Tangents) -> Tangents:
        found: Tangents = getattr(make(iter(tree_unflatten(residuals, leaves))), direction)(*vectors)
        return found

    run.__name__ = f"{direction}_all"
    return jax.jit(run)
