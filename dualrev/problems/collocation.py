"""Boundary-value problems whose Jacobians have dense rows and columns: unknown times, speeds and parameters, and integral conditions.

Each is a system of equations: values at the points of a grid, and a few numbers that enter every equation (a dense column each); and a
condition on all values together (a dense row).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dualrev.problems.scenario import Scenario, alone

Values = dict[str, jax.Array]

#: The masses of cart and pole in kg, the pole's length in m, gravity, and the distance of the swing-up [Kelly2017].
CART, POLE, LENGTH, GRAVITY, DISTANCE = 1.0, 0.3, 0.5, 9.81, 1.0
#: What the squared force of the swing-up may integrate to, in N² s.
EFFORT = 60.0


def _cart_pole(x: jax.Array, force: jax.Array) -> jax.Array:
    """Time derivatives of position, angle, and their velocities, one row for each point in time [Kelly2017, sec. 6]."""
    _, angle, velocity, spin = x.T
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    mass = CART + POLE * sin**2
    pull = LENGTH * POLE * sin * spin**2
    return jnp.stack([velocity, spin, (pull + force + POLE * GRAVITY * cos * sin) / mass,
                      -(pull * cos + force * cos + (CART + POLE) * GRAVITY * sin) / (LENGTH * mass)], 1)


def swing_up(unknowns: Values) -> Values:
    """The swing-up of a pole on a cart by the trapezoidal rule, in a time that is unknown, with a given effort.

    ``states (n + 1, 4)``, ``forces (n + 1,)`` and ``duration ()`` give what each of the n intervals lacks of the equation of motion,
    what the ends lack, and what the integral of the squared force lacks.  The duration enters every interval, and the effort reads
    every force.  [Kelly2017].
    """
    x, force = unknowns["states"], unknowns["forces"]
    h = unknowns["duration"] / (len(x) - 1)
    slope = _cart_pole(x, force)
    ends = jnp.concatenate([x[0], x[-1] - jnp.asarray([DISTANCE, jnp.pi, 0, 0], x.dtype)])
    return {"motion": x[1:] - x[:-1] - h / 2 * (slope[1:] + slope[:-1]), "ends": ends,
            "effort": h / 2 * jnp.sum(force[1:] ** 2 + force[:-1] ** 2) - EFFORT}


def swing_up_guess(intervals: int = 16) -> Values:
    """A straight line from start to end in two seconds."""
    s = jnp.linspace(0.0, 1.0, intervals + 1)
    states = jnp.outer(s, jnp.asarray([DISTANCE, jnp.pi, 0, 0], s.dtype)) + 0.1 * jnp.sin(3 * s)[:, None]
    return {"states": states, "forces": jnp.cos(5 * s), "duration": jnp.asarray(2.0, s.dtype)}


def periodic_orbit(unknowns: Values) -> Values:
    """A periodic solution of van der Pol's equation by the midpoint rule, with an unknown period.

    ``orbit (n, 2)`` over one period and ``period ()`` give what each interval lacks, and the phase condition: the orbit is orthogonal
    to the derivative of a reference, here a circle, which fixes where it starts.  [Doedel1981].
    """
    y, period = unknowns["orbit"], unknowns["period"]
    n = len(y)
    after = jnp.roll(y, -1, 0)
    x, v = ((y + after) / 2).T
    t = 2 * jnp.pi * jnp.arange(n, dtype=y.dtype) / n
    reference = jnp.stack([-jnp.sin(t), -jnp.cos(t)], 1)
    slope = jnp.stack([v, (1 - x**2) * v - x], 1)
    return {"motion": n * (after - y) - period * slope, "phase": jnp.sum(y * reference) / n}


def orbit_guess(points: int = 24) -> Values:
    """A circle of radius 2."""
    t = jnp.linspace(0.0, 2 * jnp.pi, points, endpoint=False)
    return {"orbit": 2 * jnp.stack([jnp.cos(t), -jnp.sin(t)], 1), "period": jnp.asarray(6.5, t.dtype)}


def travelling_pulse(unknowns: Values, length: float = 60.0) -> Values:
    """A pulse of the FitzHugh-Nagumo equations that travels with an unknown speed, on a periodic line in its own frame.

    ``potential (n,)``, ``recovery (n,)`` and ``speed ()`` give two equations at each point and the phase condition, an integral against
    the derivative of a reference pulse.  [FitzHugh1961].
    """
    v, w, c = unknowns["potential"], unknowns["recovery"], unknowns["speed"]
    h = length / len(v)
    x = h * jnp.arange(len(v), dtype=v.dtype) - length / 2

    def slope(u: jax.Array) -> jax.Array:
        return (jnp.roll(u, -1) - jnp.roll(u, 1)) / (2 * h)

    diffusion = (jnp.roll(v, -1) - 2 * v + jnp.roll(v, 1)) / h**2
    return {"potential": diffusion + c * slope(v) + v * (1 - v) * (v - 0.1) - w, "recovery": c * slope(w) + 0.01 * (v - w),
            "phase": h * jnp.sum(-2 * x * jnp.exp(-(x**2) / 10) * v)}


def pulse_guess(points: int = 24) -> Values:
    x = jnp.linspace(-30.0, 30.0, points, endpoint=False)
    return {"potential": jnp.exp(-((x - 2) ** 2) / 10), "recovery": 0.1 * jnp.exp(-((x + 5) ** 2) / 50),
            "speed": jnp.asarray(0.5, x.dtype)}


def continuation(unknowns: Values, step: float = 0.1) -> Values:
    """Bratu's equation on a square, one step along its branch of solutions: the parameter is unknown too.

    ``u (n, n)`` inside the square and ``parameter ()`` give Δu + λ exp(u) at each point, and the distance along the branch from the
    solution u = 0 at λ = 0, in the direction in which the lowest mode grows.  [Keller1977].
    """
    u, parameter = unknowns["u"], unknowns["parameter"]
    n = len(u)
    z = jnp.pad(u, 1)
    spread = (z[2:, 1:-1] + z[:-2, 1:-1] + z[1:-1, 2:] + z[1:-1, :-2] - 4 * u) * (n + 1) ** 2
    wave = jnp.sin(jnp.pi * jnp.arange(1, n + 1, dtype=u.dtype) / (n + 1))
    along = jnp.sum(jnp.outer(wave, wave) * u) / (n + 1) ** 2 + parameter / (2 * jnp.pi**2)
    return {"equation": spread + parameter * jnp.exp(u), "arc": along - step}


def branch_guess(points: int = 5) -> Values:
    x = jnp.linspace(0.0, 1.0, points + 2)[1:-1]
    wave = jnp.sin(jnp.pi * x)
    return {"u": 0.1 * jnp.outer(wave, wave), "parameter": jnp.asarray(1.0, x.dtype)}


SCENARIOS = [
    Scenario("cart-pole swing-up", swing_up, alone(swing_up_guess), inputs=86, outputs=73, tags=("correctness", "sparse"),
             description="trapezoidal collocation of the swing-up of a pole on a cart, with free final time and a given effort",
             citation="M. Kelly, An introduction to trajectory optimization, SIAM Review 59 (2017) 849-904"),
    Scenario("periodic orbit", periodic_orbit, alone(orbit_guess), inputs=49, outputs=49, tags=("correctness", "sparse"),
             description="a periodic solution of van der Pol's equation with an unknown period, and a phase condition",
             citation="E. Doedel, AUTO: a program for the automatic bifurcation analysis of autonomous systems (1981)"),
    Scenario("travelling pulse", travelling_pulse, alone(pulse_guess), inputs=49, outputs=49, tags=("correctness", "sparse"),
             description="a pulse of the FitzHugh-Nagumo equations that travels with an unknown speed, and a phase condition",
             citation="R. FitzHugh, Impulses and physiological states in theoretical models of nerve membrane, Biophys. J. 1 (1961)"),
    Scenario("Bratu continuation", continuation, alone(branch_guess), inputs=26, outputs=26, tags=("correctness", "sparse"),
             description="Bratu's equation on a square with an unknown parameter, and a step along the branch of solutions",
             citation="H. Keller, Numerical solution of bifurcation and nonlinear eigenvalue problems (1977)"),
]
