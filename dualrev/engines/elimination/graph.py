"""The computational graph of a tape: values as vertices, local Jacobians as edges.

Slices, reshapes and the like between the inputs and what reads them are left out of the graph, as are those between the last results and
the outputs: the Jacobian of what lies between is accumulated, and their linear maps are applied to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
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
                for slot, t in zip(outs, linear_map.push(*moving), strict=True):
                    if slot is not None:
                        env[slot] = t
        return env

    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in in_avals]
    return [None if x is None else ShapedArray(x.shape, x.dtype) for x in jax.eval_shape(values, *shapes)]


def _is_copy(entry: Entry) -> bool:
    """Whether an entry only moves entries of arrays."""
    linear_map = entry[0]
    return isinstance(linear_map, OpMap) and linear_map.site.row.kind == "linear" and linear_map.site.row.cost == "moves"


def graph_of_tape(tape: Tape, in_avals: Sequence[ShapedArray]) -> Linearized:
    """The graph of a tape, all of whose inputs are active."""
    tape = flattened(tape)
    avals = slot_avals(tape, in_avals)

    def size(slots: Sequence[int | None]) -> int:
        return sum(avals[s].size for s in {s for s in slots if s is not None} if avals[s] is not None)  # type: ignore[union-attr]

    # The entries at the head: copies of inputs, or of copies, that do not grow.
    known = set(tape.in_slots)
    head: list[int] = []
    for k, entry in enumerate(tape.entries):
        _, ins, outs = entry
        if _is_copy(entry) and known.issuperset(ins) and size(outs) <= size(ins):
            head.append(k)
            known.update(s for s in outs if s is not None)
    # Those at the tail: copies into outputs, or into such copies, that do not shrink.
    rest = [k for k in range(len(tape.entries)) if k not in set(head)]
    readers: dict[int, set[int]] = {}
    for k in rest:
        for s in tape.entries[k][1]:
            readers.setdefault(s, set()).add(k)
    outputs = {s for s in tape.out_slots if s is not None}
    tail: set[int] = set()
    for k in reversed(rest):
        entry = tape.entries[k]
        last = all(readers.get(s, set()) <= tail for s in entry[2] if s is not None)
        if _is_copy(entry) and last and size(entry[1]) <= size(entry[2]):
            tail.add(k)
    core = [k for k in rest if k not in tail]

    made = {s for k in core for s in tape.entries[k][2] if s is not None}
    read_in_tail = {s for k in tail for s in tape.entries[k][1]}
    made_in_tail = {s for k in tail for s in tape.entries[k][2] if s is not None}
    wanted = [s for s in dict.fromkeys([*sorted(read_in_tail), *[s for s in tape.out_slots if s is not None]]) if s not in made_in_tail]
    needed = {s for k in core for s in tape.entries[k][1]} | set(wanted)
    sources = [s for s in range(tape.n_slots) if s in known and s in needed]

    blocks: dict[tuple[int, int], Block] = {}
    names: dict[int, str] = {}
    pending: dict[tuple[int, int], list[Block]] = {}
    for k in core:
        linear_map, ins, outs = tape.entries[k]
        source_line = tape.sources[k]
        where = f"{linear_map.name} at {line_of(source_line)}" if source_line else linear_map.name
        in_entry = [avals[s] for s in ins]
        out_entry = [None if s is None else avals[s] for s in outs]
        for o, target in enumerate(outs):
            if target is None or avals[target] is None:
                continue
            names[target] = where
            for i, source in enumerate(ins):
                if avals[source] is None:
                    continue
                if not is_complex_linear(linear_map, i, o, avals[source], avals[target]):  # type: ignore[arg-type]
                    raise errors.not_complex_linear(where)
                found = read(linear_map, i, o, in_entry, out_entry)  # type: ignore[arg-type]
                pending.setdefault((source, target), []).append(found)
    n = tape.n_slots
    targets: list[int] = []
    all_avals: list[ShapedArray] = [a if a is not None else ShapedArray((), np.float32) for a in avals]
    for s in wanted:
        if s in known or any(s in tape.entries[k][1] for k in core):  # a vertex that is read further is not an end
            aval = all_avals[s]
            pending[(s, n)] = [Block(identity(aval.shape), (), np.asarray(1, aval.dtype))]
            all_avals.append(aval)
            targets.append(n)
            n += 1
        else:
            targets.append(s)
    for edge, several in pending.items():
        total = several[0]
        for other in several[1:]:
            total = plus(total, other, all_avals[edge[1]].dtype)
        blocks[edge] = total
    middle = tuple([s for s in sorted(made) if s not in targets and any(edge[1] == s for edge in blocks)])
    graph = Graph(middle, tuple([(p, s, block.structure) for (p, s), block in blocks.items()]))
    head_tape = Tape([tape.entries[k] for k in head], tape.n_slots, tape.in_slots, tuple(sources))
    tail_tape = Tape([tape.entries[k] for k in sorted(tail)], tape.n_slots, tuple(wanted), tape.out_slots)
    return Linearized(graph, blocks, all_avals, names, head_tape, tail_tape, sources, targets)

