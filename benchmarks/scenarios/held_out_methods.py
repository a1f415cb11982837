"""Numerical methods that nobody tunes on: solvers, dynamic programs, particles and waves; the third part of ``held_out``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.scenarios.building import drawn, near, noise
from dualrev.problems.scenario import Scenario


def adams_bashforth(n: int, steps: int = 300, tags: Iterable[str] = ()) -> Scenario:
    """Prey and predators by the method of four steps, whose rates are carried."""

    def loss(th: Any, start: Any) -> Any:
        def rate(y: Any) -> Any:
            return jnp.stack([th[0] * y[0] - th[1] * y[0] * y[1], th[2] * y[0] * y[1] - th[3] * y[1]])

        def step(state: Any, _: Any) -> Any:
            y, f1, f2, f3 = state
            f0 = rate(y)
            y = y + 0.01 / 24 * (55 * f0 - 59 * f1 + 37 * f2 - 9 * f3)
            return (y, f0, f1, f2), y

        return jnp.mean((lax.scan(step, (start, *[rate(start)] * 3), None, length=steps)[1] - 1) ** 2)

    return Scenario(f"Adams-Bashforth, size {n:,}", loss, lambda: (np.array([1.1, 0.4, 0.1, 0.4]), near([4.0, 1.5], n)), inputs=4,
                    outputs=1, steps=steps, tags=tags)


def symplectic_fourth_order(n: int, steps: int = 100, tags: Iterable[str] = ()) -> Scenario:
    """Coupled pendulums by Yoshida's method, whose four stages are a scan within the scan."""
    near_one, back = 1 / (2 - 2 ** (1 / 3)), -(2 ** (1 / 3)) / (2 - 2 ** (1 / 3))
    moves = np.array([near_one / 2, (back + near_one) / 2, (back + near_one) / 2, near_one / 2])
    kicks = np.array([near_one, back, near_one, 0.0])

    def loss(th: Any, start: Any) -> Any:
        def force(q: Any) -> Any:
            return -th[0] * jnp.sin(q) - th[1] * (2 * q - jnp.roll(q, 1) - jnp.roll(q, -1))

        def stage(state: Any, by: Any) -> Any:
            q = state[0] + 0.05 * by[0] * state[1]
            return (q, state[1] + 0.05 * by[1] * force(q)), None

        def step(state: Any, _: Any) -> Any:
            state = lax.scan(stage, state, (moves, kicks))[0]
            return state, jnp.mean(state[1] ** 2)

        return jnp.mean(lax.scan(step, (start, jnp.zeros_like(start)), None, length=steps)[1])

    return Scenario(f"coupled pendulums, Yoshida, size {n:,}", loss, lambda: (np.array([1.0, 0.4]), np.linspace(-1.0, 1.0, n)),
                    inputs=2, outputs=1, steps=steps, tags=tags)


def poisson_by_jacobi(n: int, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Poisson's equation on a square by Jacobi's iteration, written in place."""

    def loss(source: Any) -> Any:
        def step(_: Any, u: Any) -> Any:
            return u.at[1:-1, 1:-1].set(0.25 * (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] + source[1:-1, 1:-1]))

        return jnp.sum(jnp.tanh(lax.fori_loop(0, steps, step, jnp.zeros_like(source))) ** 2)

    return Scenario(f"Poisson by Jacobi, {n} x {n}", loss, lambda: (noise(n, n),), inputs=n * n, outputs=1, steps=steps, tags=tags)


def conjugate_gradients(n: int, steps: int = 30, tags: Iterable[str] = ()) -> Scenario:
    """A tridiagonal system by conjugate gradients, by its diagonal."""

    def loss(diagonal: Any, right: Any) -> Any:
        def product(x: Any) -> Any:
            return diagonal * x - jnp.concatenate([x[1:], jnp.zeros(1)]) - jnp.concatenate([jnp.zeros(1), x[:-1]])

        def step(_: Any, state: Any) -> Any:
            x, r, p, size = state
            moved = product(p)
            by = size / (p @ moved)
            r = r - by * moved
            new = r @ r
            return x + by * p, r, r + new / size * p, new

        return jnp.sum(lax.fori_loop(0, steps, step, (jnp.zeros_like(right), right, right, right @ right))[0] ** 2)

    return Scenario(f"conjugate gradients, size {n:,}", loss, lambda: (np.linspace(2.5, 3.5, n), noise(n)), inputs=n, outputs=1,
                    steps=steps, tags=tags)


def best_path(states: int = 12, steps: int = 150, tags: Iterable[str] = ()) -> Scenario:
    """The score of the best path through a hidden Markov chain, by Viterbi."""

    def loss(weights: Any, seen: Any) -> Any:
        moves, reads = jax.nn.log_softmax(weights["moves"]), jax.nn.log_softmax(weights["reads"])

        def step(score: Any, y: Any) -> Any:
            return jnp.max(score[:, None] + moves, 0) + reads[:, y], None

        return jnp.max(lax.scan(step, jnp.zeros(states), seen)[0])

    return Scenario(f"best path, {states} states, {steps} steps", loss,
                    lambda: ({"moves": noise(states, states), "reads": noise(states, 6, seed=1)},
                             np.random.default_rng(2).integers(0, 6, steps)), inputs=states * (states + 6), outputs=1, steps=steps,
                    tags=tags)


def optimal_transport(n: int, steps: int = 40, tags: Iterable[str] = ()) -> Scenario:
    """The entropic distance of two clouds of points, by Sinkhorn's iteration in logarithms."""

    def loss(x: Any, y: Any) -> Any:
        cost, spread = jnp.sum((x[:, None] - y[None]) ** 2, -1), 0.1

        def step(_: Any, state: Any) -> Any:
            u = -spread * jax.nn.logsumexp((state[1][None] - cost) / spread, 1)
            return u, -spread * jax.nn.logsumexp((u[:, None] - cost) / spread, 0)

        u, v = lax.fori_loop(0, steps, step, (jnp.zeros(n), jnp.zeros(n)))
        return jnp.sum(jnp.exp((u[:, None] + v[None] - cost) / spread) * cost) / n

    return Scenario(f"optimal transport, {n} points", loss, lambda: (noise(n, 2), noise(n, 2, seed=1)), inputs=2 * n, outputs=1,
                    steps=steps, tags=tags)


def ratings(players: int = 30, games: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Elo's ratings after each game, at places that the data say: the likelihood of the results, by the rule's numbers."""

    def loss(inputs: Any, pairs: Any, results: Any) -> Any:
        def step(r: Any, game: Any) -> Any:
            (i, j), won = game
            expected = jax.nn.sigmoid(inputs["scale"] * (r[i] - r[j]))
            change = inputs["rate"] * (won - expected)
            return r.at[i].add(change).at[j].add(-change), won * jnp.log(expected) + (1 - won) * jnp.log1p(-expected)

        return -jnp.mean(lax.scan(step, inputs["start"], (pairs, results))[1])

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        first = rng.integers(0, players, games)
        pairs = np.stack([first, (first + rng.integers(1, players, games)) % players], 1)
        return {"scale": np.array(1.0), "rate": np.array(0.3), "start": np.zeros(players)}, pairs, rng.integers(0, 2, games) * 1.0

    return Scenario(f"ratings after {games} games", loss, draw, inputs=2 + players, outputs=1, steps=games, tags=tags)


def delayed(n: int, delay: int = 20, steps: int = 200, tags: Iterable[str] = ()) -> Scenario:
    """Mackey and Glass's equation with a delay, from an array that is written around."""

    def loss(th: Any, before: Any) -> Any:
        def step(state: Any, t: Any) -> Any:
            y, held = state
            old = held[t % delay]
            new = y + 0.05 * (th[0] * old / (1 + old ** th[1]) - th[2] * y)
            return (new, held.at[t % delay].set(y)), new

        return jnp.mean(lax.scan(step, (before[-1], before), jnp.arange(steps))[1] ** 2)

    return Scenario(f"delay equation, size {n:,}", loss, lambda: (np.array([2.0, 4.0, 1.0]), 1.0 + 0.1 * np.abs(noise(delay, n))),
                    inputs=3, outputs=1, steps=steps, tags=tags)


def rendered(rays: int = 64, units: int = 32, steps: int = 30, tags: Iterable[str] = ()) -> Scenario:
    """Light along rays through a density and a colour that a network gives."""

    def loss(weights: Any, origins: Any, directions: Any) -> Any:
        def field(x: Any) -> Any:
            out = jnp.tanh(jnp.tanh(x @ weights["a"]) @ weights["b"]) @ weights["c"]
            return jax.nn.softplus(out[:, 0]), jax.nn.sigmoid(out[:, 1:])

        def step(state: Any, t: Any) -> Any:
            light, colour = state
            density, here = field(origins + t * directions)
            stopped = 1 - jnp.exp(-0.1 * density)
            return (light * (1 - stopped), colour + (light * stopped)[:, None] * here), None

        start = jnp.ones(len(origins)), jnp.zeros((len(origins), 3))
        return jnp.mean(lax.scan(step, start, jnp.linspace(0.1, 3.0, steps))[0][1] ** 2)

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        shapes = {"a": (3, units), "b": (units, units), "c": (units, 4)}
        return {k: drawn(rng, *s, dtype="float64") for k, s in shapes.items()}, noise(rays, 3), noise(rays, 3, seed=1)

    return Scenario(f"rendering of {rays} rays", loss, draw, inputs=units * (units + 7), outputs=1, steps=steps, tags=tags)


def lattice_gas(n: int, steps: int = 40, tags: Iterable[str] = ()) -> Scenario:
    """A flow by lattice Boltzmann with nine velocities, by its time of relaxation."""
    along, across = np.array([0, 1, 0, -1, 0, 1, -1, -1, 1]), np.array([0, 0, 1, 0, -1, 1, 1, -1, -1])
    weight = np.array([4 / 9, *[1 / 9] * 4, *[1 / 36] * 4])[:, None, None]

    def loss(time: Any, start: Any) -> Any:
        def step(f: Any, _: Any) -> Any:
            density = jnp.sum(f, 0)
            u, v = jnp.tensordot(along, f, 1) / density, jnp.tensordot(across, f, 1) / density
            moved = 3 * (along[:, None, None] * u + across[:, None, None] * v)
            f = f - (f - density * weight * (1 + moved + 0.5 * moved**2 - 1.5 * (u**2 + v**2))) / time
            return jnp.stack([jnp.roll(f[i], (int(along[i]), int(across[i])), (0, 1)) for i in range(9)]), None

        return jnp.sum(lax.scan(step, start, None, length=steps)[0][1] ** 2)

    return Scenario(f"lattice Boltzmann, {n} x {n}", loss, lambda: (np.array(0.8), weight * (1 + 0.1 * noise(9, n, n))), inputs=1,
                    outputs=1, steps=steps, tags=tags)


HELD_OUT = ("held out",)

SCENARIOS = [
    adams_bashforth(40, tags=HELD_OUT), symplectic_fourth_order(64, tags=HELD_OUT), poisson_by_jacobi(48, tags=HELD_OUT),
    conjugate_gradients(200, tags=HELD_OUT), best_path(tags=HELD_OUT), optimal_transport(48, tags=HELD_OUT), ratings(tags=HELD_OUT),
    delayed(8, tags=HELD_OUT), rendered(tags=HELD_OUT), lattice_gas(24, tags=HELD_OUT),
]
