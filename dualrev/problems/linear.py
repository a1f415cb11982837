"""The first example of every course: half the squared error of a linear model at one point."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dualrev.problems.scenario import Scenario, alone

Model = dict[str, jax.Array]


def loss(model: Model) -> jax.Array:
    """``L = (y - t)^2 / 2`` with ``y = w.x + b``: ``dL/dw = (y - t) x = (-6, -3, -9)``, ``dL/db = y - t = -3``."""
    y = jnp.dot(model["w"], jnp.array([2.0, 1.0, 3.0])) + model["b"]
    return (y - 9.0) ** 2 / 2


def model() -> Model:
    return {"w": jnp.ones(3), "b": jnp.zeros(())}


SCENARIOS = [
    Scenario(
        "linear model", loss, alone(model), inputs=4, outputs=1, tags=("tour", "correctness"),
        description="half the squared error of y = w.x + b at one point, by w and b: n pushes that store nothing, "
                    "or one pull from a tape",
        citation="A. M. Legendre, Nouvelles méthodes pour la détermination des orbites des comètes (1805), appendix on least squares",
    ),
]
