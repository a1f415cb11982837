"""Indexing: slices at dynamic places, gather, and the scatter family.

A gather and the scatter-add with the same indices are adjoint to each other; both treat indices out of bounds in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax.numpy as jnp
from jax import Array, lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent, Tangents
from dualrev.linear.places import Gathered, Window
from dualrev.options.settings import Active
from dualrev.rules.reduce import previous, recurrence, where
from dualrev.rules.sort import take_along
from dualrev.table.adjoints import LinearRow
from dualrev.table.axes import Axes, beside, kept, placed
from dualrev.table.choosing import ByParameterRow
from dualrev.table.forms import linear
from dualrev.table.operations import Residuals, Site
from dualrev.table.pushforward import PushforwardRow, pushforward
from dualrev.table.rows import Operand, register

# ------------------------------------------------------------------------------------------------------- dynamic slices

# The primitives are bound directly: the public functions would wrap negative starts a second time.


def dynamic_slice_transpose(ct: Array, x: ShapedArray, *starts: Array) -> Array:
    """Both slices clamp their starts in the same way, so the cotangent is added where the slice was taken."""
    return Window(ct.shape).embed(ct, x, *starts)


linear(lax.dynamic_slice_p, dynamic_slice_transpose, cost="moves", part=lambda _, *, slice_sizes: Window(tuple(slice_sizes)),
       axes=lambda x, *_starts, slice_sizes: beside(kept(x.ndim, [a for a, n in enumerate(x.shape) if slice_sizes[a] != n]),
                                                    len(_starts)))

linear(lax.dynamic_update_slice_p,
       lambda ct, _, update, *starts: lax.dynamic_update_slice_p.bind(ct, zeros.zeros_of(update), *starts),
       lambda ct, _, update, *starts: lax.dynamic_slice_p.bind(ct, *starts, slice_sizes=update.shape),
       cost="moves")


# --------------------------------------------------------------------------------------------------------------- gather


def gathered(_: ShapedArray, *, dimension_numbers: lax.GatherDimensionNumbers, indices_are_sorted: bool, unique_indices: bool,
             mode: lax.GatherScatterMode) -> Gathered:
    return Gathered(dimension_numbers, indices_are_sorted, unique_indices, mode)


def gather_transpose(ct: Array, x: ShapedArray, indices: Array, *, dimension_numbers: lax.GatherDimensionNumbers,
                     indices_are_sorted: bool, unique_indices: bool, mode: lax.GatherScatterMode) -> Array:
    """Each cotangent is added where its value was read; a value read out of bounds is constant."""
    return Gathered(dimension_numbers, indices_are_sorted, unique_indices, mode).embed(ct, x, indices)


def gathered_axes(x: ShapedArray, _indices: ShapedArray, *, dimension_numbers: lax.GatherDimensionNumbers,
                  slice_sizes: Sequence[int]) -> Axes:
    """Axes that are taken whole are axes of the result."""
    d = dimension_numbers
    gone = {*d.collapsed_slice_dims, *d.operand_batching_dims}
    windows = [a for a in range(x.ndim) if a not in gone]
    whole = {a: b for a, b in zip(windows, d.offset_dims, strict=True) if slice_sizes[a] == x.shape[a]}
    rank = len(d.offset_dims) + _indices.ndim - 1
    return beside(placed(x.ndim, whole, rank), 1)


class FilledRow(LinearRow):
    """The push is a gather that reads zero where the operation itself reads its ``fill_value``."""

    def push(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        return (lax.gather_p.bind(*tangents, *residuals, **{**site.params, "fill_value": 0}),)


def fills(params: Params) -> bool:
    return params["mode"] is lax.GatherScatterMode.FILL_OR_DROP


register(ByParameterRow(LinearRow(lax.gather_p, (gather_transpose,), part=gathered, axes=gathered_axes),
                        FilledRow(lax.gather_p, (gather_transpose,), linear_in=(), part=gathered, axes=gathered_axes), fills))


# -------------------------------------------------------------------------------------------------------------- scatter

#: The parameters of a scatter: its dimension numbers, whether indices are sorted, whether they are unique, its mode.
How: TypeAlias = tuple[lax.ScatterDimensionNumbers, bool, bool, lax.GatherScatterMode]


def read(x: Array, indices: Array, updates: Array | ShapedArray, numbers: lax.ScatterDimensionNumbers, indices_are_sorted: bool,
         unique_indices: bool, mode: lax.GatherScatterMode, *, fill: int = 0) -> Array:
    """The entries of ``x`` where a scatter puts its ``updates``, and ``fill`` for those that it drops."""
    absent = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = iter([updates.shape[i] for i in numbers.update_window_dims])
    sizes = tuple([1 if i in absent else next(window) for i in range(x.ndim)])
    gather_numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(numbers.update_window_dims),
        collapsed_slice_dims=tuple(numbers.inserted_window_dims),
        start_index_map=tuple(numbers.scatter_dims_to_operand_dims),
        operand_batching_dims=tuple(numbers.operand_batching_dims),
        start_indices_batching_dims=tuple(numbers.scatter_indices_batching_dims))
    return lax.gather(x, indices, gather_numbers, sizes, indices_are_sorted=indices_are_sorted, unique_indices=unique_indices,
                      mode=mode, fill_value=fill)


def cannot_collide(indices: Array, numbers: lax.ScatterDimensionNumbers, unique_indices: bool) -> bool:
    """Whether no two updates have the same place: the user promises so, or there is one window only (per batch)."""
    batch = numbers.scatter_indices_batching_dims
    return unique_indices or all(n <= 1 for i, n in enumerate(indices.shape[:-1]) if i not in batch)


def winners(x: Array | ShapedArray, indices: Array, updates: Array | ShapedArray, how: How) -> tuple[Array, Array]:
    """The number of each update, and the result of scattering these numbers in the same way (-1: nothing was written)."""
    dimension_numbers, indices_are_sorted, unique_indices, mode = how
    numbers = lax.reshape(lax.iota(jnp.int32, updates.size), updates.shape)
    written = lax.scatter(lax.full(x.shape, -1, jnp.int32), indices, numbers, dimension_numbers,
                          indices_are_sorted=indices_are_sorted, unique_indices=unique_indices, mode=mode)
    return numbers, written


def scatter_operand_transpose(ct: Array, x: ShapedArray, indices: Array, updates: ShapedArray, *,
                              dimension_numbers: lax.ScatterDimensionNumbers, indices_are_sorted: bool, unique_indices: bool,
                              mode: lax.GatherScatterMode) -> Array:
    how = (dimension_numbers, indices_are_sorted, unique_indices, mode)
    if cannot_collide(indices, dimension_numbers, unique_indices):
        return lax.scatter(ct, indices, zeros.zeros_of(updates), dimension_numbers, indices_are_sorted=indices_are_sorted,
                           unique_indices=unique_indices, mode=mode)
    # The rule for the updates computes the same, which a compiler shares.
    _, written = winners(x, indices, updates, how)
    return where(lax.lt(written, lax.full_like(written, 0)), ct)


def scatter_updates_transpose(ct: Array, x: ShapedArray, indices: Array, updates: ShapedArray, *,
                              dimension_numbers: lax.ScatterDimensionNumbers, indices_are_sorted: bool, unique_indices: bool,
                              mode: lax.GatherScatterMode) -> Array:
    """Of several updates of one place, the one that was written last gets the cotangent."""
    how = (dimension_numbers, indices_are_sorted, unique_indices, mode)
    found = read(ct, indices, updates, *how)
    if cannot_collide(indices, dimension_numbers, unique_indices):
        return found
    numbers, written = winners(x, indices, updates, how)
    return where(lax.eq(read(written, indices, updates, *how, fill=-1), numbers), found)


linear(lax.scatter_p, scatter_operand_transpose, None, scatter_updates_transpose)


def scatter_add_updates_transpose(ct: Array, _: ShapedArray, indices: Array, updates: ShapedArray, *,
                                  dimension_numbers: lax.ScatterDimensionNumbers, indices_are_sorted: bool, unique_indices: bool,
                                  mode: lax.GatherScatterMode) -> Array:
    return read(ct, indices, updates, dimension_numbers, indices_are_sorted, unique_indices, mode)


def scatter_sub_updates_transpose(ct: Array, _: ShapedArray, indices: Array, updates: ShapedArray, *,
                                  dimension_numbers: lax.ScatterDimensionNumbers, indices_are_sorted: bool, unique_indices: bool,
                                  mode: lax.GatherScatterMode) -> Array:
    return lax.neg(read(ct, indices, updates, dimension_numbers, indices_are_sorted, unique_indices, mode))


linear(lax.scatter_add_p, lambda ct, *_: ct, None, scatter_add_updates_transpose)
linear(lax.scatter_sub_p, lambda ct, *_: ct, None, scatter_sub_updates_transpose)


def other_updates(x: Array, indices: Array, updates: Array, how: How) -> Array:
    """For each update, the product of all others that a scatter-mul puts in the same place.

    Sorted by place, the updates of one place are neighbours: products run from its first update and from its last one.
    """
    places = lax.reshape(lax.iota(jnp.int32, x.size), x.shape)
    place = lax.reshape(read(places, indices, updates, *how, fill=-1), (updates.size,))
    place, order = lax.sort((place, lax.iota(jnp.int32, updates.size)), num_keys=1)
    u = take_along(lax.reshape(updates, (updates.size,)), order, 0)
    others = lax.full_like(u, 1)
    for reverse in (False, True):
        is_first = lax.ne(place, previous(place, -2, 0, reverse))
        factor = where(lax.bitwise_not(is_first), previous(u, 1, 0, reverse))
        others = lax.mul(others, recurrence(factor, lax.convert_element_type(is_first, u.dtype), 0, reverse))
    _, back = lax.sort((order, lax.iota(jnp.int32, updates.size)), num_keys=1)
    return lax.reshape(take_along(others, back, 0), updates.shape)


def scatter_mul_push(ts: Sequence[Tangent], x: Array, indices: Array, updates: Array, *, dimension_numbers: lax.ScatterDimensionNumbers,
                     indices_are_sorted: bool, unique_indices: bool, mode: lax.GatherScatterMode) -> Tangent:
    """``out = x Π u`` over the updates of each place, linear in ``x`` and in each ``u``."""
    t, _, t_updates = ts
    how = (dimension_numbers, indices_are_sorted, unique_indices, mode)
    total = None
    if t is not None:
        factor = lax.scatter_mul(lax.full_like(t, 1), indices, updates, dimension_numbers,
                                 indices_are_sorted=indices_are_sorted, unique_indices=unique_indices, mode=mode)
        total = lax.mul(t, factor)
    if t_updates is not None:
        scaled = lax.mul(t_updates, read(x, indices, updates, *how))
        if not cannot_collide(indices, dimension_numbers, unique_indices):
            scaled = lax.mul(scaled, other_updates(x, indices, updates, how))
        total = lax.scatter_add(lax.full_like(x, 0) if total is None else total, indices, scaled, dimension_numbers,
                                indices_are_sorted=indices_are_sorted, unique_indices=unique_indices, mode=mode)
    return total


class ScatterMulRow(PushforwardRow):
    """The operand is a residual only if an update is active: otherwise the operation is linear."""

    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand],
             saved: Residuals) -> Residuals:
        x, indices, updates = primals
        return (x if active[2] else None, indices, updates)


register(ScatterMulRow(lax.scatter_mul_p, scatter_mul_push, linear_in=(0,)))


def scatter_chosen(ts: Sequence[Tangent], x: Array, indices: Array, updates: Array, *, out: Array,
                   dimension_numbers: lax.ScatterDimensionNumbers, indices_are_sorted: bool, unique_indices: bool,
                   mode: lax.GatherScatterMode) -> Array:
    """The mean of the tangents of the values that equal the result: the operand's entry and the updates of its place."""
    t, _, t_updates = ts
    how = (dimension_numbers, indices_are_sorted, unique_indices, mode)

    def add(target: Array, source: Array) -> Array:
        return lax.scatter_add(target, indices, source, dimension_numbers, indices_are_sorted=indices_are_sorted,
                               unique_indices=unique_indices, mode=mode)

    kept = lax.eq(x, out)
    won = lax.eq(updates, read(out, indices, updates, *how))
    count = add(lax.convert_element_type(kept, jnp.int32), lax.convert_element_type(won, jnp.int32))
    total = lax.full_like(x, 0) if t is None else where(kept, t)
    if t_updates is not None:
        total = add(total, where(won, t_updates))
    return lax.div(total, lax.convert_element_type(count, x.dtype))


pushforward(lax.scatter_min_p, scatter_chosen)
pushforward(lax.scatter_max_p, scatter_chosen)
