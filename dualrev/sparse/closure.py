"""The sets of inputs that nodes stand for: unions from the inputs up, as products of sparse boolean matrices."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

from dualrev.sparse.graph import Batch, Graph, matrix, ragged

#: The most sets that are united one by one, each of 16 members at most on average.
FEW = 4
#: Unions are formed where their sets together have at most so many times the members that are wanted at most.
OVERLAP = 2


class TooManyError(Exception):
    """A pattern that was wanted only if it is sparse is not."""


class Sets:
    """A growing list of sets, the rows of a CSR array; the first are the empty set and each input alone.

    With more than ``most`` members in all, :class:`TooManyError`.
    """

    def __init__(self, n: int, most: int | None = None):
        self.n = n
        self.most = most
        self.count = n + 1
        self.indptr = np.concatenate([[0], np.arange(n + 1)]).astype(np.int32)
        self.indices = np.arange(n, dtype=np.int32)
        self._ones = np.ones(n, bool)
        self._marks = np.zeros(n, bool)

    def view(self) -> sp.csr_array:
        """The sets so far."""
        nnz = self.indptr[self.count]
        return sp.csr_array((self._ones[:nnz], self.indices[:nnz], self.indptr[: self.count + 1]), shape=(self.count, self.n))

    def unions(self, indptr: np.ndarray, members: np.ndarray) -> int:
        """Append unions of rows; return the number of the first."""
        if len(indptr) <= FEW and len(members) <= 16 * FEW:
            rows = [self._united(members[start:stop]) for start, stop in itertools.pairwise(indptr)]
            return self._append(np.cumsum([len(row) for row in rows]), np.concatenate(rows))
        if self.most is not None and int(np.diff(self.indptr[: self.count + 1])[members].sum(dtype=np.int64)) > OVERLAP * self.most:
            raise TooManyError
        index = np.int32 if len(members) < 2**31 else np.int64
        found = matrix(indptr.astype(index), members.astype(index), self.count) @ self.view()
        return self._append(found.indptr[1:], found.indices)

    def _united(self, rows: np.ndarray) -> np.ndarray:
        """The union of a few sets: a product of matrices would take longer to set up."""
        for row in rows:
            self._marks[self.indices[self.indptr[row]: self.indptr[row + 1]]] = True
        found = np.flatnonzero(self._marks)
        self._marks[found] = False
        return found

    def _append(self, ends: np.ndarray, indices: np.ndarray) -> int:
        first, nnz = self.count, int(self.indptr[self.count])
        count, size = first + len(ends), nnz + len(indices)
        if self.most is not None and size > self.most:
            raise TooManyError
        if size >= 2**31 and self.indptr.dtype == np.int32:
            self.indptr, self.indices = self.indptr.astype(np.int64), self.indices.astype(np.int64)
        if count + 1 > len(self.indptr):
            self.indptr = np.concatenate([self.indptr, np.empty(max(count + 1, len(self.indptr)), self.indptr.dtype)])
        if size > len(self.indices):
            self.indices = np.concatenate([self.indices[:nnz], np.empty(2 * size - nnz, self.indices.dtype)])
            self._ones = np.ones(len(self.indices), bool)
        self.indptr[first + 1: count + 1] = nnz + ends
        self.indices[nnz:size] = indices
        self.count = count
        return first


#: So many times the entries that a pattern may have, sets on the way to it may have members.
MEMBERS = 4


class Closure:
    """The sets of all nodes that ``outputs`` reach; ``row[v]`` is the row of node ``v`` in ``sets``.

    ``most``: of how many entries a pattern is formed; None for any number.
    """

    def __init__(self, graph: Graph, outputs: np.ndarray, most: int | None = None):
        self.graph = graph
        self.most = most
        self.sets = Sets(graph.n_inputs, None if most is None else MEMBERS * most)
        self.row = np.zeros(graph.size, np.int64)
        self.row[: graph.n_inputs + 1] = np.arange(graph.n_inputs + 1)
        if graph.has_cycles:
            self.reached = self._reached_in_cycles(outputs)
            self._by_components()
        else:
            self.reached = self._reached(outputs)
            for batch in graph.batches:
                self._add(batch)

    def of(self, nodes: np.ndarray) -> sp.csr_array:
        """The sets of nodes, as the rows of a boolean CSR array."""
        self._check(self._sizes(self.row[nodes.ravel()]))
        return self.sets.view()[self.row[nodes.ravel()]]

    def interacting(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs that were reached: the rows of both sets of each."""
        found = []
        for batch in self.graph.batches:
            if batch.pairs:
                kept = self.reached[batch.first: batch.first + len(batch.indptr) - 1]
                found.append(batch.children.reshape(-1, 2)[kept])
        pairs = self.row[np.concatenate(found)] if found else np.zeros((0, 2), np.int64)
        pairs = pairs[(pairs != 0).all(1)]
        key = np.unique(pairs.min(1) * self.sets.count + pairs.max(1))
        return key // self.sets.count, key % self.sets.count

    def check_products(self, a: np.ndarray, b: np.ndarray) -> None:
        """Refuse pairs of sets that make up too many entries together, each counted once."""
        self._check(self._sizes(a) * self._sizes(b))

    def _sizes(self, rows: np.ndarray) -> np.ndarray:
        sizes: np.ndarray = np.diff(self.sets.indptr[: self.sets.count + 1])[rows].astype(np.int64)
        return sizes

    def _check(self, sizes: np.ndarray) -> None:
        if self.most is not None and int(sizes.sum()) > self.most:
            raise TooManyError

    # ------------------------------------------------------------------------------------------------------- without loops

    def _reached(self, outputs: np.ndarray) -> np.ndarray:
        reached = np.zeros(self.graph.size, bool)
        reached[outputs.ravel()] = True
        for batch in reversed(self.graph.batches):
            kept = reached[batch.first: batch.first + len(batch.indptr) - 1]
            if kept.all():
                reached[batch.children] = True
            elif kept.any():
                rows = np.flatnonzero(kept)
                reached[batch.children[ragged(batch.indptr[rows], np.diff(batch.indptr)[rows])]] = True
        return reached

    def _add(self, batch: Batch) -> None:
        if batch.pairs:
            return  # no inputs: the row of the empty set
        count = len(batch.indptr) - 1
        kept = self.reached[batch.first: batch.first + count]
        if kept.all():
            nodes, indptr, children = np.arange(batch.first, batch.first + count), batch.indptr, batch.children
        else:
            rows = np.flatnonzero(kept)
            if not len(rows):
                return
            lengths = np.diff(batch.indptr)[rows]
            nodes, indptr = batch.first + rows, np.concatenate([[0], np.cumsum(lengths)])
            children = batch.children[ragged(batch.indptr[rows], lengths)]
        first = self.sets.unions(indptr, self.row[children])
        self.row[nodes] = np.arange(first, self.sets.count)

    # ---------------------------------------------------------------------------------------------------------- with loops

    def _edges(self, through_pairs: bool) -> sp.csr_array:
        """Children of all nodes; those of pairs where wanted."""
        lengths = np.zeros(self.graph.size + 1, np.int64)
        kept = [b for b in self.graph.batches if through_pairs or not b.pairs]
        for batch in kept:
            lengths[batch.first + 1: batch.first + len(batch.indptr)] = np.diff(batch.indptr)
        children = np.concatenate([b.children for b in kept]) if kept else np.zeros(0, np.int64)
        return matrix(np.cumsum(lengths), children, self.graph.size)

    def _reached_in_cycles(self, outputs: np.ndarray) -> np.ndarray:
        edges = self._edges(through_pairs=True)
        size = self.graph.size
        starts = np.unique(outputs.ravel())
        # One more node, from which all outputs can be reached.
        indptr = np.concatenate([edges.indptr, [edges.indptr[-1] + len(starts)]])
        whole = matrix(indptr, np.concatenate([edges.indices, starts]), size + 1)
        order = csgraph.breadth_first_order(whole, size, directed=True, return_predecessors=False)
        reached = np.zeros(size + 1, bool)
        reached[order] = True
        return reached[:size]

    def _by_components(self) -> None:
        """Strongly connected components in topological order, those that are ready together at once."""
        kept = np.flatnonzero(self.reached)
        edges = self._edges(through_pairs=False)[kept][:, kept]
        count, label = csgraph.connected_components(edges, directed=True, connection="strong")
        child = label[edges.indices]
        parent = np.repeat(label, np.diff(edges.indptr))
        inner = child != parent
        down = sp.csr_array((np.ones(int(inner.sum()), bool), (parent[inner], child[inner])), shape=(count, count))
        up = down.T.tocsr()
        waiting = np.diff(down.indptr)
        row = np.zeros(count, np.int64)
        inputs = kept <= self.graph.n_inputs
        row[label[inputs]] = kept[inputs]
        ready = np.flatnonzero(waiting == 0)
        while len(ready):
            lengths = np.diff(down.indptr)[ready]
            alone = ready[lengths == 1]
            row[alone] = row[down.indices[down.indptr[alone]]]
            combined, lengths = ready[lengths > 1], lengths[lengths > 1].astype(np.int64)
            if len(combined):
                members = row[down.indices[ragged(down.indptr[combined].astype(np.int64), lengths)]]
                first = self.sets.unions(np.concatenate([[0], np.cumsum(lengths)]), members)
                row[combined] = np.arange(first, self.sets.count)
            parents = up.indices[ragged(up.indptr[ready].astype(np.int64), np.diff(up.indptr)[ready])]
            np.subtract.at(waiting, parents, 1)
            ready = np.unique(parents[waiting[parents] == 0])
        self.row[kept] = row[label]
