"""A program in which operations that are alike are one operation on arrays.

The entries that ``sin(x[1]) * x[0] + sin(x[2]) * x[1] + ...`` takes become slices of ``x``, the sines one sine, the products one
product, and the sum a reduction.  What a derivative makes of the program, and what a compiler makes of that, no longer grows with the
number of entries.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeAlias

import jax
import numpy as np
from jax import lax

from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev._jax.primitives import primitive
from dualrev.programs.entries.alike import MANY, Alike, Allowed, Classes, constant
from dualrev.programs.entries.known import with_known_places
from dualrev.programs.entries.stored import with_entries_stored
from dualrev.programs.entries.windows import of_windows, rows, side_by_side
from dualrev.programs.entries.writing import Writer
from dualrev.programs.partition import Graph

#: A program with fewer operations than this stays as it is.
LEAST = 128

#: A program is replaced if the other one has at most this part of its operations.
WORTH = 0.7

#: Rows of so many arrays in turn are taken from their concatenation.
FEW = 4

#: Operations of the sums that are reordered: in a narrower type each step rounds, and a user may count on it.
_SIGNS = {lax.add_p: (1, 1), primitive("add_any"): (1, 1), lax.sub_p: (1, -1)}
_JOINS = frozenset((lax.concatenate_p, primitive("stack")))

#: Rows of the array of a class.
Rows: TypeAlias = tuple[Alike, list[int]]


def computed_together(graph: Graph, allowed: Allowed) -> Graph:
    """The program with operations that are alike computed together, where it has many of them; else the same object.

    ``allowed(eqn)``: whether operations such as this one may be.  Sums of many terms are added up in another order.
    """
    if len(graph.eqns) < LEAST:
        return graph
    prepared = with_entries_stored(with_known_places(graph))
    classes = Classes(prepared, allowed)
    if not classes.chosen:
        return graph
    found = _Rewriting(prepared, classes).run()
    return found if len(found.eqns) <= WORTH * len(graph.eqns) else graph


class _Rewriting:
    def __init__(self, graph: Graph, classes: Classes):
        self.graph = graph
        self.classes = classes
        self.writer = Writer(graph.consts)
        #: The array of each class that has been computed.
        self.arrays: dict[int, Var] = {}
        #: Results of classes that something else reads, and concatenations of them, which are taken from the array when they are read.
        self.written: set[Var] = set()
        self.joins: dict[Var, tuple[Rows, JaxprEqn]] = {}
        self.taking: dict[int, list[JaxprEqn]] = {}
        self.uses = Counter(atom for eqn in graph.eqns for atom in eqn.invars if not is_literal(atom))
        self.uses.update(atom for atom in graph.outvars if not is_literal(atom))
        self.sums = self._sums()

    def run(self) -> Graph:
        for eqn in self.graph.eqns:
            (out, *_) = eqn.outvars or (None,)
            if out is not None and self.classes.of(out) is not None:
                continue
            if out is not None and out in self.sums:
                self._sum(eqn)
            elif eqn.primitive in _JOINS:
                self._join(eqn)
            else:
                self._keep(eqn)
        for atom in self.graph.outvars:
            self._write(atom)
        return dataclasses.replace(self.graph, eqns=self.writer.eqns, consts=self.writer.consts)

    # ------------------------------------------------------------------------------------------------- values that are read

    def _keep(self, eqn: JaxprEqn) -> None:
        for atom in eqn.invars:
            self._write(atom)
        self.writer.eqns.append(eqn)

    def _write(self, atom: Atom) -> None:
        """Compute a value that something reads as it is, if it is a row of an array."""
        if is_literal(atom) or atom in self.written:
            return
        if atom in self.joins:
            (alike, at), eqn = self.joins[atom]
            self.writer.emit(lambda x: side_by_side(rows(x, at), _axis(eqn), eqn.primitive is not lax.concatenate_p),
                       [self._array(alike)], eqn, atom)
        elif (alike_ := self.classes.of(atom)) is not None:
            self._take(alike_, self.classes.rows[atom], atom)
        else:
            return
        self.written.add(atom)

    def _take(self, alike: Alike, row: int, out: Var) -> None:
        array = self._array(alike)
        if alike.number not in self.taking:  # as many equations as there are rows: made from those of the first one
            start = len(self.writer.eqns)
            self.writer.emit(lambda x: lax.index_in_dim(x, 0, keepdims=False), [array], alike.eqns[0], None)
            self.taking[alike.number] = self.writer.eqns[start:]
            del self.writer.eqns[start:]
        self.writer.take(self.taking[alike.number], array, row, out)

    # ---------------------------------------------------------------------------------------------------------- the arrays

    def _array(self, alike: Alike) -> Var:
        pending, needed = [alike], {}
        while pending:
            found = pending.pop()
            if found.number in self.arrays or found.number in needed:
                continue
            needed[found.number] = found
            for k in range(len(found.eqns[0].invars)):
                atoms = found.operands(k)
                read = [atoms[0]] if all(atom is atoms[0] for atom in atoms) else atoms
                pending.extend(other for atom in read[:1] if (other := self.classes.of(atom)) is not None)
        for number in sorted(needed):
            self.arrays[number] = self._compute(needed[number])
        return self.arrays[alike.number]

    def _compute(self, alike: Alike) -> Var:
        first = alike.eqns[0]
        if alike.is_slice:
            self._write(first.invars[0])
            starts = [tuple(eqn.params["start_indices"]) for eqn in alike.eqns]
            sizes = tuple([b - a for a, b in zip(first.params["start_indices"], first.params["limit_indices"], strict=True)])
            return self.writer.emit(lambda x: of_windows(x, starts, sizes), [first.invars[0]], first, None)
        operands: list[Var] = []
        reads: list[Callable[[Sequence[jax.Array]], jax.Array | np.ndarray]] = []
        batched: list[int | None] = []
        for k in range(len(first.invars)):
            read, axis = self._operand(alike.operands(k), operands)
            reads.append(read)
            batched.append(axis)

        def together(*values: jax.Array) -> jax.Array:
            args = [read(values) for read in reads]
            if all(axis is None for axis in batched):  # equal operations
                return lax.broadcast(first.primitive.bind(*args, **first.params), (len(alike.eqns),))
            found: jax.Array = jax.vmap(lambda *args: first.primitive.bind(*args, **first.params), tuple(batched))(*args)
            return found

        return self.writer.emit(together, operands, first, None)

    def _operand(self, atoms: list[Atom], operands: list[Var]) -> tuple[Callable[..., jax.Array | np.ndarray], int | None]:
        """How an operand of a class is read from values of ``operands``, to which it is added, and its axis of members."""

        def reading(v: Var) -> int:
            if v not in operands:
                operands.append(v)
            return operands.index(v)

        values = [constant(atom, self.classes.consts) for atom in atoms]
        if all(x is not None for x in values):
            stacked = np.stack(values)  # type: ignore[arg-type]  # none is None
            if all(x.tobytes() == values[0].tobytes() for x in values):  # type: ignore[union-attr]
                return (lambda _: stacked[0]), None
            return (lambda _: stacked), 0
        if all(atom is atoms[0] for atom in atoms):
            self._write(atoms[0])
            place = reading(atoms[0])  # type: ignore[arg-type]  # no number
            return (lambda given: given[place]), None
        alike = self.classes.of(atoms[0])
        assert alike is not None
        at = [self.classes.rows[atom] for atom in atoms]  # type: ignore[index]  # each is a result
        place = reading(self.arrays[alike.number])
        return (lambda given: rows(given[place], at)), 0

    # ------------------------------------------------------------------------------------------------- joins of the results

    def _rows_of(self, atom: Atom, axis: int) -> Rows | None:
        if not is_literal(atom) and atom in self.joins:
            found, eqn = self.joins[atom]
            return found if eqn.primitive is lax.concatenate_p and _axis(eqn) == axis else None
        alike = self.classes.of(atom)
        return None if alike is None else (alike, [self.classes.rows[atom]])  # type: ignore[index]  # it is a result

    def _join(self, eqn: JaxprEqn) -> None:
        """A concatenation or a stack: neighbours that are rows of one array are taken at once."""
        stacks = eqn.primitive is not lax.concatenate_p
        runs: list[tuple[Rows | None, list[Atom]]] = []
        for atom in eqn.invars:
            found = None if stacks and atom in self.joins else self._rows_of(atom, _axis(eqn))
            if found is not None and runs and (last := runs[-1][0]) is not None and last[0] is found[0]:
                last[1].extend(found[1])
                runs[-1][1].append(atom)
            else:
                runs.append((None if found is None else (found[0], list(found[1])), [atom]))
        if len(runs) == 1 and runs[0][0] is not None:
            self.joins[eqn.outvars[0]] = runs[0][0], eqn
        elif (len(eqn.invars) >= MANY and len(runs) > FEW >= len({run[0].number for run, _ in runs if run})
              and all(run is not None for run, _ in runs)):
            self._interleave(eqn, [run for run, _ in runs if run is not None])
        elif stacks or len(runs) == len(eqn.invars):
            self._keep(eqn)
        else:
            operands: list[Atom] = []
            for run, atoms in runs:
                if run is None or len(atoms) == 1:
                    self._write(atoms[0])
                    operands.append(atoms[0])
                else:
                    alike, at = run
                    operands.append(self.writer.emit(lambda x, at=at: side_by_side(rows(x, at), _axis(eqn), False),
                                                     [self._array(alike)], eqn, None))
            self.writer.eqns.append(eqn.replace(invars=operands))

    def _interleave(self, eqn: JaxprEqn, runs: Sequence[Rows]) -> None:
        """Rows of a few arrays in turn: the arrays are concatenated, and the rows taken in their order."""
        alikes = {alike.number: alike for alike, _ in runs}
        arrays = [self._array(alike) for alike in alikes.values()]
        offsets = dict(zip(alikes, accumulate((len(alike.eqns) for alike in alikes.values()), initial=0), strict=False))
        at = [offsets[alike.number] + row for alike, places in runs for row in places]
        self.writer.emit(lambda *xs: side_by_side(rows(lax.concatenate(xs, 0), at), _axis(eqn), eqn.primitive is not lax.concatenate_p),
                         arrays, eqn, eqn.outvars[0])

    # ---------------------------------------------------------------------------------------------------------------- sums

    def _sums(self) -> dict[Var, list[tuple[Atom, int]]]:
        """The terms, with their signs, of each sum with many terms that are rows of an array; none for a part of such a sum."""
        adds = {eqn.outvars[0]: eqn for eqn in self.graph.eqns
                if eqn.primitive in _SIGNS and _is_wide(eqn) and self.classes.of(eqn.outvars[0]) is None}
        parts = {atom for eqn in adds.values() for atom in eqn.invars if not is_literal(atom) and atom in adds and self.uses[atom] == 1}
        found: dict[Var, list[tuple[Atom, int]]] = {}
        for root in adds:
            if root in parts:
                continue
            terms: list[tuple[Atom, int]] = []
            inner: list[Var] = []
            pending: list[tuple[Atom, int]] = [(root, 1)]
            while pending:
                atom, sign = pending.pop()
                if not is_literal(atom) and atom in adds and (atom is root or atom in parts):
                    inner.append(atom)
                    left, right = _SIGNS[adds[atom].primitive]
                    pending += [(adds[atom].invars[1], sign * right), (adds[atom].invars[0], sign * left)]
                else:
                    terms.append((atom, sign))
            counts = Counter(alike.number for atom, _ in terms if (alike := self.classes.of(atom)) is not None)
            if counts and max(counts.values()) >= MANY:
                found.update((v, []) for v in inner)
                found[root] = terms
        return found

    def _sum(self, eqn: JaxprEqn) -> None:
        (out,) = eqn.outvars
        terms = self.sums[out]
        if not terms:
            return  # a part of a sum
        several: dict[tuple[int, int], list[int]] = {}
        for atom, sign in terms:
            alike = self.classes.of(atom)
            if alike is not None:
                several.setdefault((alike.number, sign), []).append(self.classes.rows[atom])  # type: ignore[index]
        operands: dict[Var, None] = {}
        parts: list[tuple[Var, int, list[int] | None]] = []
        for (number, sign), at in several.items():
            array = self._array(self.classes.numbered(number))
            operands[array] = None
            parts.append((array, sign, at))
        numbers = []
        for atom, sign in terms:
            if is_literal(atom):
                numbers.append(sign * np.asarray(atom.val, atom.aval.dtype))  # type: ignore[attr-defined]
            elif self.classes.of(atom) is None:
                self._write(atom)
                operands[atom] = None
                parts.append((atom, sign, None))
        given = list(operands)

        def total(*values: jax.Array) -> jax.Array:
            env = dict(zip(given, values, strict=True))
            found: jax.Array | None = None
            for v, sign, at in parts:
                term = env[v] if at is None else lax.reduce_sum(rows(env[v], at), (0,))
                if found is None:
                    found = term if sign > 0 else lax.neg(term)
                else:
                    found = lax.add(found, term) if sign > 0 else lax.sub(found, term)
            assert found is not None
            number = np.sum(numbers, axis=0, dtype=found.dtype) if numbers else np.zeros((), found.dtype)
            return lax.add(found, np.asarray(number)) if np.any(number) else found

        self.writer.emit(total, given, eqn, out)


def _axis(eqn: JaxprEqn) -> int:
    axis: int = eqn.params["dimension"] if eqn.primitive is lax.concatenate_p else eqn.params["axis"]
    return axis


def _is_wide(eqn: JaxprEqn) -> bool:
    """Whether a sum may be added up in another order: each step rounds a narrow type, and a weak type would not stay one."""
    aval = eqn.outvars[0].aval
    dtype = aval.dtype  # type: ignore[attr-defined]  # sums are of arrays
    return not aval.weak_type and np.issubdtype(dtype, np.number) and dtype.itemsize >= 4  # type: ignore[attr-defined]
