"""The shipped problems are what they say they are."""

from __future__ import annotations

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

import dualrev as dr
from dualrev.problems import (
    PROBLEMS,
    SCENARIOS,
    brusselator,
    collocation,
    fitting,
    linear,
    loops_to_convergence,
    mixture,
    network,
    stationarity,
)
from dualrev.problems.sources import iris, text


def test_iris_is_fishers_table():
    flowers, species = iris()
    assert flowers.shape == (150, 4)
    np.testing.assert_array_equal(np.bincount(species), [50, 50, 50])
    # The two flowers in which the other variant of the data differs from the paper.
    np.testing.assert_array_equal(flowers[[34, 37]], [[4.9, 3.1, 1.5, 0.2], [4.9, 3.6, 1.4, 0.1]])
    np.testing.assert_allclose(flowers.mean(axis=0), [5.843333, 3.057333, 3.758, 1.199333], atol=1e-6)


def test_text():
    numbers, alphabet = text()
    assert len(numbers) == 128
    assert set(numbers.tolist()) == set(range(alphabet))


def test_mixture_is_the_density_of_three_gaussians():
    flowers, species = iris()
    density = np.zeros(150)
    for k in range(3):
        group = flowers[species == k]
        covariance = np.cov(group.T, bias=True)
        away = flowers - group.mean(axis=0)
        exponent = -0.5 * np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        density += np.exp(exponent) / np.sqrt(np.linalg.det(2 * np.pi * covariance)) / 3
    np.testing.assert_allclose(mixture.log_likelihood(mixture.parameters()), np.log(density).sum(), rtol=1e-12)


def test_brusselator_rate_by_loops():
    n = 5
    draw = np.random.default_rng(0)
    u, v = draw.normal(size=(2, n, n))
    rates = brusselator.rate({"u": jnp.asarray(u), "v": jnp.asarray(v)})
    for i in range(n):
        for j in range(n):
            around = [(i - 1, j), ((i + 1) % n, j), (i, j - 1), (i, (j + 1) % n)]
            u_spread, v_spread = ((sum(w[p] for p in around) - 4 * w[i, j]) * n**2 for w in (u, v))
            reaction = u[i, j] ** 2 * v[i, j]
            np.testing.assert_allclose(rates["u"][i, j], 1 + reaction - 4.4 * u[i, j] + 0.1 * u_spread)
            np.testing.assert_allclose(rates["v"][i, j], 3.4 * u[i, j] - reaction + 0.1 * v_spread)


def test_linear_model_by_hand():
    gradient = jax.grad(linear.loss)(linear.model())
    np.testing.assert_array_equal(gradient["w"], [-6, -3, -9])
    assert gradient["b"] == -3


def test_network_can_be_trained():
    """Steps along the gradient lower the loss: the first-order change is minus the step times |gradient|²."""
    layers = network.layers()
    gradient = jax.grad(network.loss)(layers)
    squared = sum(float(jnp.vdot(g, g)) for g in jax.tree.leaves(gradient))
    moved = jax.tree.map(lambda w, g: w - 1e-6 * g, layers, gradient)
    np.testing.assert_allclose(network.loss(layers) - network.loss(moved), 1e-6 * squared, rtol=1e-4)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_problem_is_a_function_of_one_pytree_of_floats(problem):
    inputs = problem.make_inputs()
    assert all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(inputs))
    out = problem.function(inputs)
    assert all(np.isfinite(y).all() for y in jax.tree.leaves(out))
    assert problem.description
    assert problem.citation


def newton(equations, guess, steps):
    """Newton's method with jax's dense Jacobian."""
    x, unravel = jax.flatten_util.ravel_pytree(guess)
    residual = jax.jit(lambda x: jax.flatten_util.ravel_pytree(equations(unravel(x)))[0])
    jacobian = jax.jit(jax.jacfwd(residual))
    for _ in range(steps):
        x = x - jnp.linalg.solve(jacobian(x), residual(x))
    assert np.abs(residual(x)).max() < 1e-9
    return unravel(x)


def test_swing_up_keeps_energy():
    """Without a force, energy does not change along the equations of motion."""
    state = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))

    def energy(x):
        _, angle, velocity, spin = x
        tip = jnp.stack([velocity + collocation.LENGTH * spin * jnp.cos(angle), collocation.LENGTH * spin * jnp.sin(angle)])
        kinetic = collocation.CART * velocity**2 / 2 + collocation.POLE * jnp.sum(tip**2) / 2
        return kinetic - collocation.POLE * collocation.GRAVITY * collocation.LENGTH * jnp.cos(angle)

    slope = collocation._cart_pole(state, jnp.zeros(5))
    np.testing.assert_allclose(jax.vmap(lambda x, dx: jax.jvp(energy, (x,), (dx,))[1])(state, slope), 0, atol=1e-12)


def test_period_of_van_der_pol():
    """6.66329 for a damping of 1, to the order of the midpoint rule."""
    found = [float(newton(collocation.periodic_orbit, collocation.orbit_guess(n), 12)["period"]) for n in (48, 96)]
    np.testing.assert_allclose((4 * found[1] - found[0]) / 3, 6.66329, rtol=2e-4)


def test_step_along_the_branch_of_bratu():
    """On a small step λ grows as the lowest mode does: λ = 2π² a, for u = a sin(πx) sin(πy) of first order."""
    found = newton(lambda u: collocation.continuation(u, 1e-3), collocation.branch_guess(15), 6)
    assert 0 < found["parameter"] < 1e-3 * 2 * jnp.pi**2
    spread = np.linalg.solve(-second_differences(15), np.ones(225))
    np.testing.assert_allclose(found["u"].ravel() / found["parameter"], spread, rtol=2e-3)


def second_differences(n):
    line = (np.diag(np.full(n - 1, 1.0), 1) + np.diag(np.full(n - 1, 1.0), -1) - 2 * np.eye(n)) * (n + 1) ** 2
    return np.kron(line, np.eye(n)) + np.kron(np.eye(n), line)


def test_pulse_without_a_wave_is_at_rest():
    """At rest nothing is lacking; a small sine lacks its diffusion, decay and transport, whatever the grid."""
    n, a = 400, 1e-6
    x = jnp.linspace(-30.0, 30.0, n, endpoint=False)
    k = 2 * jnp.pi / 60
    lacking = collocation.travelling_pulse({"potential": a * jnp.sin(k * x), "recovery": jnp.zeros(n), "speed": jnp.asarray(2.0)})
    np.testing.assert_allclose(lacking["potential"] / a, -(k**2 + 0.1) * jnp.sin(k * x) + 2 * k * jnp.cos(k * x), atol=1e-4)
    np.testing.assert_allclose(lacking["recovery"] / a, 0.01 * jnp.sin(k * x), atol=1e-12)


def test_hanging_chain_is_a_catenary():
    """y = c cosh((x - a) / c) + b satisfies the first-order conditions, up to the error of the grid; b is minus the multiplier."""
    # A chain of length 4 between heights that differ by 2 over a span of 1: 16 - 4 = (2 c sinh(1 / 2c))².
    c = brentq(lambda c: 2 * c * np.sinh(0.5 / c) - np.sqrt(12), 0.05, 1)
    a = 0.5 - c * np.arctanh(0.5)
    b = 1 - c * np.cosh(a / c)
    lacking = []
    for n in (199, 399):
        t = np.linspace(0, 1, n + 2)[1:-1]
        chain = {"x": jnp.asarray(c * np.cosh((t - a) / c) + b), "multiplier": jnp.asarray(-b)}
        residual = stationarity.hanging_chain(chain)
        lacking.append(max(np.abs(residual["stationary"]).max() * n, abs(residual["feasible"])))
    assert lacking[1] < 0.3 * lacking[0] and lacking[1] < 0.02


def test_areas():
    """A flat surface has area 1; one of small heights gains half of the integral of its squared slope."""
    assert stationarity.area(jnp.zeros((4, 4))) == 1
    x = np.linspace(0, 1, 101)[1:-1]
    small = 1e-3 * np.outer(np.sin(np.pi * x), np.sin(np.pi * x))
    np.testing.assert_allclose(stationarity.area(jnp.asarray(small)) - 1, 1e-6 * np.pi**2 / 4, rtol=1e-3)
    z = np.random.default_rng(0).normal(size=(3, 3))
    corner = np.array([[[i / 4, j / 4, h] for j, h in enumerate(row)] for i, row in enumerate(np.pad(z, 1))])
    triangles = [(corner[i + 1, j] - corner[i, j], corner[i, j + 1] - corner[i, j], corner[i + 1, j] - corner[i + 1, j + 1],
                  corner[i, j + 1] - corner[i + 1, j + 1]) for i in range(4) for j in range(4)]
    by_hand = sum(np.linalg.norm(np.cross(a, b)) / 2 + np.linalg.norm(np.cross(c, d)) / 2 for a, b, c, d in triangles)
    np.testing.assert_allclose(stationarity.area(jnp.asarray(z)), by_hand, rtol=1e-12)
    drop = stationarity.drop({"x": jnp.asarray(small), "multiplier": jnp.asarray(0.0)})
    np.testing.assert_allclose(drop["stationary"] * 1e4, 2 * np.pi**2 * small, rtol=1e-2, atol=1e-5)


def test_cameras_by_scipy():
    unknowns, camera, point, seen = fitting.pictures()
    found = fitting.reprojection(unknowns, camera, point, seen)
    focal, k1, k2 = np.asarray(unknowns["lens"])
    for i in range(len(camera)):
        at = np.array(unknowns["cameras"][camera[i]])
        x, y, z = Rotation.from_rotvec(at[:3]).apply(np.array(unknowns["points"][point[i]])) + at[3:]
        r2 = (x**2 + y**2) / z**2
        expected = focal * (1 + k1 * r2 + k2 * r2**2) * np.array([-x / z, -y / z])
        np.testing.assert_allclose(found[i], expected - seen[i], rtol=1e-6)


def test_decays_by_loops():
    unknowns, time, measured = fitting.decays()
    found = fitting.global_decays(unknowns, time, measured)
    for i, row in enumerate(np.asarray(unknowns["amplitudes"])):
        curve = sum(a * np.exp(-r * np.asarray(time)) for a, r in zip(row, np.asarray(unknowns["rates"]), strict=True))
        np.testing.assert_allclose(found["curves"][i], curve - measured[i], rtol=1e-12)


@pytest.mark.parametrize("problem", SCENARIOS.select("sparse"), ids=lambda problem: problem.name)
def test_systems_have_few_dense_rows_and_columns(problem):
    """Both ways together take fewer passes than either, except where no row is dense."""
    plan = dr.sparse.plan(problem.function, problem.make_inputs(), costs=(1.0, 1.0))
    passes = plan.forward_colours + plan.reverse_colours
    if problem.name == "bundle adjustment, one lens":
        assert passes == plan.bounds[0]
    else:
        assert passes <= min(plan.bounds) / 2


#: How many entries the Hessian of each has at 24 unknowns: what its couplings say, but for the last, whose steps reach ever further.
ENTRIES = {"orbits": 114, "pipes": 120, "cells": 48, "springs": 114, "rings": 96, "walls": 96, "pendulums": 68, "branches": 70,
           "marching": 70, "spreading": 576}


@pytest.mark.parametrize("name", ENTRIES)
def test_patterns_through_loops_to_convergence(name):
    scenario = SCENARIOS[f"loop to convergence: {name}"]
    x = scenario.make_inputs()
    assert dr.sparse.hessian_pattern(scenario.function)(x).nse == ENTRIES[name]
    with jax.enable_x64(False):
        assert jnp.isfinite(scenario.function(loops_to_convergence.draw(24))).item()


@pytest.mark.parametrize("name", ENTRIES)
def test_hessians_through_loops_to_convergence(name):
    program, x = SCENARIOS[f"loop to convergence: {name}"].function, loops_to_convergence.draw(12, 1)
    expected = jax.jacfwd(jax.jacfwd(program))(x)
    np.testing.assert_allclose(dr.sparse.hessian(program)(x).todense(), expected, atol=1e-12 * np.abs(expected).max())
