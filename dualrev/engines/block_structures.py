"""Structures of derivatives in blocks for loops and branches: one that holds several, and those of slices and of stacks."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dualrev._jax.avals import ShapedArray, typeof
from dualrev.engines.direction_blocks import Blocks, Key, loosened, settled
from dualrev.linear import zeros


def common(several: Sequence[Blocks], aval: ShapedArray) -> Blocks | None:
    """The abstract blocks of a structure that holds each of these; None where all directions in one array are no more."""
    keys: dict[Key, None] = {}
    for blocks in several:
        keys.update(dict.fromkeys(blocks.keys))
    sizes = several[0].sizes
    if sum(key.n_directions for key in keys) >= sum(sizes):
        return None
    return Blocks([(key, aval.update(shape=(*_leading(key), *aval.shape), weak_type=False)) for key in keys], sizes)


def held(blocks: Blocks | None, like: Blocks) -> Blocks:
    """The blocks in a structure that :func:`common` found, with zeros for those that it has besides."""
    found = {} if blocks is None else dict(blocks.items())
    return Blocks([(key, found[key] if key in found else zeros.zeros_of(aval_of(x))) for key, x in like.items()], like.sizes)


def aval_of(x: jax.Array | ShapedArray) -> ShapedArray:
    return x if isinstance(x, ShapedArray) else typeof(x)


def slices(blocks: Blocks) -> Blocks | jax.Array:
    """The derivatives of the slices of a stack of values: arrays with the axis of the stack in front of all."""
    loose = [loosened(block, [i for i, (_, axis) in enumerate(block[0].factors) if axis == 0]) for block in blocks.items()]
    whole = settled(loose, blocks.sizes)
    assert whole is not None  # there is a block
    if not isinstance(whole, Blocks):
        return jnp.moveaxis(whole, 1, 0)
    return Blocks([(_shifted(key, -1), jnp.moveaxis(x, key.n_leading, 0)) for key, x in whole.items()], whole.sizes)


def stacked(blocks: Blocks) -> Blocks:
    """The derivatives of a stack of values, from arrays with the axis of the stack in front of all."""
    return Blocks([(_shifted(key, 1), jnp.moveaxis(x, 0, key.n_leading)) for key, x in blocks.items()], blocks.sizes)


def _leading(key: Key) -> tuple[int, ...]:
    return tuple([n for n, axis in key.factors if axis is None])


def _shifted(key: Key, by: int) -> Key:
    return Key(key.leaf, tuple([(n, None if axis is None else axis + by) for n, axis in key.factors]))
