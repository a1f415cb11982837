"""Linear maps: the local derivative of one call, and of many.

A linear map takes tangents of its inputs to tangents of its outputs (:meth:`LinearMap.push`, J·v) and cotangents of its
outputs to cotangents of its inputs (:meth:`LinearMap.pull`, Jᵀ·u).  ``None`` is the symbolic zero.  A map is a pytree whose
leaves are the arrays it needs, its *residuals*, so that it crosses ``jit``, ``scan`` and ``vmap`` boundaries.

A :class:`Tape` is a linear map made of linear maps: the derivative of a whole function has the same type as that of one op.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import jax

from dualrev import errors
from dualrev._jax.avals import DType
from dualrev._jax.invalid_values import INVALID_VALUE
from dualrev._jax.sharding import in_mesh_context, on_own_mesh
from dualrev._jax.source_lines import Marking, SourceInfo, line_of
from dualrev.linear import pieces, zeros
from dualrev.linear.pieces import Pieces, as_array
from dualrev.linear.zeros import Tangent as Tangent

#: Tangents of all inputs or outputs of a map, or cotangents: an array each, or None for zero.
Tangents: TypeAlias = tuple[Tangent, ...]

#: A residual: the array, the operation that keeps it, and the user's line.
Kept: TypeAlias = tuple[jax.Array, str, str]

#: A map on a tape, the slots that it reads and those that it writes; None for an output that is constant.
Entry: TypeAlias = tuple["LinearMap", tuple[int, ...], tuple[int | None, ...]]


class LinearMap(ABC):
    """The derivative of one call at one point.

    A map must state ``push`` and ``pull``.  The other methods describe the map to readers; their defaults are right for the
    derivative of one operation.
    """

    __slots__ = ()

    name: str = "linear map"
    #: Whether it is the derivative of what runs programs, or is stated by a program: not of one operation of the table.
    is_call = True

    @abstractmethod
    def push(self, *tangents: Tangent) -> Tangents:
        """J·v: one tangent for each active input, one result for each output."""

    @abstractmethod
    def pull(self, *cotangents: Tangent) -> Tangents:
        """Jᵀ·u: one cotangent for each output, one result for each active input."""

    def pull_parts(self, *cotangents: Tangent) -> Sequence[Tangent | Pieces]:
        """As :meth:`pull`; a result may be pieces of a cotangent, which a tape collects."""
        return self.pull(*cotangents)

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        """Which of the ``n_in`` results of a pull may be nonzero, given which cotangents are: known without a pull."""
        return [any(cotangents)] * n_in

    def unstaged(self) -> LinearMap | None:
        """For a map that runs as a compiled program: the same map, one operation at a time.  None for others."""
        return None

    def inner_maps(self) -> Sequence[LinearMap] | None:
        """The maps that this one consists of, without regard to residuals; None for the derivative of one operation."""
        return None

    def tape(self) -> Tape | None:
        """The tape that this map runs, with its residuals (stacked, for a loop); None where there is no tape."""
        return None

    def kept(self) -> Iterable[Kept] | None:
        """``(array, operation, line)`` for each array that the map keeps; None where its tape and its leaves tell."""
        return None

    def singular_parts(self) -> Iterator[LinearMap]:
        """The operations in this map that may divide by zero at some values; each has :meth:`is_singular`."""
        return iter(())

    def is_singular(self) -> bool:
        """Whether the map divides by zero at its residuals, which are concrete."""
        return False


class Tape(LinearMap):
    """A chain of linear maps over numbered slots.

    ``entries[k] = (map, in_slots, out_slots)``: the map reads the tangents in ``in_slots`` and writes ``out_slots``.
    ``wide`` pairs slots with the dtype in which their cotangents accumulate.
    ``in_slots`` and ``out_slots`` of the tape itself are its inputs and outputs; an output slot of None is constant.
    ``sources`` gives the user's line of each entry; a tape that has crossed a ``jit`` boundary has none.
    Neither direction recurses over the entries, so a chain of any length works.
    """

    __slots__ = ("entries", "in_slots", "n_slots", "out_slots", "sources", "wide")

    name = "tape"

    def __init__(self, entries: Sequence[Entry], n_slots: int,
                 in_slots: tuple[int, ...], out_slots: tuple[int | None, ...], wide: tuple[tuple[int, DType], ...] = (),
                 sources: Sequence[SourceInfo | None] = ()):
        self.entries = entries
        self.sources = sources or [None] * len(entries)
        self.n_slots = n_slots
        self.in_slots = in_slots
        self.out_slots = out_slots
        self.wide = wide

    @staticmethod
    def of(linear_map: LinearMap, n_in: int, active_outs: Sequence[bool]) -> Tape:
        """The tape of one map."""
        ins = tuple(range(n_in))
        outs = tuple([n_in + i if moves else None for i, moves in enumerate(active_outs)])
        return Tape([(linear_map, ins, outs)], n_in + len(outs), ins, outs)

    def push(self, *tangents: Tangent) -> Tangents:
        env: list[Tangent] = [None] * self.n_slots
        on_mesh = in_mesh_context()
        for source, t in zip(self.in_slots, tangents, strict=True):
            env[source] = t
        with Marking("push") as marking:
            for k, (linear_map, ins, outs) in enumerate(self.entries):
                moving = tuple([env[slot] for slot in ins])
                if any(t is not None for t in moving):
                    if marking.is_on:
                        marking.at(linear_map.name, self.sources[k], linear_map.is_call)
                    try:
                        pushed = on_own_mesh(linear_map.push, moving) if on_mesh else linear_map.push(*moving)
                    except INVALID_VALUE as error:
                        raise self._located("push", k, moving, error) from error
                    for slot, t in zip(outs, pushed, strict=True):
                        if slot is not None:
                            env[slot] = t
        return tuple([None if slot is None else env[slot] for slot in self.out_slots])

    def pull(self, *cotangents: Tangent) -> Tangents:
        return tuple(map(as_array, self.pull_parts(*cotangents)))

    def pull_parts(self, *cotangents: Tangent) -> Sequence[Tangent | Pieces]:
        env: list[Tangent | Pieces] = [None] * self.n_slots
        add, on_mesh = pieces.add, in_mesh_context()
        wide = dict(self.wide)
        for slot, ct in zip(self.out_slots, cotangents, strict=True):
            if slot is not None and ct is not None:
                env[slot] = add(env[slot], ct if slot not in wide else zeros.cast(ct, wide[slot]))
        with Marking("pull") as marking:
            for k in range(len(self.entries) - 1, -1, -1):
                linear_map, ins, outs = self.entries[k]
                arrived: list[Tangent] = []
                moving = False
                for slot in outs:
                    total: Tangent | Pieces = None
                    if slot is not None:
                        total, env[slot] = env[slot], None  # a cotangent that was used is freed
                        moving = moving or total is not None
                    arrived.append(total.array() if isinstance(total, Pieces) else total)
                if moving:
                    pulled: Sequence[Tangent | Pieces]
                    if marking.is_on:
                        marking.at(linear_map.name, self.sources[k], linear_map.is_call)
                    try:
                        pulled = on_own_mesh(linear_map.pull, arrived) if on_mesh else linear_map.pull_parts(*arrived)
                    except INVALID_VALUE as error:
                        raise self._located("pull", k, arrived, error) from error
                    for slot, part in zip(ins, pulled, strict=True):
                        if part is not None:
                            if slot in wide:
                                part = pieces.cast(part, wide[slot])
                            env[slot] = part if env[slot] is None else add(env[slot], part)
        return [env[slot] for slot in self.in_slots]

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        moving = {slot for slot, moves in zip(self.out_slots, cotangents, strict=True) if moves and slot is not None}
        for linear_map, ins, outs in reversed(self.entries):
            arrived = [slot is not None and slot in moving for slot in outs]
            if any(arrived):
                moving.update(slot for slot, moves in zip(ins, linear_map.reached(arrived, len(ins)), strict=True) if moves)
        return [slot in moving for slot in self.in_slots]

    def inner_maps(self) -> Sequence[LinearMap]:
        return [linear_map for linear_map, _, _ in self.entries]

    def tape(self) -> Tape:
        return self

    def singular_parts(self) -> Iterator[LinearMap]:
        for linear_map, _, _ in self.entries:
            yield from linear_map.singular_parts()

    def _located(self, direction: str, k: int, moving: Sequence[Tangent], error: Exception) -> Exception:
        """The error for an invalid value that ``jax_debug_nans`` finds in a push or pull of an entry: operation and user's line."""
        linear_map, source = self.entries[k][0], self.sources[k]
        inner = linear_map.unstaged()
        if inner is not None:
            try:
                getattr(inner, direction)(*moving)
            except INVALID_VALUE as found:
                error = found
        what = "pushed tangents through" if direction == "push" else "pulled cotangents through"
        return errors.invalid_value(what, linear_map.name, line_of(source) if source else "", error)

    def pruned(self) -> Tape:
        """The same map without the entries that no output depends on."""
        needed = {slot for slot in self.out_slots if slot is not None}
        kept: list[Entry] = []
        sources: list[SourceInfo | None] = []
        for entry, source in zip(reversed(self.entries), reversed(self.sources), strict=True):
            _, ins, outs = entry
            if not needed.isdisjoint(outs):
                needed.update(ins)
                kept.append(entry)
                sources.append(source)
        return Tape(kept[::-1], self.n_slots, self.in_slots, self.out_slots, self.wide, sources[::-1])


#: The static part of a tape: the slots of its maps, ``n_slots``, ``in_slots``, ``out_slots`` and ``wide``.
Layout: TypeAlias = tuple[tuple[tuple[tuple[int, ...], tuple[int | None, ...]], ...], int, tuple[int, ...], tuple[int | None, ...],
                          tuple[tuple[int, DType], ...]]


def _flatten_tape(tape: Tape) -> tuple[list[LinearMap], Layout]:
    structure = tuple((ins, outs) for _, ins, outs in tape.entries)
    return [entry[0] for entry in tape.entries], (structure, tape.n_slots, tape.in_slots, tape.out_slots, tape.wide)


def _unflatten_tape(aux: Layout, maps: Sequence[LinearMap]) -> Tape:
    structure, n_slots, in_slots, out_slots, wide = aux
    return Tape([(m, ins, outs) for m, (ins, outs) in zip(maps, structure, strict=True)], n_slots, in_slots, out_slots, wide)


jax.tree_util.register_pytree_node(Tape, _flatten_tape, _unflatten_tape)


class ZeroMap(LinearMap):
    """The map that sends everything to zero."""

    __slots__ = ("n_in", "n_out")

    name = "zero"

    def __init__(self, n_in: int, n_out: int):
        self.n_in, self.n_out = n_in, n_out

    def push(self, *tangents: Tangent) -> Tangents:
        return (None,) * self.n_out

    def pull(self, *cotangents: Tangent) -> Tangents:
        return (None,) * self.n_in

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return [False] * n_in


jax.tree_util.register_pytree_node(ZeroMap, lambda m: ((), (m.n_in, m.n_out)), lambda aux, _: ZeroMap(*aux))
