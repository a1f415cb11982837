"""Diffrax: ordinary, stochastic and controlled equations by every adjoint; steady states, events, dense output."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

diffrax = library("diffrax")

use = Uses()
THETA = np.array([0.9, 0.3])


def oscillator(t: Any, y: Any, theta: Any) -> Any:
    return jnp.stack([y[1], -theta[0] * jnp.sin(y[0]) - theta[1] * y[1]])


Y0 = np.array([1.0, 0.2])


def solve(theta: Any, solver: Any = None, steps: int = 16, **options: Any) -> Any:
    """The pendulum from 0 to 1, adaptive steps unless the options say otherwise."""
    options = {"stepsize_controller": diffrax.PIDController(rtol=1e-5, atol=1e-6), "max_steps": steps, "dt0": 0.2} | options
    return diffrax.diffeqsolve(
        diffrax.ODETerm(oscillator), solver or diffrax.Tsit5(), 0.0, 1.0, y0=jnp.asarray(Y0), args=theta, **options
    )


def final(**options: Any) -> Any:
    return lambda theta: jnp.sum(solve(theta, **options).ys ** 2), (THETA,)


@use("grad", "vmap", "eager")
def recursive_checkpoint() -> Any:
    return final()


@use("grad", "jvp", "hvp", "vmap")
def direct() -> Any:
    return final(adjoint=diffrax.DirectAdjoint())


@use("jvp", "jacfwd")
def forward_mode() -> Any:
    return final(adjoint=diffrax.ForwardMode())


@use("grad", "vmap")
def backsolve() -> Any:
    return final(adjoint=diffrax.BacksolveAdjoint())


@use("grad")
def constant_steps_and_saved_times() -> Any:
    def fun(theta: Any) -> Any:
        solution = solve(
            theta, diffrax.Heun(), stepsize_controller=diffrax.ConstantStepSize(), saveat=diffrax.SaveAt(ts=jnp.linspace(0, 1, 4))
        )
        return jnp.sum(jnp.sin(solution.ys))

    return fun, (THETA,)


@use("grad", "jvp")
def dense_output() -> Any:
    def fun(theta: Any) -> Any:
        solution = solve(theta, saveat=diffrax.SaveAt(dense=True), adjoint=diffrax.DirectAdjoint())
        return jnp.sum(solution.evaluate(0.37) ** 2) + jnp.sum(solution.derivative(0.6))

    return fun, (THETA,)


@use("grad", "jvp")
def implicit_solver() -> Any:
    newton = library("optimistix").Newton(rtol=1e-8, atol=1e-8)
    return final(solver=diffrax.Kvaerno3(root_finder=newton), adjoint=diffrax.DirectAdjoint(), steps=64)


@use("grad")
def implicit_solver_checkpointed() -> Any:
    newton = library("optimistix").Newton(rtol=1e-8, atol=1e-8)
    return final(solver=diffrax.ImplicitEuler(root_finder=newton), stepsize_controller=diffrax.ConstantStepSize(), steps=8)


@use("grad", "jvp")
def steady_state() -> Any:
    optx = library("optimistix")

    def fun(theta: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, theta: theta[0] - y - theta[1] * y**3),
            diffrax.Tsit5(),
            0.0,
            jnp.inf,
            dt0=0.2,
            y0=jnp.asarray(0.1),
            args=theta,
            max_steps=None,
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-10),
            event=diffrax.Event(diffrax.steady_state_event(rtol=1e-8, atol=1e-10)),
            adjoint=diffrax.ImplicitAdjoint(),
        )
        return solution.ys[0]

    assert optx
    return fun, (THETA,)


@use("grad", "jvp")
def event_with_root_finding() -> Any:
    optx = library("optimistix")

    def fun(theta: Any) -> Any:
        event = diffrax.Event(lambda t, y, args, **kwargs: y[0] - 0.7, optx.Newton(1e-12, 1e-12, optx.rms_norm))
        solution = solve(theta, event=event, adjoint=diffrax.DirectAdjoint(), saveat=diffrax.SaveAt(t1=True))
        return solution.ts[0] + solution.ys[0, 1]

    return fun, (THETA,)


@use("grad", "vmap")
def stochastic_equation() -> Any:
    def fun(theta: Any) -> Any:
        path = diffrax.VirtualBrownianTree(0.0, 1.0, tol=0.05, shape=(2,), key=jax.random.key(1))
        noise = diffrax.ControlTerm(lambda t, y, theta: jnp.diag(theta * jnp.cos(y)), path)
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(oscillator), noise),
            diffrax.Heun(),
            0.0,
            1.0,
            dt0=0.25,
            args=theta,
            y0=jnp.asarray(Y0),
            max_steps=8,
        )
        return jnp.sum(solution.ys**2)

    return fun, (THETA,)


@use("grad")
def stochastic_equation_with_levy_area() -> Any:
    def fun(theta: Any) -> Any:
        path = diffrax.VirtualBrownianTree(0.0, 1.0, tol=0.05, shape=(), key=jax.random.key(2), levy_area=diffrax.SpaceTimeLevyArea)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, theta: -theta[0] * y), diffrax.ControlTerm(lambda t, y, theta: theta[1], path)
        )
        return diffrax.diffeqsolve(terms, diffrax.ShARK(), 0.0, 1.0, dt0=0.25, y0=jnp.asarray(1.0), args=theta, max_steps=8).ys[0] ** 2

    return fun, (THETA,)


@use("grad")
def neural_controlled_equation() -> Any:
    def fun(theta: Any) -> Any:
        ts = jnp.linspace(0.0, 1.0, 5)
        control = diffrax.CubicInterpolation(ts, diffrax.backward_hermite_coefficients(ts, jnp.stack([ts, jnp.sin(5 * ts)], 1)))
        term = diffrax.ControlTerm(lambda t, y, theta: jnp.tanh(jnp.outer(y, theta)), control).to_ode()
        return jnp.sum(
            diffrax.diffeqsolve(term, diffrax.Midpoint(), 0.0, 1.0, dt0=0.25, y0=jnp.asarray(Y0), args=theta, max_steps=8).ys ** 2
        )

    return fun, (THETA,)


@use("grad")
def reversible_heun() -> Any:
    return final(solver=diffrax.ReversibleHeun(), stepsize_controller=diffrax.ConstantStepSize(), steps=8)


@use.program
def a_training_step_of_a_neural_equation() -> Any:
    eqx, optax = library("equinox"), library("optax")
    model = eqx.nn.MLP(2, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    optimizer = optax.adam(1e-2)

    @eqx.filter_value_and_grad
    def loss(model: Any) -> Any:
        term = diffrax.ODETerm(lambda t, y, args: model(y))
        ys = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, 1.0, dt0=0.25, y0=jnp.asarray(Y0), max_steps=8).ys
        return jnp.mean((ys - 0.5) ** 2)

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        value, grads = loss(model)
        updates, state = optimizer.update(grads, state)
        return value, eqx.filter(eqx.apply_updates(model, updates), eqx.is_array)

    return lambda: step(model, optimizer.init(eqx.filter(model, eqx.is_array)))


@use.program
def backsolve_under_installed() -> Any:
    fun, args = final(adjoint=diffrax.BacksolveAdjoint())
    return lambda: jax.jit(jax.grad(fun))(*args)


test_use = use.derivatives_test()
test_installed = use.programs_test()
