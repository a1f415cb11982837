"""Loops over the entries of arrays by a counter, in double precision, as users write them who think in NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.scenarios.building import noise
from dualrev.problems.scenario import Scenario


def normalized(n: int, tags: Iterable[str] = ()) -> Scenario:
    """Each entry over the norm of all, which every step computes again [MosesChuravy2020, figure 1]."""

    def loss(x: Any) -> Any:
        def step(i: Any, out: Any) -> Any:
            return out.at[i].set(x[i] / jnp.sqrt(jnp.sum(x * x)))

        return jnp.sum(lax.fori_loop(0, n, step, jnp.zeros_like(x)) ** 3)

    return Scenario(f"norm in a loop, size {n:,}", loss, lambda: (1.0 + 0.1 * noise(n),), inputs=n, outputs=1, steps=n, tags=tags)


def tridiagonal(n: int, tags: Iterable[str] = ()) -> Scenario:
    """A tridiagonal system by elimination in place, forwards and back."""

    def loss(p: Any) -> Any:
        below, on, above, right = p["below"], p["on"], p["above"], p["right"]

        def eliminate(i: Any, state: Any) -> Any:
            c, d = state
            pivot = on[i] - below[i] * c[i - 1]
            return c.at[i].set(above[i] / pivot), d.at[i].set((right[i] - below[i] * d[i - 1]) / pivot)

        c, d = lax.fori_loop(1, n, eliminate, (jnp.zeros(n).at[0].set(above[0] / on[0]), jnp.zeros(n).at[0].set(right[0] / on[0])))
        x = lax.fori_loop(1, n, lambda k, x: x.at[n - 1 - k].set(d[n - 1 - k] - c[n - 1 - k] * x[n - k]), d)
        return jnp.sum(x**2)

    def draw() -> tuple[Any, ...]:
        below, on, above, right = 0.3 * noise(4, n)
        return ({"below": below, "on": 3.0 + on, "above": above, "right": np.cos(right)},)

    return Scenario(f"tridiagonal system in place, size {n:,}", loss, draw, inputs=4 * n, outputs=1, steps=n - 1, tags=tags)


def trapezoids(n: int, tags: Iterable[str] = ()) -> Scenario:
    """A running integral by the rule of trapezoids, kept in an array."""

    def loss(x: Any) -> Any:
        def step(i: Any, out: Any) -> Any:
            return out.at[i].set(out[i - 1] + 0.5 * (jnp.sin(x[i]) + jnp.sin(x[i - 1])))

        return jnp.mean(jnp.tanh(lax.fori_loop(1, n, step, jnp.zeros(n)) / n))

    return Scenario(f"running integral, size {n:,}", loss, lambda: (noise(n),), inputs=n, outputs=1, steps=n - 1, tags=tags)


ENTRIES = normalized, tridiagonal, trapezoids

SCENARIOS = [
    *[make(n, tags=("tuning",)) for make in ENTRIES for n in (64, 1024, 8192)],
    *[make(5, tags=("correctness",)) for make in ENTRIES],
]
