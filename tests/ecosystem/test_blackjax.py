"""BlackJAX: one step of each gradient sampler, adaptation, variational methods; each calls jax's transforms inside."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

blackjax = library("blackjax")
optax = library("optax")

use = Uses()
key = jax.random.key(0)
POINT = {"x": np.array([0.3, -0.8]), "s": np.array(0.2)}
METRIC = jnp.ones(3)


def log_density(p: Any) -> Any:
    """A funnel over a banana."""
    x, s = p["x"], p["s"]
    return -0.5 * s**2 - 0.5 * jnp.exp(-s) * (x[0] ** 2 + (x[1] - x[0] ** 2) ** 2) - s


def step(build: Any, count: int = 2) -> Any:
    """A few steps of a sampler, in jit."""

    def run() -> Any:
        sampler = build()
        state = sampler.init(jax.tree.map(jnp.asarray, POINT))

        @jax.jit
        def steps(state: Any) -> Any:
            return jax.lax.scan(lambda s, k: (lambda s: (s, s.position))(sampler.step(k, s)[0]), state, jax.random.split(key, count))[1]

        return steps(state)

    return run


@use("grad", "hessian", "vmap", "eager")
def the_density_itself() -> Any:
    return log_density, (POINT,)


@use("grad", "jvp")
def through_a_trajectory() -> Any:
    """The end of a Hamiltonian trajectory, by its start: gradients of gradients in a loop."""
    metrics = library("blackjax.mcmc.metrics", "blackjax")
    integrators = library("blackjax.mcmc.integrators", "blackjax")
    metric = metrics.default_metric(METRIC)
    leapfrog = integrators.velocity_verlet(log_density, metric.kinetic_energy)

    def fun(p: Any) -> Any:
        value, grads = jax.value_and_grad(log_density)(p)
        state = integrators.IntegratorState(p, jax.tree.map(jnp.ones_like, p), value, grads)
        state = jax.lax.scan(lambda s, _: (leapfrog(s, 0.1), None), state, None, length=3)[0]
        return jnp.sum(state.position["x"] ** 2) + state.logdensity

    return fun, (POINT,)


@use("grad")
def evidence_bound_of_mean_field() -> Any:
    def fun(params: Any) -> Any:
        z = params["mu"] + jnp.exp(params["rho"]) * jax.random.normal(key, (4, 3))
        return jnp.mean(jax.vmap(lambda z: log_density({"x": z[:2], "s": z[2]}))(z)) + jnp.sum(params["rho"])

    return fun, ({"mu": np.array([0.1, 0.2, 0.3]), "rho": np.array([-1.0, -0.5, -0.2])},)


@use.program
def nuts() -> Any:
    return step(lambda: blackjax.nuts(log_density, 0.2, METRIC, max_num_doublings=4))


@use.program
def hamiltonian_monte_carlo() -> Any:
    return step(lambda: blackjax.hmc(log_density, 0.2, METRIC, 3))


@use.program
def metropolis_adjusted_langevin() -> Any:
    return step(lambda: blackjax.mala(log_density, 0.1))


@use.program
def riemannian_hamiltonian() -> Any:
    """Its kinetic energy is differentiated by position and momentum: the metric is a Hessian-like function."""
    return step(
        lambda: blackjax.rmhmc(log_density, 0.05, lambda p: jnp.diag(1.0 + jnp.concatenate([p["x"] ** 2, jnp.exp(p["s"])[None]])), 2), 1
    )


@use.program
def barker_and_microcanonical() -> Any:
    barker = step(lambda: blackjax.barker(log_density, 0.1))

    def microcanonical() -> Any:
        sampler = blackjax.mclmc(log_density, L=1.0, step_size=0.1)
        return jax.jit(sampler.step)(key, sampler.init(jax.tree.map(jnp.asarray, POINT), key))[0].position

    return lambda: (barker(), microcanonical())


@use.program
def window_adaptation() -> Any:
    def run() -> Any:
        warmup = blackjax.window_adaptation(blackjax.hmc, log_density, num_integration_steps=2)
        (state, parameters), _ = warmup.run(key, jax.tree.map(jnp.asarray, POINT), 12)
        return state.position, parameters["step_size"], parameters["inverse_mass_matrix"]

    return run


@use.program
def stein_variational_gradient() -> Any:
    def run() -> Any:
        particles = jax.tree.map(lambda x: jnp.stack([x, x + 0.3, x - 0.2]), POINT)
        svgd = blackjax.svgd(jax.grad(log_density), optax.sgd(0.1))
        return svgd.step(svgd.init(particles)).particles

    return run


@use.program
def mean_field_and_pathfinder() -> Any:
    def run() -> Any:
        vi = blackjax.meanfield_vi(log_density, optax.adam(0.1), 4)
        state, info = jax.jit(vi.step)(key, vi.init(jax.tree.map(jnp.asarray, POINT)))
        path, _ = blackjax.vi.pathfinder.approximate(key, log_density, jax.tree.map(jnp.asarray, POINT), num_samples=4, maxiter=4)
        return state.mu, state.rho, info.elbo, path.elbo

    return run


@use.program
def stochastic_gradient_langevin() -> Any:
    def run() -> Any:
        data = jnp.asarray(np.sin(np.arange(6.0)))
        grad = blackjax.sgmcmc.gradients.grad_estimator(lambda p: -0.5 * p**2, lambda p, x: -0.5 * (x - p) ** 2, 6)
        return jax.jit(blackjax.sgld(grad).step)(key, jnp.asarray(0.3), data[:3], 0.01)

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
