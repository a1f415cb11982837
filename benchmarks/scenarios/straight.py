"""Programs without loops of jax that take entries of an array one by one, in Python, as their users write them.

There are as many equations as entries: what a derivative costs, in equations, time to compile and time, must stay linear in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from dualrev.problems.scenario import Scenario


def _start(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.0, 1.0, n)


def neighbours(n: int, tags: Iterable[str] = ()) -> Scenario:
    """Products of neighbours: each entry is read twice."""

    def loss(x: Any) -> Any:
        s: Any = 0.0
        for i in range(1, n):
            s = s + jnp.sin(x[i]) * x[i - 1]
        return s

    return Scenario(f"neighbours one by one, {n}", loss, lambda: (_start(n),), inputs=n, outputs=1, tags=tags)


def updates(n: int, tags: Iterable[str] = ()) -> Scenario:
    """A recurrence that writes each entry into the array that it is read from."""

    def loss(x: Any) -> Any:
        for i in range(1, n):
            x = x.at[i].set(x[i] + 0.5 * jnp.sin(x[i - 1]))
        return jnp.sum(x**2)

    return Scenario(f"updates one by one, {n}", loss, lambda: (_start(n),), inputs=n, outputs=1, tags=tags)


def gathers(n: int, tags: Iterable[str] = ()) -> Scenario:
    """Four entries at a time, at places that a table of constants says."""
    table = np.random.default_rng(1).integers(0, n, (n, 4))

    def loss(x: Any) -> Any:
        s: Any = 0.0
        for i in range(n):
            s = s + jnp.sum(jnp.sin(x[table[i]]) * x[i])
        return s

    return Scenario(f"gathers by a table, {n}", loss, lambda: (_start(n),), inputs=n, outputs=1, tags=tags)


def filled(n: int, tags: Iterable[str] = ()) -> Scenario:
    """A matrix filled entry by entry: a tridiagonal system, and the solution's square."""

    def loss(x: Any) -> Any:
        matrix = jnp.zeros((n, n))
        for i in range(n):
            matrix = matrix.at[i, i].set(3.0 + x[i] ** 2)
            if i > 0:
                matrix = matrix.at[i, i - 1].set(jnp.sin(x[i])).at[i - 1, i].set(x[i - 1])
        return jnp.sum(jnp.linalg.solve(matrix, jnp.ones(n)) ** 2)

    return Scenario(f"matrix filled entry by entry, {n} x {n}", loss, lambda: (_start(n),), inputs=n, outputs=1, tags=tags)


PROGRAMS = neighbours, updates, gathers, filled

SCENARIOS = [
    *[neighbours(n, tags=("straight", *(["guarded"] if n == 50 else []))) for n in (50, 600)],
    *[updates(n, tags=("straight", *(["guarded"] if n == 50 else []))) for n in (50, 200)],
    *[gathers(n, tags=("straight", *(["guarded"] if n == 50 else []))) for n in (50, 600)],
    filled(30, tags=("straight", "guarded")),
    *[make(4, tags=("correctness",)) for make in PROGRAMS],
]
