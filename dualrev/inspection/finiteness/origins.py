"""What the search finds: the operation that made a bad entry, or the operand of a program that brought it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import jax

from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn
from dualrev.inspection.finiteness.entries import Entry, Kind


@dataclass(frozen=True)
class Place:
    """Where in a program, and in the programs around it: the operations that hold it, outermost first, and steps of loops."""

    within: tuple[JaxprEqn, ...] = ()
    steps: tuple[int, ...] = ()
    #: The positions of the operations and steps: an order of everything that runs.
    order: tuple[int, ...] = ()
    #: The number of the first step of the block of steps that it stands in.
    first: int = 0
    #: The shard: its coordinate along each axis of the mesh.
    shard: Mapping[str, int] = field(default_factory=dict)

    def inside(self, eqn: JaxprEqn) -> Place:
        return replace(self, within=(*self.within, eqn))

    def at(self, position: int) -> Place:
        return replace(self, order=(*self.order, position))

    def on(self, shard: Mapping[str, int]) -> Place:
        return replace(self, shard={**self.shard, **shard}) if shard else self

    def step(self, order: int, number: int) -> Place:
        return replace(self, steps=(*self.steps, self.first + number), order=(*self.order, order), first=0)

    def block(self, order: int, first: int) -> Place:
        """In a block of steps, a step of a loop of ours: the loop in it has the numbers."""
        return replace(self, order=(*self.order, order), first=first)


@dataclass(frozen=True)
class Origin:
    """An operation that made a bad entry, or a constant of a program (``eqn`` is None)."""

    eqn: JaxprEqn | None
    place: Place
    kind: Kind
    result: int
    entry: Entry
    #: The program that the operation stands in; its operands and its result.
    jaxpr: ClosedJaxpr
    operands: Sequence[jax.Array] = ()
    out: jax.Array | None = None
    #: Whether infinities among the operands made a NaN.
    is_from_infinity: bool = False


@dataclass(frozen=True)
class Arrived:
    """A bad entry that an operand of a program brought with it."""

    index: int
    entry: Entry
    kind: Kind


Found: TypeAlias = Origin | Arrived
