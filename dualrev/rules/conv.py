"""Convolutions.

In one spatial dimension, with the input ``x`` of ``n`` entries dilated by ``d`` (``xd[i·d] = x[i]``, zero elsewhere and
outside), the kernel ``w`` of ``K`` entries dilated by ``r``, stride ``s`` and ``lo`` zeros in front::

    out[o] = Σ_k w[k] · xd[o·s + k·r - lo]                                          (1)

A negative ``lo`` skips entries; the padding behind determines the number of outputs, and nothing else.  ``span(n, d) = (n-1)·d + 1``
is the length of a dilated axis, and (1) has ``m`` outputs if the padded input is ``span(m, s) + span(K, r) - 1`` long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax import Array, lax

from dualrev._jax.avals import DType, ShapedArray
from dualrev.rules.contract import cast_like, permuted_sharding
from dualrev.table.forms import bilinear

Padding = Sequence[tuple[int, int]]


def span(n: int, dilation: int) -> int:
    return (n - 1) * dilation + 1 if n > 0 else 0


def input_padding(n: Sequence[int], window: Sequence[int], m: Sequence[int], padding: Padding, strides: Sequence[int],
                  base_dilation: Sequence[int], window_dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Padding of the adjoint of (1) in ``x``, which is a convolution as well.

    ``x[i]`` meets ``w[k]`` in output ``o`` where ``o·s + k·r - lo = i·d``.  With ``ctd`` the cotangent dilated by ``s`` and
    ``k' = K-1-k`` running through the reversed kernel::

        ct_x[i] = Σ_k w[k]·ctd[i·d + lo - k·r] = Σ_k' w[K-1-k']·ctd[i·d + k'·r - ((K-1)·r - lo)]

    which is (1) with stride ``d``, base dilation ``s`` and ``(K-1)·r - lo`` in front; behind, the padding that gives ``n`` outputs.
    """
    pads = []
    for nn, k, mm, (lo, _), s, d, r in zip(n, window, m, padding, strides, base_dilation, window_dilation, strict=True):
        front = span(k, r) - 1 - lo
        pads.append((front, span(nn, d) + span(k, r) - 1 - span(mm, s) - front))
    return pads


def exchanged_padding(n: Sequence[int], window: Sequence[int], m: Sequence[int], padding: Padding, strides: Sequence[int],
                      base_dilation: Sequence[int], window_dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Padding of the adjoint of (1) in ``x``, with the cotangent as the kernel.

    With ``wd`` the kernel dilated by ``r`` and ``o' = m-1-o`` running through the reversed cotangent::

        ct_x[i] = Σ_o ct[o]·wd[i·d + lo - o·s] = Σ_o' ct[m-1-o']·wd[i·d + o'·s - ((m-1)·s - lo)]

    which is (1) with stride ``d``, base dilation ``r``, kernel dilation ``s`` and ``(m-1)·s - lo`` in front.
    """
    pads = []
    for nn, k, mm, (lo, _), s, d, r in zip(n, window, m, padding, strides, base_dilation, window_dilation, strict=True):
        front = span(mm, s) - 1 - lo
        pads.append((front, span(nn, d) + span(mm, s) - 1 - span(k, r) - front))
    return pads


def kernel_padding(n: Sequence[int], window: Sequence[int], m: Sequence[int], padding: Padding, strides: Sequence[int],
                   base_dilation: Sequence[int], window_dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Padding of the adjoint of (1) in ``w``.

    ``ct_w[k] = Σ_o ct[o]·xd[k·r + o·s - lo]``: (1) with the cotangent as kernel, stride ``r``, kernel dilation ``s`` and
    the same ``lo``; behind, the padding that gives ``K`` outputs.
    """
    return [(lo, span(k, r) + span(mm, s) - 1 - span(nn, d) - lo)
            for nn, k, mm, (lo, _), s, d, r in zip(n, window, m, padding, strides, base_dilation, window_dilation, strict=True)]


def move_groups(x: Array, groups: int, source: int, target: int) -> Array:
    """Split ``groups`` off the front of axis ``source`` and merge it into the front of axis ``target``."""
    shape = list(x.shape)
    split = lax.reshape(x, [*shape[:source], groups, shape[source] // groups, *shape[source + 1:]])
    # In the split array, the group axis is axis `source`, and axes from `source` on have their number increased by one.
    rest = [axis for axis in range(split.ndim) if axis != source]
    rest.insert(target, source)
    shape[source] //= groups
    shape[target] *= groups
    return lax.reshape(lax.transpose(split, rest), shape)


def spatial(shape: Sequence[int], spec: Sequence[int]) -> list[int]:
    return [shape[axis] for axis in spec[2:]]


def exchanged(spec: Sequence[int]) -> tuple[int, ...]:
    """A layout whose first two roles (batch and feature, or output and input feature) are exchanged."""
    return (spec[1], spec[0], *spec[2:])


def common(ct: Array, other: Array) -> tuple[Array, Array]:
    """Both in the dtype of the cotangent: a convolution, unlike a contraction, needs one dtype."""
    return ct, other if other.dtype == ct.dtype else lax.convert_element_type(other, ct.dtype)


# Beside the spatial dimensions, with m batch, j input and k output features, out[m,k] = Σ_j x[m,j]·w[k,j], and so
# ct_x[m,j] = Σ_k ct[m,k]·w[k,j] and ct_w[k,j] = Σ_m x[m,j]·ct[m,k].
#
# Feature groups g:  out[m,(g,k)] = Σ_j x[m,(g,j)]·w[(g,k),j].
#   ct_x[m,(g,j)] = Σ_k ct[m,(g,k)]·w[(g,k),j]: feature groups again, with kernel w'[(g,j),k].
#   ct_w[(g,k),j] = Σ_m x[m,(g,j)]·ct[m,(g,k)]: contracted over m; the output has j as its batch and (g,k) as its features,
#   and each g of the features meets only that g of x's (g,j): batch groups.
# Batch groups g:    out[m,(g,k)] = Σ_j x[(g,m),j]·w[(g,k),j].
#   ct_x[(g,m),j] = Σ_k ct[m,(g,k)]·w[(g,k),j]: feature groups, with kernel w'[(g,j),k]; the result [m,(g,j)] gives g to m.
#   ct_w[(g,k),j] = Σ_m x[(g,m),j]·ct[m,(g,k)]: contracted over m, the features of each group: feature groups.


def conv_lhs_transpose(ct: Array, x: ShapedArray, w: Array, *, window_strides: Sequence[int], padding: Padding,
                       lhs_dilation: Sequence[int], rhs_dilation: Sequence[int], dimension_numbers: lax.ConvDimensionNumbers,
                       feature_group_count: int, batch_group_count: int, precision: lax.PrecisionLike,
                       preferred_element_type: DType | None) -> Array:
    if 0 in ct.shape or 0 in x.shape:
        return lax.full(x.shape, 0, x.dtype)
    x_spec, w_spec, out_spec = dimension_numbers
    sizes = spatial(x.shape, x_spec), spatial(w.shape, w_spec), spatial(ct.shape, out_spec)
    groups = max(feature_group_count, batch_group_count)
    if groups == 1 and math.prod(sizes[2]) < math.prod(sizes[1]):
        # A kernel may be as large as an image, as in the cotangent of a kernel: the smaller of the two becomes the kernel.
        small, large = common(lax.rev(ct, out_spec[2:]), w)
        pads = exchanged_padding(*sizes, padding, window_strides, lhs_dilation, rhs_dilation)
        result = lax.conv_general_dilated(
            large, small, window_strides=lhs_dilation, padding=pads,
            lhs_dilation=rhs_dilation, rhs_dilation=window_strides,
            dimension_numbers=lax.ConvDimensionNumbers(exchanged(w_spec), out_spec, exchanged(x_spec)), precision=precision,
            preferred_element_type=preferred_element_type, out_sharding=permuted_sharding(x, range(x.ndim)))
        return cast_like(result, x)
    pads = input_padding(*sizes, padding, window_strides, lhs_dilation, rhs_dilation)
    kernel = lax.rev(w, w_spec[2:])
    if groups > 1:
        kernel = move_groups(kernel, groups, w_spec[0], w_spec[1])
    ct, kernel = common(ct, kernel)
    result = lax.conv_general_dilated(
        ct, kernel, window_strides=lhs_dilation, padding=pads, lhs_dilation=window_strides, rhs_dilation=rhs_dilation,
        dimension_numbers=lax.ConvDimensionNumbers(out_spec, exchanged(w_spec), x_spec), feature_group_count=groups,
        precision=precision, preferred_element_type=preferred_element_type,
        out_sharding=permuted_sharding(x, range(x.ndim)))
    if batch_group_count > 1:
        result = move_groups(result, batch_group_count, x_spec[1], x_spec[0])
    return cast_like(result, x)


def conv_rhs_transpose(ct: Array, x: Array, w: ShapedArray, *, window_strides: Sequence[int], padding: Padding,
                       lhs_dilation: Sequence[int], rhs_dilation: Sequence[int], dimension_numbers: lax.ConvDimensionNumbers,
                       feature_group_count: int, batch_group_count: int, precision: lax.PrecisionLike,
                       preferred_element_type: DType | None) -> Array:
    if 0 in ct.shape or 0 in w.shape or 0 in x.shape:
        return lax.full(w.shape, 0, w.dtype)
    x_spec, w_spec, out_spec = dimension_numbers
    pads = kernel_padding(spatial(x.shape, x_spec), spatial(w.shape, w_spec), spatial(ct.shape, out_spec), padding,
                          window_strides, lhs_dilation, rhs_dilation)
    ct, x = common(ct, x)
    result = lax.conv_general_dilated(
        x, ct, window_strides=rhs_dilation, padding=pads, lhs_dilation=lhs_dilation, rhs_dilation=window_strides,
        dimension_numbers=lax.ConvDimensionNumbers(exchanged(x_spec), exchanged(out_spec), exchanged(w_spec)),
        feature_group_count=batch_group_count, batch_group_count=feature_group_count, precision=precision,
        preferred_element_type=preferred_element_type, out_sharding=permuted_sharding(w, range(w.ndim)))
    return cast_like(result, w)


bilinear(lax.conv_general_dilated_p, conv_lhs_transpose, conv_rhs_transpose)
