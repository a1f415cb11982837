"""Functions with sparse Hessians, in whose middle a loop runs until it has converged: how many steps it takes depends on the numbers.

Each is a function of one vector of any even length (where it says so, a multiple of 4), which :func:`draw` gives.  No library but this
one has a reverse mode for such loops, and none reads the pattern of a Hessian through them; jax can push through them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.problems.scenario import Scenario, alone

Step = Callable[[jax.Array], jax.Array]


def draw(n: int, seed: int = 0) -> jax.Array:
    """A vector for each of the functions below, with entries between 0.1 and 0.9."""
    return jnp.asarray(np.random.default_rng(seed).uniform(0.1, 0.9, n))


def until_it_stays(step: Step, start: jax.Array) -> jax.Array:
    """The first of ``start``, ``step(start)``, ... that differs from the one before by at most 1e-10, 1e-4 in single precision."""
    tolerance = 1e-10 if start.dtype == jnp.float64 else 1e-4

    def goes_on(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.max(jnp.abs(state[1] - state[0])) > tolerance

    def next_one(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return state[1], step(state[1])

    return lax.while_loop(goes_on, next_one, (start, step(start)))[1]


def orbits(x: jax.Array) -> jax.Array:
    """Neighbouring planets: the angles E with E - e sin E = M, by Newton's method, and how far they are apart.  Five diagonals."""
    mean, eccentricity = x[1:] + x[:-1], 0.6
    angle = until_it_stays(lambda e: e - (e - eccentricity * jnp.sin(e) - mean) / (1 - eccentricity * jnp.cos(e)), mean)
    return jnp.sum((angle[1:] - angle[:-1]) ** 2)


def pipes(x: jax.Array) -> jax.Array:
    """The power lost in a network of pipes between pressures: the friction of each by Colebrook's equation, which is iterated."""
    n = x.size
    ends = [(i, (i + hop) % n) for hop in (1, 7) for i in range(n)]
    one, other = (np.asarray(side) for side in zip(*ends, strict=True))
    flow = jnp.sqrt(1e-3 + (x[one] - x[other]) ** 2)
    root = until_it_stays(lambda r: -2 * jnp.log10(2.7e-3 + 2.51 / (1e5 * flow) * r), jnp.full_like(flow, 7.0))
    return jnp.sum(flow**3 / root**2)


def cells(x: jax.Array) -> jax.Array:
    """Two substances that react in each of n / 2 cells, each with as many steps as its own error asks for.  Blocks of 2."""
    def rate(state: jax.Array) -> jax.Array:
        u, v = state
        return jnp.stack([1 + u * u * v - 4.4 * u, 3.4 * u - u * u * v])

    def one_cell(state: jax.Array) -> jax.Array:
        def step(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            t, h, y = carry
            slope = rate(y)
            h = jnp.minimum(h, 0.5 - t)
            better = y + h / 2 * (slope + rate(y + h * slope))
            error = lax.stop_gradient(jnp.max(jnp.abs(better - y - h * slope)))
            is_good = error < 1e-2
            return jnp.where(is_good, t + h, t), jnp.where(is_good, 1.3 * h, h / 2), jnp.where(is_good, better, y)

        return lax.while_loop(lambda carry: carry[0] < 0.5, step, (jnp.zeros((), x.dtype), jnp.full((), 0.2, x.dtype), state))[2]

    return jnp.sum(jnp.prod(jax.vmap(one_cell)(x.reshape(-1, 2)), 1))


def springs(x: jax.Array) -> jax.Array:
    """Springs s + k s³ = load that share their stiffness k, the first unknown: Newton's method for all.  An arrow."""
    load, k = x[1:], x[0]
    length = until_it_stays(lambda s: s - (s + k * s**3 - load) / (1 + 3 * k * s**2), load)
    return jnp.sum(length**2) + jnp.sum(load[1:] * load[:-1])


def rings(x: jax.Array) -> jax.Array:
    """Rings of 4 units, each of which follows the one before it in the ring until nothing changes.  Blocks of 4, filled by the loop."""
    drive = x.reshape(-1, 4)
    rest = until_it_stays(lambda y: jnp.tanh(0.7 * jnp.roll(y, 1, 1) + drive), jnp.zeros_like(drive))
    return jnp.sum(rest**3)


def walls(x: jax.Array) -> jax.Array:
    """The temperature of rods of 4 points between walls, which heat each other until it is steady.  Blocks of 4, filled by the loop."""
    heat = x.reshape(-1, 4)

    def relaxed(y: jax.Array) -> jax.Array:
        around = jnp.pad(y, ((0, 0), (1, 1)))
        return (around[:, 2:] + around[:, :-2] + heat - 0.1 * y**4) / 2.5

    return jnp.sum(jnp.exp(until_it_stays(relaxed, jnp.zeros_like(heat))))


def pendulums(x: jax.Array) -> jax.Array:
    """Periods of pendulums by the mean of arithmetic and geometric means, for pairs of unknowns that are two apart.  Two diagonals."""
    def closer(pair: jax.Array) -> jax.Array:
        return jnp.stack([(pair[0] + pair[1]) / 2, jnp.sqrt(pair[0] * pair[1])])

    return jnp.sum(jnp.pi / 2 / until_it_stays(closer, jnp.stack([x[2:], x[:-2]]))[0])


def branches(x: jax.Array) -> jax.Array:
    """Lambert's W of products of neighbours, by Halley's method, where the product is not small; its series elsewhere.  A band."""
    z = x[1:] * x[:-1]

    def halley(w: jax.Array) -> jax.Array:
        f = w * jnp.exp(w) - z
        return w - f / (jnp.exp(w) * (w + 1) - (w + 2) * f / (2 * w + 2))

    return jnp.sum(jnp.where(z > 0.2, until_it_stays(halley, z), z - z**2 + 1.5 * z**3))


def marching(x: jax.Array) -> jax.Array:
    """A thickness at each place from those of two neighbours, written one by one as a counter goes.  A band."""
    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        i, found = state
        here, there = lax.dynamic_index_in_dim(x, i, 0, False), lax.dynamic_index_in_dim(x, i + 1, 0, False)
        return i + 1, lax.dynamic_update_index_in_dim(found, jnp.sin(here) * there**2, i, 0)

    return jnp.sum(lax.while_loop(lambda state: state[0] < x.size - 1, step, (jnp.zeros((), int), jnp.zeros_like(x[1:])))[1] ** 2)


def spreading(x: jax.Array) -> jax.Array:
    """A chain that is smoothed until its steps are small: each step couples neighbours, so that the band grows with the steps."""
    def smoothed(y: jax.Array) -> jax.Array:
        return y + 0.2 * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1))

    last = lax.while_loop(lambda y: jnp.max(jnp.abs(y - jnp.roll(y, 1))) > 0.3, smoothed, x)
    return jnp.sum(last**3)


_PROGRAMS = (orbits, pipes, cells, springs, rings, walls, pendulums, branches, marching, spreading)

SCENARIOS = [
    Scenario(f"loop to convergence: {program.__name__}", program, alone(lambda: draw(24)), inputs=24, outputs=1,
             tags=("sparse through loops",), description=(program.__doc__ or "").split("\n")[0].strip())
    for program in _PROGRAMS
]
