"""Optimistix: roots, fixed points, minima, least squares, by the implicit adjoint and through the iterations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

optx = library("optimistix")

use = Uses()
TIGHT = {"rtol": 1e-13, "atol": 1e-13}
THETA = np.array([0.3, 0.8])
XS = np.linspace(0.0, 1.0, 6)
YS = 1.4 * np.exp(-0.6 * XS) + 0.01 * np.cos(9 * XS)


def equation(y: Any, theta: Any) -> Any:
    return y**3 + theta * y - jnp.cos(theta)


def contraction(y: Any, theta: Any) -> Any:
    return 0.4 * jnp.cos(y * theta) + theta


def bowl(y: Any, theta: Any) -> Any:
    return jnp.sum(jnp.cosh(y - theta)) + 0.5 * (y[0] * y[1] - theta[0]) ** 2


def residuals(y: Any, ys: Any) -> Any:
    return y[0] * jnp.exp(-y[1] * XS) - ys


def root(solver: Any, **options: Any) -> Any:
    return lambda theta: jnp.sum(optx.root_find(equation, solver, jnp.full(2, 0.6), theta, max_steps=400, **options).value ** 2), (
        THETA,
    )


def minimum(solver: Any, **options: Any) -> Any:
    return lambda theta: jnp.sum(jnp.sin(optx.minimise(bowl, solver, jnp.zeros(2), theta, max_steps=400, **options).value)), (THETA,)


def fit(solver: Any, **options: Any) -> Any:
    return lambda ys: jnp.sum(optx.least_squares(residuals, solver, jnp.ones(2), ys, max_steps=64, **options).value ** 2), (YS,)


@use("grad", "jvp", "hvp", "vmap", "eager")
def newton() -> Any:
    return root(optx.Newton(**TIGHT))


@use("grad", "jvp")
def chord() -> Any:
    return root(optx.Chord(**TIGHT))


@use("grad", "jvp")
def root_by_dogleg() -> Any:
    return root(optx.Dogleg(**TIGHT))


@use("grad", "vmap")
def bisection() -> Any:
    def fun(theta: Any) -> Any:
        return optx.root_find(equation, optx.Bisection(**TIGHT), 0.5, theta, options={"lower": 0.0, "upper": 1.5}, max_steps=64).value

    return fun, (np.array(0.7),)


@use("grad", "vmap")
def newton_through_the_iterations() -> Any:
    return root(optx.Newton(**TIGHT), adjoint=optx.RecursiveCheckpointAdjoint())


@use("grad", "jvp", "hvp", "vmap")
def fixed_point() -> Any:
    def fun(theta: Any) -> Any:
        return jnp.sum(optx.fixed_point(contraction, optx.FixedPointIteration(**TIGHT), jnp.zeros(2), theta, max_steps=256).value ** 2)

    return fun, (THETA,)


@use("grad", "jvp", "hvp")
def bfgs() -> Any:
    return minimum(optx.BFGS(**TIGHT))


@use("grad", "vmap")
def lbfgs() -> Any:
    return minimum(optx.LBFGS(**TIGHT))


@use("grad")
def nonlinear_conjugate_gradients() -> Any:
    return minimum(optx.NonlinearCG(**TIGHT))


@use("grad")
def optax_minimiser() -> Any:
    optax = library("optax")
    return minimum(optx.OptaxMinimiser(optax.sgd(0.2), **TIGHT))


@use("grad", "eager")
def gradient_descent_through_the_iterations() -> Any:
    return lambda theta: jnp.sum(
        optx.minimise(
            bowl, optx.GradientDescent(0.3, 1e-3, 1e-3), jnp.zeros(2), theta, max_steps=64, adjoint=optx.RecursiveCheckpointAdjoint()
        ).value
    ), (THETA,)


@use("grad", "jvp", "hvp")
def levenberg_marquardt() -> Any:
    return fit(optx.LevenbergMarquardt(**TIGHT))


@use("grad", "vmap")
def gauss_newton() -> Any:
    return fit(optx.GaussNewton(**TIGHT))


@use("grad")
def indirect_levenberg_marquardt() -> Any:
    return fit(optx.IndirectLevenbergMarquardt(**TIGHT))


@use("grad", "hvp")
def a_hyperparameter_of_an_inner_problem() -> Any:
    def fun(penalty: Any) -> Any:
        def inner(y: Any, penalty: Any) -> Any:
            return jnp.concatenate([residuals(y, YS), jnp.sqrt(penalty) * y])

        y = optx.least_squares(inner, optx.GaussNewton(**TIGHT), jnp.ones(2), penalty, max_steps=64).value
        return jnp.mean(residuals(y, YS[::-1]) ** 2)

    return fun, (np.array(0.05),)


@use.program
def newton_under_installed() -> Any:
    fun, args = root(optx.Newton(**TIGHT))
    return lambda: (fun(*args), jax.grad(fun)(*args))


@use.program
def bfgs_under_installed() -> Any:
    return lambda: optx.minimise(bowl, optx.BFGS(**TIGHT), jnp.zeros(2), jnp.asarray(THETA), max_steps=400).value


@use.program
def levenberg_marquardt_under_installed() -> Any:
    return lambda: optx.least_squares(residuals, optx.LevenbergMarquardt(**TIGHT), jnp.ones(2), jnp.asarray(YS), max_steps=64).value


test_use = use.derivatives_test()
test_installed = use.programs_test()
