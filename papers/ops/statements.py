"""The other statements: an operation for each, here as a function with a rule, which is all that most operations need.

The statement for a primitive is the same, with the primitive in the place of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr


@dr.rule(partials=[lambda x, *, out: 1 - jnp.exp(-out)])
def softplus(x: jax.Array) -> jax.Array:
    """``log(1 + eˣ)``, entry by entry.  *Partials*: ∂f/∂x, which may read the value, ``out``: it is here anyway."""
    return jnp.logaddexp(x, jnp.zeros_like(x))


@dr.rule(pushforward=lambda t, x, *, out: (t - out * jnp.vdot(out, t)) / jnp.linalg.norm(x))
def direction(x: jax.Array) -> jax.Array:
    """``x / |x|``.  *Pushforward*: ∂f · t as a program that is linear in ``t``; the pull is its transpose."""
    return x / jnp.linalg.norm(x)


@dr.rule(adjoint=lambda ct, x: jnp.zeros_like(x).at[::2].set(ct))
def every_other(x: jax.Array) -> jax.Array:
    """``x[0], x[2], ...``.  *Adjoint*: ∂fᵀ · ct as a program that is linear in ``ct``; the push is its transpose."""
    return x[::2]


@dr.rule(bilinear=[lambda ct, _a, x: jnp.outer(ct, x), lambda ct, a, _x: a.T @ ct])
def times(a: jax.Array, x: jax.Array) -> jax.Array:
    """``A x``.  *Bilinear*: an adjoint for each of two factors; the factor that one is for has a shape, and no value."""
    return a @ x


@dr.rule(definition=lambda x: jnp.log(jnp.sum(jnp.exp(x))))
def log_sum_exp(x: jax.Array) -> jax.Array:
    """``log Σ eˣ`` by code that nothing can look into, here NumPy's.  *Definition*: the same in terms of known operations."""
    return jax.pure_callback(lambda x: np.logaddexp.reduce(np.asarray(x)), jax.ShapeDtypeStruct((), x.dtype), x,
                             vmap_method="sequential")


#: Each function, with a point to differentiate it at.
EXAMPLES: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (softplus, (np.array([-1.0, 0.0, 2.0]),)),
    (direction, (np.array([3.0, 4.0]),)),
    (every_other, (np.array([1.0, 2.0, 3.0]),)),
    (times, (np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([0.5, -1.0]))),
    (log_sum_exp, (np.array([0.0, 1.0, 2.0]),)),
]
