"""The positions of a matrix's nonzeros by rows (CSR), and what a graph of them needs: lists of neighbours, the transpose, degrees."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: Lists of neighbours: entry ``v`` names those of vertex ``v``.
Neighbours = list[list[int]]


@dataclass(frozen=True, eq=False)
class Positions:
    """Which entries of an ``m`` by ``n`` matrix may be nonzero: row after row, columns sorted and unique within each."""

    shape: tuple[int, int]
    indptr: np.ndarray
    columns: np.ndarray

    @staticmethod
    def of_csr(matrix: csr_array) -> Positions:
        """The stored entries of a SciPy matrix that are not zero."""
        found = matrix.tocsr().copy()
        found.sum_duplicates()
        found.eliminate_zeros()
        found.sort_indices()
        m, n = found.shape
        return Positions((int(m), int(n)), found.indptr.astype(np.int64), found.indices.astype(np.int64))

    @staticmethod
    def of_coordinates(shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> Positions:
        """Those at the given coordinates, in any order, repeated ones once."""
        m, n = shape
        keys = np.unique(np.asarray(rows, np.int64) * max(n, 1) + np.asarray(columns, np.int64))
        at, columns = np.divmod(keys, max(n, 1))
        return Positions((m, n), np.searchsorted(at, np.arange(m + 1)), columns)

    @property
    def nnz(self) -> int:
        return len(self.columns)

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0]), self.row_degrees)

    @property
    def row_degrees(self) -> np.ndarray:
        return np.diff(self.indptr)

    @cached_property
    def column_degrees(self) -> np.ndarray:
        return np.bincount(self.columns, minlength=self.shape[1])

    @cached_property
    def by_columns(self) -> np.ndarray:
        """The numbers of the entries in the order of columns, rows sorted within each."""
        return np.argsort(self.columns, kind="stable")

    @cached_property
    def transpose(self) -> Positions:
        indptr = np.concatenate([[0], np.cumsum(self.column_degrees)])
        return Positions((self.shape[1], self.shape[0]), indptr, self.rows[self.by_columns])

    @cached_property
    def lists(self) -> Neighbours:
        """The columns of each row, as lists of Python's ints."""
        flat, ends = self.columns.tolist(), self.indptr.tolist()
        return [flat[start:end] for start, end in itertools.pairwise(ends)]

    @cached_property
    def is_symmetric(self) -> bool:
        m, n = self.shape
        return m == n and np.array_equal(self.transpose.columns, self.columns) and np.array_equal(self.transpose.indptr, self.indptr)

    @cached_property
    def without_diagonal(self) -> Positions:
        keep = self.rows != self.columns
        return Positions.of_coordinates(self.shape, self.rows[keep], self.columns[keep])

    @cached_property
    def two_sided(self) -> Positions:
        """The adjacency of the bipartite graph: columns are vertices ``0 ... n - 1``, rows ``n ... n + m - 1``."""
        (m, n), other = self.shape, self.transpose
        return Positions((n + m, n + m), np.concatenate([other.indptr, self.indptr[1:] + self.nnz]),
                         np.concatenate([other.columns + n, self.columns]))

    def sharing(self) -> Neighbours:
        """For each column, the other columns that have an entry in a row with it: neighbours at distance 2."""
        from scipy.sparse import csr_array

        m, n = self.shape
        a = csr_array((np.ones(self.nnz, np.int32), self.columns, self.indptr), shape=(m, n))
        product = (a.T.tocsr() @ a).tocsr()
        flat, ends = product.indices.tolist(), product.indptr.tolist()
        return [[w for w in flat[start:end] if w != v] for v, (start, end) in enumerate(itertools.pairwise(ends))]

    def scipy(self) -> csr_array:
        """As a SciPy matrix of booleans."""
        from scipy.sparse import csr_array

        return csr_array((np.ones(self.nnz, bool), self.columns, self.indptr), shape=self.shape)
