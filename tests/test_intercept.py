"""Cotangents that are changed on their way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import same
from jax import lax

import dualrev as dr

X = jnp.array([0.3, -0.7, 1.1])
W = jnp.array([[0.2, -0.4, 0.6], [1.0, 0.5, -0.3]])


CHANGES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "clip by norm": (dr.cotangents.clip(norm=1.0), lambda ct: ct * np.minimum(1.0, 1.0 / np.linalg.norm(ct))),
    "clip by value": (dr.cotangents.clip(value=0.5), lambda ct: np.clip(ct, -0.5, 0.5)),
    "scale": (dr.cotangents.scale(-2.0), lambda ct: -2.0 * ct),
    "stop": (dr.cotangents.stop(), lambda ct: 0.0 * ct),
    "sign": (jnp.sign, np.sign),
    "linear": (lambda ct: 3.0 * ct[::-1], lambda ct: 3.0 * ct[::-1]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_intercept_changes_the_cotangent_and_nothing_else(name: str) -> None:
    change, expected = CHANGES[name]
    c = jnp.array([3.0, -0.1, 4.0])
    f = lambda x: jnp.sum(dr.intercept(x, change) * c)  # noqa: E731
    same(f(X), jnp.sum(X * c))
    for grad in (dr.grad, jax.grad):
        for of in (grad(f), jax.jit(grad(jax.checkpoint(f)))):
            same(of(X), jnp.asarray(expected(np.asarray(c))), 1e-5)
        # The change is of each example.
        scaled = jnp.array([1.0, 0.01])
        rows = jax.vmap(grad(lambda x, s: s * f(x)), in_axes=(None, 0))(X, scaled)
        same(rows, jnp.stack([jnp.asarray(expected(np.asarray(s * c))) for s in scaled]), 1e-5)


def test_intercept_in_loops_and_with_values_that_are_traced() -> None:
    def f(x: Any, s: Any) -> Any:
        return lax.scan(lambda c, _: (dr.intercept(c * s, lambda ct: ct * s), None), x, None, 3)[0]

    for of in (dr.grad(f), jax.grad(f), jax.jit(dr.grad(f))):
        same(of(2.0, 3.0), jnp.array(3.0 ** 6))
    scaled = lambda x, s: dr.intercept(x, dr.cotangents.scale(s)) ** 2  # noqa: E731
    same(jax.jit(dr.grad(scaled, (0, 1)))(3.0, 2.0), (jnp.array(12.0), jnp.array(0.0)))
    while_ = lambda x, n: lax.fori_loop(0, n, lambda _, y: dr.intercept(y * x, dr.cotangents.clip(norm=0.5)), x)  # noqa: E731
    same(dr.grad(while_)(2.0, 3), jnp.array(0.5 * 8.0 + 0.5 * 4.0 + 0.5 * 2.0 + 0.5 * 2.0))


def test_intercept_of_a_pytree_has_one_norm() -> None:
    def f(p: Any) -> Any:
        p = dr.intercept(p, dr.cotangents.clip(norm=1.0))
        return 3.0 * p["a"] + 4.0 * jnp.sum(p["b"]) * p["n"]

    gradient = dr.grad(f, allow_int=True)({"a": 1.0, "b": jnp.ones(1), "n": 1})
    same((gradient["a"], gradient["b"]), (jnp.array(0.6), jnp.array([0.8])))
    assert gradient["n"].dtype == jax.dtypes.float0


@pytest.mark.parametrize(("dtype", "big"), [("float16", 300.0), ("float32", 1e30), ("bfloat16", 1e30), ("complex64", 1e30)])
def test_norms_neither_overflow_nor_divide_by_zero(dtype: str, big: float) -> None:
    clip = dr.cotangents.clip(norm=1.0)
    x = jnp.array([big, 0.0], dtype)
    same(clip(x).astype("complex64"), jnp.array([1.0, 0.0], "complex64"), 1e-2)
    same(clip(jnp.zeros(2, dtype)).astype("complex64"), jnp.zeros(2, "complex64"))
    if dtype == "float32":
        assert not np.any(np.isnan(np.asarray(jax.jacfwd(lambda s: clip(s * x))(jnp.zeros((), dtype)))))
    assert clip(jnp.zeros((0,), dtype)).shape == (0,)
    assert np.isnan(np.asarray(clip(jnp.array([jnp.nan, 1.0]))[0]))


def test_higher_orders_differentiate_the_change() -> None:
    f = lambda x: jnp.sum(dr.intercept(x ** 2, dr.cotangents.clip(norm=1.0)) * x)  # noqa: E731

    def gradient(x: Any) -> Any:
        return x / jnp.sqrt(jnp.sum(x * x)) * 2 * x + x ** 2

    x = jnp.array([1.0, 2.0])
    same(dr.grad(f)(x), gradient(x))
    for of in (dr.jacrev, jax.jacrev):
        same(jax.jit(of(dr.grad(f)))(x), jax.jacobian(gradient)(x), 1e-5)


def test_forward_mode_through_intercept() -> None:
    t = jnp.array([1.0, 2.0, 3.0])
    same(dr.jvp(lambda x: dr.intercept(x, dr.cotangents.scale(2.0)), (X,), (t,)), (X, 2 * t))
    same(jax.jvp(lambda x: dr.intercept(x, dr.cotangents.scale(2.0)), (X,), (t,)), (X, 2 * t))
    same(dr.jvp(lambda x: dr.intercept(x, dr.cotangents.stop()), (X,), (t,)), (X, 0 * t))
    same(dr.jvp(lambda x: dr.intercept(x, lambda ct: jnp.cumsum(ct)), (X,), (t,)), (X, jnp.cumsum(t[::-1])[::-1]))
    with pytest.raises(dr.errors.NonLinearError, match=r"intercept\(value, clip\(norm=1.0\)\).*\n.*use reverse mode alone"):
        dr.jvp(lambda x: dr.intercept(x, dr.cotangents.clip(norm=1.0)), (X,), (t,))


def test_intercept_between_taps() -> None:
    def f(x: Any) -> Any:
        return jnp.sum(dr.tap(dr.intercept(dr.tap(x, "before"), dr.cotangents.scale(5.0)), "after") ** 2)

    found = dr.taps(f)(X)[1]
    same((found["after"].cotangent, found["before"].cotangent), (2 * X, 10 * X))


def test_bad_input_of_intercept() -> None:
    with pytest.raises(TypeError, match="expected a function of a cotangent"):
        dr.intercept(X, 2.0)  # type: ignore[arg-type]
    with pytest.raises(dr.errors.RuleError, match=r"float64\[3\]; it returned float64\[2\]"):
        dr.intercept(X, lambda ct: ct[:2])
    with pytest.raises(dr.errors.RuleError, match="with the structure that it is given"):
        dr.intercept(X, lambda ct: (ct, ct))  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="one of norm="):
        dr.cotangents.clip()
    with pytest.raises(TypeError, match="one of norm="):
        dr.cotangents.clip(norm=1.0, value=1.0)
    with pytest.raises(ValueError, match=r"at least 0; got -1\.0"):
        dr.cotangents.clip(norm=-1.0)
    with pytest.raises(TypeError, match="must be a real number"):
        dr.cotangents.scale(X)
    with pytest.raises(TypeError, match="not a valid JAX type"):
        dr.intercept("text", lambda ct: ct)
