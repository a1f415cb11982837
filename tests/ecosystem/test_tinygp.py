"""Tinygp: marginal likelihoods and predictions with dense and quasiseparable solvers, by hyperparameters and inputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

tinygp = library("tinygp")
kernels = tinygp.kernels
Kernel: Any = kernels.Kernel

use = Uses()
T = np.array([0.0, 0.4, 1.1, 1.5, 2.3])
Y = np.sin(3 * T)
THETA = np.array([0.2, -0.1, -1.0])


def likelihood(kernel: Any, **options: Any) -> Any:
    def fun(theta: Any) -> Any:
        return tinygp.GaussianProcess(kernel(theta), T, diag=jnp.exp(theta[2]), **options).log_probability(Y)

    return fun, (THETA,)


@use("grad", "hessian", "vmap", "eager")
def squared_exponential() -> Any:
    return likelihood(lambda theta: jnp.exp(theta[0]) * kernels.ExpSquared(jnp.exp(theta[1])))


@use("grad", "hvp")
def sums_and_products_of_kernels() -> Any:
    return likelihood(
        lambda theta: (
            kernels.Matern52(jnp.exp(theta[0])) * kernels.Cosine(2.0)
            + jnp.exp(theta[1]) * kernels.RationalQuadratic(alpha=1.5)
            + kernels.ExpSineSquared(scale=1.3, gamma=jnp.exp(theta[1]))
        )
    )


@use("grad", "hvp", "vmap")
def quasiseparable() -> Any:
    return likelihood(lambda theta: kernels.quasisep.Matern32(jnp.exp(theta[0])) + kernels.quasisep.SHO(2.0, jnp.exp(theta[1])))


@use("grad", "jvp")
def celerite_and_cosine() -> Any:
    q = kernels.quasisep
    return likelihood(lambda theta: q.Celerite(jnp.exp(theta[0]), 0.1, 0.5, jnp.exp(theta[1])) + q.Cosine(jnp.exp(theta[0])))


@use("grad", "jvp")
def mean_function_and_prediction() -> Any:
    def fun(theta: Any) -> Any:
        process = tinygp.GaussianProcess(
            jnp.exp(theta[0]) * kernels.Matern32(jnp.exp(theta[1])), T, diag=0.1, mean=lambda x: theta[2] * x
        )
        loglike, conditioned = process.condition(Y, jnp.array([0.2, 3.0]))
        return loglike + jnp.sum(conditioned.loc**2) + jnp.sum(jnp.log(conditioned.variance))

    return fun, (THETA,)


@use("grad", "jvp")
def warped_inputs() -> Any:
    def fun(t: Any) -> Any:
        kernel = tinygp.transforms.Transform(jnp.tanh, kernels.ExpSquared(0.8))
        return tinygp.GaussianProcess(kernel, t, diag=0.1).log_probability(Y)

    return fun, (T,)


@use("grad")
def kernel_of_derivative_observations() -> Any:
    """A kernel that differentiates its base kernel: three orders in all."""

    class Derivative(Kernel):
        kernel: Any

        def evaluate(self, a: Any, b: Any) -> Any:
            (t, d), (u, e) = a, b
            k = self.kernel.evaluate
            return jnp.where(
                d, jnp.where(e, jax.grad(jax.grad(k, 0), 1)(t, u), jax.grad(k, 0)(t, u)), jnp.where(e, jax.grad(k, 1)(t, u), k(t, u))
            )

    def fun(theta: Any) -> Any:
        kernel = Derivative(jnp.exp(theta[0]) * kernels.ExpSquared(jnp.exp(theta[1])))
        return tinygp.GaussianProcess(kernel, (T, np.array([False, True, False, True, False])), diag=jnp.exp(theta[2])).log_probability(
            Y
        )

    return fun, (THETA,)


@use("grad")
def sample_by_reparameterization() -> Any:
    def fun(theta: Any) -> Any:
        return jnp.sum(
            tinygp.GaussianProcess(kernels.Matern52(jnp.exp(theta[0])), T, diag=jnp.exp(theta[2])).sample(jax.random.key(0)) ** 3
        )

    return fun, (THETA,)


@use.program
def laplace_approximation_under_installed() -> Any:
    fun, (theta,) = likelihood(lambda theta: jnp.exp(theta[0]) * kernels.Matern32(jnp.exp(theta[1])))
    return lambda: (jax.jit(jax.value_and_grad(fun))(theta), jax.hessian(fun)(theta))


test_use = use.derivatives_test()
test_installed = use.programs_test()
