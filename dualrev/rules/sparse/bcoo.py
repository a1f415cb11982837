"""Sparse arrays of ``jax.experimental.sparse``: differentiable in their data, not in their indices.

No derivative makes a dense array of a sparse one: the cotangent of the data is computed at the stored entries only.  An index out of
bounds marks an unused entry; reading there gives zero, and additions there are dropped.

This family is loaded when the first sparse array is differentiated (see :mod:`dualrev.calls.families`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import sparse
from jax.experimental.sparse.util import SparseInfo

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.primitives import Params, Primitive, primitive
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent
from dualrev.options.settings import Active
from dualrev.rules.contract import DimensionNumbers, cast_like
from dualrev.rules.reduce import where
from dualrev.table.adjoints import LinearRow
from dualrev.table.forms import bilinear, linear
from dualrev.table.operations import Residuals
from dualrev.table.partials import sum_broadcast
from dualrev.table.pushforward import Push, PushforwardRow, pushforward
from dualrev.table.rows import Operand, Taped, register

# ------------------------------------------------------------------------------------------------- entries, batch by batch


def each_batch(fun: Callable[..., Array], n_batch: int) -> Callable[..., Array]:
    """``fun`` over the leading ``n_batch`` axes of all its operands; an axis of size 1 is repeated, and not copied."""

    def mapped(*xs: Array) -> Array:
        size = next((x.shape[0] for x in xs if x.shape[0] != 1), 1)
        axes = tuple([0 if x.shape[0] == size else None for x in xs])
        given = [x if axis == 0 else lax.squeeze(x, (0,)) for x, axis in zip(xs, axes, strict=True)]
        return jax.vmap(each_batch(fun, n_batch - 1), in_axes=axes)(*given)

    return mapped if n_batch else fun


def at_entries(x: Array, indices: Array) -> Array:
    """``x[b, indices[b, e], ...]`` for each batch ``b`` and entry ``e``."""

    def lookup(x: Array, indices: Array) -> Array:
        n_entries, n_sparse = indices.shape
        if not n_sparse:
            return lax.broadcast(x, (n_entries,))
        return x.at[tuple([indices[:, k] for k in range(n_sparse)])].get(mode="fill", fill_value=0)

    return each_batch(lookup, indices.ndim - 2)(x, indices)


def dense(data: Array, indices: Array, shape: Sequence[int]) -> Array:
    return sparse.BCOO((data, indices), shape=tuple(shape)).todense()


def axes_but(ndim: int, *taken: Sequence[int]) -> list[int]:
    """The axes that are in none of ``taken``."""
    return [axis for axis in range(ndim) if not any(axis in some for some in taken)]


def in_order(x: Array, axes: Sequence[int]) -> Array:
    """``x``, whose axis ``i`` is axis ``axes[i]`` of the result."""
    return lax.transpose(x, [int(i) for i in np.argsort(axes)])


# ---------------------------------------------------------------------------------------------------------------- bcoo

linear(primitive("bcoo_todense"), lambda ct, data, indices: sum_broadcast(at_entries(ct, indices), data.shape))


def extract_transpose(ct: Array, indices: Array, x: ShapedArray, *, assume_unique: bool) -> Array:
    """The cotangent of an entry is added where the entry was read; of several entries at one place, the operation reads one."""
    if not assume_unique:
        is_read = primitive("bcoo_extract").bind(indices, lax.full(x.shape, 1, ct.dtype), assume_unique=False)
        ct = lax.mul(ct, is_read)
    return dense(ct, indices, x.shape)


linear(primitive("bcoo_extract"), None, extract_transpose)


def fromdense_with_indices(x: Array, **params: object) -> tuple[list[Array], Array]:
    outs = primitive("bcoo_fromdense").bind(x, **params)
    return outs, outs[1]


def fromdense_push(t: Array, _: Array, *, saved: Array) -> list[Tangent]:
    """The tangents at the stored places, which are constant almost everywhere."""
    found = at_entries(t, saved)
    if not saved.shape[-1]:  # no axis is sparse: the one value is stored in the first entry
        number = lax.broadcasted_iota(np.int32, found.shape, saved.ndim - 2)
        found = where(lax.eq(number, lax.full_like(number, 0)), found)
    return [found, None]


pushforward(primitive("bcoo_fromdense"), fromdense_push, saves=fromdense_with_indices)


def bcoo_transpose_transpose(cts: Sequence[Array], data: ShapedArray, indices: Array, *, permutation: Sequence[int]) -> Array:
    """The data have one axis for all sparse axes, which stay in one group."""
    n_batch, n_sparse = indices.ndim - 2, indices.shape[-1]
    axes = [*permutation[:n_batch], n_batch, *[axis - n_sparse + 1 for axis in permutation[n_batch + n_sparse:]]]
    return in_order(cts[0], axes)


linear(primitive("bcoo_transpose"), bcoo_transpose_transpose)


def sorted_with_order(data: Array, indices: Array, *, spinfo: SparseInfo) -> tuple[list[Array], Array]:
    """The result of the operation, and its result for numbers in place of data: the place that each entry came from."""
    sort = primitive("bcoo_sort_indices")
    n_batch, (n_entries, n_sparse) = indices.ndim - 2, indices.shape[-2:]
    numbers = lax.broadcasted_iota(np.int32, (*[1] * n_batch, n_entries), n_batch)
    order, _ = sort.bind(numbers, indices, spinfo=spinfo._replace(shape=spinfo.shape[: n_batch + n_sparse]))
    return sort.bind(data, indices, spinfo=spinfo), order


pushforward(primitive("bcoo_sort_indices"), lambda t, *_, saved: [at_entries(t, lax.expand_dims(saved, (saved.ndim,))), None],
            saves=sorted_with_order)


def places(indices: Array, shape: Sequence[int]) -> Array:
    """For each entry, the number of its index among the distinct indices in order; all out of bounds count as one, the last."""

    def number(indices: Array) -> Array:
        n_entries, n_sparse = indices.shape
        counted = lax.iota(indices.dtype, n_entries)
        if not n_sparse or not n_entries:
            return lax.full_like(counted, 0)
        bounds = jnp.asarray(shape[-n_sparse:], indices.dtype)
        outside = (indices >= bounds[None]).any(-1)
        *columns, order = lax.sort((*[lax.select(outside, lax.full_like(outside, bound, indices.dtype), indices[:, k])
                                      for k, bound in enumerate(shape[-n_sparse:])], counted), num_keys=n_sparse)
        steps = [lax.ne(c[1:], c[:-1]) for c in columns]
        is_new = jnp.any(jnp.stack(steps), 0).astype(indices.dtype)
        numbers = lax.cumsum(lax.pad(is_new, jnp.asarray(0, indices.dtype), [(1, 0, 0)]))
        return lax.full_like(counted, 0).at[order].set(numbers, unique_indices=True)

    return each_batch(number, indices.ndim - 2)(indices)


def sum_duplicates_transpose(cts: Sequence[Array], data: ShapedArray, indices: Array, *, spinfo: SparseInfo) -> Array:
    """Each entry was added to the one of its place, or dropped beyond ``nse``."""
    shape = spinfo.shape[: indices.ndim - 2 + indices.shape[-1]]
    return sum_broadcast(at_entries(cts[0], lax.expand_dims(places(indices, shape), (indices.ndim - 1,))), data.shape)


class SumDuplicatesRow(LinearRow):
    """If ``nse`` is None, the entries are counted, which needs concrete indices."""

    def counted(self, primals: Sequence[Operand], params: Params) -> Params:
        if params["nse"] is not None:
            return params
        indices = primals[1]
        data = lax.full(indices.shape[:-1], 0.0)
        spinfo = params["spinfo"]._replace(shape=params["spinfo"].shape[: indices.ndim - 2 + indices.shape[-1]])
        return {**params, "nse": self.bind((data, indices), {**params, "spinfo": spinfo})[0].shape[-1]}

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        return super().jvp(primals, tangents, self.counted(primals, params))

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Taped:
        return super().linearize(primals, active, self.counted(primals, params), is_linear)


register(SumDuplicatesRow(primitive("bcoo_sum_duplicates"), (sum_duplicates_transpose,)))


# ------------------------------------------------------------------------------------------------------ bcoo: products


def contracted(x: sparse.BCOO, y: Array, x_contract: Sequence[int], y_contract: Sequence[int], x_batch: Sequence[int],
               y_batch: Sequence[int], dtype: DType | None = None) -> Array:
    """The product of a sparse ``x`` and a dense ``y``, also for axes that the operation of jax does not support."""
    numbers = ((tuple(x_contract), tuple(y_contract)), (tuple(x_batch), tuple(y_batch)))
    if max(x_batch, default=-1) >= x.n_batch:
        return lax.dot_general(x.todense(), y, numbers, preferred_element_type=dtype)
    if max(x_contract, default=-1) >= x.n_batch + x.n_sparse:
        x = sparse.bcoo_update_layout(x, n_dense=0, on_inefficient=None)
    return sparse.bcoo_dot_general(x, y, dimension_numbers=numbers, preferred_element_type=dtype)  # type: ignore[arg-type, return-value]


def sampled(ct: Array, x_shape: Sequence[int], indices: Array, y: Array, numbers: DimensionNumbers) -> Array:
    """The cotangent of the data of ``x`` in ``x · y``: that of a dense ``x`` at the entries alone.

    With entry ``e`` of batch ``b`` at the index ``(i, k)``, ``i`` kept and ``k`` contracted, ``d`` dense, and ``j`` the free axes
    of ``y``: ``out[b,i,d,j] = Σ_k x[b,i,k,d] y[b,k,j]``, so ``ct_data[b,e,d] = Σ_j ct[b,i(e),d,j] y[b,k(e),j]``.  Each batch axis
    of ``x`` is one of ``ct`` (it is batch, or kept), of ``y`` (it is contracted), or of both.
    """
    (x_contract, y_contract), (x_batch, y_batch) = numbers
    n_batch, n_sparse = indices.ndim - 2, indices.shape[-1]
    kept = axes_but(len(x_shape), x_contract, x_batch)
    ct_axes = {axis: i for i, axis in enumerate((*x_batch, *kept))}
    y_axes = {**dict(zip(x_batch, y_batch, strict=True)), **dict(zip(x_contract, y_contract, strict=True))}
    n_free = ct.ndim - len(ct_axes)

    def arranged(x: Array, axes: dict[int, int]) -> tuple[Array, list[int]]:
        """All batch axes, of size 1 where there is none, sparse axes, the rest; and which sparse axes there are."""
        found = [axis for axis in range(n_batch + n_sparse) if axis in axes]
        first = [axes[axis] for axis in found]
        x = lax.transpose(x, [*first, *axes_but(x.ndim, first)])
        columns = [axis - n_batch for axis in found if axis >= n_batch]
        return lax.expand_dims(x, [axis for axis in range(n_batch) if axis not in axes]), columns

    (left, left_columns), (right, right_columns) = arranged(ct, ct_axes), arranged(y, y_axes)

    def product(left: Array, right: Array, indices: Array) -> Array:
        if left_columns:
            left = at_entries(left, indices[:, np.array(left_columns)])
        if right_columns:
            right = at_entries(right, indices[:, np.array(right_columns)])
        free = [tuple(range(x.ndim - n_free, x.ndim)) for x in (left, right)]
        if left_columns and right_columns:
            return lax.dot_general(left, right, ((free[0], free[1]), ((0,), (0,))))
        if right_columns:
            return lax.dot_general(right, left, ((free[1], free[0]), ((), ())))
        result = lax.dot_general(left, right, ((free[0], free[1]), ((), ())))
        return result if left_columns else lax.broadcast(result, indices.shape[:1])

    return each_batch(product, n_batch)(left, right, indices)


def bcoo_data_transpose(ct: Array, data: ShapedArray, indices: Array, y: Array, *, dimension_numbers: DimensionNumbers,
                        lhs_spinfo: SparseInfo) -> Array:
    return cast_like(sum_broadcast(sampled(ct, lhs_spinfo.shape, indices, y, dimension_numbers), data.shape), data)


def bcoo_dense_transpose(ct: Array, data: Array, indices: Array, y: ShapedArray, *, dimension_numbers: DimensionNumbers,
                         lhs_spinfo: SparseInfo, preferred_element_type: DType | None) -> Array:
    """``ct_y[b,k,j] = Σ_i x[b,i,k] ct[b,i,j]``, with ``k`` in its order in ``x``."""
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    x = sparse.BCOO((data, indices), **lhs_spinfo._asdict())
    kept = axes_but(x.ndim, x_contract, x_batch)
    n_batch = len(x_batch)
    result = contracted(x, ct, kept, range(n_batch, n_batch + len(kept)), x_batch, range(n_batch), preferred_element_type)
    contract = [y_contract[n] for n in np.argsort(x_contract)]
    return cast_like(in_order(result, [*y_batch, *contract, *axes_but(y.ndim, y_batch, y_contract)]), y)


bilinear(primitive("bcoo_dot_general"), bcoo_data_transpose, None, bcoo_dense_transpose)


def sampled_transpose(ct: Array, x: ShapedArray, y: Array, indices: Array, numbers: DimensionNumbers, is_right: bool) -> Array:
    """The cotangent of ``x`` in the entries of ``x · y`` at the indices; where ``is_right``, they are those of ``y · x``.

    The cotangent of ``x · y`` is a sparse array, and its product with ``y`` is the cotangent of ``x``.
    """
    (x_contract, y_contract), (x_batch, y_batch) = numbers
    x_free, y_free = axes_but(x.ndim, x_contract, x_batch), axes_but(y.ndim, y_contract, y_batch)
    first, second = (y_free, x_free) if is_right else (x_free, y_free)
    n_batch = len(x_batch)
    whose: list[Array | ShapedArray] = [x, y] if not is_right else [y, x]
    shape = (*[x.shape[i] for i in x_batch], *[whose[0].shape[i] for i in first], *[whose[1].shape[i] for i in second])
    start = n_batch if is_right else n_batch + len(first)
    product = contracted(sparse.BCOO((ct, indices), shape=shape), y, range(start, start + len(y_free)), y_free, range(n_batch),
                         y_batch)
    contract = [x_contract[n] for n in np.argsort(y_contract)]
    return cast_like(in_order(product, [*x_batch, *x_free, *contract]), x)


def swapped(numbers: DimensionNumbers) -> DimensionNumbers:
    (x_contract, y_contract), (x_batch, y_batch) = numbers
    return (y_contract, x_contract), (y_batch, x_batch)


bilinear(primitive("bcoo_dot_general_sampled"),
         lambda ct, x, y, indices, *, dimension_numbers: sampled_transpose(ct, x, y, indices, dimension_numbers, False),
         lambda ct, x, y, indices, *, dimension_numbers: sampled_transpose(ct, y, x, indices, swapped(dimension_numbers), True),
         None)


class ProductRow(PushforwardRow):
    """A product of two operands whose push is a program; each factor is a residual only if the other is active."""

    kind = "product"

    def __init__(self, primitive: Primitive, product: Push, factors: tuple[int, int]):
        super().__init__(primitive, product, linear_in=factors)
        self.partner = dict(zip(factors, factors[::-1], strict=True))

    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand],
             saved: Residuals) -> Residuals:
        return tuple([None if i in self.partner and not active[self.partner[i]] else x for i, x in enumerate(primals)])


def by_factors(product: Callable[[Array, Array], Array], t_x: Tangent, t_y: Tangent, x: Array, y: Array) -> Tangent:
    """The product rule."""
    return zeros.add(None if t_x is None else product(t_x, y), None if t_y is None else product(x, t_y))


def spdot_push(ts: Sequence[Tangent], x: Array, x_indices: Array, y: Array, y_indices: Array, *, lhs_spinfo: SparseInfo,
               rhs_spinfo: SparseInfo, dimension_numbers: DimensionNumbers, preferred_element_type: DType | None) -> list[Tangent]:
    """Every entry of ``x`` times every entry of ``y``, where their contracted indices are equal, added at their place in the result."""
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    n_x, n_y, n_shared = x_indices.ndim - 2, y_indices.ndim - 2, len(x_batch)
    x_rest, y_rest = axes_but(n_x, x_batch), axes_but(n_y, y_batch)
    x_shape, y_shape = lhs_spinfo.shape[n_x:], rhs_spinfo.shape[n_y:]
    x_columns, y_columns = [axis - n_x for axis in x_contract], [axis - n_y for axis in y_contract]
    x_kept, y_kept = axes_but(len(x_shape), x_columns), axes_but(len(y_shape), y_columns)
    shape = (*[x_shape[k] for k in x_kept], *[y_shape[k] for k in y_kept])
    n_entries = min((x_indices.shape[-2] if x_kept else 1) * (y_indices.shape[-2] if y_kept else 1), int(np.prod(shape)))

    def product(x: Array, x_indices: Array, y: Array, y_indices: Array) -> Array:
        agree = jnp.ones((len(x_indices), len(y_indices)), bool)
        for i, k in zip(x_columns, y_columns, strict=True):
            left, right = x_indices[:, None, i], y_indices[None, :, k]
            agree = agree & (left == right) & (left < x_shape[i])
        data = lax.mul(*[lax.broadcast_in_dim(z, agree.shape, (i,)) for i, z in enumerate((x, y))])
        parts = [lax.broadcast_in_dim(z, (*agree.shape, z.shape[1]), (i, 2))
                 for i, z in enumerate((x_indices[:, np.array(x_kept, int)], y_indices[:, np.array(y_kept, int)]))]
        indices = jnp.concatenate(parts, -1).reshape(agree.size, len(shape))
        pairs = lax.reshape(where(agree, data), (agree.size,))
        return lax.full((n_entries,), 0, data.dtype).at[places(indices, shape)].add(pairs, mode="drop")

    def arranged(z: Array, batch: Sequence[int], rest: Sequence[int], at: int, n_new: int) -> Array:
        z = lax.transpose(z, [*batch, *rest, *range(len(batch) + len(rest), z.ndim)])
        return lax.expand_dims(z, range(at, at + n_new))

    over_batches = each_batch(product, n_shared + len(x_rest) + len(y_rest))

    def whole(x: Array, y: Array) -> Array:
        left = [arranged(z, x_batch, x_rest, n_shared + len(x_rest), len(y_rest)) for z in (x, x_indices)]
        right = [arranged(z, y_batch, y_rest, n_shared, len(x_rest)) for z in (y, y_indices)]
        return over_batches(*left, *right)

    return [by_factors(whole, ts[0], ts[2], x, y), None]


register(ProductRow(primitive("bcoo_spdot_general"), spdot_push, (0, 2)))
