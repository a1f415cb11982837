"""Collectives: operations along a named axis, over the devices of a mesh or the entries of a ``vmap``.

An array along a named axis is one variable per index, and a collective is a linear map between such families: ``psum`` sends ``x`` to
``y_d = Σ_e x_e`` for every ``d``, so its adjoint is ``x_e = Σ_d y_d``, again a ``psum``.  Under ``shard_map(check_vma=True)`` a value
that is the same everywhere is one variable: there the sum is a ``psum_invariant``, and its adjoint makes copies (``pvary``).

jax has no derivative of ``pmax`` and ``pmin``; here indices that tie get equal shares, as entries do in ``reduce_max``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import jax.numpy as jnp
from jax import Array, lax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.primitives import primitive
from dualrev._jax.sharding import varying
from dualrev.linear import zeros
from dualrev.rules.reduce import expand, where
from dualrev.table.forms import linear
from dualrev.table.pushforward import pushforward
from dualrev.table.rows import zero

#: Axes of a reduction: names of mesh or ``vmap`` axes, and positions of the array's own.
Axes: TypeAlias = Sequence[Hashable]

#: The groups of indices that an operation stays within; None for one group of all.
Groups: TypeAlias = Sequence[Sequence[int]] | None

# ------------------------------------------------------------------------------------------------------------------- sums


def positions(axes: Axes) -> tuple[int, ...]:
    """The axes of the array itself among the axes of a reduction, where ``vmap`` puts them."""
    return tuple(axis for axis in axes if isinstance(axis, int))


def names(axes: Axes) -> tuple[Hashable, ...]:
    return tuple(axis for axis in axes if not isinstance(axis, int))


def unsum(ct: Array, x: ShapedArray, *, axes: Axes, axis_index_groups: Groups) -> Array:
    if names(axes):
        ct = psum.bind(ct, axes=names(axes), axis_index_groups=axis_index_groups)
    return expand(ct, x.shape, positions(axes)) if positions(axes) else ct


psum = primitive("psum")
psum_invariant = primitive("psum_invariant")
pvary = primitive("pvary")
linear(psum, unsum)
linear(psum_invariant, lambda ct, _, *, axes: pvary.bind(ct, axes=axes))
linear(pvary, lambda ct, _, *, axes: psum_invariant.bind(ct, axes=axes), cost="moves")


# --------------------------------------------------------------------------------------------------------- maxima and minima


def choose(t: Array, x: Array, *, out: Array, axes: Axes, axis_index_groups: Groups) -> Array:
    """The mean of the tangents, along the axes, of the entries that equal the result."""
    if axis_index_groups is not None and varying(typeof(x)) - varying(typeof(out)):
        raise errors.groups_are_not_tracked()

    def total(x: Array) -> Array:
        x = lax.reduce_sum(x, positions(axes)) if positions(axes) else x
        return lax.psum(x, names(axes), axis_index_groups=axis_index_groups) if names(axes) else x

    chosen = lax.eq(x, expand(out, x.shape, positions(axes)) if positions(axes) else out)
    # Counted in integers: a low precision cannot represent large counts.
    count = lax.convert_element_type(total(lax.convert_element_type(chosen, jnp.int32)), x.dtype)
    return lax.div(total(where(chosen, t)), count)


pushforward(primitive("pmax"), choose)
pushforward(primitive("pmin"), choose)

# ------------------------------------------------------------------------------------------------- gathering and scattering


def ungather(ct: Array, _: ShapedArray, *, all_gather_dimension: int, axis_name: Axes, axis_index_groups: Groups, tiled: bool) -> Array:
    """The cotangent of an index is the sum of the cotangents of its copies on all indices."""
    return lax.psum_scatter(ct, axis_name, scatter_dimension=all_gather_dimension, axis_index_groups=axis_index_groups, tiled=tiled)


def unscatter(ct: Array, _: ShapedArray, *, scatter_dimension: int, axis_name: Axes, axis_index_groups: Groups, tiled: bool) -> Array:
    return lax.all_gather(ct, axis_name, axis=scatter_dimension, axis_index_groups=axis_index_groups, tiled=tiled)


def own_part(ct: Array, _: ShapedArray, *, all_gather_dimension: int, axis_name: Axes, axis_size: int, tiled: bool) -> Array:
    """The gathered value is one variable, not a copy for each index: each index takes its part of the one cotangent."""
    size = ct.shape[all_gather_dimension] // axis_size
    part = lax.dynamic_slice_in_dim(ct, lax.axis_index(axis_name) * size, size, all_gather_dimension)
    return part if tiled else lax.squeeze(part, (all_gather_dimension,))


linear(primitive("all_gather"), ungather)
linear(primitive("reduce_scatter"), unscatter)
linear(primitive("all_gather_invariant"), own_part)

# ----------------------------------------------------------------------------------------------------------------- exchanges


def exchange_back(ct: Array, _: ShapedArray, *, split_axis: int, concat_axis: int, axis_name: Axes, axis_index_groups: Groups,
                  tiled: bool) -> Array:
    """The operation permutes blocks; with the axes exchanged it is the inverse permutation."""
    return all_to_all.bind(ct, split_axis=concat_axis, concat_axis=split_axis, axis_name=axis_name,
                           axis_index_groups=axis_index_groups, tiled=tiled)


def send_back(ct: Array, _: ShapedArray, *, axis_name: Axes, perm: Sequence[tuple[int, int]]) -> Array:
    """A value that is sent to no index has cotangent zero: zero is what an index without a sender receives."""
    return lax.ppermute(ct, axis_name, [(target, source) for source, target in perm])


def to_source(ct: Array, source: Array, axis_name: Axes) -> Array:
    is_source = lax.eq(lax.axis_index(axis_name), lax.convert_element_type(source, jnp.int32))
    return where(is_source, lax.psum(ct, axis_name))


all_to_all = primitive("all_to_all")
linear(all_to_all, exchange_back)
linear(primitive("ppermute"), send_back)
linear(primitive("pbroadcast"), lambda ct, _, *, axis_name, source: to_source(ct, source, axis_name))
if primitive("pbroadcast_dynamic") is not None:
    linear(primitive("pbroadcast_dynamic"), lambda ct, _, source, *, axis_name: to_source(ct, source, axis_name))


def received_back(ct: Array, x: ShapedArray, _output: ShapedArray, input_offsets: Array, send_sizes: Array, output_offsets: Array,
                  recv_sizes: Array, *, axis_name: Axes, axis_index_groups: Groups) -> Array:
    """Receivers send cotangents back to the places that the slices were sent from; slices that are sent must not overlap."""
    return ragged_all_to_all.bind(ct, zeros.zeros_of(x), landed(output_offsets, axis_name, axis_index_groups), recv_sizes,
                                  landed(input_offsets, axis_name, axis_index_groups), send_sizes,
                                  axis_name=axis_name, axis_index_groups=axis_index_groups)


def not_received(ct: Array, _x: ShapedArray, _output: ShapedArray, _input_offsets: Array, _send_sizes: Array, output_offsets: Array,
                 recv_sizes: Array, *, axis_name: Axes, axis_index_groups: Groups) -> Array:
    """The cotangent of the entries that no slice was written over."""
    start = landed(output_offsets, axis_name, axis_index_groups)
    row = lax.broadcasted_iota(start.dtype, (ct.shape[0], start.shape[0]), 0)
    start, stop = (lax.broadcast_in_dim(i, row.shape, (1,)) for i in (start, lax.add(start, recv_sizes)))
    written = lax.reduce_or(lax.bitwise_and(lax.ge(row, start), lax.lt(row, stop)), (1,))
    return where(lax.broadcast_in_dim(lax.bitwise_not(written), ct.shape, (0,)), ct)


def landed(offsets: Array, axis_name: Axes, axis_index_groups: Groups) -> Array:
    """For each slice that arrives, the offset that its sender holds."""
    return lax.all_to_all(offsets, axis_name, 0, 0, axis_index_groups=axis_index_groups, tiled=True)


ragged_all_to_all = primitive("ragged_all_to_all")
linear(ragged_all_to_all, received_back, not_received)

# ------------------------------------------------------------------------------- values that are sums, or summed, over an axis

# A value that is "unreduced" over a mesh axis stands for the sum of what the devices hold; one that is "reduced" is the same on all,
# and its cotangent is unreduced.  Each operation is the transpose of another.

reduced_vary_cast = primitive("reduced_vary_cast") or primitive("reduced_vary_cast_p")  # the name since 0.11; before
vary_unreduced_cast = primitive("vary_unreduced_cast") or primitive("vary_unreduced_cast_p")
unreduced_psum, preduced = primitive("unreduced_psum"), primitive("preduced")
gather_reduced, scatter_unreduced = primitive("all_gather_reduced"), primitive("unreduced_reduce_scatter")

linear(unreduced_psum, lambda ct, _, *, axes: preduced.bind(ct, axes=axes))
linear(preduced, lambda ct, _, *, axes: unreduced_psum.bind(ct, axes=axes))
linear(vary_unreduced_cast, lambda ct, _, *, axes: reduced_vary_cast.bind(ct, axes=axes))
linear(reduced_vary_cast, lambda ct, _, *, axes: vary_unreduced_cast.bind(ct, axes=axes))
linear(gather_reduced, lambda ct, _, *, all_gather_dimension, axis_name, axis_size, tiled: scatter_unreduced.bind(
    ct, scatter_dimension=all_gather_dimension, axis_name=axis_name, axis_size=axis_size, tiled=tiled))
linear(scatter_unreduced, lambda ct, _, *, scatter_dimension, axis_name, axis_size, tiled: gather_reduced.bind(
    ct, all_gather_dimension=scatter_dimension, axis_name=axis_name, axis_size=axis_size, tiled=tiled))

# -------------------------------------------------------------------------------------------------------------------- places

zero(primitive("axis_index"))
