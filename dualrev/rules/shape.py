"""Operations that rearrange entries, select among them, or change their dtype: all linear.

Entries that an operation leaves out have cotangent zero; cotangents of an entry that it repeats are summed.  A conversion to or from
an integer dtype has derivative zero, and one between float dtypes is the identity, with the cotangent converted back.  An extended
dtype, which a library defines, has its own zero and its own sum of tangents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array, lax

from dualrev._jax.avals import ShapedArray, convert_to, is_differentiable, tangent_dtype
from dualrev._jax.new_primitives import perturbed_p, tap_p
from dualrev._jax.primitives import Params, Primitive, primitive
from dualrev._jax.sharding import cotangent_sharding, partitions, resharded
from dualrev.linear.maps import Tangent
from dualrev.linear.places import Box, blocks, box
from dualrev.options.settings import Active
from dualrev.table.adjoints import AlongsideRow, LinearRow
from dualrev.table.axes import Axes, alike, kept, placed, reshaped
from dualrev.table.choosing import ChoosingRow
from dualrev.table.forms import alongside, elementwise, linear, linear_together
from dualrev.table.pushforward import PushforwardRow
from dualrev.table.rows import Operand, Row, aval_of, register, rows
from dualrev.table.with_jax import follow_in_jax

# --------------------------------------------------------------------------------------------------------- same entries


def reshape_like(ct: Array, x: ShapedArray) -> Array:
    return lax.reshape(ct, x.shape, out_sharding=cotangent_sharding(x))


def unreshape(ct: Array, x: ShapedArray, *, dimensions: Sequence[int] | None) -> Array:
    if dimensions is None:
        return reshape_like(ct, x)
    # The operand was transposed first.
    permuted = lax.reshape(ct, tuple(x.shape[d] for d in dimensions))
    return lax.transpose(permuted, tuple(np.argsort(dimensions)))


linear(lax.reshape_p, unreshape, cost="moves",
       axes=lambda x, *, new_sizes, dimensions: None if dimensions else reshaped(x.shape, new_sizes))
linear(lax.squeeze_p, reshape_like, cost="moves",
       axes=lambda x, *, dimensions: reshaped(x.shape, [n for a, n in enumerate(x.shape) if a not in dimensions]))
linear(lax.transpose_p, lambda ct, _, *, permutation: lax.transpose(ct, tuple(np.argsort(permutation))), cost="moves",
       axes=lambda x, *, permutation: placed(x.ndim, {a: b for b, a in enumerate(permutation)}, x.ndim))
linear(lax.rev_p, lambda ct, _, *, dimensions: lax.rev(ct, dimensions), cost="moves",
       axes=lambda x, *, dimensions: kept(x.ndim, dimensions))

# ------------------------------------------------------------------------------------------------------ repeated entries


def unbroadcast(ct: Array, x: ShapedArray, *, shape: tuple[int, ...], broadcast_dimensions: Sequence[int]) -> Array:
    kept = {d for d, n in zip(broadcast_dimensions, x.shape, strict=True) if n == shape[d]}
    summed = tuple([d for d in range(len(shape)) if d not in kept])
    ct = lax.reduce_sum(ct, summed) if summed else ct
    return reshape_like(ct, x) if ct.shape != x.shape else resharded(ct, cotangent_sharding(x))


def untile(ct: Array, x: ShapedArray, *, reps: Sequence[int]) -> Array:
    sharding = cotangent_sharding(x)
    if sharding is not None:
        names = [name for part in partitions(sharding.spec) for name in (None, part)]
        sharding = sharding.update(spec=sharding.spec.update(partitions=names))
    blocks = lax.reshape(ct, tuple(n for pair in zip(reps, x.shape, strict=True) for n in pair), out_sharding=sharding)
    return lax.reduce_sum(blocks, tuple(range(0, 2 * len(reps), 2)))


linear(lax.broadcast_in_dim_p, unbroadcast, cost="moves",
       axes=lambda x, *, shape, broadcast_dimensions: placed(
           x.ndim, {a: b for a, b in enumerate(broadcast_dimensions) if x.shape[a] == shape[b]}, len(shape)))
linear(primitive("tile"), untile, cost="moves")

# --------------------------------------------------------------------------------------------------------- parts of arrays


def sliced(x: ShapedArray, *, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None) -> Box:
    steps = strides or (1,) * x.ndim
    lengths = [(stop - start + step - 1) // step for start, stop, step in zip(start_indices, limit_indices, steps, strict=True)]
    return box(x, start_indices, lengths, steps)


def unslice(ct: Array, x: ShapedArray, *, start_indices: Sequence[int], strides: Sequence[int] | None) -> Array:
    return Box(tuple(start_indices), ct.shape, tuple(strides or (1,) * ct.ndim)).embed(ct, x)


def concatenated(ct: Array, *operands: ShapedArray, dimension: int) -> list[Array]:
    return list(lax.split(ct, tuple(x.shape[dimension] for x in operands), dimension))


def unpad(ct: Array, x: ShapedArray, _value: ShapedArray, *, padding_config: Sequence[tuple[int, int, int]]) -> Array:
    """The entries that came from the operand: remove the padding, put zeros where entries were cut, then skip the interior."""
    outer = lax.pad(ct, np.asarray(0, ct.dtype), [(-low, -high, 0) for low, high, _ in padding_config])
    strides = tuple(interior + 1 for _, _, interior in padding_config)
    limits = tuple((n - 1) * step + 1 if n else 0 for n, step in zip(x.shape, strides, strict=True))
    return lax.slice(outer, (0,) * ct.ndim, limits, strides)


def padded(ct: Array, x: ShapedArray, _value: ShapedArray, *, padding_config: Sequence[tuple[int, int, int]]) -> Array:
    """The sum over the entries that came from the padding value: by a mask, as a difference of sums would cancel."""
    mask = lax.pad(lax.full(x.shape, False), np.asarray(True), padding_config)
    return lax.reduce_sum(lax.select(mask, ct, lax.full_like(ct, 0)), tuple(range(ct.ndim)))


def in_several(axes: Axes, count: int) -> Axes:
    """The axes of an operation with so many results alike."""
    return Axes(axes.operands, [axes.results[0]] * count)


def of_several(axes: Axes, count: int) -> Axes:
    """The axes of an operation with so many operands alike."""
    return Axes([axes.operands[0]] * count, axes.results)


def slice_axes(x: ShapedArray, *, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None) -> Axes:
    ranges = zip(start_indices, limit_indices, strides or (1,) * x.ndim, strict=True)
    return kept(x.ndim, [a for a, (n, taken) in enumerate(zip(x.shape, ranges, strict=True)) if taken != (0, n, 1)])


def pad_axes(x: ShapedArray, _value: ShapedArray, *, padding_config: Sequence[tuple[int, int, int]]) -> Axes:
    return alike([x.ndim, 0], x.ndim, [a for a, config in enumerate(padding_config) if tuple(config) != (0, 0, 0)])


linear(lax.slice_p, unslice, cost="moves", part=sliced, axes=slice_axes)
linear(lax.split_p, lambda cts, _, *, axis: lax.concatenate(cts, axis), cost="moves",
       part=lambda x, *, axis, sizes: blocks(x, axis, sizes),
       axes=lambda x, *, axis, sizes: in_several(kept(x.ndim, [axis]), len(sizes)))
linear_together(lax.concatenate_p, concatenated, cost="moves",
                axes=lambda x, *others, dimension: of_several(kept(x.ndim, [dimension]), 1 + len(others)))
linear(lax.pad_p, unpad, padded, cost="moves", axes=pad_axes)
linear_together(primitive("stack"), lambda ct, *_operands, axis: primitive("unstack").bind(ct, axis=axis), cost="moves",
                axes=lambda x, *others, axis: of_several(
                    placed(x.ndim, {a: a + (a >= axis) for a in range(x.ndim)}, x.ndim + 1), 1 + len(others)))
linear(primitive("unstack"), lambda cts, _, *, axis: primitive("stack").bind(*cts, axis=axis), cost="moves",
       part=lambda x, *, axis: blocks(x, axis, [1] * x.shape[axis]),
       axes=lambda x, *, axis: in_several(
           placed(x.ndim, {a: a - (a > axis) for a in range(x.ndim) if a != axis}, x.ndim - 1), x.shape[axis]))

# --------------------------------------------------------------------------------------------------------------- choices


def unselect(ct: Array, which: Array, *cases: ShapedArray) -> list[Array]:
    none = lax.full_like(ct, 0)
    return [lax.select_n(which, *[ct if j == i else none for j in range(len(cases))]) for i in range(len(cases))]


linear_together(lax.select_n_p, unselect, fixed=(0,), cost="moves", selects=(0,),
                axes=lambda which, *cases: alike([which.ndim, *[x.ndim for x in cases]], cases[0].ndim))

# ------------------------------------------------------------------------------------------------------ dtypes and copies


def convert_back(ct: Array, x: ShapedArray) -> Tangent:
    if not is_differentiable(x):
        return None
    if ct.dtype.kind == "c" and x.dtype.kind != "c":
        ct = lax.real(ct)
    return convert_to(ct, x)


linear(lax.convert_element_type_p, convert_back, cost="moves", axes=lambda x: kept(x.ndim))
linear(lax.reduce_precision_p, lambda ct, _, *, exponent_bits, mantissa_bits: lax.reduce_precision(ct, exponent_bits, mantissa_bits),
       cost="moves", linear_in=(), axes=lambda x: kept(x.ndim))


class ExtendedRow(ChoosingRow):
    """A conversion to or from an extended dtype: tangents of that dtype are converted as values are."""

    def __init__(self, found: Primitive, plain: PushforwardRow):
        self.linear = LinearRow(found, (lambda ct, x: lax.convert_element_type(ct, x.dtype),), cost="moves")
        #: For a dtype whose tangents have another dtype.
        self.plain = plain
        super().__init__(plain, self.linear)

    def choose(self, primals: Sequence[Operand], active: Sequence[Active], params: Params) -> Row:
        extended = params.get("edtype", aval_of(primals[0]).dtype)
        return self.linear if tangent_dtype(extended) == extended else self.plain


for found, plain in (
    (primitive("to_edtype"), lambda t, _, *, edtype: lax.convert_element_type(t, tangent_dtype(edtype))),
    (primitive("from_edtype"), lambda t, _, *, dtype: lax.convert_element_type(t, tangent_dtype(dtype))),
):
    register(ExtendedRow(found, PushforwardRow(found, plain, cost="moves")))

# Tangents need neither the copy nor the name, nor the hints to the compiler.
for name in ("copy", "name", "stage", "xla_metadata_value"):
    if (found := primitive(name)) is not None:
        elementwise(found, 1, cost="moves")
elementwise(primitive("tie"), None, 1, cost="moves")
# A tap is a name, too; what is perturbed has the derivative of a sum, and the value of one operand.
elementwise(tap_p, 1, cost="moves")
elementwise(perturbed_p, 1, 1, cost="moves")
for named in (tap_p, perturbed_p):
    follow_in_jax(rows[named])
alongside(primitive("optimization_barrier"), cost="moves")


class ShardAlikeRow(AlongsideRow):
    """``shard_alike`` of two arrays; the tangent of one of them alone has nothing to be sharded like."""

    def bind(self, primals: Sequence[Operand], params: Params) -> list[Array]:
        return super().bind(primals, params) if len(primals) == 2 else list(primals)  # type: ignore[arg-type]  # a tangent


if (shard_alike := primitive("shard_alike")) is not None:  # until 0.11
    register(ShardAlikeRow(shard_alike, None, cost="moves"))


def put(operands: Sequence[ShapedArray], which: Sequence[int], back: bool, *, devices: Sequence[object], srcs: Sequence[object],
        copy_semantics: Sequence[Any]) -> Params:
    """Cotangents go back to the devices of the operands.  jax may donate an operand, never a cotangent."""
    to, source = [devices[i] for i in which], [srcs[i] for i in which]
    copies = [type(copy_semantics[i]).REUSE_INPUT if copy_semantics[i].name == "DONATE_INPUT" else copy_semantics[i] for i in which]
    if back:
        host = [x.memory_space if s is None and x.memory_space.name == "Host" else s for s, x in zip(source, operands, strict=True)]
        to, source = host, to
    return dict(devices=tuple(to), srcs=tuple(source), copy_semantics=tuple(copies))


alongside(primitive("device_put"), put)
