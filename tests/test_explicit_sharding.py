"""Meshes with explicit axes, where shardings are parts of types: gradients have jax's values, in the shardings of the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import dualrev


@pytest.fixture(autouse=True)
def mesh() -> Iterator[Any]:
    found = jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(found):
        yield found


def put(values: Any, *names: Any, **sums: Any) -> Any:
    return jax.device_put(jnp.asarray(values), P(*names, **sums))


def same(got: Any, expected: Any) -> None:
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.sharding == y.sharding
        np.testing.assert_allclose(x, y, rtol=1e-12)


def to_reduced(w: Any) -> Any:
    def cast(w: Any) -> Any:
        return lax.pcast(w, ("x",), to="reduced")

    return jax.shard_map(cast, in_specs=P(None, None), out_specs=P(None, None, reduced={"x"}))(w)


W = np.arange(8.0).reshape(2, 4) / 7


@pytest.mark.promotes
@pytest.mark.parametrize("f", [
    pytest.param(lambda w, x: jnp.sum(jnp.sin(x @ to_reduced(w))), id="a weight that is reduced"),
    pytest.param(lambda w, x: jnp.sum(jnp.sin(x @ w) ** 2), id="product"),
    pytest.param(lambda w, x: jnp.sum(lax.fori_loop(0, 2, lambda _, h: jnp.sin(h @ w @ w.T), x)), id="loop"),
    pytest.param(lambda w, x: jnp.sum(lax.cond(True, lambda w: x @ to_reduced(w), lambda w: 2 * (x @ to_reduced(w)), w)), id="branch"),
])
def test_gradients_are_those_of_jax(f: Any) -> None:
    w, x = put(W), put(np.arange(8.0).reshape(4, 2) / 9, "x", None)
    same(jax.jit(dualrev.grad(f, (0, 1)))(w, x), jax.jit(jax.grad(f, (0, 1)))(w, x))


@pytest.mark.promotes
def test_the_gradient_of_each_operand_has_its_own_sharding() -> None:
    a, b = put(np.arange(4.0)), put(np.arange(4.0) + 1, "x")
    found = jax.jit(dualrev.grad(lambda a, b: jnp.sum((a + b) ** 2), (0, 1)))(a, b)
    assert [g.sharding.spec for g in found] == [P(None), P("x")]
    np.testing.assert_allclose(found[0], 2 * (2 * np.arange(4.0) + 1))


def test_cotangents_of_what_is_reduced_are_unreduced(mesh: Any) -> None:
    x = put(np.arange(8.0), reduced={"x"})
    f = jax.shard_map(lambda v: jnp.sin(v), out_specs=P(reduced={"x"}))
    found = jax.jit(dualrev.grad(lambda v: jnp.sum(f(v))))(x)
    assert found.sharding == NamedSharding(mesh, P(None, unreduced={"x"}))
    expected = jax.jit(jax.grad(lambda v: jnp.sum(f(v))))(x)
    for got, want in zip(found.addressable_shards, expected.addressable_shards, strict=True):
        np.testing.assert_allclose(got.data, want.data, rtol=1e-12)


@pytest.mark.promotes
@pytest.mark.parametrize("derivative", ["jacfwd", "jacrev"])
def test_jacobians(derivative: str) -> None:
    x = put(np.arange(4.0) / 3, "y")

    def f(v: Any) -> Any:
        return jnp.sin(jnp.broadcast_to(v, (2, 4), out_sharding=P("x", "y")))

    got, expected = (jax.jit(getattr(m, derivative)(f))(x) for m in (dualrev, jax))
    np.testing.assert_allclose(got, expected, rtol=1e-12)
