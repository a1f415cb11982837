"""Series, recurrences and a method of optimization that nobody tunes on: the second half of ``held_out``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.scenarios.building import drawn, noise
from dualrev.problems.scenario import Scenario


def garch(steps: int = 1000, tags: Iterable[str] = ()) -> Scenario:
    """Bollerslev's GARCH(1, 1): the likelihood of one series of returns."""

    def loss(th: Any, returns: Any) -> Any:
        omega, alpha, beta = jnp.exp(th[0]), jax.nn.sigmoid(th[1]), jax.nn.sigmoid(th[2])

        def step(variance: Any, r: Any) -> Any:
            return omega + alpha * r**2 + beta * variance, jnp.log(variance) + r**2 / variance

        return 0.5 * jnp.mean(lax.scan(step, jnp.var(returns), returns)[1])

    return Scenario(f"GARCH(1, 1), {steps:,} returns", loss, lambda: (np.array([-2.0, -2.0, 1.0]), noise(steps)), inputs=3,
                    outputs=1, steps=steps, tags=tags)


def local_trend(steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """A level and its slope by Kalman's filter, with matrices of 2 x 2: the likelihood by three variances."""

    def loss(th: Any, seen: Any) -> Any:
        moves, reads = jnp.array([[1.0, 1.0], [0.0, 1.0]]), jnp.array([1.0, 0.0])

        def step(state: Any, y: Any) -> Any:
            mean, covariance = state
            mean = moves @ mean
            covariance = moves @ covariance @ moves.T + jnp.diag(jnp.exp(th[:2]))
            spread = reads @ covariance @ reads + jnp.exp(th[2])
            gain = covariance @ reads / spread
            error = y - reads @ mean
            return (mean + gain * error, covariance - jnp.outer(gain, reads @ covariance)), jnp.log(spread) + error**2 / spread

        return 0.5 * jnp.sum(lax.scan(step, (jnp.zeros(2), 10.0 * jnp.eye(2)), seen)[1])

    return Scenario(f"local linear trend, {steps} steps", loss,
                    lambda: (np.array([-1.0, -3.0, 0.0]), np.cumsum(noise(steps)) + noise(steps, seed=1)), inputs=3, outputs=1,
                    steps=steps, tags=tags)


def markov_in_logs(steps: int = 300, states: int = 3, tags: Iterable[str] = ()) -> Scenario:
    """A hidden Markov chain by the forward algorithm in logarithms, over one series."""

    def loss(p: Any, seen: Any) -> Any:
        moves, first = jax.nn.log_softmax(p["moves"], axis=1), jax.nn.log_softmax(p["first"])

        def emission(y: Any) -> Any:
            return -0.5 * ((y - p["means"]) / jnp.exp(p["log_widths"])) ** 2 - p["log_widths"]

        def step(alpha: Any, y: Any) -> Any:
            return jax.nn.logsumexp(alpha[:, None] + moves, axis=0) + emission(y), None

        return -jax.nn.logsumexp(lax.scan(step, first + emission(seen[0]), seen[1:])[0]) / steps

    def draw() -> tuple[Any, ...]:
        return {"moves": noise(states, states), "first": noise(states, seed=1), "means": np.linspace(-1.0, 1.0, states),
                "log_widths": np.full(states, -0.3)}, noise(steps, seed=2)

    return Scenario(f"hidden Markov chain in logarithms, {steps} steps", loss, draw, inputs=states * (states + 3), outputs=1,
                    steps=steps - 1, tags=tags)


def small_gru(batch: int, steps: int = 100, units: int = 8, tags: Iterable[str] = ()) -> Scenario:
    """Gated recurrent units with a matrix for each gate, by the last state's squared error."""

    def loss(w: Any, xs: Any, target: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            both = jnp.concatenate([x, h], axis=1)
            z, r = jax.nn.sigmoid(both @ w["z"] + w["bz"]), jax.nn.sigmoid(both @ w["r"] + w["br"])
            new = jnp.tanh(jnp.concatenate([x, r * h], axis=1) @ w["h"] + w["bh"])
            return (1 - z) * h + z * new, None

        h, _ = lax.scan(step, jnp.zeros((batch, units)), xs)
        return jnp.mean((h - target) ** 2)

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        weights = {**{name: drawn(rng, 3 + units, units, dtype="float64") for name in "zrh"},
                   **{f"b{name}": np.zeros(units) for name in "zrh"}}
        return weights, noise(steps, batch, 3, seed=1), noise(batch, units, seed=2)

    return Scenario(f"GRU, {units} units, batch {batch}", loss, draw, inputs=3 * units * (units + 4), outputs=1, steps=steps,
                    tags=tags)


def ornstein_uhlenbeck(paths: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Paths that return to a mean, seen with noise: simulated from given normal numbers, by rate, mean, width and noise."""

    def loss(th: Any, normal: Any, seen: Any) -> Any:
        decay = jnp.exp(-jnp.exp(th[0]) * 0.05)

        def step(x: Any, at: Any) -> Any:
            z, y = at
            x = th[1] + (x - th[1]) * decay + jnp.exp(th[2]) * jnp.sqrt(1 - decay**2) * z
            return x, 0.5 * ((y - x) / jnp.exp(th[3])) ** 2 + th[3]

        return jnp.mean(lax.scan(step, jnp.zeros(paths), (normal, seen))[1])

    return Scenario(f"Ornstein-Uhlenbeck, size {paths}", loss,
                    lambda: (np.array([0.5, 0.2, -0.5, 0.0]), noise(steps, paths), noise(steps, paths, seed=1)), inputs=4,
                    outputs=1, steps=steps, tags=tags)


def logistic_map(steps: int = 500, tags: Iterable[str] = ()) -> Scenario:
    """x <- r x (1 - x), on one number: by r and by the start."""

    def loss(th: Any) -> Any:
        return lax.scan(lambda x, _: (th[0] * x * (1.0 - x), None), th[1], None, length=steps)[0] ** 2

    return Scenario(f"logistic map, {steps} steps", loss, lambda: (np.array([3.4, 0.3]),), inputs=2, outputs=1, steps=steps, tags=tags)


def adam(size: int = 20, steps: int = 150, tags: Iterable[str] = ()) -> Scenario:
    """Adam's method on a quadratic function: where it ends, by the logarithms of its rate and of its decays, and by its start."""

    def loss(inputs: Any, matrix: Any, right: Any) -> Any:
        th, start = inputs
        rate, b1, b2 = jnp.exp(th[0]), 1 - jnp.exp(th[1]), 1 - jnp.exp(th[2])

        def step(state: Any, k: Any) -> Any:
            x, m, v = state
            g = matrix @ x - right
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            x = x - rate * (m / (1 - b1**k)) / (jnp.sqrt(v / (1 - b2**k)) + 1e-8)
            return (x, m, v), None

        zeros = jnp.zeros(size)
        (x, _, _), _ = lax.scan(step, (start, zeros, zeros), jnp.arange(1.0, steps + 1.0))
        return 0.5 * x @ matrix @ x - right @ x

    def draw() -> tuple[Any, ...]:
        factor = noise(size, size) / np.sqrt(size)
        return (np.log([0.05, 0.1, 0.01]), noise(size, seed=1)), factor @ factor.T + 0.1 * np.eye(size), noise(size, seed=2)

    return Scenario(f"Adam on a quadratic, {size} parameters", loss, draw, inputs=3 + size, outputs=1, steps=steps, tags=tags)


SCENARIOS = [
    garch(tags=("held out",)),
    local_trend(tags=("held out",)),
    markov_in_logs(tags=("held out",)),
    small_gru(16, tags=("held out",)),
    *[ornstein_uhlenbeck(n, tags=("held out",)) for n in (1, 256)],
    logistic_map(tags=("held out",)),
    adam(tags=("held out",)),
    *[make(2, 4, tags=("correctness",)) for make in (small_gru, ornstein_uhlenbeck)],
    *[make(4, tags=("correctness",)) for make in (garch, local_trend, markov_in_logs, logistic_map)],
    adam(3, 4, tags=("correctness",)),
]
