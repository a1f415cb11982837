"""Poles: a result that exists only if another value is zero, to rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from dualrev import errors
from dualrev._jax.avals import ArrayLike
from dualrev._jax.traces import Tracer, to_concrete_value


def size(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x), initial=0)


def is_pole(pole: jax.Array, scale: ArrayLike) -> jax.Array:
    """Whether ``pole`` is not zero relative to ``scale``.  The tolerance is half of the digits."""
    found: jax.Array = size(pole) > float(jnp.finfo(pole.dtype).eps) ** 0.5 * scale
    return found


def without_pole(x: jax.Array, pole: jax.Array, scale: ArrayLike) -> jax.Array:
    """``x``, which exists if ``pole`` is zero: otherwise an error, or NaN where values are not known."""
    found = is_pole(pole, scale)
    known = to_concrete_value(found) if isinstance(found, Tracer) else found
    if known is None:
        return lax.select(lax.broadcast(found, x.shape), lax.full_like(x, jnp.nan), x)
    if bool(known):
        raise errors.depends_on_basis()
    return x
