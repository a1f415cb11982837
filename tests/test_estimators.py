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

MANY, FEWER = 20_000, 4000
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


# ------------------------------------------------------------------------------------------------- reverse mode that keeps samples

A = jnp.asarray(np.linspace(0.4, 1.6, 12).reshape(3, 4))
B = jnp.asarray(np.cos(np.arange(16.0)).reshape(4, 4))
WEIGHTS = jnp.arange(1.0, 5.0)


def layers(a: Any, b: Any) -> Any:
    h = jnp.tanh(a @ b)
    return jnp.sum((jax.nn.relu(h) / (1 + h * h)) @ b[:, :2])


def steps(a: Any, b: Any) -> Any:
    out, seen = lax.scan(lambda c, w: (jnp.sin(c) @ b * w, jnp.exp(c[0])), a, jnp.arange(1.0, 4.0), reverse=True)
    return jnp.sum(out) + jnp.sum(seen * seen)


def choices(a: Any, b: Any) -> Any:
    a = lax.cond(a[0, 0] > 0, lambda x: jnp.exp(x) * x, jnp.sin, a)
    return jnp.sum(lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1] @ b) * s[1]), (0, a))[1])


def spectrum(a: Any, b: Any) -> Any:
    return jnp.sum(jnp.abs(jnp.exp(jnp.fft.fft(a @ b) * 0.3j)) ** 2)


def one_after_another(a: Any, b: Any) -> Any:
    return jnp.sum(jnp.sin(jnp.exp(a)))


@pytest.mark.parametrize("fun", [layers, steps, choices, spectrum], ids=lambda f: f.__name__)
def test_pulls_from_samples_have_no_bias(fun: Callable[[Any, Any], Any]) -> None:
    estimate = dr.estimators.randomized_vjp(fun, one_in=3, least=4)
    expected = np.concatenate([np.ravel(g) for g in dr.grad(fun, (0, 1))(A, B)])

    def gradient(key: Any) -> Any:
        value, pull = estimate(key, A, B)
        return value, jnp.concatenate([jnp.ravel(g) for g in pull(jnp.ones_like(value))])

    values, found = map(np.asarray, jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(2), FEWER)))
    np.testing.assert_allclose(values, fun(A, B), rtol=1e-12)
    assert np.all(np.abs(found.mean(0) - expected) <= 4 * found.std(0) / FEWER**0.5 + 1e-12)
    assert np.sum(found.std(0) > 1e-3 * np.abs(expected)) > expected.size / 2  # and they are samples


@pytest.mark.parametrize(("fun", "moment"), [
    (one_after_another, lambda g, s: (s**2 - 1) * g[0] ** 2),
    (lambda a, b: jnp.sum((lax.stop_gradient(jnp.exp(a)) @ b) @ WEIGHTS),
     lambda g, s: (s - 1) * np.sum((np.exp(A)[:, :, None] * np.asarray(WEIGHTS)) ** 2, 0)),
], ids=["entry by entry", "product"])
def test_variances_of_samples(fun: Callable[[Any, Any], Any], moment: Callable[[Any, Any], Any]) -> None:
    which, s = (0, 4) if fun is one_after_another else (1, 2)
    estimate = dr.estimators.randomized_vjp(fun, one_in=s, least=1)
    expected = [np.asarray(g) for g in dr.grad(fun, (0, 1))(A, B)]
    found = np.asarray(jax.jit(jax.vmap(lambda key: estimate(key, A, B)[1](1.0)[which]))(jax.random.split(jax.random.key(3), MANY)))
    squares = (found - expected[which]) ** 2
    assert np.all(np.abs(squares.mean(0) - moment(expected, s)) <= 4 * squares.std(0) / MANY**0.5)


def test_what_is_kept_is_a_sample() -> None:
    def loop(x: Any) -> Any:
        return jnp.sum(lax.scan(lambda c, _: (c + 0.01 * jnp.sin(c) * jnp.cos(jnp.roll(c, 1)), None), x, None, length=40)[0])

    x, key = jnp.linspace(0.0, 1.0, 2000), jax.random.key(0)
    estimate = dr.estimators.randomized_vjp(loop, one_in=20)
    kept, everything = (sum(r.size * r.dtype.itemsize for r in jax.tree.leaves(pull)) for pull in (
        jax.eval_shape(lambda key, x: estimate(key, x)[1], key, x), jax.eval_shape(lambda x: dr.vjp(loop, x)[1], x)))
    assert kept < 0.15 * everything  # four factors are kept in place of two, and a byte for each place
    analyses: list[Any] = [jax.jit(f).lower(*args).compile().memory_analysis() for f, args in (
        (lambda key, x: estimate(key, x)[1](1.0)[0], (key, x)), (dr.grad(loop), (x,)))]
    temporary, of_all = (found.temp_size_in_bytes for found in analyses)
    assert temporary < 0.2 * of_all


def test_samples_are_those_of_the_key() -> None:
    def gradient(key: Any) -> Any:
        return dr.estimators.randomized_vjp(one_after_another, one_in=2, least=4)(key, A, B)[1](1.0)[0]

    jitted = jax.jit(gradient)
    np.testing.assert_allclose(jitted(jax.random.key(0)), gradient(jax.random.key(0)), rtol=1e-10)
    np.testing.assert_allclose(jitted(jax.random.key(0)), jitted(jax.random.PRNGKey(0)), rtol=1e-10)
    assert not np.allclose(jitted(jax.random.key(0)), jitted(jax.random.key(1)))


def test_all_kept_is_exact_and_trees_pass() -> None:
    tree = {"a": A, "n": jnp.arange(3)}
    exact = dr.vjp(lambda t, b: {"y": layers(t["a"], b)}, tree, B)[1]({"y": 1.0})
    for options in (dict(one_in=1), dict(one_in=5, least=1000)):
        value, pull = dr.estimators.randomized_vjp(lambda t, b: {"y": layers(t["a"], b)}, **options)(jax.random.key(0), tree, B)
        assert value["y"] == layers(A, B)
        jax.tree.map(np.testing.assert_allclose, (pull({"y": 1.0})[0]["a"], pull({"y": 1.0})[1]), (exact[0]["a"], exact[1]))


@pytest.mark.parametrize("derivative", [dr.grad, dr.jacfwd], ids=["reverse", "forward"])
def test_estimates_are_not_differentiated_again(derivative: Callable[..., Any]) -> None:
    estimate = dr.estimators.randomized_vjp(layers, one_in=2, least=4)
    with pytest.raises(NotImplementedError, match="not differentiated again"):
        derivative(lambda a: jnp.sum(estimate(jax.random.key(0), a, B)[1](1.0)[0]))(A)


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
    (lambda: dr.estimators.randomized_vjp(f, one_in=0), ValueError, "one_in must be at least 1; got 0"),
    (lambda: UNTYPED.randomized_vjp(f, one_in=0.1), TypeError, "one_in must be an int"),
    (lambda: UNTYPED.randomized_vjp(f, one_in=2)(jax.random.key(0), "x"), TypeError, r"primals\[0\]"),
    (lambda: UNTYPED.randomized_vjp(f, one_in=2)(3, X), TypeError, "a key of jax.random"),
])
def test_bad_input(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
