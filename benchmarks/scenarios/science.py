"""Physics, statistics and test functions of optimization, in an array namespace and in double precision where nothing is said."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.scenarios.building import drawn, portable
from dualrev.problems.scenario import Scenario

# ------------------------------------------------------------------------------------------------------ test functions


def rosenbrock_residuals(xp: Any, x: Any) -> Any:
    return xp.concatenate([10.0 * (x[1:] - x[:-1] ** 2), 1.0 - x[:-1]])


def rosenbrock_loss(xp: Any, x: Any) -> Any:
    return xp.sum(rosenbrock_residuals(xp, x) ** 2)


def _start(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.5, 1.5, n)


def rosenbrock(n: int, tags: Iterable[str] = ()) -> Scenario:
    return portable(f"Rosenbrock, {n:,}", rosenbrock_loss, lambda: (_start(n),), inputs=n, outputs=1, tags=tags)


def rosenbrock_errors(n: int, tags: Iterable[str] = ()) -> Scenario:
    return portable(f"Rosenbrock's residuals, {n}", rosenbrock_residuals, lambda: (_start(n),), inputs=n, outputs=2 * (n - 1),
                    tags=tags)


def log_sum_exp_loss(xp: Any, x: Any) -> Any:
    return xp.logsumexp(x, 0)


def log_sum_exp(n: int, tags: Iterable[str] = ()) -> Scenario:
    return portable(f"log-sum-exp, {n:,}", log_sum_exp_loss, lambda: (4 * _start(n),), inputs=n, outputs=1, tags=tags)


# ---------------------------------------------------------------------------------------------------------- statistics


def softmax_regression_loss(xp: Any, weights: Any, x: Any, labels: Any) -> Any:
    """The negative log-likelihood of classes, with a penalty."""
    scores = x @ weights
    likelihood = xp.mean(scores[np.arange(scores.shape[0]), labels] - xp.logsumexp(scores, -1))
    return 5e-4 * xp.sum(weights**2) - likelihood


def softmax_regression(samples: int, features: int, classes: int, tags: Iterable[str] = ()) -> Scenario:
    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        return drawn(rng, features, classes, dtype="float64"), rng.normal(size=(samples, features)), rng.integers(0, classes, samples)

    return portable(f"softmax regression, {samples} x {features}", softmax_regression_loss, draw, inputs=features * classes, outputs=1,
                    tags=tags)


def gaussian_process_loss(xp: Any, p: Any, x: Any, y: Any, one: Any) -> Any:
    """The negative log marginal likelihood of y under a Gaussian kernel, ½ |L⁻¹ y|² + Σ log L_ii with L Lᵀ = K.

    ``p``: the logarithms of each length scale, of the amplitude and of the noise.
    """
    scaled = x * xp.exp(-p[:-2])
    squared = xp.sum((scaled[:, None, :] - scaled[None, :, :]) ** 2, axis=2)
    kernel = xp.exp(2 * p[-2] - 0.5 * squared) + xp.exp(2 * p[-1]) * one
    factor = xp.linalg.cholesky(kernel)
    diagonal = xp.sum(factor * one, axis=1)
    return 0.5 * xp.sum(xp.solve_lower(factor, y) ** 2) + xp.sum(xp.log(diagonal)) + 0.5 * y.shape[0] * math.log(2 * math.pi)


def gaussian_process(points: int, features: int, tags: Iterable[str] = ()) -> Scenario:
    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(points, features))
        return np.array([0.1] * features + [0.2, -1.0]), x, np.sin(x.sum(axis=1)) + 0.1 * rng.normal(size=points), np.eye(points)

    return portable(f"Gaussian process likelihood, {points} points", gaussian_process_loss, draw, inputs=features + 2, outputs=1,
                    tags=tags)


def kalman_loss(xp: Any, p: Any, seen: Any, start: Any, one: Any) -> Any:
    """The negative log-likelihood of scalar observations under a linear system, by Kalman's filter."""
    moves, noise = p["moves"], p["factor"] @ p["factor"].T + 0.1 * one
    observes, variance = p["observes"], xp.exp(p["log_noise"])

    def step(state: Any, y: Any) -> Any:
        mean, covariance = state
        mean, covariance = moves @ mean, moves @ covariance @ moves.T + noise
        spread = covariance @ observes
        total = xp.sum(observes * spread) + variance
        error = y - xp.sum(observes * mean)
        gain = spread / total
        loss = 0.5 * (error**2 / total + xp.log(2 * math.pi * total))
        return (mean + gain * error, covariance - gain[:, None] * spread[None, :]), loss

    return xp.sum(xp.scan(step, (start, one), seen, seen.shape[0])[1])


def kalman(steps: int, states: int, tags: Iterable[str] = ()) -> Scenario:
    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        p = {"moves": 0.9 * np.linalg.qr(rng.normal(size=(states, states)))[0], "factor": 0.3 * rng.normal(size=(states, states)),
             "observes": rng.normal(size=states), "log_noise": np.array(-1.0)}
        return p, rng.normal(size=steps), np.zeros(states), np.eye(states)

    return portable(f"Kalman filter, {steps} steps", kalman_loss, draw, inputs=2 * states**2 + states + 1, outputs=1, steps=steps,
                    tags=tags)


# ------------------------------------------------------------------------------------------------------------- physics


def lennard_jones_energy(xp: Any, positions: Any, one: Any) -> Any:
    """Σ 4 (r⁻¹² - r⁻⁶) over pairs; the distance of a particle from itself is taken as 1 and gives nothing."""
    squared = xp.sum((positions[:, None, :] - positions[None, :, :]) ** 2, axis=2) + one
    sixth = squared**-3
    return 2.0 * xp.sum((sixth - 1.0) * sixth * (1.0 - one))


def lennard_jones(side: int, tags: Iterable[str] = ()) -> Scenario:
    """Particles about the corners of a cubic lattice."""

    def draw() -> tuple[Any, ...]:
        lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        return 1.2 * lattice + 0.05 * np.random.default_rng(0).normal(size=lattice.shape), np.eye(side**3)

    return portable(f"Lennard-Jones energy, {side**3} particles", lennard_jones_energy, draw, inputs=3 * side**3, outputs=1, tags=tags)


def ode_solution(xp: Any, start: Any, weights: Any, steps: int) -> Any:
    """The fourth-order Runge-Kutta method, with a network of two layers for the right-hand side."""

    def rate(y: Any) -> Any:
        return xp.tanh(y @ weights[0]) @ weights[1]

    def step(y: Any, _: Any) -> Any:
        k1 = rate(y)
        k2 = rate(y + 0.005 * k1)
        k3 = rate(y + 0.005 * k2)
        k4 = rate(y + 0.01 * k3)
        return y + 0.01 / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return xp.scan(step, start, None, steps)[0]


def ode_loss(xp: Any, weights: Any, start: Any) -> Any:
    return xp.sum(ode_solution(xp, start, weights, 200) ** 2)


def _ode_weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [drawn(rng, 16, 64), drawn(rng, 64, 16)]


def ode(batch: int = 8, name: str = "ODE, 200 steps", tags: Iterable[str] = ()) -> Scenario:
    """In single precision, by the weights."""
    return portable(name, ode_loss, lambda: (_ode_weights(), drawn(np.random.default_rng(1), batch, 16)), inputs=2 * 16 * 64,
                    outputs=1, steps=200, tags=tags)


def ode_flow(steps: int, tags: Iterable[str] = ()) -> Scenario:
    """Where 16 numbers go, by where they start."""

    def flow(xp: Any, start: Any, weights: Any) -> Any:
        return ode_solution(xp, start, weights, steps)

    return portable(f"ODE's solution, {steps} steps", flow, lambda: (drawn(np.random.default_rng(1), 16), _ode_weights()), inputs=16,
                    outputs=16, steps=steps, tags=tags)


# ----------------------------------------------------------------------------------------------------- single operations


def ten_operations(xp: Any, x: Any) -> Any:
    """A scalar function of ten operations."""
    y = xp.sin(x) * x
    z = xp.exp(-y) + xp.tanh(x)
    return xp.log(z * z + 1.0) - y * z


def sines(length: int, tags: Iterable[str] = ()) -> Scenario:
    """``length`` operations, each on the result of the one before: the time is that of the library."""

    def function(xp: Any, x: Any) -> Any:
        for _ in range(length):
            x = xp.sin(x)
        return x

    return portable(f"{length} sines", function, lambda: (np.asarray(0.7, "float32"),), inputs=1, outputs=1, tags=tags)


SCENARIOS = [
    ode(tags=("libraries", "loops")),
    ode(32, "neural ODE, batch 32", tags=("guards",)),
    ode_flow(20, tags=("jacobian", "correctness")),
    lennard_jones(4, tags=("libraries",)),
    lennard_jones(2, tags=("hessian", "correctness")),
    gaussian_process(100, 4, tags=("libraries",)),
    gaussian_process(30, 4, tags=("hessian", "correctness")),
    kalman(100, 6, tags=("libraries",)),
    kalman(10, 3, tags=("correctness",)),
    log_sum_exp(10_000, tags=("libraries",)),
    log_sum_exp(64, tags=("hessian", "correctness")),
    softmax_regression(1000, 50, 10, tags=("libraries",)),
    softmax_regression(100, 10, 5, tags=("hessian", "correctness")),
    rosenbrock(1000, tags=("libraries",)),
    rosenbrock(64, tags=("hessian", "correctness")),
    rosenbrock_errors(64, tags=("jacobian", "correctness")),
    sines(20, tags=("correctness",)),
    portable("scalar function of 10 operations", ten_operations, lambda: (np.float32(0.7),), inputs=1, outputs=1,
             tags=("un-jitted", "correctness")),
]
