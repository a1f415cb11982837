"""First-order (KKT) conditions of problems from the calculus of variations, with a constraint on an integral.

The multiplier enters the equation of each unknown (a dense column), and the constraint reads all unknowns (a dense row).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dualrev.functional.gradients import grad
from dualrev.problems.scenario import Scenario, alone

Values = dict[str, jax.Array]
Integral = Callable[[jax.Array], jax.Array]


def conditions(energy: Integral, constraint: Integral) -> Callable[[Values], Values]:
    """``x`` and ``multiplier`` to the gradient of the Lagrangian by ``x``, and to the constraint."""
    def residual(unknowns: Values) -> Values:
        x, multiplier = unknowns["x"], unknowns["multiplier"]
        return {"stationary": grad(lambda x: energy(x) + multiplier * constraint(x))(x), "feasible": constraint(x)}

    return residual


def area(z: jax.Array) -> jax.Array:
    """The area of a surface over the unit square with heights ``z (n, n)`` inside, which is flat at the rim.

    Each cell of the grid is two triangles [AverickEtAl1992].
    """
    n = len(z) + 1
    z = jnp.pad(z, 1)
    across, down = n * jnp.diff(z, axis=0), n * jnp.diff(z, axis=1)
    lower = jnp.sqrt(1 + across[:, :-1] ** 2 + down[:-1] ** 2)
    upper = jnp.sqrt(1 + across[:, 1:] ** 2 + down[1:] ** 2)
    return jnp.sum(lower + upper) / (2 * n**2)


def drop(unknowns: Values, volume: float = 0.1) -> Values:
    """A drop with a square foot: the surface of least area over a given volume.  The multiplier is its pressure.  [Finn1986]."""
    return conditions(area, lambda z: jnp.sum(z) / (len(z) + 1) ** 2 - volume)(unknowns)


def drop_guess(points: int = 5) -> Values:
    x = jnp.linspace(0.0, 1.0, points + 2)[1:-1]
    wave = jnp.sin(jnp.pi * x)
    return {"x": 0.3 * jnp.outer(wave, wave), "multiplier": jnp.asarray(-1.0, x.dtype)}


def hanging_chain(unknowns: Values, length: float = 4.0) -> Values:
    """A chain of given length between heights 1 and 3: its potential energy is least.  [DolanEtAl2004].

    ``x (n,)`` are its heights between the ends; energy and length are integrals by the trapezoidal rule.
    """
    def segments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = jnp.pad(x, 1, constant_values=(1, 3))
        return (z[1:] + z[:-1]) / 2, jnp.sqrt(1 + (len(x) + 1) ** 2 * (z[1:] - z[:-1]) ** 2) / (len(x) + 1)

    def energy(x: jax.Array) -> jax.Array:
        height, each = segments(x)
        return jnp.sum(height * each)

    return conditions(energy, lambda x: jnp.sum(segments(x)[1]) - length)(unknowns)


def chain_guess(points: int = 24) -> Values:
    """The parabola from which the collection's solvers start."""
    t = jnp.linspace(0.0, 1.0, points + 2)[1:-1]
    return {"x": 4 * t * (t / 2 - 0.25) + 1 + t, "multiplier": jnp.asarray(-1.0, t.dtype)}


def rosenbrock(x: jax.Array) -> jax.Array:
    """Rosenbrock's function of ``n`` variables, a chain of valleys.  [Rosenbrock1960]."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


SCENARIOS = [
    Scenario("drop", drop, alone(drop_guess), inputs=26, outputs=26, tags=("correctness", "sparse"), order=1,
             description="the first-order conditions of the surface of least area over a square with a given volume below it",
             citation="R. Finn, Equilibrium capillary surfaces (1986)"),
    Scenario("hanging chain", hanging_chain, alone(chain_guess), inputs=25, outputs=25, tags=("correctness", "sparse"), order=1,
             description="the first-order conditions of a chain of given length whose potential energy is least",
             citation="E. Dolan, J. Moré, T. Munson, Benchmarking optimization software with COPS 3.0 (2004)"),
]
