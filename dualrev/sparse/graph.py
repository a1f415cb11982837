"""Which inputs each entry of a value depends on: nodes of a graph, and the sets of inputs that they stand for.

A *node* is a set of inputs: node 0 the empty set, node ``i`` the ``i``-th input alone (counted from 1), and every other node the
union of its children.  A value of the program is an array of nodes, one for each of its entries; an operation that moves entries moves
nodes, and entries with equal sets share one node.  No set is computed before the outputs are known, and then only those that an output
reaches.

For second derivatives a node may also hold *pairs*: a pair ``(a, b)`` says that the inputs of ``a`` and those of ``b`` interact:
``∂²/∂x_i ∂x_j`` may be nonzero for ``i`` in ``a`` and ``j`` in ``b``.  A pair is a node without inputs; the pairs of an output are
those that it reaches.

**Loops.**  The state of a loop is a set of nodes whose children are given later (:meth:`Graph.tie`): the initial state and the result
of the body, which refers back to them.  The sets are the least solution of ``S(v) = {inputs in v} ∪ S(children of v)``.  It is unique
and is reachability: ``S(v)`` holds the inputs that ``v`` reaches, since the inputs that ``v`` reaches satisfy the equations, and any
solution holds them by induction along a path.  Nodes of one cycle reach each other, so they have one set; between strongly connected
components there is no cycle, so that each set is the union of finished ones.  Components in topological order therefore give the exact
solution in one pass over nodes and edges (:mod:`dualrev.sparse.closure`).  There are no rounds to bound: a loop of any number of steps
is analysed once, however slowly it fills its pattern.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

#: An array of nodes, of the shape of its value.
Nodes: TypeAlias = np.ndarray


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenated ranges ``start, start + 1, ..., start + length - 1``."""
    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    return np.asarray(np.arange(total) + np.repeat(starts - (ends - lengths), lengths))


def matrix(indptr: np.ndarray, indices: np.ndarray, width: int) -> sp.csr_array:
    """A boolean CSR array with these entries."""
    return sp.csr_array((np.ones(len(indices), bool), indices, indptr), shape=(len(indptr) - 1, width))


class Batch:
    """Nodes that one operation made, numbered from ``first``: children in CSR form; for pairs, the two sets of each."""

    __slots__ = ("children", "first", "indptr", "pairs")

    def __init__(self, first: int, indptr: np.ndarray, children: np.ndarray, pairs: bool = False):
        self.first = first
        self.indptr = indptr
        self.children = children
        self.pairs = pairs


class Graph:
    """All nodes of one propagation; ``second``: whether pairs are recorded."""

    def __init__(self, n_inputs: int, second: bool = False):
        self.n_inputs = n_inputs
        self.second = second
        self.size = n_inputs + 1
        self.batches: list[Batch] = []
        self.has_cycles = False
        #: For each node, the union of it and its pair with itself; 0 where there is none yet.
        self._clique = np.zeros(self.size, np.int64)

    # --------------------------------------------------------------------------------------------------------- making nodes

    def _add(self, indptr: np.ndarray, children: np.ndarray, pairs: bool = False) -> np.ndarray:
        first, count = self.size, len(indptr) - 1
        self.batches.append(Batch(first, indptr, children, pairs))
        self.size += count
        return np.arange(first, self.size)

    def _rows(self, columns: Sequence[np.ndarray], pairs: bool = False) -> np.ndarray:
        """New nodes, each with one child from each of the columns."""
        k, count = len(columns), len(columns[0])
        return self._add(np.arange(0, k * count + 1, k), np.stack(columns, 1).ravel(), pairs)

    def union(self, *several: Nodes | None) -> Nodes | None:
        """The entrywise union of arrays of nodes of one shape; None is empty."""
        given = [p for p in several if p is not None]
        if not given:
            return None
        result = given[0]
        for other in given[1:]:
            result = self._union(result, other)
        return result

    def _union(self, p: Nodes, q: Nodes) -> Nodes:
        if p is q:
            return p
        a, b = p.ravel(), q.ravel()
        result = np.where(a == 0, b, a)
        both = np.flatnonzero((a != 0) & (b != 0) & (a != b))
        if len(both):
            x, y = a[both], b[both]
            x, y, inverse = self._distinct(np.minimum(x, y), np.maximum(x, y))
            result[both] = self._rows((x, y))[inverse]
        return result.reshape(p.shape)

    def _distinct(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The distinct ones among pairs, and the number of each pair among them."""
        key = x * self.size + y
        if len(key) < 2 or bool(np.all(key[1:] > key[:-1])):
            return x, y, np.arange(len(key))
        key, inverse = np.unique(key, return_inverse=True)
        return key // self.size, key % self.size, inverse.ravel()

    def union_over(self, p: Nodes, axes: Sequence[int]) -> Nodes:
        """The unions over some axes, which are dropped."""
        axes = tuple(a % p.ndim for a in axes)
        kept = tuple(a for a in range(p.ndim) if a not in axes)
        shape = tuple(p.shape[a] for a in kept)
        rows = p.transpose(*kept, *axes).reshape(math.prod(shape), math.prod(p.shape[a] for a in axes))
        return self.union_rows(rows).reshape(shape)

    def union_rows(self, rows: np.ndarray) -> np.ndarray:
        """The union of each row of a matrix of nodes."""
        count, width = rows.shape
        if width == 0 or count == 0:
            return np.zeros(count, np.int64)
        first: np.ndarray = rows.max(1)
        mixed = np.flatnonzero(((rows != first[:, None]) & (rows != 0)).any(1))
        if not len(mixed):
            return first
        rows = rows[mixed]
        if len(rows) > 1 and bool((rows == rows[0]).all()):
            kids = np.unique(rows[0])
            first[mixed] = self._add(np.array([0, len(kids)]), kids)[0]
            return first
        first[mixed] = self._add(np.arange(0, rows.size + 1, width), rows.ravel())
        return first

    def union_groups(self, owners: np.ndarray, members: np.ndarray, count: int) -> np.ndarray:
        """For each of ``count`` owners the union of its members; an owner without members is empty."""
        kept = members != 0
        owners, members = owners[kept], members[kept]
        if len(owners) > 1 and not bool(np.all(owners[1:] >= owners[:-1])):
            order = np.argsort(owners, kind="stable")
            owners, members = owners[order], members[order]
        lengths = np.bincount(owners, minlength=count)
        result = np.zeros(count, np.int64)
        single = lengths[owners] == 1
        result[owners[single]] = members[single]
        many = np.flatnonzero(lengths > 1)
        if len(many):
            result[many] = self._add(np.concatenate([[0], np.cumsum(lengths[many])]), members[~single])
        return result

    def unions(self, indptr: np.ndarray, children: np.ndarray, pairs: bool = False) -> np.ndarray:
        """New nodes with these children."""
        return self._add(indptr, children, pairs)

    def union_sets(self, indptr: np.ndarray, members: np.ndarray) -> np.ndarray:
        """For each row of a CSR array of nodes their union: a node of the row itself where it has one member, or none."""
        lengths = np.diff(indptr)
        result = np.zeros(len(lengths), np.int64)
        single, many = np.flatnonzero(lengths == 1), np.flatnonzero(lengths > 1)
        result[single] = members[indptr[single]]
        if len(many):
            sizes = lengths[many].astype(np.int64)
            kept = members if len(many) == len(lengths) else members[ragged(indptr[many].astype(np.int64), sizes)]
            result[many] = self._add(np.concatenate([[0], np.cumsum(sizes)]), kept)
        return result

    # --------------------------------------------------------------------------------------------------------- interactions

    def clique(self, p: Nodes | None) -> Nodes | None:
        """The nodes of a nonlinear function of each entry: all inputs of the entry interact."""
        if not self.second or p is None:
            return p
        self._grow()
        used = np.zeros(self.size, bool)
        used[p.ravel()] = True
        new = np.flatnonzero(used & (self._clique[: self.size] == 0))
        new = new[new != 0]
        if len(new):
            made = self._rows((new, self._rows((new, new), pairs=True)))
            self._clique[new] = made
            self._grow()
            self._clique[made] = made
        return np.asarray(self._clique[p])

    def _grow(self) -> None:
        if len(self._clique) < self.size:
            self._clique = np.concatenate([self._clique, np.zeros(max(self.size, 2 * len(self._clique)) - len(self._clique), np.int64)])

    def pair(self, p: Nodes | None, q: Nodes | None) -> Nodes | None:
        """Nodes without inputs that hold the interaction of each entry of ``p`` with the same entry of ``q``."""
        if not self.second or p is None or q is None:
            return None
        a, b = p.ravel(), q.ravel()
        result = np.zeros(a.size, np.int64)
        both = np.flatnonzero((a != 0) & (b != 0))
        if len(both):
            x, y, inverse = self._distinct(np.minimum(a[both], b[both]), np.maximum(a[both], b[both]))
            result[both] = self._rows((x, y), pairs=True)[inverse]
        return result.reshape(p.shape)

    # ---------------------------------------------------------------------------------------------------------------- loops

    def state(self, shape: tuple[int, ...]) -> Nodes:
        """Nodes for the state of a loop, whose children :meth:`tie` gives."""
        count = math.prod(shape)
        return self._add(np.zeros(count + 1, np.int64), np.zeros(0, np.int64)).reshape(shape)

    def tie(self, state: Nodes, *several: Nodes | None) -> None:
        """Give the nodes of a state their children: the same entries of these arrays."""
        given = [p.ravel() for p in several if p is not None]
        if not given or not state.size:
            return
        first = int(state.flat[0])
        batch = next(b for b in reversed(self.batches) if b.first == first)
        k, count = len(given), state.size
        batch.indptr, batch.children = np.arange(0, k * count + 1, k), np.stack(given, 1).ravel()
        self.has_cycles = True
