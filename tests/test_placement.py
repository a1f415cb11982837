"""Where values are placed on a mesh: constraints, moves, and meshes whose shardings are part of types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from releases import here

import dualrev as dr
from dualrev._jax.primitives import primitive

X = jnp.asarray(np.random.default_rng(0).standard_normal((8, 4)))


def loss(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: sum(jnp.sum(jnp.sin(y) * y) for y in jax.tree_util.tree_leaves(f(*args)))


def derivatives(d: Any, f: Callable[..., Any], order: int = 2) -> Callable[..., Any]:
    def compute(*args: Any) -> dict[str, Any]:
        grad = d.grad(loss(f), tuple(range(len(args))))
        found = {"push": d.jvp(f, args, args)[1], "grad": grad(*args)}
        return found | ({"second": d.jvp(grad, args, args)[1]} if order == 2 else {})

    return compute


# ------------------------------------------------------------------------------------------------- automatic shardings


AUTO = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
HERE, THERE = NamedSharding(AUTO, P("a", "b")), NamedSharding(AUTO, P("b", "a"))


def inspected(x: Any) -> Any:
    jax.debug.inspect_array_sharding(x, callback=lambda _: None)
    return jnp.sin(x)


PLACED: dict[str, Callable[[Any], Any]] = {
    "sharding_constraint": lambda x: lax.with_sharding_constraint(jnp.sin(x), THERE),
    "layout_constraint": lambda x: with_layout_constraint(jnp.sin(x), Layout((1, 0))),
    "device_put": lambda x: jax.device_put(jnp.sin(x), THERE),
    "optimization_barrier": lambda x: lax.optimization_barrier(jnp.sin(x)),
    "inspect_sharding": inspected,
    "jit": jax.jit(lambda x: jnp.sin(x) * x, in_shardings=HERE, out_shardings=THERE),
}


@pytest.mark.parametrize("name", PLACED)
def test_placed(name: str) -> None:
    f, x = PLACED[name], jax.device_put(X, HERE)
    expected = jax.jit(derivatives(jax, f))(x)
    assert_same(jax.jit(derivatives(dr, f))(x), expected)
    got = derivatives(dr, f, order=1)(x)
    assert_same(got, {what: expected[what] for what in got})
    if name == "device_put":
        assert got["grad"][0].sharding == HERE and got["push"].sharding == THERE


@pytest.mark.skipif(not here("relayout"), reason="since 0.11")
def test_memory_spaces_and_layouts() -> None:
    space, layout = primitive("with_memory_space_constraint"), primitive("relayout")
    assert space is not None and layout is not None
    there = layout.bind
    for f in (lambda x: space.bind(jnp.sin(x), memory_space=jax.memory.Space.Device), lambda x: there(x, dst_layout=Layout((1, 0)))):
        # What jax computes with explicit layouts on a CPU is not yet to be relied on, so programs are compared.
        ours, theirs = (str(jax.make_jaxpr(lambda x, d=d, f=f: d.vjp(f, x)[1](f(x)))(X)) for d in (dr, jax))
        assert ours.count("relayout") == theirs.count("relayout") and ours.count("memory_space=") == theirs.count("memory_space=")


# -------------------------------------------------------------------------------------------------- explicit shardings


@pytest.fixture
def typed() -> Iterator[Any]:
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        yield lambda x, *spec: jax.device_put(x, P(*spec))


SHARDED: dict[str, Callable[[Any], Any]] = {
    "reduce_sum": lambda x: (jnp.sum(x**2, 0), jnp.sum(x), jnp.mean(x, 1, keepdims=True) * x),
    "reduce_max": lambda x: (jnp.max(x, 0), jax.nn.softmax(x, 1), jax.nn.logsumexp(x, 0)),
    "reshape": lambda x: (lax.reshape(x, (8, 2, 2), out_sharding=P("a", "b", None)), lax.reshape(x, (32,), out_sharding=P(None))),
    "squeeze": lambda x: lax.squeeze(lax.expand_dims(x, (1,)), (1,)) * 2,
    "broadcast_in_dim": lambda x: (lax.broadcast_in_dim(x, (2, 8, 4), (1, 2), out_sharding=P(None, "a", "b")),
                                   jnp.broadcast_to(x.sum(0, keepdims=True), (8, 4), out_sharding=P("a", "b")),
                                   jnp.broadcast_to(x.sum(), (8, 4), out_sharding=P("a", "b"))),
    "dot_general": lambda x: (jnp.einsum("ij,kj->ik", x, x, out_sharding=P("a", None)),
                              jnp.einsum("ij,ik->jk", x, x, out_sharding=P("b"))),
    "elementwise": lambda x: jnp.clip(x, -0.5, 0.5) * x.T.T + jnp.where(x > 0, x, 0.0) + jax.nn.relu(x) ** 3,
    "reshard": lambda x: jax.reshard(x**2, P("b", None)),
    "auto_axes": lambda x: jax.sharding.auto_axes(lambda x: x @ x.T + jnp.sum(x), out_sharding=P("a", None))(x),
    "at": lambda x: x.at[jnp.array([0, 2, 2])].get(out_sharding=P(None, "b")),
    "loop": lambda x: lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) * i + x, x),
    "cond": lambda x: lax.cond(jnp.sum(x) > 0, lambda x: x**2, lambda x: jnp.sin(x) * jnp.exp(x), x),
    "vmap": jax.vmap(lambda r: jnp.sin(r) * jnp.sum(r)),
    "shard_map": lambda x: jax.shard_map(lambda x: lax.psum(x, "a") * x, in_specs=P("a", "b"), out_specs=P("a", "b"))(x),
    "shard_map, partly": lambda x: jax.shard_map(lambda x: jnp.sin(jnp.exp(x)).sum()[None] * lax.psum(x, "a")[0], in_specs=P("a"),
                                                 out_specs=P("a"), axis_names={"a"})(jax.reshard(x, P("a", None))),
}
#: On operands that are sharded over their rows only.
BY_ROWS: dict[str, Callable[[Any], Any]] = {
    "parts": lambda x: (x[:, 1:3], jnp.pad(x, ((0, 0), (1, 1))), jnp.concatenate([x, x * x], 1), jnp.split(x, 2, 1)[1], x[:, ::-1]),
    "tile": lambda x: (jnp.tile(x, (1, 2)), jnp.repeat(x, 2, axis=1)),
    "index": lambda x: (x[:, 0], x[:, jnp.array([0, 2, 2])], lax.dynamic_slice_in_dim(x, 1, 2, 1),
                        lax.dynamic_update_slice_in_dim(x, x[:, :1], 1, 1)),
    "along rows": lambda x: (jnp.cumsum(x, 1), lax.top_k(x, 2)[0]),
    "scan": lambda x: lax.scan(lambda c, a: (c * 2 + jnp.sin(a), c * a), jnp.zeros_like(x[:, 0]), x.T)[1],
}


@pytest.mark.parametrize("name", [*SHARDED, *BY_ROWS])
@pytest.mark.thorough
def test_explicit_shardings(name: str, typed: Any) -> None:
    f, x = (SHARDED[name], typed(X, "a", "b")) if name in SHARDED else (BY_ROWS[name], typed(X, "a", None))
    expected, got = jax.jit(derivatives(jax, f))(x), jax.jit(derivatives(dr, f))(x)
    assert_same(got, expected)
    for a, b in zip(jax.tree_util.tree_leaves(got), jax.tree_util.tree_leaves(expected), strict=True):
        assert jax.typeof(a).sharding == jax.typeof(b).sharding
    if name in ("reduce_max", "auto_axes"):
        assert_same(derivatives(dr, f, order=1)(x), {what: expected[what] for what in ("push", "grad")})


def test_sorting_needs_no_place_of_its_own(typed: Any) -> None:
    x = typed(X, "a", None)
    assert_same(jax.jit(dr.grad(loss(lambda x: jnp.sort(x, 1))))(x), jax.grad(loss(lambda x: x))(x))
