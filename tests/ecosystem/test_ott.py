"""OTT: Sinkhorn by implicit differentiation, unrolled and by Danskin's theorem; divergences, Gromov-Wasserstein, soft sorting."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

ott = library("ott", "ott-jax")
pointcloud = library("ott.geometry.pointcloud", "ott-jax")
costs = library("ott.geometry.costs", "ott-jax")
linear_problem = library("ott.problems.linear.linear_problem", "ott-jax")
sinkhorn = library("ott.solvers.linear.sinkhorn", "ott-jax")
implicit = library("ott.solvers.linear.implicit_differentiation", "ott-jax")

use = Uses()
random = np.random.RandomState(0)
X, Y = random.randn(4, 2), random.randn(5, 2) + 0.5
A = np.array([0.1, 0.2, 0.3, 0.4])


def solved(x: Any, a: Any = None, cost: Any = None, **options: Any) -> Any:
    geometry = pointcloud.PointCloud(x, jnp.asarray(Y), epsilon=0.5, cost_fn=cost)
    options = {"threshold": 1e-9, "max_iterations": 400} | options
    return sinkhorn.Sinkhorn(**options)(linear_problem.LinearProblem(geometry, a=a))


def matched(x: Any, **options: Any) -> Any:
    """A function of the transport plan itself, so that nothing is left out by Danskin's theorem."""
    return jnp.sum(solved(x, **options).matrix ** 2 * np.arange(20.0).reshape(4, 5))


@use("grad", "vmap", "eager")
def regularized_cost() -> Any:
    return lambda x: solved(x).reg_ot_cost, (X,)


@use("grad", "vmap")
def plan_by_implicit_differentiation() -> Any:
    return lambda x: matched(x, implicit_diff=implicit.ImplicitDiff()), (X,)


@use("grad", "eager")
def plan_unrolled() -> Any:
    return lambda x: matched(x, implicit_diff=None, max_iterations=20, inner_iterations=5, min_iterations=20), (X,)


@use("grad")
def plan_unrolled_with_momentum_in_kernel_mode() -> Any:
    acceleration = library("ott.solvers.linear.acceleration", "ott-jax")
    return lambda x: matched(
        x,
        implicit_diff=None,
        lse_mode=False,
        max_iterations=20,
        min_iterations=20,
        inner_iterations=5,
        momentum=acceleration.Momentum(value=1.2),
    ), (X,)


@use("grad", "hvp")
def second_order_of_the_unrolled_cost() -> Any:
    return (
        lambda x: (
            solved(x, implicit_diff=None, use_danskin=False, max_iterations=10, min_iterations=10, inner_iterations=5).reg_ot_cost
        ),
        (X,),
    )


@use("grad")
def by_the_weights() -> Any:
    return lambda a: solved(jnp.asarray(X), a=jax.nn.softmax(a)).reg_ot_cost, (A,)


@use("grad")
def other_costs() -> Any:
    def fun(x: Any) -> Any:
        return (
            solved(x, cost=costs.PNormP(1.5)).reg_ot_cost
            + solved(x, cost=costs.Cosine()).reg_ot_cost
            + solved(x, cost=costs.SqPNorm(1.7)).reg_ot_cost
        )

    return fun, (X,)


@use("grad")
def sinkhorn_divergence() -> Any:
    divergence = library("ott.tools.sinkhorn_divergence", "ott-jax")

    def fun(x: Any) -> Any:
        return divergence.sinkhorn_divergence(pointcloud.PointCloud, x, jnp.asarray(Y), epsilon=0.5, solve_kwargs={"threshold": 1e-9})[
            0
        ]

    return fun, (X,)


@use("grad")
def unbalanced_cost() -> Any:
    def fun(x: Any) -> Any:
        problem = linear_problem.LinearProblem(pointcloud.PointCloud(x, jnp.asarray(Y), epsilon=0.5), tau_a=0.8, tau_b=0.9)
        return sinkhorn.Sinkhorn(threshold=1e-9, max_iterations=400)(problem).reg_ot_cost

    return fun, (X,)


@use("grad", "eager")
def gaussians_by_bures_distance() -> Any:
    """Its cost holds the library's own matrix square root, with the library's own rule."""

    def fun(x: Any) -> Any:
        bures = costs.Bures(2)
        return bures(
            jnp.concatenate([x[0], (x[:2] @ x[:2].T + jnp.eye(2)).ravel()]),
            jnp.concatenate([x[1], (x[2:] @ x[2:].T + jnp.eye(2)).ravel()]),
        )

    return fun, (X,)


@use("grad")
def gromov_wasserstein() -> Any:
    quadratic_problem = library("ott.problems.quadratic.quadratic_problem", "ott-jax")
    gromov = library("ott.solvers.quadratic.gromov_wasserstein", "ott-jax")

    def fun(x: Any) -> Any:
        problem = quadratic_problem.QuadraticProblem(pointcloud.PointCloud(x), pointcloud.PointCloud(jnp.asarray(Y)))
        solver = gromov.GromovWasserstein(
            sinkhorn.Sinkhorn(threshold=1e-6, max_iterations=50, implicit_diff=None), epsilon=1.0, max_iterations=2, min_iterations=2
        )
        return solver(problem).reg_gw_cost

    return fun, (X,)


@use.program
def gradient_flow_under_installed() -> Any:
    def run() -> Any:
        step = jax.jit(lambda x: x - 0.1 * jax.grad(lambda x: solved(x).reg_ot_cost)(x))
        return step(step(jnp.asarray(X)))

    return run


@use.program
def implicit_differentiation_under_installed() -> Any:
    return lambda: jax.grad(lambda x: matched(x, implicit_diff=implicit.ImplicitDiff()))(jnp.asarray(X))


test_use = use.derivatives_test()
test_installed = use.programs_test()
