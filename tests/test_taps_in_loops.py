"""Taps in loops, branches, batches and shards."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import same
from jax import lax
from jax.sharding import PartitionSpec as P

import dualrev as dr

X = jnp.array([0.3, -0.7, 1.1])
W = jnp.array([[0.2, -0.4, 0.6], [1.0, 0.5, -0.3]])


def power(x: Any, n: Any) -> Any:
    return lax.fori_loop(0, n, lambda _, y: dr.tap(y * x, "y"), jnp.ones(()))


@pytest.mark.parametrize("jit", [False, True])
def test_while_gives_the_last_step_or_a_record(jit: bool) -> None:
    last, record = dr.taps(power), dr.taps(power, record=5)
    last, record = (jax.jit(last), jax.jit(record)) if jit else (last, record)
    x, n = jnp.array(1.5), jnp.array(3)
    out, found = last(x, n)
    same((out, *found["y"]), (x ** 3, x ** 3, jnp.ones(()), True))
    out, found = record(x, n)
    same(found["y"].value, jnp.array([x, x ** 2, x ** 3, 0.0, 0.0]))
    same(found["y"].cotangent, jnp.array([x ** 2, x, 1.0, 0.0, 0.0]))
    same(found["y"].reached, np.array([True] * 3 + [False] * 2))
    short = dr.taps(power, record=2)(x, n)[1]["y"]
    same(short.value, jnp.array([x, x ** 2]))
    same(short.cotangent, jnp.array([x ** 2, x]))
    none = last(x, jnp.array(0))[1]["y"]
    same(tuple(none), (jnp.zeros(()), jnp.zeros(()), False))


def test_gradient_through_a_while_with_taps() -> None:
    for record in (None, 4):
        out, gradient, _ = jax.jit(dr.taps(power, argnums=0, record=record))(jnp.array(1.5), jnp.array(3))
        same((out, gradient), (jnp.array(1.5 ** 3), jnp.array(3 * 1.5 ** 2)))
        _, gradient, _ = jax.jit(dr.taps(power, argnums=0, record=record, max_steps=10))(jnp.array(1.5), jnp.array(3))
        same(gradient, jnp.array(3 * 1.5 ** 2))


def grown(x: Any) -> Any:
    def body(s: Any) -> Any:
        return s[0] + 1.0, dr.tap(s[1] * x, "z")

    return lax.while_loop(lambda s: s[0] < x, body, (jnp.zeros(()), x))[1]


@pytest.mark.parametrize("record", [None, pytest.param(4, marks=pytest.mark.thorough)])
def test_members_of_a_batch_stop_each_at_its_own_step(record: int | None) -> None:
    xs = jnp.array([0.0, 1.0, 2.0, 3.0])
    one = jax.jit(dr.taps(grown, record=record))
    each = [one(x)[1]["z"] for x in xs]
    axis = 0 if record is None else 1
    expected = [np.stack([getattr(t, field) for t in each], axis) for field in dr.Tap._fields]
    inside = jax.jit(dr.taps(lambda xs: jnp.sum(jax.vmap(grown)(xs)), record=record))(xs)[1]["z"]
    same((jnp.where(inside.reached, inside.value, 0.0), *inside[1:]), tuple(expected))
    outside = jax.jit(jax.vmap(dr.taps(grown, record=record)))(xs)[1]["z"]
    same(tuple(outside), tuple([np.stack([getattr(t, field) for t in each]) for field in dr.Tap._fields]))


def test_members_and_steps_of_an_inner_loop_are_not_confused() -> None:
    """An inner scan that has as many steps as the batch has members, and members along the second of two mapped axes."""
    def one(x: Any, n: Any) -> Any:
        def body(s: Any) -> Any:
            return s[0] + 1.0, lax.scan(lambda c, _: (dr.tap(c * x, "m"), None), s[1], None, 4)[0]

        return lax.while_loop(lambda s: s[0] < n, body, (jnp.zeros(()), x))[1]

    xs, ns = jnp.array([1.1, 0.9, 1.2]), jnp.array([0.0, 1.0, 2.0, 3.0])
    both = lambda f: jax.vmap(jax.vmap(f, in_axes=(None, 0)), in_axes=(0, None))  # noqa: E731
    inside = jax.jit(dr.taps(lambda xs: jnp.sum(both(one)(xs, ns))))(xs)[1]["m"]
    around = jax.jit(both(dr.taps(one)))(xs, ns)[1]["m"]
    assert inside.value.shape == (4, 3, 4) and inside.reached.shape == (4, 4)
    same(inside.cotangent, jnp.moveaxis(around.cotangent, 2, 0), 1e-5)
    same(inside.value[:, :, 1:], jnp.moveaxis(around.value, 2, 0)[:, :, 1:], 1e-5)
    assert np.array_equal(inside.reached.T, around.reached[0].T)


def test_loop_in_loop() -> None:
    def f(x: Any, n: Any) -> Any:
        return lax.scan(lambda c, k: (lax.fori_loop(0, k, lambda _, y: dr.tap(y * x, "m"), c), None), x, jnp.arange(n))[0]

    found = jax.jit(dr.taps(lambda x: f(x, 3)))(jnp.array(1.1))[1]["m"]
    same(tuple(found), (jnp.array([0.0, 1.1 ** 2, 1.1 ** 4]), jnp.array([0.0, 1.1 ** 2, 1.0]), np.array([False, True, True])))

    def g(x: Any, n: Any) -> Any:
        return lax.fori_loop(0, n, lambda _, y: lax.scan(lambda c, _: (dr.tap(c * x, "m"), None), y, None, 2)[0], x)

    found = jax.jit(dr.taps(g, record=3))(jnp.array(1.1), jnp.array(2))[1]["m"]
    same(found.value, jnp.array([[1.1 ** 2, 1.1 ** 3], [1.1 ** 4, 1.1 ** 5], [0.0, 0.0]]))
    same(found.cotangent, jnp.array([[1.1 ** 3, 1.1 ** 2], [1.1, 1.0], [0.0, 0.0]]))
    assert found.reached.tolist() == [[True, True], [True, True], [False, False]]


def test_a_branch_that_is_not_taken_gives_zeros() -> None:
    def f(x: Any) -> Any:
        return lax.switch(jnp.where(x > 0.0, 2, 0), [lambda x: dr.tap(x, "a"), lambda x: x, lambda x: dr.tap(2.0 * x, "b") ** 2], x)

    for of in (dr.taps(f), jax.jit(dr.taps(f))):
        found = of(jnp.array(3.0))[1]
        same(tuple(found["a"]), (jnp.zeros(()), jnp.zeros(()), False))
        same(tuple(found["b"]), (jnp.array(6.0), jnp.array(12.0), True))
    found = jax.vmap(dr.taps(f))(jnp.array([3.0, -3.0]))[1]
    same(found["a"].cotangent, jnp.array([0.0, 1.0]))
    same(found["b"].cotangent, jnp.array([12.0, 0.0]))


def test_axes_of_vmap_stand_in_front_the_outermost_first() -> None:
    x = jnp.arange(24.0).reshape(2, 3, 4)

    def f(x: Any) -> Any:
        return jnp.sum(jax.vmap(jax.vmap(lambda row: jnp.sum(dr.tap(jnp.sin(row), "row")), in_axes=1), in_axes=2)(x) ** 2)

    found = dr.taps(f)(x)[1]["row"]
    same(found.value, jnp.sin(x).transpose(2, 1, 0))
    sums = jnp.sum(jnp.sin(x), 0).T
    same(found.cotangent, jnp.broadcast_to(2 * sums[..., None], (4, 3, 2)))
    # What is the same for all members has no axis, and its cotangent is the sum.
    shared = dr.taps(lambda x: jnp.sum(jax.vmap(lambda a: a * dr.tap(x[0], "shared"))(x)))(X)[1]["shared"]
    same(tuple(shared)[:2], (X[0], jnp.sum(X)))


@pytest.mark.parametrize("check_vma", [True, False])
def test_shards_stand_in_front(check_vma: bool) -> None:
    if jax.device_count() < 2:
        pytest.skip("needs several devices")
    mesh = jax.make_mesh((2,), ("i",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))

    def on_shard(x: Any, w: Any) -> Any:
        h = dr.tap(jnp.sin(x) * w, "h")
        h = lax.scan(lambda c, a: (dr.tap(c * a, "s"), None), h, jnp.array([1.0, 2.0]))[0]
        return lax.psum(jnp.sum(h), "i") * w

    def f(x: Any, w: Any) -> Any:
        return jax.shard_map(on_shard, mesh=mesh, in_specs=(P("i"), P()), out_specs=P(), check_vma=check_vma)(x, w)

    x, w = jnp.arange(4.0), jnp.array(2.0)
    _, gradient, found = jax.jit(dr.taps(f, argnums=(0, 1)))(x, w)
    same(gradient, jax.jit(jax.grad(f, (0, 1)))(x, w), 1e-5)
    same(found["h"].value, (2.0 * jnp.sin(x)).reshape(2, 2))
    same(found["h"].cotangent, jnp.full((2, 2), 4.0))
    same(found["s"].cotangent, jnp.broadcast_to(jnp.array([4.0, 2.0])[None, :, None], (2, 2, 2)))
    same(found["h"].reached, np.array([True, True]))
