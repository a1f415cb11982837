"""The forward engine: dual numbers.

Each value carries a tangent that is pushed through an operation at once and then forgotten: no tape, so memory does not grow
with the length of the program.  It is the mode whose parts are tangents (:mod:`dualrev.engines.parts`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import compress, repeat
from operator import is_not
from typing import Any

from dualrev._jax.avals import tangent_aval
from dualrev._jax.traces import Trace
from dualrev.engines.parts import Dual as Dual
from dualrev.engines.parts import PartsTrace, evaluate
from dualrev.linear import zeros
from dualrev.table import engine
from dualrev.table.mode import Mode
from dualrev.table.rows import Row


class Tangents(Mode):
    """The parts of a value are its tangent, an array or None."""

    name = "forward"
    pushes = True

    def row(self, row: Row, primals: Sequence[Any], parts: Sequence[Any], params: dict[str, Any]) -> Any:
        return row.jvp(primals, parts, params)

    def zero(self, aval: Any) -> Any:
        return zeros.zeros_of(tangent_aval(aval))

    def full(self, aval: Any) -> Any:
        return tangent_aval(aval)

    def fill(self, parts: Any, aval: Any) -> Any:
        return zeros.instantiate(parts, aval)

    def flatten(self, parts: Sequence[Any]) -> tuple[list[Any], tuple[bool, ...]]:
        active = tuple(map(is_not, parts, repeat(None)))
        return list(compress(parts, active)), active

    def unflatten(self, structure: Any, leaves: Sequence[Any]) -> list[Any]:
        if all(structure):
            return list(leaves)
        tangents = iter(leaves)
        return [next(tangents) if active else None for active in structure]

    def avals(self, structure: Any, in_avals: Sequence[Any]) -> list[Any]:
        return [tangent_aval(a) for a, moves in zip(in_avals, structure, strict=True) if moves]

    def are_like(self, structure: Any) -> list[int | None]:
        return [i for i, moves in enumerate(structure) if moves]

    def slices(self, parts: Any) -> Any:
        return parts

    def stacked(self, parts: Any) -> Any:
        return parts

    def specs(self, spec: Any, parts: Any) -> list[Any]:
        return [] if parts is None else [spec]


TANGENTS = Tangents()


class ForwardTrace(PartsTrace):
    """Pushes tangents through each operation as it happens."""

    def __init__(self, parent: Trace):
        super().__init__(parent, TANGENTS)


#: ``push_through(fun, primals, tangents) -> (outs, tangents out)`` of a flat function; a tangent of None is zero.
push_through = functools.partial(evaluate, TANGENTS)


def zeros_like_outs(outs: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Tangents with arrays in place of symbolic zeros."""
    return [zeros.zero_tangent(x) if t is None else t for x, t in zip(outs, tangents, strict=True)]


engine.provide(push_through=push_through)
