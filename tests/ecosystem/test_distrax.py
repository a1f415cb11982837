"""Distrax (on TensorFlow Probability's jax substrate): log densities, reparameterized samples, bijectors, flows, divergences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

distrax = library("distrax")
tfp = library("tensorflow_probability.substrates.jax", "distrax")

use = Uses()
key = jax.random.key(0)
P = np.array([0.7, 1.3, 0.4])
VALUES = np.array([0.2, 0.5, 0.9])


@use("grad", "hvp", "vmap", "eager")
def log_densities() -> Any:
    def fun(p: Any) -> Any:
        a, b, c = p
        families = [
            distrax.Normal(a, b),
            distrax.Beta(a, b),
            distrax.Gamma(a, b),
            distrax.Laplace(a, b),
            distrax.Logistic(a, b),
            distrax.Gumbel(a, b),
            distrax.VonMises(a, b),
            distrax.LogStddevNormal(a, b),
            distrax.Uniform(a - 1, b),
        ]
        return sum(jnp.sum(family.log_prob(VALUES)) for family in families) + jnp.sum(
            distrax.Bernoulli(logits=c).log_prob(np.array([0, 1]))
        )

    return fun, (P,)


@use("grad", "jvp")
def log_densities_of_vectors() -> Any:
    def fun(p: Any) -> Any:
        q = jnp.exp(p)
        return (
            distrax.Dirichlet(q).log_prob(VALUES / VALUES.sum())
            + distrax.MultivariateNormalDiag(p, q).log_prob(VALUES)
            + distrax.MultivariateNormalTri(p, jnp.diag(q) + 0.1 * jnp.tril(jnp.outer(p, p))).log_prob(VALUES)
            + distrax.MultivariateNormalFullCovariance(p, jnp.outer(p, p) + jnp.diag(q)).log_prob(VALUES)
            + jnp.sum(distrax.Categorical(logits=p).log_prob(np.array([0, 2])))
            + distrax.Categorical(logits=p).entropy()
        )

    return fun, (P,)


@use("grad", "jvp", "vmap")
def reparameterized_samples() -> Any:
    def fun(p: Any) -> Any:
        a, b, _ = p
        return sum(
            jnp.sum(d.sample(seed=key, sample_shape=3) ** 2)
            for d in (distrax.Normal(a, b), distrax.Gamma(a, b), distrax.Beta(a, b), distrax.Laplace(a, b), distrax.Logistic(a, b))
        )

    return fun, (P,)


@use("grad", "hvp")
def divergences_and_mixtures() -> Any:
    def fun(p: Any) -> Any:
        a, b, c = p
        mixture = distrax.MixtureSameFamily(distrax.Categorical(logits=p), distrax.Normal(p, jnp.exp(p)))
        return (
            distrax.Normal(a, b).kl_divergence(distrax.Normal(b, c))
            + distrax.Beta(a, b).kl_divergence(distrax.Beta(b, c))
            + distrax.Categorical(logits=p).kl_divergence(distrax.Categorical(logits=p[::-1]))
            + jnp.sum(mixture.log_prob(VALUES))
        )

    return fun, (P,)


@use("grad", "jvp")
def bijectors_and_their_determinants() -> Any:
    def fun(p: Any) -> Any:
        chain = distrax.Chain([distrax.Tanh(), distrax.ScalarAffine(0.1, p[0]), distrax.Lambda(jnp.arcsinh)])
        y, log_determinant = chain.forward_and_log_det(VALUES * p[1])
        x, inverse = distrax.Sigmoid().inverse_and_log_det(VALUES * p[2])
        return jnp.sum(y**2 + log_determinant) + jnp.sum(x * inverse)

    return fun, (P,)


@use("grad", "jvp")
def spline_flow() -> Any:
    def fun(params: Any) -> Any:
        flow = distrax.Transformed(
            distrax.Independent(distrax.Normal(jnp.zeros(2), jnp.ones(2)), 1),
            distrax.Block(distrax.RationalQuadraticSpline(params, -3.0, 3.0), 1),
        )
        return jnp.sum(flow.log_prob(np.array([[0.3, -1.2], [1.1, 0.4]])))

    return fun, (np.sin(np.arange(26.0)).reshape(2, 13),)


@use("grad")
def masked_coupling() -> Any:
    def fun(w: Any) -> Any:
        coupling = distrax.MaskedCoupling(
            jnp.array([True, False, True]), lambda x: jnp.tanh(w @ x), lambda s: distrax.ScalarAffine(s, log_scale=0.5 * s)
        )
        x, log_determinant = coupling.inverse_and_log_det(jnp.asarray(VALUES))
        return jnp.sum(x**2) + log_determinant

    return fun, (np.outer(P, VALUES),)


@use("grad", "jvp")
def hidden_markov_model() -> Any:
    def fun(p: Any) -> Any:
        model = distrax.HMM(distrax.Categorical(logits=p), distrax.Categorical(logits=jnp.outer(p, p)), distrax.Normal(p, jnp.exp(p)))
        return model.forward(jnp.asarray(VALUES))[1].sum() + jnp.sum(model.forward_backward(jnp.asarray(VALUES))[3])

    return fun, (P,)


@use("grad", "jvp")
def densities_of_tensorflow_probability() -> Any:
    tfd = tfp.distributions

    def fun(p: Any) -> Any:
        a, b, c = p
        return sum(
            jnp.sum(d.log_prob(VALUES))
            for d in (
                tfd.StudentT(a + 2, b, c),
                tfd.Kumaraswamy(a, b),
                tfd.SinhArcsinh(a, b, c, 1.0),
                tfd.TruncatedNormal(a, b, 0.0, 2.0),
                tfd.InverseGaussian(a, b),
                tfd.Weibull(a, b),
            )
        )

    return fun, (P,)


@use("grad")
def kalman_filter_of_tensorflow_probability() -> Any:
    tfd = tfp.distributions

    def fun(p: Any) -> Any:
        model = tfd.LinearGaussianStateSpaceModel(
            num_timesteps=3,
            transition_matrix=jnp.array([[1.0, 0.1], [0.0, 0.9]]) * p[0],
            transition_noise=tfd.MultivariateNormalDiag(jnp.zeros(2), p[1] * jnp.ones(2)),
            observation_matrix=jnp.array([[1.0, 0.0]]),
            observation_noise=tfd.MultivariateNormalDiag(jnp.zeros(1), p[2:]),
            initial_state_prior=tfd.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2)),
        )
        return model.log_prob(jnp.asarray(VALUES)[:, None])

    return fun, (P,)


@use.program
def lambda_bijector_under_installed() -> Any:
    """Its log determinant is found by jax's own jvp or jacobian inside the library."""
    return lambda: distrax.Lambda(jnp.arcsinh).forward_and_log_det(jnp.asarray(VALUES))


@use.program
def gradient_of_a_sample_under_installed() -> Any:
    return lambda: jax.grad(lambda p: jnp.sum(distrax.Gamma(p[0], p[1]).sample(seed=key, sample_shape=3)))(jnp.asarray(P))


@use.program
def minimizer_of_tensorflow_probability() -> Any:
    def run() -> Any:
        def loss(x: Any) -> Any:
            return tfp.math.value_and_gradient(lambda x: jnp.sum(jnp.cosh(x - 0.3)) + x[0] * x[1], x)

        return tfp.optimizer.bfgs_minimize(loss, jnp.zeros(2)).position

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
