"""Sparse matrices of ``jax.experimental.sparse`` by rows (BCSR, CSR) and by pairs of indices (COO), and sparse solves.

jax cannot batch the operations on COO and CSR.  Their pushes are stated in operations that it can batch, so that Jacobians, which are
batches of pushes or pulls, exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, tree_util
from jax.custom_batching import sequential_vmap
from jax.experimental.sparse.util import SparseInfo

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.primitives import Params, primitive
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent
from dualrev.rules.contract import DimensionNumbers
from dualrev.rules.reduce import where
from dualrev.rules.sort import take_along
from dualrev.rules.sparse.bcoo import ProductRow, at_entries, bcoo_data_transpose, bcoo_dense_transpose, by_factors, dense, each_batch
from dualrev.table.adjoints import LinearRow
from dualrev.table.choosing import ByActivityRow
from dualrev.table.forms import bilinear, linear
from dualrev.table.partials import sum_broadcast
from dualrev.table.pushforward import PushforwardRow, pushforward
from dualrev.table.rows import Operand, Row, register


def rows_of(indptr: Array, n_entries: int) -> Array:
    """The row of each entry: the number of rows that start at or before it, minus one; the number of rows for unused entries."""
    starts = lax.full((n_entries,), 0, indptr.dtype).at[indptr].add(1, mode="drop")
    return lax.sub(lax.cumsum(starts), lax.full_like(starts, 1))


# ---------------------------------------------------------------------------------------------------------------- bcsr


def uncompressed(indices: Array, indptr: Array) -> Array:
    """The indices of a BCOO with the entries of a BCSR."""

    def both(indices: Array, indptr: Array) -> Array:
        return jnp.stack([rows_of(indptr, indices.shape[0]).astype(indices.dtype), indices], 1)

    return each_batch(both, indices.ndim - 1)(indices, indptr)


linear(primitive("bcsr_todense"),
       lambda ct, data, indices, indptr: sum_broadcast(at_entries(ct, uncompressed(indices, indptr)), data.shape))
linear(primitive("bcsr_extract"), None, None, lambda ct, indices, indptr, x: dense(ct, uncompressed(indices, indptr), x.shape))


def bcsr_fromdense_with_indices(x: Array, **params: object) -> tuple[list[Array], Array]:
    outs = primitive("bcsr_fromdense").bind(x, **params)
    return outs, uncompressed(outs[1], outs[2])


pushforward(primitive("bcsr_fromdense"), lambda t, _, *, saved: [at_entries(t, saved), None, None],
            saves=bcsr_fromdense_with_indices)


def bcsr_data_transpose(ct: Array, data: ShapedArray, indices: Array, indptr: Array, y: Array, *, dimension_numbers: DimensionNumbers,
                        lhs_spinfo: SparseInfo) -> Array:
    return bcoo_data_transpose(ct, data, uncompressed(indices, indptr), y, dimension_numbers=dimension_numbers, lhs_spinfo=lhs_spinfo)


def bcsr_dense_transpose(ct: Array, data: Array, indices: Array, indptr: Array, y: ShapedArray, *, dimension_numbers: DimensionNumbers,
                         lhs_spinfo: SparseInfo, preferred_element_type: DType | None) -> Array:
    return bcoo_dense_transpose(ct, data, uncompressed(indices, indptr), y, dimension_numbers=dimension_numbers,
                                lhs_spinfo=lhs_spinfo, preferred_element_type=preferred_element_type)


bilinear(primitive("bcsr_dot_general"), bcsr_data_transpose, None, None, bcsr_dense_transpose)


# ----------------------------------------------------------------------------------------------------------- coo and csr


def product(data: Array, row: Array, column: Array, x: Array, n_rows: int) -> Array:
    """A matrix of entries times a vector, or a dense matrix."""
    read = x.at[column].get(mode="clip")  # as jax reads for an unused entry
    terms = lax.mul(lax.broadcast_in_dim(data, read.shape, (0,)), read)
    return lax.full((n_rows, *x.shape[1:]), 0, terms.dtype).at[row].add(terms)


def coo_product_push(ts: Sequence[Tangent], data: Array, row: Array, column: Array, x: Array, *, spinfo: SparseInfo,
                     transpose: bool) -> Tangent:
    n_rows = spinfo.shape[1] if transpose else spinfo.shape[0]
    where_to, where_from = (column, row) if transpose else (row, column)
    return by_factors(lambda data, x: product(data, where_to, where_from, x, n_rows), ts[0], ts[3], data, x)


def csr_product_push(ts: Sequence[Tangent], data: Array, indices: Array, indptr: Array, x: Array, *, shape: Sequence[int],
                     transpose: bool) -> Tangent:
    row = rows_of(indptr, indices.shape[0])
    n_rows = shape[1] if transpose else shape[0]
    where_to, where_from = (indices, row) if transpose else (row, indices)
    return by_factors(lambda data, x: product(data, where_to, where_from, x, n_rows), ts[0], ts[3], data, x)


for _name in ("matvec", "matmat"):
    register(ProductRow(primitive(f"coo_{_name}"), coo_product_push, (0, 3)))
    register(ProductRow(primitive(f"csr_{_name}"), csr_product_push, (0, 3)))

pushforward(primitive("coo_todense"), lambda t, _, row, column, *, spinfo: lax.full(spinfo.shape, 0, t.dtype).at[row, column].add(t))
pushforward(primitive("csr_todense"), lambda t, _, indices, indptr, *, shape:
            lax.full(shape, 0, t.dtype).at[rows_of(indptr, indices.shape[0]), indices].add(t))


def stored(t: Array, data: Array, row: Array, column: Array) -> Array:
    """The tangents at the stored places; the data are zero in unused entries, and only there."""
    return where(lax.ne(data, lax.full_like(data, 0)), t.at[row, column].get(mode="fill", fill_value=0))


def coo_fromdense_push(t: Array, _: Array, *, out: Sequence[Array]) -> list[Tangent]:
    return [stored(t, *out), None, None]


def csr_fromdense_push(t: Array, _: Array, *, out: Sequence[Array]) -> list[Tangent]:
    data, indices, indptr = out
    return [stored(t, data, rows_of(indptr, indices.shape[0]), indices), None, None]


pushforward(primitive("coo_fromdense"), coo_fromdense_push)
pushforward(primitive("csr_fromdense"), csr_fromdense_push)

# The object whose buffers are the operands has the method that makes it dense.
pushforward(primitive("todense"), lambda t, _, *buffers, tree: t if tree_util.treedef_is_leaf(tree) else
            tree_util.tree_unflatten(tree, [t, *buffers]).todense())


# --------------------------------------------------------------------------------------------------------------- solves


def solve(*operands: Array, **params: object) -> Array:
    """The operation, which solves one system: the systems of a batch are solved one after the other."""
    return sequential_vmap(lambda *operands: primitive("spsolve").bind(*operands, **params))(*operands)


def spsolve_transpose(ct: Array, data: Array, indices: Array, indptr: Array, _b: ShapedArray, *, tol: float, reorder: int) -> Array:
    """The solution of the transposed system: the same entries, by columns."""
    n, n_entries = ct.shape[0], data.shape[0]
    row = rows_of(indptr, n_entries)
    # Unused entries stay behind all others.
    is_over = lax.ge(row, lax.full_like(row, n))
    column = lax.select(is_over, lax.full_like(indices, n), indices)
    column, row, order = lax.sort((column, where(lax.lt(row, lax.full_like(row, n)), row), lax.iota(np.int32, n_entries)), num_keys=2)
    count = lax.full((n,), 0, indptr.dtype).at[column].add(1, mode="drop")
    ends = lax.pad(lax.cumsum(count), jnp.asarray(0, indptr.dtype), [(1, 0, 0)])
    return solve(take_along(data, order, 0), row.astype(indices.dtype), ends, ct, tol=tol, reorder=reorder)


def spsolve_push(ts: Sequence[Tangent], data: Array, indices: Array, indptr: Array, _b: Array, *, out: Array, tol: float,
                 reorder: int) -> Array:
    """``A x = b``, hence ``A ẋ = ḃ - Ȧ x``."""
    t, _, _, t_b = ts
    if t is not None:
        t_b = zeros.add(lax.neg(product(t, rows_of(indptr, data.shape[0]), indices, out, out.shape[0])), t_b)
    assert t_b is not None  # one of the two is active
    return solve(data, indices, indptr, t_b, tol=tol, reorder=reorder)


class OneByOne(Row):
    """A row that binds :func:`solve` in place of the primitive."""

    def bind(self, primals: Sequence[Operand], params: Params) -> list[Array]:
        return [solve(*primals, **params)]  # type: ignore[arg-type]  # operands are known


class RightRow(OneByOne, LinearRow):
    pass


class SystemRow(OneByOne, PushforwardRow):
    pass


register(ByActivityRow(RightRow(primitive("spsolve"), (None, None, None, spsolve_transpose)),
                       SystemRow(primitive("spsolve"), spsolve_push, linear_in=(3,))))
