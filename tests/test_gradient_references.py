"""Pulls that add to mutable references, beside those of jax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev

#: What becomes of a cotangent.
WISHES: Any = vars(jax)["ad"]
W = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
XS = jnp.array([[0.3, 1.0], [-0.7, 0.2], [1.5, -1.0]])


def loss(w: Any, x: Any) -> Any:
    return jnp.sin(w["a"] @ x) * w["b"]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_gradients_accumulate_over_a_scan(wrap: Any) -> None:
    def total(w: Any) -> Any:
        refs = jax.tree.map(lambda x: jax.new_ref(jnp.zeros_like(x)), w)

        def step(_: Any, x: Any) -> Any:
            y, pull = dualrev.vjp(lambda w: loss(w, x), w)
            pull.with_refs(refs)(jnp.ones_like(y))
            return (), y

        lax.scan(step, (), XS)
        return jax.tree.map(lambda ref: ref[...], refs)

    expected = jax.grad(lambda w: sum(loss(w, x) for x in XS))(W)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), wrap(total)(W), expected)


def test_what_is_wanted_of_each() -> None:
    ref = jax.new_ref(jnp.ones(2))
    _, pull = dualrev.vjp(lambda x, y, n: jnp.sum(x * y) * n, XS[0], XS[1], 3)
    first, second, third = pull.with_refs(ref, WISHES.DontWant(), object())(1.0)
    assert isinstance(first, WISHES.GradRef)
    assert isinstance(second, WISHES.DidntWant)
    assert third.dtype == jax.dtypes.float0
    np.testing.assert_allclose(ref[...], 1 + 3 * XS[1])
    np.testing.assert_allclose(pull.with_refs(WISHES.DontWant(), WISHES.GradValue(), object())(2.0)[1], 6 * XS[0])
    np.testing.assert_allclose(ref[...], 1 + 3 * XS[1])


def test_bad_input() -> None:
    _, pull = dualrev.vjp(lambda w: loss(w, XS[0]), W)
    value = WISHES.GradValue()
    with pytest.raises(ValueError, match="with_refs takes one entry for each array of the primals"):
        pull.with_refs({"a": value, "b": None})
    with pytest.raises(ValueError, match=r"with_refs\[0\]\['a'\] is a reference to float64\[3\]"):
        pull.with_refs({"a": jax.new_ref(jnp.zeros(3)), "b": value})
    with pytest.raises(TypeError, match=r"with_refs\[0\]\['b'\] must be a mutable reference"):
        pull.with_refs({"a": value, "b": 0.0})
