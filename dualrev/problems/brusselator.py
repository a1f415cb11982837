"""The Brusselator [PrigogineLefever1968], a reaction-diffusion equation, on a periodic grid in the plane: its right-hand side,
and its solution.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.problems.scenario import Scenario, alone

A, B, DIFFUSION = 3.4, 1.0, 0.1
POINTS, STEPS, STEP = 16, 40, 0.005

State = dict[str, jax.Array]


def _grid(points: int) -> tuple[jax.Array, jax.Array]:
    axis = jnp.arange(points) / points
    x, y = jnp.meshgrid(axis, axis, indexing="ij")
    return x, y


def _laplacian(u: jax.Array) -> jax.Array:
    neighbours = jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1)
    return (neighbours - 4 * u) * u.shape[0] ** 2


def rate(state: State, a: float | jax.Array = A, b: float | jax.Array = B, diffusion: float | jax.Array = DIFFUSION) -> State:
    """du/dt and dv/dt without a source.

    [HairerWanner1996, section IV.10]: u' = b + u²v - (a + 1)u + α Δu and v' = a u - u²v + α Δv on the unit torus.
    """
    u, v = state["u"], state["v"]
    reaction = u**2 * v
    return {
        "u": b + reaction - (a + 1) * u + diffusion * _laplacian(u),
        "v": a * u - reaction + diffusion * _laplacian(v),
    }


def right_hand_side(state: State) -> State:
    """The rate with the source of BRUSS-2D switched on: f = 5 on the disc of radius 0.1 about (0.3, 0.6)."""
    x, y = _grid(state["u"].shape[0])
    source = jnp.where((x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.1**2, 5.0, 0.0)
    moving = rate(state)
    return {"u": moving["u"] + source, "v": moving["v"]}


def solution(parameters: dict[str, jax.Array]) -> State:
    """The state at t = 0.2 from the same start, by 40 steps of the midpoint rule."""

    def step(y: State, _: None) -> tuple[State, None]:
        def advance(h: float, slope: State) -> State:
            moved: State = jax.tree.map(lambda u, du: u + h * du, y, slope)
            return moved

        halfway = advance(STEP / 2, rate(y, **parameters))
        return advance(STEP, rate(halfway, **parameters)), None

    found: State = lax.scan(step, state(), None, length=STEPS)[0]
    return found


def state(points: int = POINTS) -> State:
    """The initial values of the same section: u = 22 y(1 - y)^1.5, v = 27 x(1 - x)^1.5."""
    x, y = _grid(points)
    return {"u": 22 * y * (1 - y) ** 1.5, "v": 27 * x * (1 - x) ** 1.5}


def coefficients() -> dict[str, jax.Array]:
    """The coefficients of BRUSS-2D."""
    return {"a": jnp.asarray(A), "b": jnp.asarray(B), "diffusion": jnp.asarray(DIFFUSION)}


SCENARIOS = [
    Scenario(
        "Brusselator rate", right_hand_side, alone(state), inputs=2 * POINTS**2, outputs=2 * POINTS**2, tags=("tour", "correctness"),
        description="right-hand side of a reaction-diffusion equation of two substances on a periodic grid of 16 x 16 points",
        citation="E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, 2nd ed. (1996), section IV.10, BRUSS-2D",
    ),
    Scenario(
        "Brusselator solution", solution, alone(coefficients), inputs=3, outputs=2 * POINTS**2, steps=STEPS,
        tags=("tour", "correctness"),
        description="the same equation solved to t = 0.2 in 40 steps of the midpoint rule, by its three coefficients",
        citation="E. Hairer, G. Wanner, the same section",
    ),
]
