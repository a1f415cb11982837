"""A chain of linear equations, y₀' = x₀ and yᵢ' = xᵢ yᵢ₋₁ with y(0) = 0, to t = 2 by the classical Runge-Kutta method."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.gradbench.problem import Fields, Problem, objective

END = 2.0


def solution(x: jax.Array, steps: int) -> jax.Array:
    h = END / steps

    def rate(y: jax.Array) -> jax.Array:
        return x * jnp.concatenate([jnp.ones(1), y[:-1]])

    @jax.checkpoint  # what a step computes on the way is found again sooner than it is written and read
    def step(y: jax.Array, _: Any) -> Any:
        k1 = rate(y)
        k2 = rate(y + 0.5 * h * k1)
        k3 = rate(y + 0.5 * h * k2)
        k4 = rate(y + h * k3)
        return y + h / 6 * (k1 + 2 * (k2 + k3) + k4), None

    return lax.scan(step, jnp.zeros_like(x), None, length=steps)[0]


def read(fields: Fields) -> tuple[Any, ...]:
    x = fields.array("x", None)
    if not x.size:
        fields.array("x", 1)
    return x, fields.integer("s", 1)


PROBLEM = Problem(read, {"primal": objective(solution), "gradient": lambda ad: ad.grad(lambda x, steps: solution(x, steps)[-1])},
                  static=(1,))
