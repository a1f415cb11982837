"""Arrays that are written entry by entry at known places: what is read of them is what was written, and they are put together once.

``y = y.at[i].set(v)`` in a Python loop makes an array for each entry; a pull takes each of them apart again.  Here an array that is
written so is its first version and the entries written since; a slice of it at the place of an entry is that entry, or a slice of the
first version; and where the array itself is read, all entries are written at once.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from jax import lax

from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev.programs.entries.alike import MANY
from dualrev.programs.entries.known import Known
from dualrev.programs.entries.windows import written
from dualrev.programs.entries.writing import Writer, stacked_aval
from dualrev.programs.partition import Graph

Starts: TypeAlias = tuple[int, ...]

#: Of so many writes, one version of the array may be read as a whole besides the last one.
WRITES_PER_READ = 16


@dataclass
class _Chain:
    """Versions of one array, each of which is the one before with an entry written: a single entry, or a whole row, along each axis."""

    first: Var | Atom
    sizes: Starts
    shape: tuple[int, ...]
    #: The writes, in order, with their places; and for each place the numbers of the writes there.
    eqns: list[JaxprEqn] = field(default_factory=list)
    starts: list[Starts] = field(default_factory=list)
    at: dict[Starts, list[int]] = field(default_factory=dict)
    #: The versions that are read as a whole.
    whole: set[int] = field(default_factory=set)

    @property
    def is_worth_it(self) -> bool:
        return len(self.eqns) >= MANY and (len(self.whole) - 1) * WRITES_PER_READ <= len(self.eqns)

    def latest(self, starts: Starts, version: int) -> int | None:
        """The latest write at a place up to a version."""
        writes = self.at.get(starts, [])
        found = bisect_right(writes, version)
        return writes[found - 1] if found else None


def _write(eqn: JaxprEqn, known: Known) -> tuple[Starts, Starts, Atom] | None:
    """``(starts, sizes, value)`` of an operation that writes one window of an array at a known place, within bounds."""
    if eqn.primitive is lax.dynamic_update_slice_p:
        x, update, *at = eqn.invars
        values = known.all_of(at)
        if values is None:
            return None
        sizes: Starts = update.aval.shape  # type: ignore[attr-defined]
        lengths = x.aval.shape  # type: ignore[attr-defined]
        return tuple([min(max(int(s), 0), n - m) for s, n, m in zip(values, lengths, sizes, strict=True)]), sizes, update
    if eqn.primitive is not lax.scatter_p or eqn.params["update_jaxpr"] is not None:
        return None
    x, indices, update = eqn.invars
    place, numbers = known.of(indices), eqn.params["dimension_numbers"]
    if place is None or place.ndim != 1 or numbers.operand_batching_dims:
        return None
    lengths = x.aval.shape  # type: ignore[attr-defined]
    window = iter(update.aval.shape)  # type: ignore[attr-defined]
    sizes = tuple([1 if d in numbers.inserted_window_dims else next(window) for d in range(len(lengths))])
    starts = [0] * len(lengths)
    for d, start in zip(numbers.scatter_dims_to_operand_dims, place, strict=True):
        starts[d] = int(start)
    inside = all(s >= 0 and s + m <= n for s, m, n in zip(starts, sizes, lengths, strict=True))
    return (tuple(starts), sizes, update) if inside else None


def with_entries_stored(graph: Graph) -> Graph:
    """The program without the versions of arrays that are written entry by entry; the same object where there are none."""
    if sum(eqn.primitive in (lax.scatter_p, lax.dynamic_update_slice_p) for eqn in graph.eqns) < MANY:
        return graph
    known = Known(graph)
    chains, versions = _chains(graph, known)
    if not any(chain.is_worth_it for chain in chains):
        return graph
    versions = {v: (chain, k) for v, (chain, k) in versions.items() if chain.is_worth_it}
    writer = Writer(graph.consts)
    made: set[Var] = set()

    def need(atom: Atom) -> None:
        if not is_literal(atom) and atom in versions and atom not in made:
            made.add(atom)
            _put_together(*versions[atom], atom, writer)

    for eqn in graph.eqns:
        if eqn.outvars and eqn.outvars[0] in versions:
            continue
        if (read := _read(eqn, versions)) is None:
            for atom in eqn.invars:
                need(atom)
            writer.eqns.append(eqn)
            continue
        chain, version, starts = read
        found = chain.latest(starts, version)
        if found is None:
            need(chain.first)
            writer.eqns.append(eqn.replace(invars=[chain.first]))
        else:
            shape = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]
            writer.emit(lambda x, shape=shape: lax.reshape_p.bind(x, new_sizes=shape, dimensions=None, sharding=None),
                        [_value(chain.eqns[found])], eqn, eqn.outvars[0])
    for atom in graph.outvars:
        need(atom)
    return dataclasses.replace(graph, eqns=writer.eqns, consts=writer.consts)


def _value(eqn: JaxprEqn) -> Atom:
    return eqn.invars[1] if eqn.primitive is lax.dynamic_update_slice_p else eqn.invars[2]


def _chains(graph: Graph, known: Known) -> tuple[list[_Chain], dict[Var, tuple[_Chain, int]]]:
    """The arrays that are written entry by entry, and of which version each value is."""
    chains: list[_Chain] = []
    versions: dict[Var, tuple[_Chain, int]] = {}
    for eqn in graph.eqns:
        read = _read(eqn, versions)
        found = None if read is not None else _write(eqn, known)
        if found is not None and found[2].aval.dtype == eqn.outvars[0].aval.dtype:  # type: ignore[attr-defined]
            starts, sizes, value = found
            x = eqn.invars[0]
            shape = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]
            chain, version = versions.get(x, (None, -1)) if not is_literal(x) else (None, -1)
            if chain is not None and (chain.sizes != sizes or version != len(chain.eqns) - 1 or _shape(chain) != value.aval.shape):  # type: ignore[attr-defined]
                chain.whole.add(version)
                chain = None
            if chain is None and all(m == 1 or m == n for m, n in zip(sizes, shape, strict=True)) and sizes != shape:
                chain = _Chain(x, sizes, shape)
                chains.append(chain)
            reads = [value]
            if chain is not None:
                chain.at.setdefault(starts, []).append(len(chain.eqns))
                chain.eqns.append(eqn)
                chain.starts.append(starts)
                versions[eqn.outvars[0]] = chain, len(chain.eqns) - 1
        else:
            reads = [] if read is not None else list(eqn.invars)
        _note(reads, versions)
    _note(graph.outvars, versions)
    return chains, versions


def _shape(chain: _Chain) -> tuple[int, ...]:
    found: tuple[int, ...] = _value(chain.eqns[0]).aval.shape  # type: ignore[attr-defined]
    return found


def _note(atoms: Sequence[Atom], versions: dict[Var, tuple[_Chain, int]]) -> None:
    for atom in atoms:
        if not is_literal(atom) and atom in versions:
            chain, version = versions[atom]
            chain.whole.add(version)


def _read(eqn: JaxprEqn, versions: dict[Var, tuple[_Chain, int]]) -> tuple[_Chain, int, Starts] | None:
    """The version and the place that a slice reads, if it is the place of an entry."""
    if eqn.primitive is not lax.slice_p or is_literal(eqn.invars[0]) or eqn.invars[0] not in versions:
        return None
    chain, version = versions[eqn.invars[0]]
    starts, limits, strides = eqn.params["start_indices"], eqn.params["limit_indices"], eqn.params["strides"]
    sizes = tuple([b - a for a, b in zip(starts, limits, strict=True)])
    return (chain, version, tuple(starts)) if sizes == chain.sizes and (not strides or set(strides) == {1}) else None


def _put_together(chain: _Chain, version: int, out: Var, writer: Writer) -> None:
    """Compute a version as a whole: its entries are stacked and written at once."""
    latest = {starts: k for starts, writes in chain.at.items() if (k := chain.latest(starts, version)) is not None}
    places = sorted(latest)
    like = chain.eqns[version]
    values = [_value(chain.eqns[latest[starts]]) for starts in places]
    stacked = Var(stacked_aval(values[0], len(values)))
    writer.stack(values, stacked, like)
    writer.emit(lambda x, entries: written(x, entries, places, chain.sizes), [chain.first, stacked], like, out)
