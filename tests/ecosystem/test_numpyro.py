"""NumPyro: log densities of models, NUTS's potential, variational bounds, samplers and Laplace's approximation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

numpyro = library("numpyro")
dist = library("numpyro.distributions", "numpyro")
infer = library("numpyro.infer", "numpyro")

use = Uses()
key = jax.random.key(0)
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0])
X = np.sin(np.arange(12.0)).reshape(6, 2)
COUNTS = np.array([0, 3, 1, 2, 5, 1])


def schools() -> Any:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 4):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("obs", dist.Normal(theta, ERRORS), obs=EFFECTS)


def regression() -> Any:
    w = numpyro.sample("w", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 0.5))
    shape = numpyro.sample("shape", dist.LogNormal(0.0, 1.0))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    numpyro.sample("obs", dist.NegativeBinomial2(jnp.exp(X @ (w * weights)), shape), obs=COUNTS)


def potential(model: Any) -> Any:
    info = infer.util.initialize_model(key, model, init_strategy=infer.init_to_uniform(radius=0.5))
    return info.potential_fn, (info.param_info.z,)


@use("grad", "hvp", "vmap", "eager")
def potential_of_a_hierarchical_model() -> Any:
    return potential(schools)


@use("grad", "hessian", "vmap")
def potential_of_a_regression() -> Any:
    return potential(regression)


@use("grad", "jvp")
def potential_with_discrete_variables_summed_out() -> Any:
    def model() -> Any:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
        means = numpyro.sample("means", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        with numpyro.plate("data", 6):
            numpyro.sample("obs", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, 0.7)), obs=X[:, 0])

    return potential(model)


@use("grad", "jvp")
def potential_of_a_time_series_in_scan() -> Any:
    control_flow = library("numpyro.contrib.control_flow", "numpyro")

    def model() -> Any:
        a = numpyro.sample("a", dist.Beta(2.0, 2.0))

        def step(carry: Any, y: Any) -> Any:
            z = numpyro.sample("z", dist.Normal(a * carry, 0.5))
            numpyro.sample("y", dist.StudentT(5.0, z, 0.3), obs=y)
            return z, z

        control_flow.scan(step, 0.1, X[:4, 0])

    return potential(model)


@use("grad", "hvp")
def densities() -> Any:
    def fun(p: Any) -> Any:
        a, b, c = p
        families = [
            dist.Gamma(a, b),
            dist.Beta(a, b),
            dist.StudentT(a + 2, b, c),
            dist.VonMises(a, b),
            dist.Weibull(a, b),
            dist.Kumaraswamy(a, b),
            dist.InverseGamma(a, b),
            dist.TruncatedNormal(a, b, low=0.0),
            dist.AsymmetricLaplace(a, b, c),
            dist.Cauchy(a, b),
        ]
        discrete = [
            dist.Poisson(a),
            dist.BetaBinomial(a, b, total_count=7),
            dist.ZeroInflatedPoisson(0.3, a),
            dist.NegativeBinomial2(a, b),
        ]
        return sum(jnp.sum(d.log_prob(np.array([0.2, 0.5, 0.9]))) for d in families) + sum(
            jnp.sum(d.log_prob(COUNTS)) for d in discrete
        )

    return fun, (np.array([0.7, 1.3, 0.4]),)


@use("grad", "jvp")
def densities_of_matrices() -> Any:
    def fun(p: Any) -> Any:
        factor = dist.transforms.CorrCholeskyTransform()(jnp.sin(p))
        scale = jnp.exp(p)[:, None] * factor
        return (
            dist.LKJCholesky(3, 1.5).log_prob(factor)
            + dist.MultivariateNormal(p, scale_tril=scale).log_prob(p[::-1])
            + dist.Wishart(5.0, scale_tril=scale).log_prob(jnp.eye(3) + 0.2)
            + dist.LowRankMultivariateNormal(p, scale[:, :1], jnp.exp(p)).log_prob(p**2)
        )

    return fun, (np.array([0.3, -0.5, 0.2]),)


def bound(guide: Any, loss: Any = None) -> Any:
    svi = infer.SVI(schools, guide, numpyro.optim.Adam(0.01), loss or infer.Trace_ELBO(num_particles=2))
    state = svi.init(key)
    params = svi.get_params(state)
    return lambda params: (loss or infer.Trace_ELBO(num_particles=2)).loss(key, params, schools, guide), (params,)


@use("grad", "jvp", "vmap")
def variational_bound_mean_field() -> Any:
    return bound(infer.autoguide.AutoNormal(schools))


@use("grad", "jvp")
def variational_bound_full_covariance() -> Any:
    return bound(infer.autoguide.AutoMultivariateNormal(schools), infer.TraceMeanField_ELBO())


@use("grad")
def variational_bound_by_flows() -> Any:
    return bound(infer.autoguide.AutoIAFNormal(schools, hidden_dims=[6], num_flows=1))


@use("grad", "jvp")
def renyi_bound() -> Any:
    return bound(infer.autoguide.AutoDiagonalNormal(schools), infer.RenyiELBO(alpha=0.5, num_particles=2))


@use.program
def nuts() -> Any:
    def run() -> Any:
        sampler = infer.MCMC(infer.NUTS(schools, max_tree_depth=4), num_warmup=8, num_samples=4, progress_bar=False)
        sampler.run(key)
        return sampler.get_samples()

    return run


@use.program
def hamiltonian_monte_carlo() -> Any:
    def run() -> Any:
        kernel = infer.HMC(regression, num_steps=3, adapt_step_size=False, step_size=0.05)
        state = kernel.init(key, 0, None, (), {})
        return kernel.sample(state, (), {}).z

    return run


@use.program
def variational_inference() -> Any:
    def run() -> Any:
        svi = infer.SVI(schools, infer.autoguide.AutoNormal(schools), numpyro.optim.Adam(0.05), infer.Trace_ELBO())
        result = svi.run(key, 4, progress_bar=False)
        return result.params, result.losses

    return run


@use.program
def laplace_approximation() -> Any:
    def run() -> Any:
        # Its Hessian is regular, as that of the schools is not.
        guide = infer.autoguide.AutoLaplaceApproximation(regression)
        svi = infer.SVI(regression, guide, numpyro.optim.Adam(0.05), infer.Trace_ELBO())
        result = svi.run(key, 3, progress_bar=False)
        return guide.get_transform(result.params).scale_tril

    return run


@use.program
def stein_variational_gradient() -> Any:
    def run() -> Any:
        stein = library("numpyro.contrib.einstein", "numpyro")
        guide = infer.autoguide.AutoDelta(schools)
        sampler = stein.SteinVI(schools, guide, numpyro.optim.Adagrad(0.1), stein.RBFKernel(), num_stein_particles=3)
        state = sampler.init(key)
        state, loss = sampler.update(state)
        return loss, sampler.get_params(state)

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
