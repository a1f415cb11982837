"""The first example of every course: half the squared error of a linear model at one point."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Model = dict[str, jax.Array]


def loss(model: Model) -> jax.Array:
    """``L = (y - t)^2 / 2`` with ``y = w.x + b``: ``dL/dw = (y - t) x = (-6, -3, -9)``, ``dL/db = y - t = -3``."""
    y = jnp.dot(model["w"], jnp.array([2.0, 1.0, 3.0])) + model["b"]
    return (y - 9.0) ** 2 / 2


def model() -> Model:
    return {"w": jnp.ones(3), "b": jnp.zeros(())}
