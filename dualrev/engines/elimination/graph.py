"""The computational graph of a tape: values as vertices, local Jacobians as edges.

Slices, reshapes and the like between the inputs and what reads them are left out of the graph, as are those between the last results
and the outputs: the Jacobian of what lies between is accumulated, and their linear maps are applied to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from dualrev import errors
from dualrev._jax.avals import ShapedArray
from dualrev._jax.source_lines import line_of
from dualrev.engines.elimination.blocks import Block, plus
from dualrev.engines.elimination.reading import is_complex_linear, read
from dualrev.engines.elimination.structure import Structure, identity
from dualrev.linear.maps import Entry, Tape
from dualrev.linear.zeros import Tangent
from dualrev.table.operations import OpMap


class Graph(NamedTuple):
    """What an elimination order depends on: vertices by number, and the structures of edges.  Equal graphs have equal orders."""

    #: The vertices to eliminate, in the order of the program.
    middle: tuple[int, ...]
    edges: tuple[tuple[int, int, Structure], ...]


@dataclass
class Linearized:
    """The graph of a tape with the values of its edges."""

    graph: Graph
    blocks: dict[tuple[int, int], Block]
    avals: list[ShapedArray]
    #: The name of each vertex: its operation and the user's line.
    names: dict[int, str]
    #: From the tape's inputs to the vertices that stand for them, and from the last vertices to the tape's outputs.
    head: Tape
    tail: Tape
    sources: list[int]
    targets: list[int]


def flattened(tape: Tape) -> Tape:
    """The same tape with the entries of tapes on it, such as those of custom rules, in their place."""
    entries: list[Entry] = []
    sources = []
    n = tape.n_slots
    for (linear_map, ins, outs), source in zip(tape.entries, tape.sources, strict=True):
        inner = flattened(linear_map) if type(linear_map) is Tape else None
        direct = None if inner is None else [slot for slot in inner.out_slots if slot is not None]
        if inner is None or direct is None or len(set(direct)) != len(direct) or set(direct) & set(inner.in_slots):
            entries.append((linear_map, ins, outs))
            sources.append(source)
            continue
        renamed = dict(zip(inner.in_slots, ins, strict=True))
        renamed.update((own, out) for own, out in zip(inner.out_slots, outs, strict=True) if own is not None and out is not None)

        def slot_of(own: int, renamed: dict[int, int] = renamed) -> int:
            nonlocal n
            if own not in renamed:
                renamed[own], n = n, n + 1
            return renamed[own]

        for held, inner_ins, inner_outs in inner.entries:
            entries.append((held, tuple(map(slot_of, inner_ins)), tuple([None if s is None else slot_of(s) for s in inner_outs])))
            sources.append(source)
    return Tape(entries, n, tape.in_slots, tape.out_slots, tape.wide, sources)


def slot_avals(tape: Tape, in_avals: Sequence[ShapedArray]) -> list[ShapedArray | None]:
    """The abstract values of all slots' tangents; None for a slot that nothing reaches."""

    def values(*tangents: jax.Array) -> list[Tangent]:
        env: list[Tangent] = [None] * tape.n_slots
        for slot, t in zip(tape.in_slots, tangents, strict=True):
            env[slot] = t
        for linear_map, ins, outs in tape.entries:
            moving = [env[slot] for slot in ins]
            if any(t is not None for t in moving):
                for out, moved in zip(outs, linear_map.push(*moving), strict=True):
                    if out is not None:
                        env[out] = moved
        return env

    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in in_avals]
    return [None if x is None else ShapedArray(x.shape, x.dtype) for x in jax.eval_shape(values, *shapes)]


def _is_copy(entry: Entry) -> bool:
    """Whether an entry only moves entries of arrays."""
    linear_map = entry[0]
    return isinstance(linear_map, OpMap) and linear_map.site.row.kind == "linear" and linear_map.site.row.cost == "moves"


def _head(tape: Tape, avals: Sequence[ShapedArray | None]) -> list[int]:
    """The entries at the head: copies of inputs, or of such copies, that do not grow."""
    known = set(tape.in_slots)
    found: list[int] = []
    for k, entry in enumerate(tape.entries):
        _, ins, outs = entry
        if _is_copy(entry) and known.issuperset(ins) and _size(outs, avals) <= _size(ins, avals):
            found.append(k)
            known.update(s for s in outs if s is not None)
    return found


def _tail(tape: Tape, rest: Sequence[int], avals: Sequence[ShapedArray | None]) -> set[int]:
    """The entries at the tail: copies that only outputs and such copies read, and that do not shrink."""
    readers: dict[int, set[int]] = {}
    for k in rest:
        for s in tape.entries[k][1]:
            readers.setdefault(s, set()).add(k)
    found: set[int] = set()
    for k in reversed(rest):
        entry = tape.entries[k]
        _, ins, outs = entry
        is_last = all(readers.get(s, set()) <= found for s in outs if s is not None)
        if _is_copy(entry) and is_last and _size(ins, avals) <= _size(outs, avals):
            found.add(k)
    return found


def _size(slots: Sequence[int | None], avals: Sequence[ShapedArray | None]) -> int:
    return sum(avals[s].size for s in {s for s in slots if s is not None} if avals[s] is not None)  # type: ignore[union-attr]


def _edges(tape: Tape, core: Sequence[int], avals: Sequence[ShapedArray | None]) -> tuple[dict[tuple[int, int], Block], dict[int, str]]:
    """The blocks of these entries, and the name of each vertex."""
    blocks: dict[tuple[int, int], Block] = {}
    names: dict[int, str] = {}
    for k in core:
        linear_map, ins, outs = tape.entries[k]
        in_avals, out_avals = [avals[s] for s in ins], [None if s is None else avals[s] for s in outs]
        for o, (target, target_aval) in enumerate(zip(outs, out_avals, strict=True)):
            if target is None or target_aval is None:
                continue
            names[target] = _name(tape, k)
            for i, source in enumerate(ins):
                found = None if in_avals[i] is None else read(linear_map, i, o, in_avals, out_avals)  # type: ignore[arg-type]
                if found is not None:
                    old = blocks.get((source, target))
                    blocks[source, target] = found if old is None else plus(old, found, target_aval.dtype)
    return blocks, names


def _name(tape: Tape, k: int) -> str:
    name, source = tape.entries[k][0].name, tape.sources[k]
    where = line_of(source) if source else ""  # nothing of the user's stands behind what a test or a library built
    return f"{name} at {where}" if where else name


def _check_complex(tape: Tape, avals: Sequence[ShapedArray | None]) -> None:
    """Local Jacobians of complex values are complex matrices: raise where one may not be."""
    for k, (linear_map, ins, outs) in enumerate(tape.entries):
        for o, target in enumerate(outs):
            for i, source in enumerate(ins):
                x, y = avals[source], None if target is None else avals[target]
                if x is not None and y is not None and not is_complex_linear(linear_map, i, o, x, y):
                    raise errors.not_complex_linear(_name(tape, k))


def graph_of_tape(tape: Tape, in_avals: Sequence[ShapedArray]) -> Linearized:
    """The graph of a tape, all of whose inputs are active."""
    tape = flattened(tape)
    avals = slot_avals(tape, in_avals)
    _check_complex(tape, avals)
    head = _head(tape, avals)
    rest = [k for k in range(len(tape.entries)) if k not in set(head)]
    tail = _tail(tape, rest, avals)
    core = [k for k in rest if k not in tail]

    def read_by(entries: Iterable[int]) -> set[int]:
        return {s for k in entries for s in tape.entries[k][1]}

    def made_by(entries: Iterable[int]) -> set[int]:
        return {s for k in entries for s in tape.entries[k][2] if s is not None}

    outputs = [s for s in tape.out_slots if s is not None]
    last = [s for s in dict.fromkeys([*sorted(read_by(tail)), *outputs]) if s not in made_by(tail)]
    first = sorted({*tape.in_slots, *made_by(head)} & {*read_by(core), *last})
    blocks, names = _edges(tape, core, avals)
    # A slot that nothing reaches has no edges, and its type does not matter.
    all_avals = [ShapedArray((), np.float32) if a is None else a for a in avals]
    targets: list[int] = []
    read_further = {*first, *read_by(core)}
    for s in last:
        if s not in read_further:
            targets.append(s)
            continue
        # A value that is read further is no end of the graph: the end is a copy of it.
        aval = all_avals[s]
        blocks[s, len(all_avals)] = Block(identity(aval.shape), (), np.asarray(1, aval.dtype))
        targets.append(len(all_avals))
        all_avals.append(aval)
    reached = {v for edge in blocks for v in edge}
    middle = tuple([s for s in sorted(made_by(core) & reached) if s not in targets])
    graph = Graph(middle, tuple([(p, s, block.structure) for (p, s), block in blocks.items()]))
    head_tape = Tape([tape.entries[k] for k in head], tape.n_slots, tape.in_slots, tuple(first))
    tail_tape = Tape([tape.entries[k] for k in sorted(tail)], tape.n_slots, tuple(last), tape.out_slots)
    return Linearized(graph, blocks, all_avals, names, head_tape, tail_tape, first, targets)
