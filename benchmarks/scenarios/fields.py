"""Kernels, fields and particles, in double precision, as their users write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.problems.scenario import Scenario


def kernel_regression(points: int, features: int = 3, tags: Iterable[str] = ()) -> Scenario:
    """Regression with a Gaussian kernel that has a length scale for each feature: the marginal likelihood, by Cholesky's factor."""

    def loss(th: Any, x: Any, y: Any) -> Any:
        difference = (x[:, None, :] - x[None, :, :]) / jnp.exp(th[:features])
        kernel = jnp.exp(th[features]) * jnp.exp(-0.5 * jnp.sum(difference**2, axis=-1))
        factor = jnp.linalg.cholesky(kernel + jnp.exp(th[features + 1]) * jnp.eye(points))
        weights = jax.scipy.linalg.cho_solve((factor, True), y)
        return 0.5 * y @ weights + jnp.sum(jnp.log(jnp.diag(factor))) + 0.5 * points * math.log(2 * math.pi)

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(points, features))
        return np.linspace(-0.3, 0.2, features + 2), x, np.sin(x.sum(axis=1)) + 0.1 * rng.normal(size=points)

    return Scenario(f"anisotropic kernel regression, {points} points", loss, draw, inputs=features + 2, outputs=1, tags=tags)


def reaction_diffusion(size: int, steps: int = 20, tags: Iterable[str] = ()) -> Scenario:
    """Gray and Scott's two substances on a torus by explicit steps, by four parameters and the start."""

    def loss(inputs: Any, target: Any) -> Any:
        th, start = inputs

        def laplacian(a: Any) -> Any:
            return jnp.roll(a, 1, 0) + jnp.roll(a, -1, 0) + jnp.roll(a, 1, 1) + jnp.roll(a, -1, 1) - 4.0 * a

        def step(state: Any, _: Any) -> Any:
            u, v = state
            reaction = u * v**2
            u = u + th[0] * laplacian(u) - reaction + th[2] * (1.0 - u)
            v = v + th[1] * laplacian(v) + reaction - (th[2] + th[3]) * v
            return (u, v), None

        (_, v), _ = lax.scan(step, (start[0], start[1]), None, length=steps)
        return jnp.mean((v - target) ** 2)

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        start = np.stack([rng.uniform(0.5, 1.0, (size, size)), rng.uniform(0.0, 0.5, (size, size))])
        return (np.array([0.16, 0.08, 0.035, 0.065]), start), rng.uniform(0.0, 0.5, (size, size))

    return Scenario(f"reaction-diffusion, {size} x {size}", loss, draw, inputs=4 + 2 * size**2, outputs=1, steps=steps, tags=tags)


def molecular_dynamics(side: int, steps: int = 100, tags: Iterable[str] = ()) -> Scenario:
    """Lennard-Jones particles by velocity Verlet: the spread of their places, by depth, width, places and speeds."""

    def loss(inputs: Any) -> Any:
        th, places, speeds = inputs
        count = places.shape[0]

        def force(q: Any) -> Any:
            difference = q[:, None, :] - q[None, :, :]
            r2 = jnp.sum(difference**2, axis=-1) + jnp.eye(count)
            sixth = (th[1] ** 2 / r2) ** 3
            strength = 24.0 * th[0] * (2.0 * sixth**2 - sixth) / r2 * (1.0 - jnp.eye(count))
            return jnp.sum(strength[:, :, None] * difference, axis=1)

        def step(state: Any, _: Any) -> Any:
            q, v, f = state
            v = v + 0.001 * f
            q = q + 0.002 * v
            f = force(q)
            return (q, v + 0.001 * f, f), None

        (q, _, _), _ = lax.scan(step, (places, speeds, force(places)), None, length=steps)
        return jnp.mean(jnp.sum(q**2, axis=1))

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        places = 1.2 * lattice + 0.05 * rng.normal(size=lattice.shape)
        return ((np.array([1.0, 1.0]), places, 0.1 * rng.normal(size=places.shape)),)

    return Scenario(f"molecular dynamics, {side**3} particles", loss, draw, inputs=2 + 6 * side**3, outputs=1, steps=steps, tags=tags)


def waves(size: int, steps: int = 100, tags: Iterable[str] = ()) -> Scenario:
    """The wave equation between fixed walls, whose steps set the interior of an array: the speed of each place from a seismogram."""

    def loss(speed: Any, source: Any) -> Any:
        def step(state: Any, a: Any) -> Any:
            u, before = state
            inside = u[1:-1, 1:-1]
            laplacian = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * inside
            after = jnp.zeros_like(u).at[1:-1, 1:-1].set(2.0 * inside - before[1:-1, 1:-1] + 0.2 * speed[1:-1, 1:-1] ** 2 * laplacian)
            after = after.at[size // 2, size // 2].add(a)
            return (after, u), after[1, 1:-1]

        rest = jnp.zeros_like(speed)
        return jnp.sum(lax.scan(step, (rest, rest), source)[1] ** 2)

    def draw() -> tuple[Any, ...]:
        speed = 1.0 + 0.1 * np.random.default_rng(0).normal(size=(size, size))
        return speed, np.exp(-0.01 * (np.arange(steps) - 20.0) ** 2)

    return Scenario(f"waves, {size} x {size}", loss, draw, inputs=size**2, outputs=1, steps=steps, tags=tags)


SCENARIOS = [
    kernel_regression(80, tags=("tuning", "guarded")),
    reaction_diffusion(256, tags=("tuning", "guarded")),
    molecular_dynamics(4, tags=("tuning", "guarded")),
    waves(32, tags=("tuning", "guarded")),
    kernel_regression(5, tags=("correctness",)),
    reaction_diffusion(4, 3, tags=("correctness",)),
    molecular_dynamics(2, 3, tags=("correctness",)),
    waves(6, 4, tags=("correctness",)),
]
