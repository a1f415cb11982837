"""Training steps on 8 virtual devices: gradients are those of one device, lie as the parameters, and send no more than jax's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import dualrev as dr
from benchmarks.sharded import batches
from benchmarks.sharded.cases import Sharded, put
from benchmarks.sharded.collectives import of_text, traffic
from benchmarks.sharded.programs import CASES

pytestmark = pytest.mark.promotes  # losses are written as users write them


@pytest.fixture(autouse=True)
def optimized() -> Iterator[None]:
    """Programs are compiled as users', whose collectives are counted."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def assert_equal(got: Any, expected: Any, rtol: float = 1e-12) -> None:
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == jnp.float64
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * np.max(np.abs(y)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(",", ""))
def test_gradients_and_what_they_send(case: Sharded) -> None:
    mesh = case.mesh()
    ours, theirs = (case.compiled(library, mesh) for library in (dr, jax))
    found, by_jax = ours(*case.placed(mesh)), theirs(*case.placed(mesh))
    assert_equal(found, case.expected())
    assert_equal(found, by_jax)
    for x, sharding in zip(jax.tree.leaves(found[1]), jax.tree.leaves(case.shardings(mesh)), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)
    sent, sent_by_jax = traffic(ours, mesh.size), traffic(theirs, mesh.size)
    assert sent.is_exact and sent_by_jax.is_exact
    assert sent.count > 0 and all(sent.counts[kind] <= sent_by_jax.counts[kind] for kind in sent.counts), (sent, sent_by_jax)
    assert sent.nbytes <= sent_by_jax.nbytes


@pytest.mark.parametrize("name", ["tensor parallel block", "tensor parallel block, by hand", "tensor parallel block, explicit"])
def test_a_sharded_block_takes_no_more_memory(name: str) -> None:
    (case,) = [case for case in CASES if case.name == name]
    mesh = case.mesh()
    ours, theirs = (case.compiled(library, mesh).memory_analysis().temp_size_in_bytes for library in (dr, jax))
    assert ours <= theirs


@pytest.mark.parametrize("name", ["micro-batches, by hand", "pipeline", "checkpointed micro-batches", "micro-batches of micro-batches",
                                  "micro-batches by a counter"])
def test_sums_over_devices_are_taken_once_after_all_micro_batches(name: str) -> None:
    """The value is one sum, the gradient of all parameters another, which the compiler may join."""
    (case,) = [case for case in CASES if case.name == name]
    mesh = case.mesh()
    assert traffic(case.compiled(dr, mesh), mesh.size).counts["all-reduce"] <= 2


def test_what_a_loop_gathers_is_summed_and_scattered_once() -> None:
    (case,) = [case for case in CASES if case.name == "recurrent, gathered"]
    mesh = case.mesh()
    assert dict(traffic(case.compiled(dr, mesh), mesh.size).counts) == {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 1}


def test_checkpoints_read_what_is_the_same_on_all_devices() -> None:
    """Values of a checkpoint that vary over devices, and values that don't, wait for the cotangents together."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    loss = jax.shard_map(lambda w, x: lax.psum(dr.checkpoint(lambda w, x: jnp.sum(jnp.sin(x @ w) ** 2))(w, x), "data"), mesh=mesh,
                         in_specs=(P(), P("data")), out_specs=P())
    w, x = jnp.asarray(np.arange(16.0).reshape(4, 4) / 9), jnp.asarray(np.arange(32.0).reshape(8, 4) / 11)

    def whole(w: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(x @ w) ** 2)

    for library in (dr, jax):
        assert_equal(jax.jit(library.grad(loss, (0, 1)))(w, x), jax.grad(whole, (0, 1))(w, x))
    assert_equal(dr.grad(loss, (0, 1))(w, x), jax.grad(whole, (0, 1))(w, x))
    assert_equal(jax.jit(dr.hvp, static_argnums=0)(loss, (w, x), (w, x)), jax.jvp(jax.grad(whole, (0, 1)), (w, x), (w, x))[1], 1e-11)


@pytest.mark.parametrize("param_spec", [P(), P("data")], ids=["data parallel", "fully sharded"])
def test_steps_of_an_optimizer(param_spec: P) -> None:
    """Parameters and the optimizer's state keep their shardings, and are those of one device."""
    optimizer = optax.adam(0.1)
    (case,) = [case for case in batches.CASES if case.name == ("data parallel" if param_spec == P() else "fully sharded")]
    mesh = case.mesh()

    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(dr.grad(batches.squares)(params, batch), state)
        return optax.apply_updates(params, updates), state

    def run(params: Any, batch: Any, shardings: Any) -> tuple[Any, Any]:
        state = optimizer.init(params)
        if shardings is not None:
            placed = jax.tree.map(lambda x: NamedSharding(mesh, param_spec if x.ndim else P()), state)
            shardings, state = (shardings, placed), jax.device_put(state, placed)
        compiled = jax.jit(step, out_shardings=shardings)
        for _ in range(3):
            params, state = compiled(params, state, batch)
        return params, state

    params, state = run(*case.placed(mesh), case.shardings(mesh))
    for x in jax.tree.leaves((params, state)):
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, param_spec if x.ndim else P()), x.ndim)
        assert not x.ndim or param_spec == P() or x.addressable_shards[0].data.size == x.size // 8
    whole = [jax.tree.map(jnp.asarray, tree) for tree in (case.params, case.batch)]
    expected = run(whole[0], whole[1], None)
    for x, y in zip(jax.tree.leaves((params, state)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11)  # a step divides by the root of the sum of squares, which may be small


# -------------------------------------------------------------------------------------------------------- loops and checkpoints


def hidden_states(params: Any, batch: Any) -> Any:
    def layer(x: Any, w: Any) -> tuple[Any, None]:
        return jnp.tanh(x @ w), None

    return jnp.sum(lax.scan(layer, batch["x"], params["w"])[0] ** 2)


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["loop", "checkpoint"])
def test_residuals_keep_the_sharding_of_what_they_hold(is_checkpointed: bool) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    params, batch = put(batches.STACKED, P(), mesh), put(batches.BATCH, P("data"), mesh)
    loss = dr.checkpoint(hidden_states, policy="auto") if is_checkpointed else hidden_states
    compiled = jax.jit(dr.grad(loss)).lower(params, batch).compile()
    text = str(compiled.as_text())
    assert "f64[6,4,8]" in text  # of 32 rows a device stacks 4
    assert "f64[6,32,8]" not in text and "f64[32,8]" not in text
    assert "all-gather" not in traffic(compiled).counts


def test_residuals_of_explicit_meshes_keep_their_sharding() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params, batch = put(batches.STACKED, P(), mesh), put(batches.BATCH, P("data"), mesh)
        _, pull = jax.jit(lambda p, b: dr.vjp(lambda p: hidden_states(p, b), p))(params, batch)
        stacks = [x for x in jax.tree.leaves(pull) if getattr(x, "ndim", 0) == 3 and x.shape[1:] == (32, 8)]
        assert stacks and all(x.sharding.spec == P(None, "data", None) for x in stacks)


# ------------------------------------------------------------------------------------------------------------------- counting


def test_collectives_are_counted() -> None:
    text = """HloModule jit_f
%body.1 (p: (s32[], f64[4])) -> (s32[], f64[4]) {
  %a = f64[4]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add.1
}
ENTRY %main.2 (x: f64[4]) -> f64[4] {
  %w = (s32[], f64[4]) while(%t), condition=%c, body=%body.1, backend_config={"known_trip_count":{"n":"3"}}
  %g = f32[8,2]{1,0} all-gather(%y), channel_id=2, replica_groups=[1,4]<=[4], dimensions={0}
  %alone = f32[8]{0} all-reduce(%y), channel_id=3, replica_groups=[4,1]<=[4], to_apply=%add.1
}
"""
    found = of_text(text, 4)
    assert dict(found.counts) == {"all-reduce": 3, "all-gather": 1} and found.is_exact
    assert dict(found.sent) == {"all-reduce": 3 * 32, "all-gather": 48}  # 2 · 32 bytes · 1/2, and 64 bytes · 3/4
    assert not of_text(text.replace("known_trip_count", "other"), 4).is_exact


# ------------------------------------------------------------------------------------------------------------------ bad input


def test_errors_name_axis_and_size() -> None:
    """The errors are jax's own where the loss is one of jax's programs; none of them is hidden."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    params = {"w0": jnp.ones((8, 8))}
    short = {"x": jnp.ones((6, 8)), "y": jnp.ones((6, 8))}
    with pytest.raises(ValueError, match=r"(?s)data.*6"):
        dr.grad(batches.by_hand(mesh))(params, short)
    unknown = jax.shard_map(lambda x: lax.psum(jnp.sum(x**2), "model"), mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=False)
    with pytest.raises(NameError, match="model"):  # with check_vma, jax stops at an assertion of its own, without derivatives too
        dr.grad(unknown)(jnp.ones(8))
    elsewhere = jax.shard_map(lambda x: lax.psum(jnp.sum(x**2), "data"), mesh=mesh, in_specs=P("model"), out_specs=P())
    with pytest.raises(ValueError, match="model"):
        dr.grad(elsewhere)(jnp.ones(8))
    varying = jax.shard_map(lambda x: jnp.sum(x**2), mesh=mesh, in_specs=P("data"), out_specs=P())
    with pytest.raises(ValueError, match=r"(?s)out_specs.*replicated"):
        dr.grad(varying)(jnp.ones(8))


def test_a_product_whose_sharding_is_ambiguous() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        a, b = put(np.ones((4, 8)), P(None, "data"), mesh), put(np.ones((8, 4)), P("data", None), mesh)
        with pytest.raises(Exception, match=r"ambiguous how the output should be sharded.*out_sharding.*data"):
            dr.grad(lambda a: jnp.sum(a @ b))(a)
