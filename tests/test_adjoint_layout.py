"""What adjoints give the compiler, where equal numbers could be asked for in ways that take longer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dualrev as dr

rng = np.random.default_rng(0)


def equations(fun: Any, *args: Any) -> list[Any]:
    return jax.make_jaxpr(fun)(*args).jaxpr.eqns


def test_a_large_cotangent_is_contracted_as_it_lies() -> None:
    """Where the result is transposed either way, the cotangent of many points is the left operand, not a transposed right one."""
    w, x = rng.normal(size=(5, 3, 4)), rng.normal(size=(100, 3))

    def f(w: Any) -> Any:
        return jnp.sum(jnp.einsum("kji,nj->kin", w, x) ** 2)

    pulled = [e for e in equations(dr.grad(f), w) if str(e.primitive) == "dot_general"][-1]
    left, right = (v.aval.shape for v in pulled.invars)
    assert left == (5, 4, 100) and right == (100, 3)
    np.testing.assert_allclose(dr.grad(f)(w), jax.grad(f)(w), rtol=1e-12)


def test_a_large_operand_is_contracted_as_it_lies() -> None:
    """What is contracted along its first axes is transposed: of the cotangent and the other operand, the smaller."""
    x = rng.normal(size=(100, 8))

    def f(w: Any) -> Any:
        return jnp.sum((x @ w) ** 2)

    for outputs, expected in ((3, [(100, 3), (100, 8)]), (20, [(100, 8), (100, 20)])):
        w = rng.normal(size=(8, outputs))
        pulled = [e for e in equations(dr.grad(f), w) if str(e.primitive) == "dot_general"][-1]
        assert [v.aval.shape for v in pulled.invars] == expected
        np.testing.assert_allclose(dr.grad(f)(w), jax.grad(f)(w), rtol=1e-12)
    y = rng.normal(size=(8, 100))
    pulled = [e for e in equations(dr.grad(lambda w: jnp.sum(jnp.einsum("kn,ko->no", y, w) ** 2)), np.ones((8, 3)))
              if str(e.primitive) == "dot_general"][-1]
    assert [v.aval.shape for v in pulled.invars] == [(8, 100), (100, 3)], "both are contracted along the axis that they should be"


@pytest.mark.thorough
def test_entries_that_are_largest_are_not_found_by_the_repeated_maximum() -> None:
    """``x - max x`` may be fused with what follows, if nothing else reads the maximum repeated along the axis."""
    x = rng.normal(size=(4, 6))

    def f(x: Any) -> Any:
        largest = jnp.max(x, axis=1, keepdims=True)
        return jnp.sum(largest[:, 0] + jnp.log(jnp.sum(jnp.exp(x - largest), axis=1)))

    eqns = equations(dr.grad(f), x)
    (largest,) = next(e for e in eqns if str(e.primitive) == "reduce_max").outvars
    compared = [v for e in eqns if str(e.primitive) == "eq" for v in e.invars]
    sources = {v: e for e in eqns for v in e.outvars}
    assert compared and not any(largest in sources[v].invars for v in compared if v in sources and str(sources[v].primitive) != "neg")
    np.testing.assert_allclose(dr.grad(f)(x), jax.grad(f)(x), rtol=1e-12)
    for tied in (jnp.ones((2, 3)), jnp.array([[1.0, -jnp.inf, 1.0], [jnp.inf, 0.0, jnp.inf]]), jnp.array([[0.0, -0.0, -1.0]])):
        np.testing.assert_array_equal(dr.grad(lambda x: jnp.sum(jnp.max(x, axis=1)))(tied),
                                      jax.grad(lambda x: jnp.sum(jnp.max(x, axis=1)))(tied))
