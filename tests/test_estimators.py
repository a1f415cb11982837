"""``dr.estimators``: no bias (within four standard errors), the variance of the formulas, pytrees, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev as dr

MANY = 20_000
X = jnp.asarray(np.linspace(0.2, 1.4, 6))


def f(x: Any) -> Any:
    return jnp.sum(jnp.sin(x) * jnp.roll(x, 1)) + jnp.prod(x) + x[0] ** 3


GRADIENT, HESSIAN = np.asarray(jax.grad(f)(X)), np.asarray(jax.hessian(f)(X))
N, K = 6, 3


def drawn(estimate: Callable[[Any, Any], Any]) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(lambda key: estimate(key, X)[1]))(jax.random.split(jax.random.key(0), MANY)))


@pytest.mark.parametrize(("options", "expected"), [
    (dict(samples=K), (N + 1) / K), (dict(samples=K, distribution="rademacher"), (N - 1) / K),
    (dict(samples=K, combine="projection"), N / K - 1),
], ids=["normal", "signs", "projection"])
def test_forward_gradients(options: dict[str, Any], expected: float) -> None:
    found = drawn(dr.estimators.forward_gradient(f, **options))
    assert np.all(np.abs(found.mean(0) - GRADIENT) < 4 * found.std(0) / MANY**0.5)
    errors = np.sum((found - GRADIENT) ** 2, 1) / np.sum(GRADIENT**2)
    assert abs(errors.mean() - expected) < 4 * errors.std() / MANY**0.5


PURE = np.diag(HESSIAN)
SPREAD = N**2 / K * np.var(PURE, ddof=1)


@pytest.mark.parametrize(("estimate", "variance"), [
    (dr.estimators.hutchinson(f, samples=K), 2 / K * (np.sum(HESSIAN**2) - np.sum(PURE**2))),
    (dr.estimators.hutchinson(f, samples=K, distribution="normal"), 2 / K * np.sum(HESSIAN**2)),
    (dr.estimators.stde(f, samples=K), SPREAD * (1 - K / N)),
    (dr.estimators.stde(f, samples=K, replace=True), SPREAD * (N - 1) / N),
], ids=["signs", "normal", "coordinates", "coordinates with replacement"])
def test_laplacians(estimate: Callable[[Any, Any], Any], variance: float) -> None:
    found = drawn(estimate)
    assert abs(found.mean() - np.trace(HESSIAN)) < 4 * found.std() / MANY**0.5
    squares = (found - np.trace(HESSIAN)) ** 2
    assert abs(squares.mean() - variance) < 4 * squares.std() / MANY**0.5


def test_third_derivatives_of_all_coordinates() -> None:
    value, total = dr.estimators.stde(f, samples=N, order=3)(jax.random.key(1), X)
    expected = sum(dr.derivatives(lambda t, i=i: f(X.at[i].add(t)), 0.0, 3)[3] for i in range(N))
    assert float(value) == pytest.approx(float(f(X))) and float(total) == pytest.approx(float(expected))


def test_trees_and_other_outputs() -> None:
    tree = {"a": jnp.ones(2), "b": (jnp.ones((), "float32"),)}

    def g(t: Any) -> Any:
        return jnp.sum(t["a"] ** 2) + lax.convert_element_type(t["b"][0], t["a"].dtype) ** 2

    _, found = dr.estimators.forward_gradient(g, samples=3, combine="projection")(jax.random.key(0), tree)
    assert str(jax.tree.structure(found)) == str(jax.tree.structure(tree)) and found["b"][0].dtype == jnp.float32
    np.testing.assert_allclose(found["a"], [2.0, 2.0], rtol=1e-6)
    _, laplacian = dr.estimators.hutchinson(lambda t: {"y": jnp.stack([g(t), 2 * g(t)])})(jax.random.key(0), tree)
    np.testing.assert_allclose(laplacian["y"], [6.0, 12.0])


#: What a type checker would refuse.
UNTYPED: Any = dr.estimators


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: dr.estimators.forward_gradient(f, samples=0), ValueError, "samples must be at least 1; got 0"),
    (lambda: UNTYPED.stde(f, samples=1.5), TypeError, "samples must be an int"),
    (lambda: UNTYPED.hutchinson(f, distribution="uniform"), ValueError, "one of 'normal', 'rademacher'; got 'uniform'"),
    (lambda: UNTYPED.forward_gradient(f, combine="sum"), ValueError, "'mean' or 'projection'; got 'sum'"),
    (lambda: dr.estimators.forward_gradient(f, distribution="rademacher", combine="projection"), ValueError, "favours no axis"),
    (lambda: dr.estimators.forward_gradient(f, samples=7, combine="projection")(jax.random.key(0), X), ValueError, "inputs, 6"),
    (lambda: dr.estimators.stde(f, samples=7)(jax.random.key(0), X), ValueError, "replace=True"),
    (lambda: dr.estimators.stde(f, order=0)(jax.random.key(0), X), ValueError, "order must be at least 1"),
    (lambda: dr.estimators.forward_gradient(f)(jax.random.key(0), jnp.arange(3)), TypeError, "got int64 at x"),
    (lambda: dr.estimators.forward_gradient(lambda x: x)(jax.random.key(0), X), TypeError, "real scalar output; got shape"),
    (lambda: dr.estimators.hutchinson(f)(jax.random.key(0), jnp.ones(0)), ValueError, "no elements"),
])
def test_bad_input(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
