"""Matrices between formats: what a user gives as a pattern, and what is returned.

``jax.experimental.sparse`` is loaded by the first sparse matrix, as it takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.traces import Tracer
from dualrev.sparse.colouring.positions import Positions

if TYPE_CHECKING:
    pass

Format: TypeAlias = Literal["bcoo", "csr", "dense", "scipy"]
FORMATS = ("bcoo", "csr", "dense", "scipy")


def check_format(name: str, asked: object) -> None:
    if asked not in FORMATS:
        raise ValueError(f"{name}: format must be one of {', '.join(map(repr, FORMATS))}; got {asked!r}")


def check_pattern(pattern: Any, name: str) -> None:
    """Refuse a pattern that can be that of no matrix, before the shape of the matrix is known."""
    shape = getattr(pattern, "shape", None)
    if isinstance(pattern, (list, tuple)):
        shape = np.shape(pattern)
    if shape is None or isinstance(pattern, Positions):
        return
    if len(shape) != 2 or getattr(pattern, "n_batch", None) or getattr(pattern, "n_dense", None):
        raise ValueError(f"{name}: pattern must be a matrix, outputs by inputs, without batched or dense dimensions; got "
                         f"{type(pattern).__name__} of shape {tuple(shape)}")


def positions_of(pattern: Any, name: str, shape: tuple[int, int]) -> Positions:
    """A pattern that a user gives: a BCOO or BCSR, a SciPy matrix, or an array; its stored (nonzero) entries may be nonzero."""
    if isinstance(pattern, Positions):
        found = pattern
    else:
        from jax.experimental.sparse import BCOO, BCSR

        if isinstance(pattern, (BCOO, BCSR)):
            found = _of_jax(pattern, name)
        elif hasattr(pattern, "tocsr") and hasattr(pattern, "nnz"):
            found = Positions.of_csr(pattern)
        else:
            found = _of_dense(pattern, name)
    if found.shape != shape:
        raise ValueError(f"{name}: pattern must have shape {shape}, (outputs, inputs) in elements; got {found.shape}")
    return found


def _of_jax(pattern: Any, name: str) -> Positions:
    if pattern.n_batch or pattern.n_dense or pattern.ndim != 2:
        raise ValueError(f"{name}: pattern must be a matrix, without batched or dense dimensions; got {pattern!r}")
    if any(isinstance(leaf, Tracer) for leaf in jax.tree_util.tree_leaves(pattern)):
        raise TypeError(f"{name}: pattern must be known when the function is traced; got {pattern!r}, which is being traced")
    with jax.ensure_compile_time_eval():
        coordinates = pattern.to_bcoo() if hasattr(pattern, "indptr") else pattern
    m, n = pattern.shape
    rows, columns = np.asarray(coordinates.indices).T
    stored = (np.asarray(coordinates.data) != 0) & (rows < m) & (columns < n)  # what lies outside is padding
    return Positions.of_coordinates((m, n), rows[stored], columns[stored])


def _of_dense(pattern: Any, name: str) -> Positions:
    if isinstance(pattern, Tracer):
        raise TypeError(f"{name}: pattern must be known when the function is traced; got {pattern!r}, which is being traced")
    dense = np.asarray(pattern)
    if dense.dtype.kind not in "biufc" and dense.dtype.name not in ("bfloat16", "float16"):
        raise TypeError(f"{name}: pattern must be a matrix of booleans or numbers: a BCOO, a SciPy matrix or an array; got "
                        f"{type(pattern).__name__} of dtype {dense.dtype}")
    if dense.ndim != 2:
        raise ValueError(f"{name}: pattern must be a matrix, outputs by inputs; got an array of shape {dense.shape}")
    rows, columns = np.nonzero(dense)
    return Positions.of_coordinates((dense.shape[0], dense.shape[1]), rows, columns)


@dataclass(frozen=True, eq=False)
class Block:
    """The part of a matrix that belongs to one output and one input: which entries, and where they stand in it.

    ``chosen`` is None where they are all entries, in order.
    """

    out: ShapedArray
    to: ShapedArray
    chosen: np.ndarray | None
    rows: np.ndarray
    columns: np.ndarray

    @property
    def dtype(self) -> DType:
        """That of the output; of the input, where that alone is complex."""
        is_gradient = jnp.issubdtype(self.to.dtype, jnp.complexfloating) and not jnp.issubdtype(self.out.dtype, jnp.complexfloating)
        dtype: DType = (self.to if is_gradient else self.out).dtype
        return dtype

    @property
    def matrix_shape(self) -> tuple[int, int]:
        return self.out.size, self.to.size

    def indices(self) -> np.ndarray:
        """Where the entries stand, in the dimensions of the output and then of the input."""
        axes = [*_unravelled(self.rows, self.out.shape), *_unravelled(self.columns, self.to.shape)]
        return np.stack(axes, 1).astype(np.int32) if axes else np.zeros((len(self.rows), 0), np.int32)

    def indptr(self) -> np.ndarray:
        return np.searchsorted(self.rows, np.arange(self.out.size + 1)).astype(np.int32)


def _unravelled(flat: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return np.unravel_index(flat, shape) if len(flat) and shape else tuple(np.zeros(0, np.int32) for _ in shape)


def blocks_of(positions: Positions, out_avals: Sequence[ShapedArray], in_avals: Sequence[ShapedArray]) -> list[list[Block]]:
    """Blocks ``[output][input]``."""
    if len(out_avals) == 1 and len(in_avals) == 1:
        return [[Block(out_avals[0], in_avals[0], None, positions.rows, positions.columns)]]
    row_ends, column_ends = (np.cumsum([0, *[a.size for a in avals]]) for avals in (out_avals, in_avals))
    row_leaf = np.searchsorted(row_ends, positions.rows, side="right") - 1
    column_leaf = np.searchsorted(column_ends, positions.columns, side="right") - 1
    numbers = row_leaf * len(in_avals) + column_leaf
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(len(out_avals) * len(in_avals) + 1))

    def block(i: int, j: int) -> Block:
        chosen = order[ends[i * len(in_avals) + j]: ends[i * len(in_avals) + j + 1]]
        rows, columns = positions.rows[chosen] - row_ends[i], positions.columns[chosen] - column_ends[j]
        return Block(out_avals[i], in_avals[j], chosen, rows, columns)

    return [[block(i, j) for j in range(len(in_avals))] for i in range(len(out_avals))]


class Wrapper:
    """What makes a result of a block's entries, in one format; arrays of indices are made once."""

    def __init__(self, block: Block, form: Format):
        self.block = block
        self.form = form
        self._indices: tuple[jax.Array, ...] | None = None

    def __call__(self, data: jax.Array, name: str) -> Any:
        """``data``: the entries; for ``"dense"``, the matrix itself."""
        block = self.block
        if self.form == "dense":
            return data
        if self.form == "scipy":
            from scipy.sparse import csr_array

            if isinstance(data, Tracer):
                raise TypeError(f'{name}: format="scipy" needs numbers, and the function is being traced; use "bcoo", "csr" or "dense" '
                                "inside jit, vmap and grad")
            return csr_array((np.asarray(data), block.columns, block.indptr()), shape=block.matrix_shape)
        from jax.experimental.sparse import BCOO, BCSR

        if self.form == "csr":
            columns, indptr = self._made(block.columns.astype(np.int32), block.indptr())
            return BCSR((data, columns, indptr), shape=block.matrix_shape, indices_sorted=True, unique_indices=True)
        (indices,) = self._made(block.indices())
        return BCOO((data, indices), shape=(*block.out.shape, *block.to.shape), indices_sorted=True,
                    unique_indices=True)

    def _made(self, *indices: np.ndarray) -> tuple[jax.Array, ...]:
        if self._indices is None:
            with jax.ensure_compile_time_eval():
                self._indices = tuple(jnp.asarray(x) for x in indices)
        return self._indices

    def filled(self, data: jax.Array) -> jax.Array:
        """The dense matrix in the shapes of output and input."""
        block = self.block
        zeros = jnp.zeros((block.out.size * block.to.size,), data.dtype)
        places = block.rows.astype(np.int64) * block.to.size + block.columns
        index = places.astype(np.int32 if zeros.size < 2**31 else np.int64)
        full = zeros.at[index].set(data, mode="promise_in_bounds", indices_are_sorted=True, unique_indices=True)
        return full.reshape((*block.out.shape, *block.to.shape))
