"""The shipped problems are what they say they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualrev.problems import PROBLEMS, brusselator, linear, mixture, network
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
