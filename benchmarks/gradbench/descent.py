"""Nested optimization through loops of a length that only running them tells: particle and saddle [SiskindPearlmutter2008].

``rr``, ``rf``, ``fr`` and ``ff`` name the modes of the outer and of the inner derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.gradbench.problem import Problem

Scalar = Callable[[jax.Array], jax.Array]
Gradient = Callable[[Scalar], Scalar]
MODES = {mode: mode for mode in ("rr", "ff", "fr", "rf")}
TOLERANCE, FIRST_STEP, STREAK = 1e-5, 1e-5, 10
#: A particle that has not landed after so many steps flies away.
LONGEST = 10_000


def gradients(ad: Any, modes: str) -> list[Gradient]:
    """``ad``'s gradient in each of the named modes."""
    return [{"r": ad.grad, "f": ad.jacfwd}[mode] for mode in modes]


def norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x))


class Search(NamedTuple):
    x: jax.Array
    fx: jax.Array
    gx: jax.Array
    eta: jax.Array
    #: Steps taken since eta changed.
    streak: jax.Array
    is_done: jax.Array


def argmin(f: Scalar, g: Scalar, start: jax.Array) -> jax.Array:
    """Gradient descent whose step doubles after ten that descend, and halves after one that does not."""

    def step(s: Search) -> Search:
        at = s.x - s.eta * s.gx
        f_at = f(at)
        flat, still, grows = norm(s.gx) <= TOLERANCE, norm(s.x - at) <= TOLERANCE, s.streak == STREAK
        is_done = flat | (still & ~grows)
        moves = ~is_done & ~grows & (f_at < s.fx)
        x = jnp.where(moves, at, s.x)
        eta = jnp.where(is_done | moves, s.eta, jnp.where(grows, 2 * s.eta, s.eta / 2))
        return Search(x, jnp.where(moves, f_at, s.fx), g(x), eta, jnp.where(moves, s.streak + 1, 0), is_done)

    begin = Search(start, f(start), g(start), jnp.asarray(FIRST_STEP), jnp.asarray(0), jnp.asarray(False))
    end = lax.while_loop(lambda s: ~s.is_done & jnp.isfinite(s.fx + norm(s.gx)), step, begin)
    return jnp.where(jnp.isfinite(end.fx), end.x, jnp.nan)


# ------------------------------------------------------------------------------------------------------------ particle


def landing(w: jax.Array, gradient: Gradient) -> jax.Array:
    """The square of where a particle between two charges lands, by Euler's method with a last step that ends on the ground."""
    charges = jnp.stack([jnp.stack([jnp.full_like(w, 10.0), 10.0 - w]), jnp.array([10.0, 0.0])])
    dt = 0.1

    def potential(x: jax.Array) -> jax.Array:
        return jnp.sum(1 / jnp.sqrt(jnp.sum((x - charges) ** 2, axis=1)))

    def goes_on(state: tuple[Any, ...]) -> jax.Array:
        x, v, steps = state
        return ((x + dt * v)[1] > 0) & (steps < LONGEST)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, v, steps = state
        return x + dt * v, v - dt * gradient(potential)(x), steps + 1

    start = jnp.array([0.0, 8.0]), jnp.array([0.75, 0.0]), 0
    x, v, steps = lax.while_loop(goes_on, step, start)
    x = x + dt * v
    return jnp.where(steps < LONGEST, (x - x[1] / v[1] * v)[0] ** 2, jnp.nan)


def particle(modes: str) -> Callable[[Any], Any]:
    def made(ad: Any) -> Any:
        outer, inner = gradients(ad, modes)

        def best(w: jax.Array) -> jax.Array:
            def f(w: jax.Array) -> jax.Array:
                return landing(w, inner)

            return argmin(f, outer(f), w)

        return best

    return made


PARTICLE = Problem(lambda fields: (fields.number("w"),), {name: particle(name) for name in MODES})

# -------------------------------------------------------------------------------------------------------------- saddle


def height(p: jax.Array, q: jax.Array) -> jax.Array:
    return jnp.sum(p * p) - jnp.sum(q * q)


def saddle(modes: str) -> Callable[[Any], Any]:
    def made(ad: Any) -> Any:
        outer, inner = gradients(ad, modes)

        def found(start: jax.Array) -> jax.Array:
            def best_answer(p: jax.Array) -> jax.Array:
                def depth(q: jax.Array) -> jax.Array:
                    return -height(p, q)

                return argmin(depth, inner(depth), start)

            def highest(p: jax.Array) -> jax.Array:
                return height(p, best_answer(p))

            p = argmin(highest, outer(highest), start)
            return jnp.concatenate([p, best_answer(p)])

        return found

    return made


SADDLE = Problem(lambda fields: (fields.array("start", 2),), {name: saddle(name) for name in MODES})
