"""Products with an array of which only a sample is kept.

The entries of an array are dealt into strata of ``stride`` neighbours, and one entry of each is kept, ``stride`` times as large: its
*samples*, with *picks* that say which one it is.  What :func:`spread` makes of them has the array for its mean.  A product with it is
an operation of its own, so that a linear map keeps the samples and not the array.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import jax
from jax import lax

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.new_primitives import vmapped_primitive
from dualrev._jax.primitives import Params, Primitive
from dualrev.linear.maps import Tangent
from dualrev.table.forms import bilinear
from dualrev.table.rows import Operand, Unknown, aval_of, linearized, row_of


@dataclass(frozen=True)
class Sampled:
    """An array of which a sample is kept."""

    shape: tuple[int, ...]
    dtype: DType
    stride: int

    @property
    def count(self) -> int:
        return -(-math.prod(self.shape) // self.stride)

    def dealt(self, x: jax.Array) -> jax.Array:
        """The entries in strata, one in each row; the last one is filled with zeros."""
        missing = self.count * self.stride - math.prod(self.shape)
        return lax.reshape(lax.pad(lax.reshape(x, (x.size,)), lax.full((), 0, x.dtype), [(0, missing, 0)]), (self.count, self.stride))

    def taken(self, x: jax.Array, picks: jax.Array) -> jax.Array:
        """``stride`` times the entry of each stratum that is picked."""
        strata = self.dealt(x)
        kept = lax.select(self.is_picked(picks), strata, lax.full_like(strata, 0))
        return lax.mul(lax.reduce_sum(kept, (1,)), lax.full((self.count,), self.stride, x.dtype))

    def spread(self, samples: jax.Array, picks: jax.Array) -> jax.Array:
        """An array with the samples in their places, and zeros elsewhere."""
        strata = lax.broadcast_in_dim(samples, (self.count, self.stride), (0,))
        strata = lax.select(self.is_picked(picks), strata, lax.full_like(strata, 0))
        return lax.reshape(lax.slice(lax.reshape(strata, (strata.size,)), (0,), (math.prod(self.shape),)), self.shape)

    def is_picked(self, picks: jax.Array) -> jax.Array:
        places = lax.broadcasted_iota(picks.dtype, (self.count, self.stride), 1)
        return lax.eq(places, lax.broadcast_in_dim(picks, places.shape, (0,)))


@dataclass(frozen=True)
class Product:
    """A product of two arrays; of the one at ``position`` a sample is kept."""

    primitive: Primitive
    settings: tuple[tuple[str, Hashable], ...]
    position: int
    sampled: Sampled

    @property
    def params(self) -> Params:
        return dict(self.settings)

    def operands(self, sampled: Operand, x: Operand) -> list[Operand]:
        return [x, sampled] if self.position else [sampled, x]

    def pulled(self, ct: jax.Array, sampled: Operand, x: Operand) -> Tangent:
        """The cotangent of the factor that is :class:`Unknown`."""
        operands = self.operands(sampled, x)
        active = tuple([type(operand) is Unknown for operand in operands])
        row = row_of(self.primitive, "reverse")
        if row.chooses:
            row = row.choose(operands, active, self.params)
        linear_map = linearized(row, operands, active, self.params, is_linear=True)[1]
        return None if linear_map is None else linear_map.pull(ct)[0]


def multiply(samples: jax.Array, picks: jax.Array, x: jax.Array, *, product: Product) -> jax.Array:
    out: jax.Array = product.primitive.bind(*product.operands(product.sampled.spread(samples, picks), x), **product.params)
    return out


def cotangent_of_samples(ct: jax.Array, _: ShapedArray, picks: jax.Array, x: jax.Array, *, product: Product) -> Tangent:
    sampled = product.sampled
    found = product.pulled(ct, Unknown(aval_of(x).update(shape=sampled.shape, dtype=sampled.dtype)), x)
    if found is None:
        return None
    return lax.div(sampled.taken(found, picks), lax.full((sampled.count,), sampled.stride, found.dtype))


def cotangent_of_factor(ct: jax.Array, samples: jax.Array, picks: jax.Array, x: ShapedArray, *, product: Product) -> Tangent:
    return product.pulled(ct, product.sampled.spread(samples, picks), Unknown(x))


sampled_product_p = vmapped_primitive("sampled_product", multiply)

bilinear(sampled_product_p, cotangent_of_samples, None, cotangent_of_factor)
