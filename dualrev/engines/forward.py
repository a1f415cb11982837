"""The forward engine: dual numbers, a value with its tangent.

Each operation maps tangents of its operands to tangents of its results, which is all that is kept: there is no tape, and memory does
not grow with the length of the program.  It is the mode whose parts are tangents (:mod:`dualrev.engines.parts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, repeat
from operator import is_not

import jax
from jax.sharding import PartitionSpec

from dualrev._jax.avals import ShapedArray, tangent_aval
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.primitives import Params
from dualrev._jax.traces import Trace
from dualrev.engines.parts import Dual as Dual
from dualrev.engines.parts import PartsTrace, evaluate
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.table import engine
from dualrev.table.mode import Mode
from dualrev.table.rows import Pushed, Row


class Tangents(Mode):
    """The mode whose parts are tangents: an array for each value, or None for zero."""

    name = "forward"
    pushes = True

    def row(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Tangent],  # type: ignore[override]
            params: Params) -> Pushed:
        return row.jvp(primals, parts, params)

    def zero(self, aval: ShapedArray) -> jax.Array:
        return zeros.zeros_of(tangent_aval(aval))

    def full(self, aval: ShapedArray) -> ShapedArray:
        return tangent_aval(aval)

    def fill(self, parts: Tangent, aval: ShapedArray, like: object = None) -> jax.Array:
        return zeros.instantiate(parts, aval)

    def flatten(self, parts: Sequence[Tangent]) -> tuple[list[jax.Array], tuple[bool, ...]]:
        """The nonzero tangents, and which are nonzero: the structure of tangents."""
        nonzero = tuple(map(is_not, parts, repeat(None)))
        return list(compress(parts, nonzero)), nonzero  # type: ignore[arg-type]

    def unflatten(self, structure: Sequence[bool], leaves: Sequence[jax.Array]) -> list[Tangent]:
        if all(structure):
            return list(leaves)
        tangents = iter(leaves)
        return [next(tangents) if is_nonzero else None for is_nonzero in structure]

    def avals(self, structure: Sequence[bool], in_avals: Sequence[ShapedArray]) -> list[ShapedArray]:
        return [tangent_aval(a) for a, is_nonzero in zip(in_avals, structure, strict=True) if is_nonzero]

    def are_like(self, structure: Sequence[bool]) -> list[int | None]:
        return [i for i, is_nonzero in enumerate(structure) if is_nonzero]

    def slices(self, parts: Tangent) -> Tangent:
        return parts

    def stacked(self, parts: Tangent) -> Tangent:
        return parts

    def specs(self, spec: PartitionSpec, parts: Tangent) -> list[PartitionSpec]:
        return [] if parts is None else [spec]


TANGENTS = Tangents()


class ForwardTrace(PartsTrace):
    """A trace whose values carry tangents."""

    def __init__(self, parent: Trace):
        super().__init__(parent, TANGENTS)


def push_through(fun: FlatFunction, primals: Sequence[jax.Array],
                 tangents: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent]]:
    """``(outs, tangents of outs)`` of a flat function; a tangent of None is zero."""
    return evaluate(TANGENTS, fun, primals, tangents)


def zeros_like_outs(outs: Sequence[jax.Array], tangents: Sequence[Tangent]) -> list[jax.Array]:
    """Tangents with arrays in place of symbolic zeros."""
    return [zeros.zero_tangent(x) if t is None else t for x, t in zip(outs, tangents, strict=True)]


engine.provide(push_through=push_through)
