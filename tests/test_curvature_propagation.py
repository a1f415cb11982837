"""``dr.estimators.curvature_propagation``: no bias (within four standard errors), the variance of the formula, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev as dr

MANY = 4000
W = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
V = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))
X = jnp.asarray(np.linspace(0.2, 1.4, 4))


def layer(x: Any) -> Any:
    return jnp.sum(jnp.sin(W @ x))


def product(x: Any) -> Any:
    return jnp.sum((W @ x) * (V @ x))


def network(x: Any) -> Any:
    h = jnp.tanh(W @ x)
    return jnp.sum(jax.nn.softplus(h) / (1 + h * h)) * jnp.prod(x) + x[0] ** 3


def steps(x: Any) -> Any:
    """A scan in a scan, a carry that does not depend on the input, and results of each step."""
    def inner(c: Any, w: Any) -> Any:
        return jnp.sin(c) * x * w + c, jnp.exp(c[0])

    def outer(state: Any, _: None) -> Any:
        c, scale = state
        c, seen = lax.scan(inner, c * scale, jnp.arange(1.0, 3.0), reverse=True)
        return (c, 0.5 * scale), jnp.sum(seen)

    (c, _), seen = lax.scan(outer, (x, jnp.ones(())), None, length=2)
    return jnp.sum(c * c) + jnp.sum(seen)


def choices(x: Any) -> Any:
    a = lax.cond(x[0] > 0, lambda x: jnp.exp(x) * x, jnp.sin, x)
    return jnp.sum(lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1] * s[1])), (0, a))[1])


def spectrum(x: Any) -> Any:
    return jnp.sum(jnp.abs(jnp.exp(jnp.fft.fft(jnp.sin(x)) * 0.3j)) ** 2)


def contraction(x: Any) -> Any:
    return jnp.dot(W @ x, V @ jnp.exp(x)) + jnp.sum(dr.checkpoint(jnp.cos)(x) * jnp.sum(x))


@pytest.mark.parametrize("fun", [layer, product, network, steps, choices, spectrum, contraction], ids=lambda f: f.__name__)
def test_products_have_the_mean_of_the_hessian(fun: Callable[[Any], Any]) -> None:
    value, (t, u) = jax.jit(dr.estimators.curvature_propagation(fun, samples=MANY, of="factors"))(jax.random.key(1), X)
    found = np.asarray(t)[:, :, None] * np.asarray(u)[:, None, :]
    expected = np.asarray(jax.jacfwd(jax.jacfwd(fun))(X))
    np.testing.assert_allclose(value, fun(X), rtol=1e-12)
    assert np.all(np.abs(found.mean(0) - expected) <= 4 * found.std(0) / MANY**0.5 + 1e-12)
    assert np.linalg.norm(found.mean(0) - expected) < 0.2 * np.linalg.norm(expected)


def test_variances_are_those_of_the_formula() -> None:
    m = -np.sin(np.asarray(W @ X))  # of the layer; of the product, t = Wᵀv + Vᵀw and u = Wᵀw + Vᵀv
    root = np.sqrt(np.abs(m))
    matrices = {layer: (np.asarray(W).T * root, np.asarray(W).T * root * np.sign(m)),
                product: (np.hstack([W.T, V.T]), np.hstack([V.T, W.T]))}
    for fun, (a, b) in matrices.items():
        pairs = a[:, :, None] * b[:, None, :] + a[:, None, :] * b[:, :, None]
        variance = np.sum(np.triu(pairs, 1) ** 2, (1, 2))
        _, (t, u) = jax.jit(dr.estimators.curvature_propagation(fun, samples=5 * MANY, of="factors"))(jax.random.key(2), X)
        squares = (np.asarray(t * u) - np.diag(np.asarray(jax.hessian(fun)(X)))) ** 2
        assert np.all(np.abs(squares.mean(0) - variance) <= 4 * squares.std(0) / (5 * MANY) ** 0.5), fun


def test_diagonals_of_trees_and_of_small_functions() -> None:
    tree = {"a": jnp.asarray([1.0, 2.0], "float32"), "b": (jnp.asarray(3.0),)}

    def separable(t: Any) -> Any:
        return jnp.sum(t["a"].astype(float) ** 3) + 1e-9 * jnp.exp(t["b"][0])  # a small curvature is not lost in the noise of others

    value, found = dr.estimators.curvature_propagation(separable)(jax.random.PRNGKey(0), tree)
    assert found["a"].dtype == jnp.float32 and found["b"][0].shape == () and float(value) == pytest.approx(float(separable(tree)))
    np.testing.assert_allclose(found["a"], [6.0, 12.0], rtol=1e-5)
    assert float(found["b"][0]) == pytest.approx(1e-9 * np.exp(3.0))
    _, of_linear = dr.estimators.curvature_propagation(lambda x: jnp.sum(W @ x))(jax.random.key(0), X)
    np.testing.assert_array_equal(of_linear, 0)


def test_one_sample_is_the_mean_of_its_factors() -> None:
    for samples in (1, 3):
        _, (t, u) = dr.estimators.curvature_propagation(product, samples=samples, of="factors")(jax.random.key(4), X)
        _, diagonal = jax.jit(dr.estimators.curvature_propagation(product, samples=samples))(jax.random.key(4), X)
        assert t.shape == (samples, 4)
        np.testing.assert_allclose(diagonal, jnp.mean(t * u, 0), rtol=1e-12)


UNTYPED: Any = dr.estimators.curvature_propagation


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: UNTYPED(layer, samples=0), ValueError, "samples must be at least 1; got 0"),
    (lambda: UNTYPED(layer, of="trace"), ValueError, "of must be one of 'diagonal', 'factors'; got 'trace'"),
    (lambda: UNTYPED(3), TypeError, "3"),
    (lambda: UNTYPED(layer)(0, X), TypeError, "must be a key of jax.random"),
    (lambda: UNTYPED(layer)(jax.random.key(0), jnp.arange(4)), TypeError, "got int64 at x"),
    (lambda: UNTYPED(lambda x: x)(jax.random.key(0), X), TypeError, "real scalar output; got shape"),
])
def test_bad_input(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
