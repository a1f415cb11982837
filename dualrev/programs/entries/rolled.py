"""A block of operations that is repeated in a chain, as a loop: what a recurrence written in Python becomes.

``for i in range(n): s = tanh(0.5 * s + x[i])`` is a program of ``n`` equal blocks.  Each reads results of the blocks before it, values
that are the same for all blocks, constants, and one more part of an array.  Such blocks become the steps of one ``scan``, which runs
the same operations on the same values in the same order; what is compiled no longer grows with ``n``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import lax

from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev._jax.traces import Tracer
from dualrev.programs.common_subexpressions import frozen
from dualrev.programs.entries.alike import Allowed, constant, is_small, may_be_alike
from dualrev.programs.entries.known import with_known_places
from dualrev.programs.entries.windows import of_windows
from dualrev.programs.entries.writing import Writer
from dualrev.programs.partition import Graph

#: The fewest repetitions of a block that become a loop: fewer compile quickly, and run faster one after the other.
REPEATED = 64
#: The largest number of operations in a block.
LONGEST = 512
#: How many blocks before its own a block may read.
FURTHEST = 4
#: How many repetitions that turn out to be no chain are looked at in a program.
MISFITS = 40
#: The results that are read outside of the loop are taken from a stack, two operations each; at most this part of the operations.
TAKEN = 0.5

#: The number of an operation in its block, and how many blocks before the one that reads its result.
Before: TypeAlias = tuple[int, int]
#: The values of the small constants of a program.
Consts: TypeAlias = dict[Var, np.ndarray[Any, Any]]


def rolled(graph: Graph, allowed: Allowed) -> Graph:
    """The program with chains of equal blocks as loops; the same object where there are none.

    ``allowed(eqn)``: whether an operation such as this one may be in a loop.
    """
    if len(graph.eqns) < 2 * REPEATED:
        return graph
    prepared = with_known_places(graph)
    chains = list(_chains(prepared, allowed))
    if not chains:
        return graph
    writer = Writer(prepared.consts)
    end = 0
    for chain in sorted(chains, key=lambda chain: chain.start):
        writer.eqns += prepared.eqns[end: chain.start]
        chain.write(writer)
        end = chain.start + chain.n * chain.period
    writer.eqns += prepared.eqns[end:]
    return dataclasses.replace(prepared, eqns=writer.eqns, consts=writer.consts)


def _chains(graph: Graph, allowed: Allowed) -> Iterator[_Chain]:
    """Chains that do not overlap, those of short blocks first."""
    eqns = graph.eqns
    kinds: dict[Hashable, int] = {}
    # Operations that may be in no loop are alike to no other.
    numbers = np.asarray([kinds.setdefault((eqn.primitive, eqn.outvars[0].aval), len(kinds))
                          if may_be_alike(eqn) and allowed(eqn) else -1 - i for i, eqn in enumerate(eqns)])
    readers = _readers(graph)
    consts = {v: np.asarray(x) for v, x in graph.consts.items() if not isinstance(x, Tracer) and is_small(v)}
    misfits = 0
    for period in range(1, min(LONGEST, len(eqns) // REPEATED) + 1):
        for start, stop in _runs(numbers, period):
            if misfits > MISFITS:
                return
            for offset in range(FURTHEST + 1):  # the first blocks may read what is before the chain in a way of their own
                first = start + offset * period
                n = (stop - first) // period
                chain = _Chain.found(graph, consts, first, period, n, readers) if n >= REPEATED else None
                misfits += chain is None
                if chain is not None:
                    yield chain
                    end = first + chain.n * period
                    numbers[first: end] = -1 - np.arange(first, end)
                    break


def _runs(numbers: np.ndarray[Any, Any], period: int) -> list[tuple[int, int]]:
    """Where a program repeats itself with a period often enough, as (first operation, behind the last one)."""
    same = np.concatenate([[False], numbers[:-period] == numbers[period:], [False]])
    edges = np.flatnonzero(same[1:] != same[:-1])
    return [(int(a), int(b) + period) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= (REPEATED - 1) * period]


def _readers(graph: Graph) -> dict[Var, int]:
    """The last operation that reads each value; the results of the program are read behind all operations."""
    found = {atom: i for i, eqn in enumerate(graph.eqns) for atom in eqn.invars if not is_literal(atom)}
    found.update((atom, len(graph.eqns)) for atom in graph.outvars if not is_literal(atom))
    return found


class _Misfit(Exception):  # noqa: N818  (a signal)
    """A block reads its operands in another way than the others."""


class _Chain:
    """``n`` equal blocks of ``period`` operations, from the one at ``start`` on."""

    def __init__(self, graph: Graph, consts: Consts, start: int, period: int, n: int):
        self.graph, self.start, self.period, self.n = graph, start, period, n
        self.place = {v: i for i, eqn in enumerate(graph.eqns[start: start + n * period]) for v in eqn.outvars}
        self.consts = consts
        #: The operations of a block, of which the one in the middle is the pattern, and what they read.
        self.pattern = min(FURTHEST + 1, n - 1)
        self.block = self.eqns_of(self.pattern)
        self.reads: list[list[Before | Atom | None]] = [[self._read(atom) for atom in eqn.invars] for eqn in self.block]
        #: Operations that take parts of an array which is the same for all blocks.
        self.windows = {j for j, eqn in enumerate(self.block)
                        if eqn.primitive is lax.slice_p and isinstance(self.reads[j][0], Var)}
        #: What the first blocks read in place of results of blocks before them.
        self.initial: dict[Before, Atom] = {}

    @staticmethod
    def found(graph: Graph, consts: Consts, start: int, period: int, n: int, readers: dict[Var, int]) -> _Chain | None:
        """The chain that starts here, with as many blocks as fit; None where that are too few, or nothing is gained."""
        try:
            chain = _Chain(graph, consts, start, period, n)
            fitting = next((k for k in range(n) if not chain._fits(k)), n)
            if fitting < REPEATED:
                return None
            if fitting < n:
                chain = _Chain(graph, consts, start, period, fitting)
                if not all(map(chain._fits, range(fitting))):
                    return None
        except _Misfit:
            return None
        if not chain._is_connected():
            return None
        chain._find_results(readers)
        return chain if 2 * len(chain.taken) <= TAKEN * period * chain.n else None

    def eqns_of(self, k: int) -> list[JaxprEqn]:
        first = self.start + k * self.period
        return self.graph.eqns[first: first + self.period]

    def _read(self, atom: Atom) -> Before | Atom | None:
        """What an operand of the pattern is: a result of a block, a value from outside, or a constant (None)."""
        if constant(atom, self.consts) is not None:
            return None
        place = self.place.get(atom)  # type: ignore[arg-type]  # no number
        if place is None:
            return atom
        k, j = divmod(place, self.period)
        if self.pattern - k > FURTHEST:
            raise _Misfit
        return j, self.pattern - k

    def _fits(self, k: int) -> bool:
        """Whether a block reads its operands as the pattern does; what the first ones read is noted."""
        for j, (eqn, like, reads) in enumerate(zip(self.eqns_of(k), self.block, self.reads, strict=True)):
            if not self._is_same(j, eqn, like):
                return False
            for atom, known, read in zip(eqn.invars, like.invars, reads, strict=True):
                if read is None:
                    if constant(atom, self.consts) is None or not _is_same_type(atom, known):
                        return False
                elif not isinstance(read, tuple):
                    if atom is not read:
                        return False
                elif k >= read[1]:
                    if is_literal(atom) or self.place.get(atom) != (k - read[1]) * self.period + read[0]:
                        return False
                else:
                    held = read[0], read[1] - k
                    if not _is_same_type(atom, self.block[read[0]].outvars[0]) or (not is_literal(atom) and atom in self.place):
                        return False
                    if not _is_one(self.initial.setdefault(held, atom), atom):
                        return False
        return True

    def _is_same(self, j: int, eqn: JaxprEqn, like: JaxprEqn) -> bool:
        if eqn.primitive is not like.primitive or eqn.ctx is not like.ctx or len(eqn.invars) != len(like.invars):
            return False
        left, right = eqn.params, like.params
        if j in self.windows:
            return bool(eqn.outvars[0].aval == like.outvars[0].aval and left["strides"] == right["strides"])
        return left is right or (left.keys() == right.keys() and all(
            left[name] is value or frozen(left[name]) == frozen(value) for name, value in right.items()))

    def _is_connected(self) -> bool:
        """Whether the blocks are a chain: else operations that are alike are computed together, or the program is left alone."""
        return any(isinstance(read, tuple) and read[1] > 0 for reads in self.reads for read in reads)

    def _find_results(self, readers: dict[Var, int]) -> None:
        """The results that are read behind the chain: the values that the loop ends with, and places in stacks of results."""
        carried = {read for reads in self.reads for read in reads if isinstance(read, tuple) and read[1] > 0}
        self.carries = sorted({(j, d) for j, furthest in carried for d in range(1, furthest + 1)})
        end = self.start + self.n * self.period
        self.final: dict[Before, Var] = {}
        self.taken: list[tuple[int, int, Var]] = []
        for k in range(self.n):
            for j, eqn in enumerate(self.eqns_of(k)):
                (out,) = eqn.outvars
                if readers.get(out, -1) < end:
                    continue
                if (j, self.n - k) in self.carries:
                    self.final[j, self.n - k] = out
                else:
                    self.taken.append((k, j, out))
        self.stacked = sorted({j for _, j, _ in self.taken})

    # ------------------------------------------------------------------------------------------------------------ writing

    def write(self, writer: Writer) -> None:
        """Write the loop, and what takes the results that are read behind it from what it gives."""
        read = [*self.initial.values(), *[read for reads in self.reads for read in reads]]
        operands = list(dict.fromkeys(x for x in read if isinstance(x, Var)))
        finals = list(self.final)
        stacks = writer.emit_all(lambda *values: self._run(dict(zip(operands, values, strict=True)), finals), operands,
                                 self.block[0], [*self.final.values(), *[None] * len(self.stacked)])[len(finals):]
        parts: dict[int, list[JaxprEqn]] = {}
        for k, j, out in self.taken:
            stack = stacks[self.stacked.index(j)]
            if j not in parts:
                n_before = len(writer.eqns)
                writer.emit(lambda x: lax.index_in_dim(x, 0, keepdims=False), [stack], self.block[j], None)
                parts[j] = writer.eqns[n_before:]
                del writer.eqns[n_before:]
            writer.take(parts[j], stack, k, out)

    def _run(self, env: dict[Var, jax.Array], finals: Sequence[Before]) -> list[jax.Array]:
        """The loop: the values that it ends with, and stacks."""
        blocks = [self.eqns_of(k) for k in range(self.n)]
        same: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        slices: dict[tuple[int, int], Any] = {}  # of an operation, of one of its operands
        for j, (eqn, reads) in enumerate(zip(self.block, self.reads, strict=True)):
            if j in self.windows:
                starts = [tuple(block[j].params["start_indices"]) for block in blocks]
                slices[j, 0] = of_windows(env[reads[0]], starts, eqn.outvars[0].aval.shape)  # type: ignore[attr-defined, index]
                continue
            for slot, read in enumerate(reads):
                if read is None:
                    values = [self._constant(block[j].invars[slot]) for block in blocks]
                    if all(x.tobytes() == values[0].tobytes() for x in values):
                        same[j, slot] = values[0]
                    else:
                        slices[j, slot] = np.stack(values)

        def step(carry: Sequence[jax.Array], given: dict[Any, jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
            before = dict(zip(self.carries, carry, strict=True))
            now: list[jax.Array] = []

            def operand(j: int, slot: int, read: Before | Atom | None) -> Any:
                if read is None:
                    return same[j, slot] if (j, slot) in same else given[j, slot]
                if not isinstance(read, tuple):
                    return env[read]  # type: ignore[index]  # no number
                return now[read[0]] if read[1] == 0 else before[read]

            for j, (eqn, reads) in enumerate(zip(self.block, self.reads, strict=True)):
                now.append(given[j, 0] if j in self.windows else eqn.primitive.bind(
                    *[operand(j, slot, read) for slot, read in enumerate(reads)], **eqn.params))
            return [now[j] if d == 1 else before[j, d - 1] for j, d in self.carries], [now[j] for j in self.stacked]

        start = [self._initial(key, env) for key in self.carries]
        carry, stacks = lax.scan(step, start, slices, length=self.n)
        ends = dict(zip(self.carries, carry, strict=True))
        return [*[ends[key] for key in finals], *stacks]

    def _initial(self, key: Before, env: dict[Var, jax.Array]) -> Any:
        atom = self.initial[key]
        dtype = self.block[key[0]].outvars[0].aval.dtype  # type: ignore[attr-defined]
        return np.asarray(atom.val, dtype) if is_literal(atom) else lax.convert_element_type(env[atom], dtype)

    def _constant(self, atom: Atom) -> np.ndarray[Any, Any]:
        found = constant(atom, self.consts)
        assert found is not None
        return found


def _is_same_type(a: Atom, b: Atom) -> bool:
    """Whether two values have the same entries; numbers of Python are weak, and what is computed from them has the type of a result."""
    x: Any = a.aval
    y: Any = b.aval
    return bool(x.shape == y.shape and x.dtype == y.dtype)


def _is_one(a: Atom, b: Atom) -> bool:
    if is_literal(a) and is_literal(b):
        return np.asarray(a.val).tobytes() == np.asarray(b.val).tobytes()
    return a is b
