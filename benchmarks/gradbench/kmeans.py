"""k-means clustering by Newton's method: Σᵢ minⱼ |cⱼ - pᵢ|², and its gradient over the diagonal of its Hessian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gradbench.problem import Fields, Problem, objective


def cost(centroids: jax.Array, points: jax.Array) -> jax.Array:
    return jnp.sum(jnp.min(jnp.sum((centroids[:, None, :] - points) ** 2, axis=2), axis=0))


def direction(ad: Any) -> Any:
    """One push through the gradient.

    Each point's distance is a sum over coordinates that do not mix, and which centroid is nearest does not change: the Hessian is
    diagonal, so that its product with ones is its diagonal.
    """

    def divided(centroids: jax.Array, points: jax.Array) -> jax.Array:
        gradient, diagonal = ad.jvp(lambda c: ad.grad(cost)(c, points), (centroids,), (jnp.ones_like(centroids),))
        return gradient / diagonal

    return divided


def read(fields: Fields) -> tuple[Any, ...]:
    points = fields.array("points", None, None)
    return fields.array("centroids", None, points.shape[1]), points


PROBLEM = Problem(read, {"cost": objective(cost), "dir": direction})
