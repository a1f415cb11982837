"""Reductions over windows, and the selections that differentiate them.

Window positions are those of a convolution: see equation (1) in :mod:`dualrev.rules.conv`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import Array, lax

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.primitives import Primitive
from dualrev.rules.conv import input_padding
from dualrev.table.forms import linear
from dualrev.table.pushforward import pushforward

Padding = Sequence[tuple[int, int]]


def reduce_window_sum_transpose(ct: Array, x: ShapedArray, *, window_dimensions: Sequence[int], window_strides: Sequence[int],
                                padding: Padding, base_dilation: Sequence[int], window_dilation: Sequence[int]) -> Array:
    """The adjoint of a convolution with a kernel of ones: windows of the cotangent, dilated by the stride."""
    if 0 in ct.shape or 0 in x.shape:
        return lax.full(x.shape, 0, x.dtype)
    pads = input_padding(x.shape, window_dimensions, ct.shape, padding, window_strides, base_dilation, window_dilation)
    # After dilating and padding the rest is a window sum without either, which compilers handle best.
    dilated = lax.pad(ct, np.zeros((), ct.dtype), [(lo, hi, s - 1) for (lo, hi), s in zip(pads, window_strides, strict=True)])
    return lax.reduce_window_sum_p.bind(
        dilated, window_dimensions=tuple(window_dimensions), window_strides=tuple(base_dilation),
        padding=((0, 0),) * x.ndim, base_dilation=(1,) * x.ndim, window_dilation=tuple(window_dilation))


def gather_transpose(ct: Array, _t: ShapedArray, x: Array, *, select_prim: Primitive, window_dimensions: Sequence[int],
                     window_strides: Sequence[int], padding: Padding, base_dilation: Sequence[int],
                     window_dilation: Sequence[int]) -> Array:
    """Each cotangent is added to the entry that its window selects."""
    if 0 in ct.shape or 0 in x.shape:
        return lax.full(x.shape, 0, ct.dtype)
    if any(r != 1 for r in window_dilation):
        return _scatter_by_index(ct, x, select_prim, window_dimensions, window_strides, padding, base_dilation,
                                 window_dilation)
    params = dict(select_prim=select_prim, window_dimensions=tuple(window_dimensions), window_strides=tuple(window_strides))
    if all(d == 1 for d in base_dilation) and all(lo >= 0 and hi >= 0 for lo, hi in padding):
        return lax.select_and_scatter_add_p.bind(ct, x, padding=tuple(padding), **params)
    # The scatter has neither dilation nor negative padding: it runs on the padded array, and its result is cropped.
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(padding, base_dilation, strict=True)]
    padded = lax.pad(x, _never_selected(x.dtype, select_prim), config)
    result = lax.select_and_scatter_add_p.bind(ct, padded, padding=((0, 0),) * x.ndim, **params)
    zero = np.zeros((), ct.dtype)
    result = lax.pad(result, zero, [(-lo, -hi, 0) for lo, hi in padding])
    return lax.slice(result, (0,) * x.ndim, result.shape, base_dilation)


def _never_selected(dtype: DType, select_prim: Primitive) -> np.ndarray:
    return np.array(-np.inf if select_prim is lax.ge_p else np.inf, dtype)


def _scatter_by_index(ct: Array, x: Array, select_prim: Primitive, window_dimensions: Sequence[int], window_strides: Sequence[int],
                      padding: Padding, base_dilation: Sequence[int], window_dilation: Sequence[int]) -> Array:
    """Select the entries' positions in place of the entries, then add each cotangent at its position."""
    size = int(np.prod(x.shape))
    positions = lax.reshape(lax.iota(np.int32 if size < 2**31 else np.int64, size), x.shape)

    def select(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        which = select_prim.bind(left[0], right[0])
        return lax.select(which, left[0], right[0]), lax.select(which, left[1], right[1])

    # A window of padding alone selects the position behind the last one, where additions are dropped.
    nowhere = np.array(size, positions.dtype)
    # Positions have derivative zero in x, so that higher orders need no derivative of this reduction.
    _, chosen = lax.reduce_window((lax.stop_gradient(x), positions), (_never_selected(x.dtype, select_prim), nowhere),
                                  select, tuple(window_dimensions), tuple(window_strides), tuple(padding),
                                  tuple(base_dilation), tuple(window_dilation))
    count = int(np.prod(ct.shape))
    dnums = lax.ScatterDimensionNumbers(update_window_dims=(), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,))
    flat = lax.scatter_add(lax.full((size,), 0, ct.dtype), lax.reshape(chosen, (count, 1)), lax.reshape(ct, (count,)), dnums,
                           mode=lax.GatherScatterMode.FILL_OR_DROP)
    return lax.reshape(flat, x.shape)


def scatter_transpose(ct: Array, source: ShapedArray, x: Array, *, select_prim: Primitive, window_dimensions: Sequence[int],
                      window_strides: Sequence[int], padding: Padding) -> Array:
    """The cotangent of an entry of the source is read where its window added the entry."""
    if 0 in ct.shape or 0 in source.shape:
        return lax.full(source.shape, 0, ct.dtype)
    return _gather(ct, x, select_prim, window_dimensions, window_strides, padding, (1,) * x.ndim, (1,) * x.ndim)


def _gather(t: Array, x: Array, select_prim: Primitive, window_dimensions: Sequence[int], window_strides: Sequence[int],
            padding: Padding, base_dilation: Sequence[int], window_dilation: Sequence[int]) -> Array:
    return lax.select_and_gather_add_p.bind(
        t, x, select_prim=select_prim, window_dimensions=tuple(window_dimensions), window_strides=tuple(window_strides),
        padding=tuple(padding), base_dilation=tuple(base_dilation), window_dilation=tuple(window_dilation))


def reduce_window_max_push(t: Array, x: Array, *, window_dimensions: Sequence[int], window_strides: Sequence[int], padding: Padding,
                           base_dilation: Sequence[int], window_dilation: Sequence[int]) -> Array:
    """The tangent of the selected entry: at ties the first in the window, as in jax."""
    return _gather(t, x, lax.ge_p, window_dimensions, window_strides, padding, base_dilation, window_dilation)


def reduce_window_min_push(t: Array, x: Array, *, window_dimensions: Sequence[int], window_strides: Sequence[int], padding: Padding,
                           base_dilation: Sequence[int], window_dilation: Sequence[int]) -> Array:
    return _gather(t, x, lax.le_p, window_dimensions, window_strides, padding, base_dilation, window_dilation)


linear(lax.reduce_window_sum_p, reduce_window_sum_transpose)
pushforward(lax.reduce_window_max_p, reduce_window_max_push)
pushforward(lax.reduce_window_min_p, reduce_window_min_push)

# Linear in what is selected; which entry is selected is constant almost everywhere, hence None.
linear(lax.select_and_gather_add_p, gather_transpose, None)
linear(lax.select_and_scatter_add_p, scatter_transpose, None)
