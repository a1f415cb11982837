"""k-means clustering by Newton's method: Σᵢ minⱼ |cⱼ - pᵢ|², and its gradient over the diagonal of its Hessian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.gradbench.problem import Fields, Problem, objective

#: Points whose distances from a hundred centroids are held at a time: they stay in a core's cache.
BLOCK = 1000


def cost(centroids: jax.Array, points: jax.Array) -> jax.Array:
    """|c - p|² is |p|² and what the nearest centroid minimizes, [|c|², -2 c] · [1, p]: a product of matrices for each block."""
    n = len(points)
    left = jnp.concatenate([jnp.sum(centroids**2, axis=1, keepdims=True), -2 * centroids], axis=1)
    right = jnp.concatenate([jnp.ones((n, 1)), points], axis=1)
    # The last block is filled with zeros, which are as far from each centroid and add nothing.
    blocks = jnp.pad(right, ((0, -n % BLOCK), (0, 0))).reshape(-1, BLOCK, right.shape[1])

    @jax.checkpoint  # a block's distances are found again sooner than all of them are written and read
    def add(total: jax.Array, block: jax.Array) -> Any:
        return total + jnp.sum(jnp.min(left @ block.T, axis=0)), None

    return lax.scan(add, jnp.sum(points**2), blocks)[0]


def direction(ad: Any) -> Any:
    """One push through the gradient.

    Each point's squared distance is a sum over coordinates that do not mix, and which centroid is nearest does not change: the
    Hessian is diagonal, so that its product with ones is its diagonal.
    """

    def divided(centroids: jax.Array, points: jax.Array) -> jax.Array:
        gradient, diagonal = ad.jvp(lambda c: ad.grad(cost)(c, points), (centroids,), (jnp.ones_like(centroids),))
        return gradient / diagonal

    return divided


def read(fields: Fields) -> tuple[Any, ...]:
    points = fields.array("points", None, None)
    return fields.array("centroids", None, points.shape[1]), points


PROBLEM = Problem(read, {"cost": objective(cost), "dir": direction})
