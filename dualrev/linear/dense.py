"""A linear map held as its matrix, in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.avals import ShapedArray, common_dtype, convert_to
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangent, Tangents
from dualrev.linear.products import contraction
from dualrev.options.settings import current

#: Blocks ``[output][active input]``; None where the block is zero, or where a map has no such part.
Blocks: TypeAlias = Sequence[Sequence[jax.Array | None]]


class DenseMap(LinearMap):
    """A linear map held as its matrix in blocks ``[output][active input]``: what sweeps of pushes find.

    A block has the shape of the output followed by that of the input.  ``real`` holds derivatives along the real axis,
    ``imaginary`` those along the imaginary axis of complex inputs (None for real ones): a map between complex numbers need only
    be linear over the reals.
    """

    __slots__ = ("imaginary", "in_avals", "real")

    name = "dense matrix"

    def __init__(self, real: Blocks, imaginary: Blocks, in_avals: tuple[ShapedArray, ...]):
        self.real = real
        self.imaginary = imaginary
        self.in_avals = in_avals

    def push(self, *tangents: Tangent) -> Tangents:
        results = []
        for real, imaginary in zip(self.real, self.imaginary, strict=True):
            total: Tangent = None
            for a, b, t in zip(real, imaginary, tangents, strict=True):
                if a is None or t is None:
                    continue
                axes = tuple(range(a.ndim - t.ndim, a.ndim))
                if b is None:
                    total = zeros.add(total, _contract(a, t, axes))
                else:
                    total = zeros.add(total, zeros.add(_contract(a, lax.real(t), axes), _contract(b, lax.imag(t), axes)))
            results.append(total)
        return tuple(results)

    def pull(self, *cotangents: Tangent) -> Tangents:
        totals: list[Tangent] = [None] * len(self.in_avals)
        for real, imaginary, ct in zip(self.real, self.imaginary, cotangents, strict=True):
            if ct is None:
                continue
            axes = tuple(range(ct.ndim))
            for i, (a, b) in enumerate(zip(real, imaginary, strict=True)):
                if a is None:
                    continue
                term = _real_part(_contract(a, ct, axes))
                if b is not None:  # Re(u·J·t) = Re(ct·t) for t = 1 and for t = i
                    term = lax.complex(term, lax.neg(_real_part(_contract(b, ct, axes))))
                totals[i] = zeros.add(totals[i], term)
        return tuple([t if t is None else convert_to(t, a)
                      for t, a in zip(totals, self.in_avals, strict=True)])


def _real_part(x: jax.Array) -> jax.Array:
    return lax.real(x) if jnp.iscomplexobj(x) else x


def _contract(block: jax.Array, t: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    dtype = common_dtype(block.dtype, t.dtype)
    dims = ((axes, tuple(range(t.ndim))), ((), ()))

    def times(t: jax.Array, block: jax.Array) -> jax.Array:
        return lax.dot_general(block, t, dims, precision=lax.Precision.HIGHEST)

    t, block = lax.convert_element_type(t, dtype), lax.convert_element_type(block, dtype)
    return contraction(times, t, block) if current.get().zero_wins else times(t, block)


jax.tree_util.register_pytree_node(
    DenseMap, lambda m: ((m.real, m.imaginary), m.in_avals), lambda avals, blocks: DenseMap(*blocks, avals)
)
