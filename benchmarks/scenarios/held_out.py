"""Loops that nobody tunes on: a gain on the tuning set that is not found here was fitted to the tuning set.

Written as their users write them, in double precision, each at the size that it usually has.  Here are equations of motion; series and
recurrences are in ``held_out_series``, numerical methods in ``held_out_methods``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.scenarios import held_out_methods, held_out_series
from benchmarks.scenarios.building import drawn, near, noise
from benchmarks.scenarios.loops_ode import runge_kutta
from dualrev.problems.scenario import Scenario


def lotka_volterra(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Prey and predators by the classical Runge-Kutta method: squared distance to counts, by rates and start."""

    def loss(inputs: Any, counts: Any) -> Any:
        th, start = inputs

        def rate(y: Any) -> Any:
            a, b = y
            return jnp.stack([th[0] * a - th[1] * a * b, th[2] * a * b - th[3] * b])

        def step(y: Any, seen: Any) -> Any:
            y = runge_kutta(rate, y, 0.02)
            return y, jnp.sum((jnp.log(y) - seen) ** 2)

        return jnp.sum(lax.scan(step, start, counts)[1]) / (n * steps)

    return Scenario(f"Lotka-Volterra, Runge-Kutta, size {n:,}", loss,
                    lambda: ((np.array([1.1, 0.4, 0.1, 0.4]), near([4.0, 2.0], n)), noise(steps, 2, n, seed=1)), inputs=4 + 2 * n,
                    outputs=1, steps=steps, tags=tags)


def double_pendulum(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Two masses on two rods by Störmer and Verlet's method: where the second ends, by masses, lengths and first angles."""

    def loss(inputs: Any) -> Any:
        th, start = inputs
        dt = 0.01

        def acceleration(q: Any, w: Any) -> Any:
            turn = q[0] - q[1]
            total = 2 * th[0] + th[1] - th[1] * jnp.cos(2 * turn)
            first = (-9.8 * (2 * th[0] + th[1]) * jnp.sin(q[0]) - 9.8 * th[1] * jnp.sin(q[0] - 2 * q[1])
                     - 2 * jnp.sin(turn) * th[1] * (w[1] ** 2 * th[3] + w[0] ** 2 * th[2] * jnp.cos(turn))) / (th[2] * total)
            second = 2 * jnp.sin(turn) * (w[0] ** 2 * th[2] * (th[0] + th[1]) + 9.8 * (th[0] + th[1]) * jnp.cos(q[0])
                                          + w[1] ** 2 * th[3] * th[1] * jnp.cos(turn)) / (th[3] * total)
            return jnp.array([first, second])

        def step(state: Any, _: Any) -> Any:
            q, last = state
            new = 2 * q - last + dt**2 * acceleration(q, (q - last) / dt)
            return (new, q), None

        (q, _), _ = lax.scan(step, (start, start), None, length=steps)
        return jnp.mean((th[2] * jnp.sin(q[0]) + th[3] * jnp.sin(q[1])) ** 2)

    return Scenario(f"double pendulum, Verlet, size {n:,}", loss, lambda: ((np.array([1.0, 0.8, 1.0, 0.9]), near([1.0, 0.5], n)),),
                    inputs=4 + 2 * n, outputs=1, steps=steps, tags=tags)


def three_bodies(steps: int = 300, tags: Iterable[str] = ()) -> Scenario:
    """Three softened bodies in a plane by leapfrog: their distance to places that were seen, by masses, places and speeds."""

    def loss(inputs: Any, seen: Any) -> Any:
        masses, q, v = inputs

        def acceleration(q: Any) -> Any:
            found = []
            for i in range(3):
                a = 0.0
                for j in range(3):
                    if i != j:
                        d = q[j] - q[i]
                        a = a + masses[j] * d / (jnp.sum(d**2) + 0.01) ** 1.5
                found.append(a)
            return jnp.stack(found)

        def step(state: Any, seen: Any) -> Any:
            q, v = state
            v = v + 0.005 * acceleration(q)
            q = q + 0.01 * v
            v = v + 0.005 * acceleration(q)
            return (q, v), jnp.sum((q - seen) ** 2)

        return jnp.mean(lax.scan(step, (q, v), seen)[1])

    def draw() -> tuple[Any, ...]:
        places = np.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
        speeds = 0.5 * places @ np.array([[0.0, 1.0], [-1.0, 0.0]])
        return (np.array([1.0, 0.8, 1.2]), places, speeds), places + 0.1 * noise(steps, 3, 2)

    return Scenario(f"three bodies, leapfrog, {steps} steps", loss, draw, inputs=15, outputs=1, steps=steps, tags=tags)


def epidemic(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Susceptible, infected, recovered in a ``fori_loop``, whose rate falls after a lockdown."""

    def loss(th: Any, start: Any) -> Any:
        def body(i: Any, state: Any) -> Any:
            s, c, r = state
            beta = jnp.where(i < steps // 2, th[0], th[0] * th[2])
            new, healed = 0.1 * beta * s * c, 0.1 * th[1] * c
            return s - new, c + new - healed, r + healed

        s, _, r = lax.fori_loop(0, steps, body, (start[0], start[1], start[2]))
        return jnp.mean(r**2) + 0.1 * jnp.mean(s)

    return Scenario(f"SIR, fori_loop, size {n:,}", loss, lambda: (np.array([1.5, 0.5, 0.4]), np.abs(near([1.0, 0.2, 0.0], n))),
                    inputs=3, outputs=1, steps=steps, tags=tags)


def heat(points: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """The heat equation in one dimension by explicit steps: the conductivity of each place from the temperatures at the end."""

    def loss(inputs: Any, target: Any) -> Any:
        conductivity, start = inputs

        def step(u: Any, _: Any) -> Any:
            flux = conductivity * (u[1:] - u[:-1])
            return u.at[1:-1].add(0.2 * (flux[1:] - flux[:-1])), None

        u, _ = lax.scan(step, start, None, length=steps)
        return jnp.mean((u - target) ** 2)

    def draw() -> tuple[Any, ...]:
        grid = np.linspace(0.0, 1.0, points)
        return (1.0 + 0.3 * np.sin(9 * grid[1:]), np.exp(-40 * (grid - 0.4) ** 2)), 0.5 * np.exp(-20 * (grid - 0.5) ** 2)

    return Scenario(f"heat equation, {points} points", loss, draw, inputs=2 * points - 1, outputs=1, steps=steps, tags=tags)


def small_neural_ode(batch: int, steps: int = 64, tags: Iterable[str] = ()) -> Scenario:
    """A network 2-16-2 as the rate of an equation, by the classical Runge-Kutta method, under ``vmap`` over starts."""

    def loss(weights: Any, starts: Any, targets: Any) -> Any:
        def rate(y: Any) -> Any:
            return jnp.tanh(y @ weights["in"] + weights["bias"]) @ weights["out"]

        def path(y: Any) -> Any:
            return lax.scan(lambda y, _: (runge_kutta(rate, y, 0.1), y), y, None, length=steps)[1]

        return jnp.mean((jax.vmap(path)(starts) - targets) ** 2)

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        weights = {"in": drawn(rng, 2, 16, dtype="float64"), "bias": 0.1 * rng.normal(size=16),
                   "out": drawn(rng, 16, 2, dtype="float64")}
        return weights, rng.normal(size=(batch, 2)), rng.normal(size=(batch, steps, 2))

    return Scenario(f"neural ODE 2-16-2, batch {batch}", loss, draw, inputs=2 * 16 + 16 + 16 * 2, outputs=1, steps=steps, tags=tags)


SCENARIOS = [
    *[lotka_volterra(n, tags=("held out",)) for n in (1, 32, 1024)],
    *[double_pendulum(n, tags=("held out",)) for n in (1, 256)],
    three_bodies(tags=("held out",)),
    *[epidemic(n, tags=("held out",)) for n in (1, 64)],
    heat(256, tags=("held out",)),
    small_neural_ode(16, tags=("held out",)),
    *[make(2, 4, tags=("correctness",)) for make in (lotka_volterra, double_pendulum, epidemic, small_neural_ode)],
    three_bodies(4, tags=("correctness",)),
    heat(6, 4, tags=("correctness",)),
    *held_out_series.SCENARIOS,
    *held_out_methods.SCENARIOS,
]
