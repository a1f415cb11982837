"""Arrays that a loop reads or writes entry by entry at known places: read as slices, and written as stacked results.

    def step(i, out):                    def step(_, x_i):
        return out.at[i].set(f(x[i]))        return None, f(x_i)

Both compute the same, but the pull of the first carries the cotangent of the whole of ``out``, reads an entry of it and sets the entry
to zero: compilers copy the array in every step, so that the gradient of n steps takes O(n²).  In the second each cotangent is a slice.

An array is read so if it is a constant.  A carry is written so if no place is written twice, and all that the steps read of it are
places that are not written before, or that were written a few steps ago: such a slice is carried.  Places must be known
(:mod:`dualrev.calls.loops.known_indices`), within bounds, and next to each other along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax

from dualrev._jax.jaxprs import Atom, ClosedJaxpr, Var, jaxpr_as_fun, stage
from dualrev.calls.loops.known_indices import counter, known_values
from dualrev.calls.loops.windows import READS, WRITES, Places, Windows, aval_of, written_by
from dualrev.options.settings import Active
from dualrev.programs.partition import Graph, graph_of

#: The most steps that lie between writing a slice and reading it again.
MOST_RECENT = 4


@dataclass(frozen=True)
class Read:
    """A slice that a step takes: of a constant, or of the array that a carry begins with."""

    position: int
    is_carry: bool
    places: Places
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """A carry that is written slice by slice, each place once, and whose latest slices are carried for steps that read them again.

    Attributes:
      position: which carry it is.
      places: of each write in a step.
      shape: of what a step writes; with ``recent`` there is one write.
      recent: the places that the first steps read of the array before the loop: the slice of ``k`` steps ago at first.
    """

    position: int
    places: tuple[Places, ...]
    shape: tuple[int, ...]
    recent: tuple[tuple[int, ...], ...]

    def first(self, x: jax.Array) -> list[jax.Array]:
        """What the first step reads as the slices of one step ago, two steps ago, ..."""
        sizes = [1 if i == self.places[0].axis else n for i, n in enumerate(self.places[0].shape)]
        return [lax.reshape(lax.slice(x, at, [i + n for i, n in zip(at, sizes, strict=True)]), self.shape) for at in self.recent]


@dataclass(frozen=True)
class Rewritten:
    """A scan whose entries are slices.

    Attributes:
      body: the new body.  Its carries are those in ``kept``, then the recent slices of each written carry; its slices are the old ones,
        then ``reads``; its results are the carries, the old results, then what each write writes.
      kept: the positions of the carries that are not written.
    """

    body: ClosedJaxpr
    reads: tuple[Read, ...]
    writes: tuple[Written, ...]
    kept: tuple[int, ...]

    @property
    def n_carry(self) -> int:
        return len(self.kept) + sum(len(w.recent) for w in self.writes)

    def start(self, init: Sequence[jax.Array]) -> list[jax.Array]:
        """The new initial carries."""
        return [*(init[i] for i in self.kept), *(x for w in self.writes for x in w.first(init[w.position]))]

    def slices(self, consts: Sequence[jax.Array], init: Sequence[jax.Array]) -> list[jax.Array]:
        """The stacks of the new slices."""
        return [r.places.read((init if r.is_carry else consts)[r.position], r.shape) for r in self.reads]

    def carries(self, init: Sequence[jax.Array], kept: Sequence[jax.Array], stacks: Sequence[jax.Array]) -> list[jax.Array]:
        """All final carries, from those that are kept and from what was written."""
        found = dict(zip(self.kept, kept, strict=False))
        given = iter(stacks)
        for w in self.writes:
            x = init[w.position]
            for places in w.places:
                x = places.write(x, next(given))
            found[w.position] = x
        return [found[i] for i in range(len(init))]


def by_counter(jaxpr: ClosedJaxpr, layout: tuple[int, int], active: Sequence[Active], start: dict[int, np.ndarray], length: int,
               is_reversed: bool) -> Rewritten | None:
    """The scan with slices in place of entries, or None where it has no such entries.

    ``layout``: numbers of constants and carries.  ``start``: the known integers among the initial carries, by position.
    """
    graph = graph_of(jaxpr, checkpoints=False)
    if not any(eqn.primitive in READS or eqn.primitive in WRITES for eqn in graph.eqns):
        return None
    n_consts, n_carry = layout
    consts, carries = graph.invars[:n_consts], graph.invars[n_consts: n_consts + n_carry]
    made_by = {v: eqn for eqn in graph.eqns for v in eqn.outvars}
    counters: dict[Var, np.ndarray] = {}
    for i, value in start.items():
        found = counter(carries[i], graph.outvars[i], made_by, value, length)
        if found is not None:
            counters[carries[i]] = found[::-1] if is_reversed else found
    windows = Windows(known_values(graph.eqns, counters, length), length)
    reads: dict[int, Read] = {}
    for k, eqn in enumerate(graph.eqns):
        if eqn.primitive in READS and eqn.invars[0] in consts:
            i = consts.index(eqn.invars[0])
            places = windows.of(eqn) if active[i] else None
            if places is not None:
                reads[k] = Read(i, False, places, aval_of(eqn.outvars[0]).shape)
    carried: list[_Carry] = []
    for i, carry in enumerate(carries):
        one = _carry(graph, i, carry, graph.outvars[i], windows, is_reversed)
        if one is not None:
            carried.append(one)
            reads |= one.reads
    if not reads and not carried:
        return None
    kept = tuple([i for i in range(n_carry) if i not in {one.written.position for one in carried}])
    body = _body(graph, list(reads), carried, kept, layout)
    return Rewritten(body, tuple(reads.values()), tuple([one.written for one in carried]), kept)


@dataclass(frozen=True)
class _Carry:
    """A carry that can be written slice by slice.

    ``chain``: the positions of its writes.  ``reads``: the reads of what it begins with.  ``recent``: the reads of slices that were
    written some steps ago, and how many steps.
    """

    written: Written
    chain: list[int]
    reads: dict[int, Read]
    recent: dict[int, int]


def _carry(graph: Graph, i: int, carry: Var, after: Atom, windows: Windows, is_reversed: bool) -> _Carry | None:
    chain: list[int] = []
    readers: list[tuple[int, bool]] = []
    value: Atom = carry
    while value is not after:
        using = [k for k, eqn in enumerate(graph.eqns) if value in eqn.invars]
        writes = [k for k in using if graph.eqns[k].primitive in WRITES and graph.eqns[k].invars[0] is value]
        if len(writes) != 1 or value in graph.outvars:
            return None
        readers += [(k, bool(chain)) for k in using if k != writes[0]]
        if value in graph.eqns[writes[0]].invars[1:]:
            return None
        chain.append(writes[0])
        value = graph.eqns[writes[0]].outvars[0]
    if not chain or sum(out is after for out in graph.outvars) != 1 or any(after in eqn.invars for eqn in graph.eqns):
        return None
    boxes = [windows.of(graph.eqns[k]) for k in chain]
    places = tuple([p for p in boxes if p is not None])
    if len(places) != len(chain) or any(a.meets(b) for n, a in enumerate(places) for b in places[:n]):
        return None
    if readers and len(chain) > 1:
        return None
    update = written_by(graph.eqns[chain[0]])
    reads: dict[int, Read] = {}
    recent: dict[int, int] = {}
    for k, _ in readers:
        eqn = graph.eqns[k]
        box = windows.of(eqn) if eqn.primitive in READS and eqn.invars[0] is carry and carry not in eqn.invars[1:] else None
        ago = None if box is None else _steps_ago(places[0], box, is_reversed)
        if box is None or ago is None or ago > MOST_RECENT:
            return None
        if ago > 0:
            recent[k] = ago
        else:
            reads[k] = Read(i, True, box, aval_of(eqn.outvars[0]).shape)
    # Before the first write of a place, steps read what the array holds before the loop.
    by = -1 if places[0].is_reversed != is_reversed else 1
    first = list(places[0].start)
    if by == -1:
        first[places[0].axis] += places[0].shape[places[0].axis] - 1
    before = []
    for ago in range(1, max(recent.values(), default=0) + 1):
        at = list(first)
        at[places[0].axis] -= by * ago
        before.append(tuple(at))
    if any(not 0 <= at[places[0].axis] < aval_of(carry).shape[places[0].axis] for at in before):
        return None
    return _Carry(Written(i, places, aval_of(update).shape, tuple(before)), chain, reads, recent)


def _steps_ago(write: Places, read: Places, is_reversed: bool) -> int | None:
    """How many steps before a read its place was written: zero and less if it was not; None where the slices are not the same."""
    if read.axis != write.axis or read.shape != write.shape or read.is_reversed != write.is_reversed:
        return None
    apart = [w - r for w, r in zip(write.start, read.start, strict=True)]
    ago = apart.pop(write.axis)
    if any(apart):
        return None
    return -ago if write.is_reversed != is_reversed else ago


def _body(graph: Graph, reads: Sequence[int], carried: Sequence[_Carry], kept: Sequence[int], layout: tuple[int, int]) -> ClosedJaxpr:
    """The new body: what was read is given to it, what was written is among its results."""
    n_consts, n_carry = layout
    recent = [(k, n, ago) for n, one in enumerate(carried) for k, ago in one.recent.items()]
    gone = {*reads, *(k for one in carried for k in one.chain), *(k for k, _, _ in recent)}
    updates = [written_by(graph.eqns[k]) for one in carried for k in one.chain]
    consts, carries, xs = graph.invars[:n_consts], graph.invars[n_consts: n_consts + n_carry], graph.invars[n_consts + n_carry:]
    given = [graph.eqns[k].outvars[0] for k in (*reads, *(k for k, _, _ in recent))]
    outs = [*(graph.outvars[i] for i in kept), *graph.outvars[n_carry:], *updates]
    core = graph.program([eqn for k, eqn in enumerate(graph.eqns) if k not in gone],
                         [*consts, *(carries[i] for i in kept), *xs, *given], outs)
    if not recent:
        return core
    run = jaxpr_as_fun(core)
    lengths = [len(one.written.recent) for one in carried]
    n_kept, n_recent, n_ys = len(kept), sum(lengths), len(graph.outvars) - n_carry
    starts = [sum(len(one.chain) for one in carried[:n]) for n in range(len(carried))]  # of their updates

    def body(*args: jax.Array) -> list[jax.Array]:
        old, latest, rest = args[: n_consts + n_kept], list(args[n_consts + n_kept:][:n_recent]), args[n_consts + n_kept + n_recent:]
        registers = [latest[sum(lengths[:n]): sum(lengths[: n + 1])] for n in range(len(lengths))]
        again = [lax.reshape(registers[n][ago - 1], aval_of(graph.eqns[k].outvars[0]).shape) for k, n, ago in recent]
        found = run(*old, *rest, *again)
        written = found[n_kept + n_ys:]
        shifted = [x for n, register in enumerate(registers) if register for x in (written[starts[n]], *register[:-1])]
        return [*found[:n_kept], *shifted, *found[n_kept:]]

    avals = [aval_of(v) for v in (*consts, *(carries[i] for i in kept))]
    avals += [aval_of(updates[starts[n]]) for n, one in enumerate(carried) for _ in one.written.recent]
    staged = stage(body, [*avals, *(aval_of(v) for v in (*xs, *given[: len(reads)]))])
    info = graph.debug_info._replace(arg_names=None, result_paths=None)
    return ClosedJaxpr(staged.jaxpr.replace(debug_info=info), list(staged.consts))
