"""Jaxopt: solvers by implicit differentiation and unrolled, projections, proximal operators, losses, quadratic programs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

jaxopt = library("jaxopt")

use = Uses()
random = np.random.RandomState(0)
X, Y = random.randn(6, 3), random.randn(6)
W0 = np.zeros(3)
POINT = np.array([0.9, -0.4, 1.7])


def ridge(w: Any, penalty: Any, y: Any = Y) -> Any:
    return 0.5 * jnp.mean((X @ w - y) ** 2) + 0.5 * penalty * jnp.sum(w**2)


@use("grad", "vmap", "eager")
def lbfgs_implicit() -> Any:
    return lambda a: jnp.sum(jaxopt.LBFGS(ridge, tol=1e-13, maxiter=60).run(jnp.asarray(W0), a).params ** 2), (np.array(0.3),)


@use("grad", "vmap")
def gradient_descent_implicit() -> Any:
    solver = jaxopt.GradientDescent(ridge, tol=1e-14, maxiter=2000, stepsize=0.3, acceleration=False)
    return lambda a: jnp.sum(solver.run(jnp.asarray(W0), a).params ** 3), (np.array(0.3),)


@use("grad", "jvp")
def gradient_descent_unrolled() -> Any:
    solver = jaxopt.GradientDescent(ridge, maxiter=5, tol=0.0, stepsize=0.1, implicit_diff=False, unroll=True)
    return lambda a: jnp.sum(solver.run(jnp.asarray(W0), a).params ** 2), (np.array(0.3),)


@use("grad")
def bfgs_implicit() -> Any:
    return lambda y: jnp.sum(jaxopt.BFGS(ridge, tol=1e-13, maxiter=40).run(jnp.asarray(W0), 0.2, y).params ** 2), (Y,)


@use("grad", "vmap")
def lasso_by_proximal_gradient() -> Any:
    solver = jaxopt.ProximalGradient(
        lambda w, y: 0.5 * jnp.mean((X @ w - y) ** 2), jaxopt.prox.prox_lasso, tol=1e-14, maxiter=2000, stepsize=0.3
    )
    return lambda a: jnp.sum(solver.run(jnp.asarray(W0), hyperparams_prox=a, y=Y).params ** 2), (np.array(0.02),)


@use("grad")
def simplex_by_projected_gradient() -> Any:
    solver = jaxopt.ProjectedGradient(
        lambda w, y: 0.5 * jnp.mean((X @ w - y) ** 2), jaxopt.projection.projection_simplex, tol=1e-14, maxiter=2000, stepsize=0.3
    )
    return lambda y: jnp.sum(solver.run(jnp.ones(3) / 3, hyperparams_proj=1.0, y=y).params ** 2), (Y,)


@use("grad", "vmap")
def fixed_point() -> Any:
    solver = jaxopt.FixedPointIteration(lambda x, a: 0.4 * jnp.cos(a * x) + a, tol=1e-14, maxiter=200)
    return lambda a: jnp.sum(solver.run(jnp.zeros(3), a).params ** 2), (POINT,)


@use("grad")
def anderson() -> Any:
    solver = jaxopt.AndersonAcceleration(lambda x, a: 0.4 * jnp.cos(a * x) + a, tol=1e-13, maxiter=60, history_size=3)
    return lambda a: jnp.sum(solver.run(jnp.zeros(3), a).params ** 2), (POINT,)


@use("grad", "vmap")
def bisection() -> Any:
    return (
        lambda a: jaxopt.Bisection(lambda x, a: x**3 + x - a, 0.0, 3.0, tol=1e-14, maxiter=60, check_bracket=False).run(1.0, a).params,
        (np.array(2.3),),
    )


@use("grad")
def levenberg_marquardt() -> Any:
    solver = jaxopt.LevenbergMarquardt(lambda w, y: jnp.tanh(X @ w) - y, tol=1e-13, maxiter=60)
    return lambda y: jnp.sum(solver.run(jnp.full(3, 0.1), y).params ** 2), (0.3 * np.tanh(Y),)


@use("grad")
def equality_constrained_quadratic_program() -> Any:
    def fun(c: Any) -> Any:
        return jnp.sum(
            jaxopt.EqualityConstrainedQP()
            .run(params_obj=(jnp.diag(jnp.array([2.0, 1.0, 3.0])), c), params_eq=(jnp.ones((1, 3)), jnp.ones(1)))
            .params.primal
            ** 2
        )

    return fun, (POINT,)


@use("jacrev", "jacfwd")
def projections_and_proximal_operators() -> Any:
    def fun(x: Any) -> Any:
        return jnp.stack(
            [
                jaxopt.projection.projection_simplex(x),
                jaxopt.projection.projection_l2_ball(x, 0.5),
                jaxopt.projection.projection_l1_ball(x, 0.8),
                jaxopt.projection.projection_box(x, (-0.2, 1.0)),
                jaxopt.prox.prox_lasso(x, 0.3),
                jaxopt.prox.prox_elastic_net(x, (0.2, 0.4)),
                jaxopt.prox.prox_ridge(x, 0.3),
            ]
        )

    return fun, (POINT,)


@use("grad")
def isotonic_and_transport_projections() -> Any:
    def fun(x: Any) -> Any:
        transport = jaxopt.projection.projection_transport(jnp.outer(x, x), (jnp.ones(3) / 3, jnp.ones(3) / 3))
        return jnp.sum(transport**2) + jnp.sum(
            jaxopt.projection.kl_projection_transport(jnp.outer(x, x), (jnp.ones(3) / 3, jnp.ones(3) / 3)) ** 2
        )

    return fun, (POINT,)


@use("grad", "hvp")
def losses() -> Any:
    def fun(x: Any) -> Any:
        loss = jaxopt.loss
        return (
            jnp.sum(jax.vmap(loss.multiclass_logistic_loss)(jnp.array([0, 2, 1]), jnp.outer(x, x)))
            + jnp.sum(jax.vmap(loss.huber_loss)(jnp.ones(3), x))
            + loss.binary_logistic_loss(1, x[0])
            + jnp.sum(loss.binary_sparsemax_loss(1, x[1]))
        )

    return fun, (POINT,)


@use.program
def lbfgs_under_installed() -> Any:
    return lambda: jaxopt.LBFGS(lambda w: ridge(w, 0.3), tol=1e-10, maxiter=20).run(jnp.asarray(W0)).params


@use.program
def implicit_gradient_under_installed() -> Any:
    def run() -> Any:
        solver = jaxopt.GradientDescent(lambda w, a: ridge(w, a), tol=1e-14, maxiter=2000, stepsize=0.3, acceleration=False)
        return jax.value_and_grad(lambda a: jnp.sum(solver.run(jnp.asarray(W0), a).params ** 3))(0.3)

    return run


@use.program
def custom_root_under_installed() -> Any:
    def run() -> Any:
        def optimality(w: Any, a: Any) -> Any:
            return jax.grad(ridge)(w, a)

        @jaxopt.implicit_diff.custom_root(optimality)
        def solver(start: Any, a: Any) -> Any:
            return jnp.linalg.solve(X.T @ X / 6 + a * jnp.eye(3), X.T @ Y / 6)

        return jax.jacrev(solver, argnums=1)(None, 0.3)

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
