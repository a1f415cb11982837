"""Step 1, an operation that jax does not have: the circular convolution of two vectors.

    (x ∗ y)[k] = Σᵢ x[i] · y[k - i]          (indices modulo n)

All of this file is jax's business: what the operation computes, what type its result has, how it compiles, and what ``vmap`` makes of
it.  Nothing here knows of derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

circular_p = Primitive("circular")


def circular(x: jax.Array, y: jax.Array) -> jax.Array:
    """The circular convolution along the last axis of two arrays of one shape and dtype."""
    result: jax.Array = circular_p.bind(x, y)
    return result


def compute(x: jax.Array, y: jax.Array) -> jax.Array:
    """What it computes: a convolution is a product of Fourier transforms, n log n operations in place of n²."""
    return jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(y), x.shape[-1])


def type_of_result(x: Any, y: Any) -> Any:
    """The type of the result, from the types of the operands; what does not fit is said here, before anything runs."""
    if x.shape != y.shape or x.dtype != y.dtype or not x.shape or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"circular takes two arrays of one shape and floating-point dtype, with at least one axis; got "
                        f"{x.dtype.name}{list(x.shape)} and {y.dtype.name}{list(y.shape)}")
    return x.update(weak_type=False)


def batched(operands: Sequence[jax.Array], axes: Sequence[int | None]) -> tuple[jax.Array, int]:
    """Under ``vmap``: the mapped axis goes in front, and an operand without one is repeated along it."""
    size = next(z.shape[axis] for z, axis in zip(operands, axes, strict=True) if axis is not None)
    x, y = [jnp.broadcast_to(z, (size, *z.shape)) if axis is None else jnp.moveaxis(z, axis, 0)
            for z, axis in zip(operands, axes, strict=True)]
    return circular(x, y), 0


circular_p.def_abstract_eval(type_of_result)
mlir.register_lowering(circular_p, mlir.lower_fun(compute, multiple_results=False))
circular_p.def_impl(jax.jit(circular_p.bind))  # on its own it runs as a compiled program of one operation
batching.primitive_batchers[circular_p] = batched
