"""Ordinary differential equations by fixed steps, in double precision, as their users write them.

The programs take entries of the state and of the parameters one by one, again and again, inside the loop's body: that is what a
derivative has to be fast on.  A state has ``n`` columns, which are independent solutions; the loss is a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.scenarios.building import near, noise
from dualrev.problems.scenario import Scenario

#: Columns of the state in the tuning set.
SIZES = 1, 32, 1024


def runge_kutta(rate: Callable[[Any], Any], y: Any, dt: float) -> Any:
    """A step of the classical method of order four."""
    k1 = rate(y)
    k2 = rate(y + 0.5 * dt * k1)
    k3 = rate(y + 0.5 * dt * k2)
    k4 = rate(y + dt * k3)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def lorenz(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Lorenz' convection by the classical Runge-Kutta method, by its three parameters."""

    def loss(th: Any, start: Any) -> Any:
        def rate(y: Any) -> Any:
            return jnp.stack([th[0] * (y[1] - y[0]), y[0] * (th[1] - y[2]) - y[1], y[0] * y[1] - th[2] * y[2]])

        def step(y: Any, _: Any) -> Any:
            return runge_kutta(rate, y, 0.005), None

        return jnp.mean(lax.scan(step, start, None, length=steps)[0] ** 2)

    return Scenario(f"Lorenz, Runge-Kutta, size {n:,}", loss, lambda: (np.array([10.0, 28.0, 8 / 3]), near([1.0, 2.0, 20.0], n)),
                    inputs=3, outputs=1, steps=steps, tags=tags)


def van_der_pol(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Van der Pol's oscillator by the midpoint method, by its parameters and its start."""

    def loss(inputs: Any) -> Any:
        th, start = inputs

        def rate(y: Any) -> Any:
            x, v = y
            return jnp.array([v, th[0] * (1.0 - x**2) * v - th[1] * x])

        def step(y: Any, _: Any) -> Any:
            middle = y + 0.01 * rate(y)
            return y + 0.02 * rate(middle), y[0]

        _, path = lax.scan(step, start, None, length=steps)
        return jnp.mean((path - 0.5) ** 2)

    return Scenario(f"Van der Pol, midpoint, size {n:,}", loss, lambda: ((np.array([1.5, 1.0]), near([1.0, 0.0], n)),),
                    inputs=2 + 2 * n, outputs=1, steps=steps, tags=tags)


def seir(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """An epidemic in four compartments by the classical Runge-Kutta method: the Poisson likelihood of reported cases."""

    def loss(th: Any, start: Any, cases: Any) -> Any:
        def rate(y: Any) -> Any:
            infected = th[0] * y[0] * y[2] / (y[0] + y[1] + y[2] + y[3])
            return jnp.stack([-infected, infected - th[1] * y[1], th[1] * y[1] - th[2] * y[2], th[2] * y[2]])

        def step(y: Any, seen: Any) -> Any:
            y = runge_kutta(rate, y, 0.25)
            expected = th[3] * th[1] * y[1] + 1e-3
            return y, expected - seen * jnp.log(expected)

        return jnp.mean(lax.scan(step, start, cases)[1])

    def draw() -> tuple[Any, ...]:
        cases = np.random.default_rng(1).poisson(5.0, (steps, n)).astype(float)
        return np.array([0.8, 0.3, 0.2, 0.5]), near([900.0, 20.0, 10.0, 1.0], n), cases

    return Scenario(f"SEIR, Runge-Kutta, size {n:,}", loss, draw, inputs=4, outputs=1, steps=steps, tags=tags)


def pendulum(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """A driven pendulum whose friction saturates, by the semi-implicit Euler method, by its parameters and its start."""

    def loss(inputs: Any, times: Any) -> Any:
        th, start = inputs

        def step(state: Any, t: Any) -> Any:
            angle, speed = state
            force = -th[0] * jnp.sin(angle) - th[1] * jnp.tanh(th[2] * speed) + th[3] * jnp.cos(2.0 * t)
            speed = speed + 0.02 * force
            angle = angle + 0.02 * speed
            return (angle, speed), jnp.sum(angle**2)

        _, squares = lax.scan(step, (start[0], start[1]), times)
        return jnp.sum(squares) / n

    return Scenario(f"pendulum, semi-implicit Euler, size {n:,}", loss,
                    lambda: ((np.array([9.8, 0.5, 3.0, 1.2]), near([1.0, 0.0], n)), 0.02 * np.arange(steps)),
                    inputs=4 + 2 * n, outputs=1, steps=steps, tags=tags)


def kepler(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """A softened Kepler orbit by leapfrog: how far it ends from where it began, by mass, softening, place and momentum."""

    def loss(inputs: Any) -> Any:
        th, q, p = inputs

        def force(q: Any) -> Any:
            r2 = q[0] ** 2 + q[1] ** 2 + th[1] ** 2
            return jnp.stack([-th[0] * q[0] / r2**1.5, -th[0] * q[1] / r2**1.5])

        def step(state: Any, _: Any) -> Any:
            q, p = state
            p = p + 0.005 * force(q)
            q = q + 0.01 * p
            p = p + 0.005 * force(q)
            return (q, p), None

        (end, _), _ = lax.scan(step, (q, p), None, length=steps)
        return jnp.mean((end[0] - q[0]) ** 2 + (end[1] - q[1]) ** 2)

    return Scenario(f"Kepler, leapfrog, size {n:,}", loss,
                    lambda: ((np.array([1.0, 0.1]), near([1.0, 0.0], n), near([0.0, 0.9], n, seed=1)),),
                    inputs=2 + 4 * n, outputs=1, steps=steps, tags=tags)


def fitzhugh_nagumo(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """FitzHugh and Nagumo's neuron by Heun's method: the squared distance to a measured voltage."""

    def loss(th: Any, start: Any, measured: Any) -> Any:
        def rate(y: Any, current: Any) -> Any:
            v, w = y
            return jnp.stack([v - v**3 / 3.0 - w + current, th[2] * (v + th[0] - th[1] * w)])

        def step(y: Any, seen: Any) -> Any:
            k1 = rate(y, 0.5)
            k2 = rate(y + 0.1 * k1, 0.5)
            y = y + 0.05 * (k1 + k2)
            return y, (y[0] - seen) ** 2

        return jnp.mean(lax.scan(step, start, measured)[1])

    return Scenario(f"FitzHugh-Nagumo, Heun, size {n:,}", loss,
                    lambda: (np.array([0.7, 0.8, 0.08]), near([-1.0, 1.0], n), noise(steps, n, seed=1)),
                    inputs=3, outputs=1, steps=steps, tags=tags)


def chemostat(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Biomass and substrate with Monod's growth, in a ``fori_loop`` that keeps them in bounds, by parameters and start."""

    def loss(inputs: Any) -> Any:
        th, start = inputs

        def body(_: Any, y: Any) -> Any:
            growth = th[0] * y[1] / (th[1] + y[1])
            change = jnp.stack([(growth - th[3]) * y[0], th[3] * (5.0 - y[1]) - growth * y[0] / th[2]])
            return jnp.clip(y + 0.05 * change, 0.0, 10.0)

        return jnp.mean(lax.fori_loop(0, steps, body, start)[0])

    return Scenario(f"chemostat, fori_loop, size {n:,}", loss, lambda: ((np.array([0.9, 0.5, 0.4, 0.3]), near([0.5, 3.0], n)),),
                    inputs=4 + 2 * n, outputs=1, steps=steps, tags=tags)


def duffing_batch(batch: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Duffing's oscillator for one set of parameters and one start, under ``vmap`` over both."""

    def solution(th: Any, start: Any) -> Any:
        def rate(t: Any, y: Any) -> Any:
            return jnp.array([y[1], -th[0] * y[1] - th[1] * y[0] - th[2] * y[0] ** 3 + 0.4 * jnp.cos(1.2 * t)])

        def step(y: Any, t: Any) -> Any:
            k1 = rate(t, y)
            k2 = rate(t + 0.01, y + 0.01 * k1)
            k3 = rate(t + 0.01, y + 0.01 * k2)
            k4 = rate(t + 0.02, y + 0.02 * k3)
            return y + 0.02 / 6 * (k1 + 2 * k2 + 2 * k3 + k4), y[0]

        return lax.scan(step, start, 0.02 * jnp.arange(steps))[1]

    def loss(inputs: Any) -> Any:
        return jnp.mean(jax.vmap(solution)(*inputs) ** 2)

    def draw() -> tuple[Any, ...]:
        return ((near([0.3, -1.0, 1.0], batch).T, near([0.5, 0.0], batch, seed=1).T),)

    return Scenario(f"Duffing, batch of {batch} under vmap", loss, draw, inputs=5 * batch, outputs=1, steps=steps, tags=tags)


EQUATIONS = van_der_pol, seir, pendulum, kepler, fitzhugh_nagumo, chemostat

SCENARIOS = [
    *[equation(n, tags=("tuning", *(["guarded"] if n == 32 else []))) for equation in EQUATIONS for n in SIZES],
    duffing_batch(32, tags=("tuning", "guarded")),
    *[lorenz(n, tags=("Runge-Kutta", *(["guarded"] if n == 128 else []))) for n in (1, 16, 128, 256, 1024)],
    *[make(2, 4, tags=("correctness",)) for make in (*EQUATIONS, duffing_batch, lorenz)],
]
