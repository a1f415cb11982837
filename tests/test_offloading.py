"""Stored values in the host's memory by policy, and what is stored by the sizes on one device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import dualrev as dr
from benchmarks.sharded import models
from benchmarks.sharded.cases import put

pytestmark = pytest.mark.promotes

OFFLOAD_DOTS = dr.policies.offload_dot_with_no_batch_dims("device", "pinned_host")
OFFLOAD_NAMED = dr.policies.save_and_offload_only_these_names(
    names_which_can_be_saved=["kept"], names_which_can_be_offloaded=["away"], offload_src="device", offload_dst="pinned_host")
W = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8))) / 3
X = jnp.asarray(np.random.default_rng(1).standard_normal((3, 8)))


def by_dots(x: Any) -> Any:
    for w in W:
        x = jnp.sin(jnp.sin(x) @ w)
    return jnp.sum(x)


def by_names(x: Any) -> Any:
    y = checkpoint_name(jnp.sin(x) @ W[0], "away")
    z = checkpoint_name(jnp.cos(y) @ W[1], "kept")
    return jnp.sum(jnp.sin(jnp.sin(z)))


def in_a_loop(x: Any) -> Any:
    def step(x: Any, w: Any) -> tuple[Any, None]:
        return jnp.sin(jnp.sin(x) @ w), None

    return jnp.sum(lax.scan(step, x, W)[0])


def transfers(program: Any) -> dict[str, int]:
    """How often a program moves a value to the host, and back to the device."""
    found = {"Host": 0, "Device": 0}

    def count(jaxpr: Any) -> None:
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "device_put":
                for to in eqn.params["devices"]:
                    found[to.name] += 1
            for value in eqn.params.values():
                for inner in value if isinstance(value, (tuple, list)) else [value]:
                    if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                        count(getattr(inner, "jaxpr", inner))

    count(program.jaxpr)
    return found


CASES = [pytest.param(by_dots, OFFLOAD_DOTS, id="products"), pytest.param(by_names, OFFLOAD_NAMED, id="names"),
         pytest.param(in_a_loop, OFFLOAD_DOTS, id="loop")]


@pytest.mark.parametrize(("f", "policy"), CASES)
def test_what_a_policy_offloads_goes_to_the_host_and_comes_back(f: Any, policy: Any) -> None:
    """As often as by jax; the CPU's compiler leaves the transfers out, so that programs for other platforms are read as well."""
    loss = dr.checkpoint(f, policy=policy)
    found = transfers(jax.make_jaxpr(dr.grad(loss))(X))
    assert found == transfers(jax.make_jaxpr(jax.grad(loss))(X)) and min(found.values()) > 0
    expected = jax.jit(jax.grad(f))(X)
    np.testing.assert_allclose(jax.jit(dr.grad(loss))(X), expected, rtol=1e-12)
    np.testing.assert_allclose(dr.grad(loss)(X), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(dr.hvp, static_argnums=0)(loss, (X,), (X,)), jax.jvp(jax.grad(f), (X,), (X,))[1], rtol=1e-11)
    np.testing.assert_allclose(jax.jit(jax.vmap(dr.grad(loss)))(X[None]), expected[None], rtol=1e-12)
    for platform in ("cuda", "tpu"):
        texts = [jax.jit(library.grad(loss)).trace(X).lower(lowering_platforms=(platform,)).as_text() for library in (dr, jax)]
        ours, theirs = (text.count("annotate_device_placement") for text in texts)
        assert ours == theirs > 0


def test_stored_values_lie_in_the_memory_of_the_host() -> None:
    _, pull = dr.vjp(dr.checkpoint(by_names, policy=OFFLOAD_NAMED), X)
    kinds = [x.sharding.memory_kind for x in jax.tree.leaves(pull) if getattr(x, "shape", ()) == X.shape]
    assert kinds.count("pinned_host") == 1 and "device" in kinds
    np.testing.assert_allclose(pull(1.0)[0], jax.grad(by_names)(X), rtol=1e-12)


def test_stacks_of_loops_lie_in_the_memory_of_the_host() -> None:
    _, pull = jax.jit(lambda x: dr.vjp(dr.checkpoint(in_a_loop, policy=OFFLOAD_DOTS), x))(X)
    stacks = [x for x in jax.tree.leaves(pull) if getattr(x, "shape", ()) == (4, *X.shape)]
    assert [x.sharding.memory_kind for x in stacks].count("pinned_host") == 1


def test_a_sharded_block_whose_products_are_offloaded() -> None:
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    params, x = put(models.BLOCK, models.BLOCK_SPECS, mesh), put(models.TOKENS, P("data"), mesh)
    loss = dr.checkpoint(models.block_loss, policy=OFFLOAD_DOTS)
    assert transfers(jax.make_jaxpr(dr.grad(loss))(params, x)) == transfers(jax.make_jaxpr(jax.grad(loss))(params, x))
    expected = jax.jit(jax.grad(models.block_loss))(*jax.tree.map(jnp.asarray, (models.BLOCK, models.TOKENS)))
    for got, want in zip(jax.tree.leaves(jax.jit(dr.grad(loss))(params, x)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * np.abs(want).max())


# ------------------------------------------------------------------------------------------------- sizes on one device


@pytest.fixture
def explicit() -> Iterator[None]:
    with jax.set_mesh(jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))):
        yield


@pytest.mark.parametrize(("spec", "stored"), [(P("x", None), (16, 8)), (P(None, None), (16,))], ids=["divided", "whole"])
def test_what_is_stored_is_chosen_by_the_sizes_on_one_device(spec: P, stored: tuple[int, ...], explicit: None) -> None:
    """A table follows from 16 + 8 numbers; divided by eight it has 16 on each device."""
    a, b = jnp.ones((16, 16)) / 7, jnp.ones((8, 16)) / 5

    def table(x: Any) -> Any:
        rows, columns = a @ jnp.sin(x), b @ jnp.cos(x)
        t = jnp.broadcast_to(rows[:, None], (16, 8), out_sharding=spec) * jnp.broadcast_to(columns, (16, 8), out_sharding=spec)
        return jnp.sum(jnp.sin(t))

    x = jnp.linspace(0.0, 1.0, 16)
    _, pull = jax.jit(lambda x: dr.vjp(dr.checkpoint(table, policy="auto"), x))(x)
    shapes = [x.shape for x in jax.tree.leaves(pull) if hasattr(x, "shape")]
    assert stored in shapes and ((16, 8) in shapes) == (stored == (16, 8)), shapes
    np.testing.assert_allclose(jax.jit(dr.grad(dr.checkpoint(table, policy="auto")))(x), jax.jit(jax.grad(table))(x), rtol=1e-12)
