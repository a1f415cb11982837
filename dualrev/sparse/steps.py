"""Long loops of known length: the body is analysed once, in a graph of its own, and its pattern is applied once for each step.

The inputs of that graph are all entries of what a step reads: loop constants, state, and one slice of what is scanned over.  What is
known of numbers is what stays the same in all steps, so the pattern holds for each of them.  Applied step by step, it is exact but for
numbers that change from step to step, a counter say.  Where only the last state is asked for, all steps together are the power of a
boolean matrix, by repeated squaring, of any number of steps.

The pattern of a step: for first derivatives a set for each result; for second derivatives all nodes, as pairs of inputs interact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from dualrev._jax.avals import is_differentiable
from dualrev.sparse.closure import Closure
from dualrev.sparse.graph import Graph, Nodes, ragged
from dualrev.sparse.values import Value, is_same_number

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

#: The most batches of nodes that steps make one by one, and the most members of their sets together.
APPLIED, MEMBERS = 50_000, 50_000_000
#: The most pairs of entries that one product of two powers multiplies.
PRODUCTS = 1_000_000_000


class Step:
    """The pattern of one step.  ``outs``: nodes of its results in its own graph, None where a result depends on no entry."""

    def __init__(self, run: Propagation, body: Callable[[Propagation, Sequence[Value]], list[Value]], consts: Sequence[Value],
                 carry: Sequence[Value], slices: Sequence[Value]):
        known = [x.is_known for x in carry]
        while True:  # numbers that are assumed to stay become fewer only
            self._analysed(run, body, consts, carry, slices, known)
            kept = [k and is_same_number(x, y) for k, x, y in zip(known, carry, self.values, strict=False)]
            if kept == known:
                break
            known = kept
        self.outs = [x.nodes for x in self.values]
        n = len(consts)
        #: Of which operands a number was known that a step changes.
        self.forgets = {n + i for i, (x, k) in enumerate(zip(carry, known, strict=True)) if x.is_known and not k}
        self.forgets |= {n + len(carry) + i for i, x in enumerate(slices) if x.is_known}
        run.lost.update(self.run.lost)

    def _analysed(self, run: Propagation, body: Callable[[Propagation, Sequence[Value]], list[Value]], consts: Sequence[Value],
                  carry: Sequence[Value], slices: Sequence[Value], known: Sequence[bool]) -> None:
        first = 1
        given: list[Value] = []
        numbers = [True] * len(consts) + list(known) + [False] * len(slices)
        #: Which operands have nodes; those of the state do from the first step on.
        self.active = [x.nodes is not None if i < len(consts) or i >= len(consts) + len(carry) else is_differentiable(x.aval)
                       for i, x in enumerate((*consts, *carry, *slices))]
        for i, (x, number, active) in enumerate(zip((*consts, *carry, *slices), numbers, self.active, strict=True)):
            nodes = np.arange(first, first + x.aval.size).reshape(x.aval.shape) if active else None
            first += x.aval.size if active else 0
            given.append(Value(x.aval, nodes, x.number if number else None, x.zero if i < len(consts) else None))
        self.graph = Graph(first - 1, run.graph.second)
        self.run = type(run)(self.graph, run.is_local)
        self.run.remaining = run.remaining
        self.values = body(self.run, given)

    # ------------------------------------------------------------------------------------------------------------ application

    def prepared(self) -> bool:
        """Make ready to be applied; False where the graph has a cycle whose pairs can't be copied."""
        nodes = np.concatenate([x.ravel() for x in self.outs if x is not None] or [np.zeros(0, np.int64)])
        if self.graph.second:
            if self.graph.has_cycles:
                return False
            reached = Closure(self.graph, nodes).reached
            self.batches = []
            for batch in self.graph.batches:
                rows = np.flatnonzero(reached[batch.first: batch.first + len(batch.indptr) - 1])
                if len(rows):
                    lengths = np.diff(batch.indptr)[rows]
                    children = batch.children[ragged(batch.indptr[rows], lengths)]
                    self.batches.append((batch.first + rows, np.concatenate([[0], np.cumsum(lengths)]), children, batch.pairs))
            self.n_members = sum(len(children) for _, _, children, _ in self.batches)
            self.n_batches = len(self.batches)
            return True
        self.sets = Closure(self.graph, nodes).of(nodes)
        self.rows, self.place = _distinct(self.sets)
        self.n_members, self.n_batches = self.rows.nnz, 1
        return True

    def is_applicable(self, length: int, n_inputs: int) -> bool:
        """Whether the pattern may be applied so often: each step adds at most as many inputs to a set as it has members."""
        rows = self.n_members if self.graph.second else int((np.diff(self.rows.indptr) > 1).sum())
        width = self.n_members if self.graph.second else int(np.diff(self.rows.indptr).max(initial=0))
        full = rows * length * min(n_inputs, 1 + length * max(width - 1, 0) // 2)
        return length * self.n_batches <= APPLIED and max(length * self.n_members, full) <= MEMBERS

    def applied(self, graph: Graph, operands: Sequence[Value]) -> list[Nodes | None]:
        """The nodes of the results of a step, in the graph of the whole program."""
        given = [x.nodes_or_empty().ravel() for x, active in zip(operands, self.active, strict=True) if active]
        lookup = np.concatenate([np.zeros(1, np.int64), *given])
        if self.graph.second:
            lookup = np.concatenate([lookup, np.zeros(self.graph.size - len(lookup), np.int64)])
            for nodes, indptr, children, pairs in self.batches:
                lookup[nodes] = graph.unions(indptr, lookup[children], pairs)
            return [None if x is None else lookup[x] for x in self.outs]
        return self._split(graph.union_sets(self.rows.indptr, lookup[1:][self.rows.indices])[self.place])

    def power(self, times: int, graph: Graph, operands: Sequence[Value], n_consts: int, n_carry: int) -> list[Nodes | None] | None:
        """The state after so many steps, of steps without slices; None where the power has too many entries."""
        sizes = [x.aval.size if active else 0 for x, active in zip(operands, self.active, strict=True)]
        before, n = sum(sizes[:n_consts]), self.graph.n_inputs
        count = n - before
        starts = np.cumsum([0, *[0 if x is None else x.size for x in self.outs]])
        rows = []
        for i, nodes in enumerate(self.outs[:n_carry]):  # a row for each entry of the state, also where it depends on nothing
            size = sizes[n_consts + i]
            rows.append(self.sets[starts[i]: starts[i + 1]] if nodes is not None else sp.csr_array((size, n), dtype=bool))
        own = sp.eye_array(n, dtype=bool, format="csr")[:before]
        matrix = sp.vstack([own, *rows], format="csr") if count else own
        result = sp.eye_array(n, dtype=bool, format="csr")
        while times:
            if times & 1:
                result = matrix @ result
            times >>= 1
            if times:
                if int(np.diff(matrix.indptr)[matrix.indices].sum(dtype=np.int64)) > PRODUCTS:
                    return None
                matrix = matrix @ matrix
            if result.nnz > MEMBERS or matrix.nnz > MEMBERS:
                return None
        found = result[before:]
        given = np.concatenate([x.nodes_or_empty().ravel() for x, active in zip(operands, self.active, strict=True) if active])
        united = graph.union_sets(found.indptr, given[found.indices])
        out: list[Nodes | None] = []
        start = 0
        for x, size in zip(operands[n_consts:], sizes[n_consts:], strict=True):
            out.append(united[start: start + size].reshape(x.aval.shape) if size else None)
            start += size
        return out

    def _split(self, nodes: np.ndarray) -> list[Nodes | None]:
        out: list[Nodes | None] = []
        start = 0
        for x in self.outs:
            out.append(None if x is None else nodes[start: start + x.size].reshape(x.shape))
            start += 0 if x is None else x.size
        return out


def _distinct(sets: sp.csr_array) -> tuple[sp.csr_array, np.ndarray]:
    """The distinct rows of a boolean matrix, and the place of each row among them."""
    sets.sort_indices()
    key = sets.astype(np.int64) @ np.random.default_rng(0).integers(-(2**62), 2**62, sets.shape[1])  # equal for equal rows
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    found = sets[first]
    if (found[place] != sets).nnz:
        return sets, np.arange(sets.shape[0])
    return found, place
