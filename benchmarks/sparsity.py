"""Sparse derivatives beside asdex and sparsejac: detection with colouring, evaluation, colours.

``python -m benchmarks.sparsity [--seconds 1] [name ...]`` needs asdex (extra ``bench``) and prints a table: ratios of dualrev's time to
the peer's, in this process, in interleaved rounds, after results were found equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import timing
from dualrev.sparse import api, derivatives, requests
from dualrev.sparse.plans import Kind

Array = jax.Array


@dataclass(frozen=True)
class Problem:
    """A function of one array, and whether its Hessian or its Jacobian is asked for."""

    name: str
    fun: Callable[[Array], Array]
    x: Array
    is_hessian: bool = False


def brusselator_1d(n: int) -> Problem:
    """Right-hand side on a line of ``n / 2`` points with fixed ends, unknowns of a point side by side."""

    def f(y: Array) -> Array:
        u, v = y.reshape(-1, 2).T
        left, right = jnp.ones(1, y.dtype), jnp.full(1, 3.0, y.dtype)
        around_u, around_v = jnp.concatenate([left, u, left]), jnp.concatenate([right, v, right])
        scale = 0.02 * (n // 2 + 1) ** 2
        du = 1 + u * u * v - 4 * u + scale * (around_u[2:] - 2 * u + around_u[:-2])
        dv = 3 * u - u * u * v + scale * (around_v[2:] - 2 * v + around_v[:-2])
        return jnp.stack([du, dv], 1).reshape(-1)

    return Problem(f"Brusselator 1-D, n = {n:,}", f, jnp.linspace(0.5, 2.0, n))


def brusselator_2d(points: int) -> Problem:
    """Right-hand side on a periodic grid."""

    def f(y: Array) -> Array:
        u, v = y.reshape(2, points, points)

        def laplacian(u: Array) -> Array:
            return jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4 * u

        reaction = u * u * v
        return jnp.stack([1 + reaction - 4.4 * u + 10 * laplacian(u), 3.4 * u - reaction + 10 * laplacian(v)]).reshape(-1)

    return Problem(f"Brusselator 2-D, n = {2 * points**2:,}", f, jnp.linspace(0.5, 2.0, 2 * points**2))


def bundle_adjustment(cameras: int, points: int, observations: int) -> Problem:
    """Reprojection errors of points seen by cameras of 9 parameters: rotation, translation, focal length, radial distortion."""
    random = np.random.default_rng(0)
    camera = np.arange(observations) % cameras
    point = random.permutation(np.arange(observations) % points)
    n = 9 * cameras + 3 * points

    def f(parameters: Array) -> Array:
        cams, pts = parameters[: 9 * cameras].reshape(-1, 9)[camera], parameters[9 * cameras:].reshape(-1, 3)[point]
        axis, shift, lens = cams[:, :3], cams[:, 3:6], cams[:, 6:]
        angle = jnp.sqrt(jnp.sum(axis * axis, 1, keepdims=True) + 1e-12)
        unit = axis / angle
        turned = (pts * jnp.cos(angle) + jnp.cross(unit, pts) * jnp.sin(angle)
                  + unit * jnp.sum(unit * pts, 1, keepdims=True) * (1 - jnp.cos(angle)))
        moved = turned + shift
        flat = -moved[:, :2] / moved[:, 2:]
        r2 = jnp.sum(flat * flat, 1, keepdims=True)
        return (lens[:, :1] * (1 + r2 * (lens[:, 1:2] + r2 * lens[:, 2:])) * flat).reshape(-1)

    return Problem(f"bundle adjustment, {2 * observations:,} x {n:,}", f, jnp.asarray(random.uniform(0.5, 1.5, n), jnp.float32))


def rosenbrock(n: int) -> Problem:
    def f(x: Array) -> Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    return Problem(f"Rosenbrock, n = {n:,}", f, jnp.linspace(0.5, 1.5, n), is_hessian=True)


def minimal_surface(points: int) -> Problem:
    """The area of a surface over a grid with a given rim."""

    def f(x: Array) -> Array:
        z = jnp.pad(x.reshape(points, points), 1)
        across, down = z[1:, :-1] - z[:-1, 1:], z[1:, 1:] - z[:-1, :-1]
        return jnp.sum(jnp.sqrt(1 + 0.5 * points**2 * (across**2 + down**2)))

    return Problem(f"minimal surface, n = {points**2:,}", f, jnp.sin(jnp.arange(points**2, dtype=jnp.float32)), is_hessian=True)


def arrowhead(n: int) -> Problem:
    def f(x: Array) -> Array:
        return (x * x + x * x[0]).at[0].set(jnp.sum(x * x))

    return Problem(f"arrowhead, n = {n:,}", f, jnp.linspace(1.0, 2.0, n))


PROBLEMS = [
    brusselator_1d(1000), brusselator_1d(10_000), brusselator_2d(24), brusselator_2d(70), bundle_adjustment(20, 300, 1200),
    bundle_adjustment(39, 830, 3200), rosenbrock(1000), rosenbrock(10_000), minimal_surface(32), minimal_surface(100), arrowhead(3000),
]


def measure(problem: Problem, seconds: float) -> list[str]:
    """A line of the table: colours, and ratios of preparing and of evaluating."""
    import asdex

    f, x = problem.fun, problem.x
    kind: Kind = "hessian" if problem.is_hessian else "jacobian"
    theirs = (asdex.hessian_coloring if problem.is_hessian else asdex.jacobian_coloring)(f, x)
    def plan() -> Any:
        request = requests.asked(kind, kind, 0, False, None if problem.is_hessian else "auto", None, "bcoo", None, False, None, {})
        # What was prepared for a function is kept with it.
        return derivatives.Sparse(lambda x: f(x), request).prepared((x,), {})[0].plan

    ours = plan()

    def their_plan() -> Any:
        return (asdex.hessian_coloring if problem.is_hessian else asdex.jacobian_coloring)(lambda x: f(x), x)  # nor traced again

    prepared = timing.compare("prepare", problem.name, plan, their_plan, seconds, 1.0, 0.0, wait=lambda x: x)
    mine = jax.jit(lambda x: getattr(api, kind)(f, plan=ours)(x).data)
    peer = jax.jit(lambda x: (asdex.hessian_from_coloring if problem.is_hessian else asdex.jacobian_from_coloring)(f, theirs)(x).data)
    difference = 0.0
    if mine(x).shape == peer(x).shape:
        difference = timing.checked(mine(x), peer(x))
    evaluated = timing.compare("evaluate", problem.name, lambda: mine(x), lambda: peer(x), seconds, 1.0, difference)
    colours = f"{ours.forward_colours} + {ours.reverse_colours}"
    return [problem.name, f"{ours.nnz:,}", colours, f"{theirs.num_colors}", f"{max(ours.bounds if not problem.is_hessian else (0,))}",
            f"{prepared.ours_us / 1e3:,.1f}", f"{prepared.ratio:.2f}", f"{prepared.fastest:.2f}", f"{evaluated.ours_us:,.0f}",
            f"{evaluated.ratio:.2f}", f"{evaluated.fastest:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="problems whose names contain one of these")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each ratio")
    given = parser.parse_args()
    table = Table("problem", "nonzeros", "colours", "asdex", "fullest", "prepare, ms", "ratio", "fastest", "evaluate, us", "ratio",
                  "fastest")
    for problem in PROBLEMS:
        if not given.names or any(name in problem.name for name in given.names):
            table.add_row(*measure(problem, given.seconds))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
