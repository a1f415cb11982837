"""Time series and recurrences, in double precision, as their users write them: likelihoods of ``n`` series at once, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.scenarios.building import drawn, noise
from benchmarks.scenarios.loops_ode import SIZES
from dualrev.problems.scenario import Scenario


def egarch(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Nelson's exponential GARCH(1, 1): the likelihood of returns whose log-variance remembers their size and their sign."""

    def loss(th: Any, returns: Any) -> Any:
        def step(log_variance: Any, r: Any) -> Any:
            z = r * jnp.exp(-0.5 * log_variance)
            likelihood = 0.5 * (log_variance + z**2)
            log_variance = th[0] + th[1] * log_variance + th[2] * (jnp.abs(z) - 0.7978845608) + th[3] * z
            return log_variance, likelihood

        return jnp.mean(lax.scan(step, jnp.zeros(n), returns)[1])

    return Scenario(f"EGARCH, size {n:,}", loss, lambda: (np.array([-0.1, 0.9, 0.2, -0.1]), noise(steps, n)), inputs=4, outputs=1,
                    steps=steps, tags=tags)


def autoregression(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """A simulated autoregression of order two, whose first coefficient follows the last value through tanh, against a measured one."""

    def loss(th: Any, noise: Any, measured: Any) -> Any:
        def step(carry: Any, at: Any) -> Any:
            last, before = carry
            e, seen = at
            new = jnp.tanh(th[0] + th[1] * last) * last + th[2] * before + jnp.exp(th[3]) * e
            return (new, last), jnp.sum((new - seen) ** 2)

        _, squares = lax.scan(step, (jnp.zeros(n), jnp.zeros(n)), (noise, measured))
        return jnp.sum(squares) / (steps * n)

    return Scenario(f"AR(2) with tanh, size {n:,}", loss,
                    lambda: (np.array([0.3, 0.2, -0.3, -0.5]), noise(steps, n), noise(steps, n, seed=1)), inputs=4, outputs=1,
                    steps=steps, tags=tags)


def recurrent(n: int, steps: int = 100, units: int = 16, tags: Iterable[str] = ()) -> Scenario:
    """A recurrent network of one layer over a batch of ``n`` sequences of four features, read out at each step."""

    def loss(weights: Any, xs: Any, targets: Any) -> Any:
        def step(h: Any, at: Any) -> Any:
            x, target = at
            h = jnp.tanh(x @ weights["input"] + h @ weights["again"] + weights["bias"])
            return h, jnp.mean((h @ weights["read"] - target) ** 2)

        return jnp.mean(lax.scan(step, jnp.zeros((n, units)), (xs, targets))[1])

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        weights = {"input": drawn(rng, 4, units, dtype="float64"), "again": drawn(rng, units, units, dtype="float64"),
                   "bias": np.zeros(units), "read": drawn(rng, units, dtype="float64")}
        return weights, noise(steps, n, 4, seed=1), noise(steps, n, seed=2)

    return Scenario(f"recurrent network, {units} units, size {n:,}", loss, draw, inputs=units * (units + 6), outputs=1, steps=steps,
                    tags=tags)


def hidden_markov(n: int, steps: int = 200, states: int = 4, tags: Iterable[str] = ()) -> Scenario:
    """A hidden Markov chain with normal observations: the forward algorithm, scaled at each step."""

    def loss(p: Any, seen: Any) -> Any:
        moves = jax.nn.softmax(p["moves"], axis=1)

        def step(alpha: Any, y: Any) -> Any:
            z = (y[:, None] - p["means"]) / jnp.exp(p["log_widths"])
            alpha = (alpha @ moves) * jnp.exp(-0.5 * z**2 - p["log_widths"])
            total = jnp.sum(alpha, axis=1)
            return alpha / total[:, None], jnp.log(total)

        return -jnp.mean(lax.scan(step, jnp.full((n, states), 1.0 / states), seen)[1])

    def draw() -> tuple[Any, ...]:
        p = {"moves": noise(states, states), "means": np.linspace(-1.5, 1.5, states), "log_widths": np.full(states, -0.2)}
        return p, noise(steps, n, seed=1)

    return Scenario(f"hidden Markov chain, {states} states, size {n:,}", loss, draw, inputs=states * (states + 2), outputs=1,
                    steps=steps, tags=tags)


def tracker(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Place and speed from noisy places: Kalman's filter, its covariance of 2 x 2 written out."""

    def loss(th: Any, places: Any) -> Any:
        def step(carry: Any, z: Any) -> Any:
            x, v, a, b, c = carry
            # Predict: one unit of time at constant speed.
            x = x + v
            a, b, c = a + 2 * b + c + jnp.exp(th[0]) / 3, b + c + jnp.exp(th[0]) / 2, c + jnp.exp(th[0])
            # Correct by the place that was seen.
            spread = a + jnp.exp(th[1])
            error = z - x
            alpha, beta = a / spread, b / spread
            x, v = x + alpha * error, v + beta * error
            a, b, c = (1 - alpha) * a, (1 - alpha) * b, c - beta * b
            return (x, v, a, b, c), 0.5 * (error**2 / spread + jnp.log(spread))

        zeros, ones = jnp.zeros(n), jnp.ones(n)
        return jnp.mean(lax.scan(step, (zeros, zeros, ones, zeros, ones), places)[1])

    return Scenario(f"alpha-beta tracker, size {n:,}", loss, lambda: (np.array([-2.0, 0.0]), np.cumsum(noise(steps, n), axis=0)),
                    inputs=2, outputs=1, steps=steps, tags=tags)


SERIES = egarch, autoregression, recurrent, hidden_markov, tracker

SCENARIOS = [
    *[make(n, tags=("tuning", *(["guarded"] if n == 32 else []))) for make in SERIES for n in SIZES],
    *[make(2, 4, tags=("correctness",)) for make in SERIES],
]
