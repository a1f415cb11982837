"""``dr.estimators.stochastic_checkpoint``: exact values, no bias, the variances of the formulas, what is stored, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev as dr

MANY, KEEP, LENGTH = 4000, 0.4, 6
X = jnp.asarray(np.linspace(0.2, 1.4, 4))
W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
KEYS = jax.random.split(jax.random.key(0), MANY)


def h(x: Any, w: Any) -> Any:
    return jnp.sin(x @ w) * jnp.exp(-x)


def entrywise(x: Any) -> Any:
    return 0.4 * jnp.sin(2 * x)


def chain(part: Callable[..., Any], key: Any, x: Any) -> Any:
    return lax.scan(lambda x, key: (x + part(key, x), None), x, jax.random.split(key, LENGTH))[0]


def test_values_are_exact_and_derivatives_all_or_nothing() -> None:
    part = dr.estimators.stochastic_checkpoint(h, keep=KEEP)
    seen = set()
    for key in KEYS[:5]:
        value, pull = dr.vjp(lambda x, w, key=key: part(key, x, w), X, W)
        np.testing.assert_array_equal(value, h(X, W))
        exact = jax.vjp(h, X, W)[1](X)
        kept = bool(jnp.any(pull(X)[0] != 0))
        seen.add(kept)
        for found, other in zip(pull(X), exact, strict=True):
            np.testing.assert_allclose(found, other / KEEP if kept else 0 * other, rtol=1e-12)
        pushed = dr.jvp(lambda x, key=key: part(key, x, W), (X,), (X,))[1]
        np.testing.assert_allclose(pushed, jax.jvp(lambda x: h(x, W), (X,), (X,))[1] / KEEP if kept else 0 * X, rtol=1e-12)
    assert seen == {False, True}


def test_a_chain_has_no_bias_and_the_variance_of_the_formula() -> None:
    part = dr.estimators.stochastic_checkpoint(entrywise, keep=KEEP)
    found = np.asarray(jax.jit(jax.vmap(lambda key: dr.grad(lambda x: jnp.sum(chain(part, key, x)))(X)))(KEYS))
    first = second = np.ones(4)
    x = np.asarray(X)
    for _ in range(LENGTH):
        slope = 0.8 * np.cos(2 * x)
        first, second, x = first * (1 + slope), second * ((1 + slope) ** 2 + (1 / KEEP - 1) * slope**2), x + 0.4 * np.sin(2 * x)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(chain(lambda _, x: entrywise(x), KEYS[0], x)))(X), first, rtol=1e-10)
    assert np.all(np.abs(found.mean(0) - first) <= 4 * found.std(0) / MANY**0.5)
    squares = (found - first) ** 2
    assert np.all(np.abs(squares.mean(0) - (second - first**2)) <= 4 * squares.std(0) / MANY**0.5)


def test_random_truncation_of_a_recurrence_has_no_bias() -> None:
    def loss(step: Callable[..., Any], key: Any, w: Any) -> Any:
        def body(x: Any, key: Any) -> Any:
            x = jnp.tanh(step(key, x, w) + w[0])
            return x, jnp.sum(x * x)

        return jnp.sum(lax.scan(body, X, jax.random.split(key, 4))[1])

    step = dr.estimators.stochastic_checkpoint(lambda x, w: x @ w, keep=0.7)
    found = np.asarray(jax.jit(jax.vmap(lambda key: dr.grad(lambda w: loss(step, key, w))(W)))(KEYS))
    expected = np.asarray(jax.grad(lambda w: loss(lambda _, x, w: x @ w, KEYS[0], w))(W))
    assert np.all(np.abs(found.mean(0) - expected) <= 4 * found.std(0) / MANY**0.5 + 1e-12)


def test_arguments_alone_are_stored() -> None:
    def deep(x: Any) -> Any:
        for _ in range(5):
            x = jnp.sin(x) * jnp.exp(-x)
        return x

    part = dr.estimators.stochastic_checkpoint(deep, keep=KEEP)
    _, pull = dr.vjp(lambda x: part(KEYS[0], x), X)
    assert sorted(r.shape for r in pull.residuals()) == [(), (4,)]
    _, pull = dr.vjp(lambda x: jnp.sum(chain(part, KEYS[0], x)), X)
    assert sorted(r.shape for r in pull.residuals()) == [(LENGTH,), (LENGTH, 4)]


def test_trees_integers_and_outputs_without_derivative() -> None:
    part = dr.estimators.stochastic_checkpoint(lambda t, i: {"y": t["a"][i] * t["b"], "n": i + 1}, keep=1.0)
    tree = {"a": X, "b": jnp.asarray(2.0)}
    out, pull = dr.vjp(lambda t: part(KEYS[0], t, jnp.asarray(1))["y"], tree)
    (found,) = pull(1.0)
    assert float(out) == pytest.approx(2 * float(X[1])) and found["a"].tolist() == [0.0, 2.0, 0.0, 0.0]
    assert part(KEYS[0], tree, jnp.asarray(1))["n"] == 2 and float(found["b"]) == pytest.approx(float(X[1]))


UNTYPED: Any = dr.estimators.stochastic_checkpoint


@pytest.mark.parametrize("keep", [0, -0.5, 1.5, True, "half", float("nan")])
def test_chances(keep: Any) -> None:
    with pytest.raises(ValueError, match="keep must be a chance above 0 and at most 1"):
        UNTYPED(h, keep=keep)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="must be a key"):
        UNTYPED(h, keep=0.5)(X, X, W)
    with pytest.raises(TypeError):
        UNTYPED(3, keep=0.5)
    part = dr.estimators.stochastic_checkpoint(entrywise, keep=0.9)
    for derivative in (dr.grad, dr.jacfwd):
        with pytest.raises(NotImplementedError, match="stochastic_checkpoint: its estimate is not differentiated again"):
            derivative(lambda x: jnp.sum(dr.grad(lambda x: jnp.sum(part(KEYS[0], x)))(x)))(X)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_what_the_function_closes_over_is_differentiated_too(wrap: Any) -> None:
    key = jax.random.key(0)

    def f(w: Any) -> Any:
        part = dr.estimators.stochastic_checkpoint(lambda y: y * w, keep=1.0)
        return jax.lax.scan(lambda c, _: (part(key, c), None), jnp.float64(3.0), None, length=2)[0] + part(key, 5.0)

    np.testing.assert_allclose(wrap(dr.grad(f))(2.0), 3 * 2 * 2.0 + 5.0, rtol=1e-12)
