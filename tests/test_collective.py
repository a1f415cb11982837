"""Collectives and ``shard_map`` on 8 virtual devices, against the same function on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same
from jax import lax
from jax.sharding import AxisType, PartitionSpec as P

import dualrev as dr

A, B = 4, 2
mesh = jax.make_mesh((A, B), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
X = jnp.asarray(np.random.default_rng(0).standard_normal((8, 4)))
W = jnp.asarray(np.random.default_rng(1).standard_normal(4))
T = jax.tree_util.tree_map(lambda x: jnp.cos(3 * x + 1), (X, W))


class Sharded(NamedTuple):
    """A function of ``(x, w)``, by what each device does and on one device."""

    local: Callable[..., Any]
    whole: Callable[..., Any]
    in_specs: Any = (P("a"), P())
    out_specs: Any = P("a")
    axis_names: frozenset[str] = frozenset()
    #: Whether it can be typed with ``check_vma=True``, and without.
    check_vma: tuple[bool, ...] = (True, False)
    #: Whether jax can differentiate it.
    jax: bool = True


def first(x: Any) -> Any:
    """``x`` by blocks of what each device along ``a`` has."""
    return x.reshape(A, -1, *x.shape[1:])


def s_psum(x: Any, w: Any) -> Any:
    y = jnp.sin(x * w)
    return y * lax.psum(jnp.sum(y * x), "a")


def w_psum(x: Any, w: Any) -> Any:
    y = jnp.sin(x * w)
    return y * jnp.sum(y * x)


def s_two_axes(x: Any, w: Any) -> Any:
    y = jnp.sin(x * w)
    row = lax.psum(y.sum(1), "b")
    return y * row[:, None], lax.psum(jnp.sum(y * row[:, None]) ** 2, ("a", "b")) * lax.pmean(w, "b")


def w_two_axes(x: Any, w: Any) -> Any:
    y = jnp.sin(x * w)
    row = y.sum(1)
    blocks = (y * row[:, None]).reshape(A, 2, B, 2).sum((1, 3))
    return y * row[:, None], (blocks**2).sum() * w.reshape(B, -1).mean(0)


def s_replicated(x: Any, w: Any) -> Any:
    return lax.psum(jnp.sin(x * w).sum(0), "a") * w, jnp.exp(w), lax.pmean(x.sum() ** 2, "a")


def w_replicated(x: Any, w: Any) -> Any:
    return jnp.sin(x * w).sum(0) * w, jnp.exp(w), (first(x).sum((1, 2)) ** 2).mean()


def tied(x: Any) -> Any:
    """Values with ties, and the derivative of the identity."""
    return jnp.round(x) + (x - lax.stop_gradient(x))


def gathered(tiled: bool) -> Sharded:
    def local(x: Any, w: Any) -> Any:
        y = lax.all_gather(x * w, "a", axis=1, tiled=tiled).reshape(2, -1)
        return x * jnp.sin(y).sum(1, keepdims=True)

    return Sharded(local, lambda x, w: x * jnp.tile(jnp.sin(x * w).reshape(A, 2, 4).sum((0, 2)), A)[:, None])


def scattered(tiled: bool) -> Sharded:
    def local(x: Any, w: Any) -> Any:
        part = lax.psum_scatter(jnp.sin(x * w), "a", scatter_dimension=1, tiled=tiled).reshape(2)
        return x * part[:, None]

    return Sharded(local, lambda x, w: x * jnp.sin(x * w).reshape(A, 2, 4).sum(0).T.reshape(-1)[:, None])


def exchanged(split: int, concat: int, tiled: bool) -> Sharded:
    """Each device along ``a`` has ``(2, 4)``; ``whole`` does by hand what the exchange does."""

    def local(x: Any, w: Any) -> Any:
        y = jnp.sin(x * w)
        y = y if tiled or split == 1 else y.T
        return lax.all_to_all(y, "a", split, concat, tiled=tiled) ** 2

    def whole(x: Any, w: Any) -> Any:
        y = first(jnp.sin(x * w))
        y = y if tiled or split == 1 else y.swapaxes(1, 2)
        if tiled:
            parts = jnp.stack(jnp.split(y, A, 1 + split))  # by receiver, then by sender
            return jnp.concatenate([jnp.concatenate(list(to), concat) for to in parts]) ** 2
        parts = jnp.moveaxis(y, 1 + split, 0)
        return jnp.concatenate([jnp.moveaxis(to, 0, concat) for to in parts]) ** 2

    return Sharded(local, whole)


def permuted(perm: list[tuple[int, int]]) -> Sharded:
    def whole(x: Any, w: Any) -> Any:
        y = first(jnp.sin(x * w))
        moved = jnp.zeros_like(y)
        for source, target in perm:
            moved = moved.at[target].set(y[source])
        return moved.reshape(x.shape) * x

    return Sharded(lambda x, w: lax.ppermute(jnp.sin(x * w), "a", perm) * x, whole)


GROUPS = [[0, 2], [1, 3]]


def s_groups(x: Any, w: Any) -> Any:
    y = jnp.sin(x * w)
    total = lax.psum(y, "a", axis_index_groups=GROUPS)
    most = lax.pmax(tied(y), "a", axis_index_groups=GROUPS)
    everything = lax.all_gather(y, "a", axis_index_groups=GROUPS)
    part = lax.psum_scatter(y, "a", axis_index_groups=GROUPS)
    swapped = lax.all_to_all(y, "a", 0, 0, axis_index_groups=GROUPS)
    return x * total + most + (everything**2).sum(0) + part**2 + swapped * y


def w_groups(x: Any, w: Any) -> Any:
    y = first(jnp.sin(x * w))
    results = []
    for d in range(A):
        e, f = next(group for group in GROUPS if d in group)
        part = (y[e] + y[f])[0 if d == e else 1]
        swapped = jnp.stack([y[e], y[f]])[:, 0 if d == e else 1]
        most = jnp.max(tied(jnp.stack([y[e], y[f]])), 0)
        results.append(first(x)[d] * (y[e] + y[f]) + most + y[e] ** 2 + y[f] ** 2 + part**2 + swapped * y[d])
    return jnp.concatenate(results)


@jax.custom_jvp
def cube(x: Any) -> Any:
    return x**3


cube.defjvp(lambda primals, tangents: (cube(primals[0]), 3 * primals[0] ** 2 * tangents[0]))


@jax.custom_vjp
def square(x: Any) -> Any:
    return x**2


square.defvjp(lambda x: (square(x), x), lambda x, ct: (2 * ct * x,))


def s_control(x: Any, w: Any) -> Any:
    """A loop with a sum over devices in it, a carry that starts the same on all devices, branches and calls."""
    c, ys = lax.scan(lambda c, a: (jnp.sin(c) * w + lax.pmean(a, "a"), a * c), lax.pcast(jnp.zeros(4), "a", to="varying"), x)
    v = lax.pcast(w, "a", to="varying")
    c = lax.cond(lax.axis_index("a") < 2, lambda c: c * v, lambda c: jnp.exp(c), c)
    c = lax.cond(w[0] < 9, lambda c: c * w, lambda c: c, c)
    c = lax.fori_loop(0, 2, lambda i, c: jax.checkpoint(jnp.sin)(c * w) + i, c)
    return cube(ys) * c + jax.jit(lambda y: y * w)(ys) + square(x)


def w_control(x: Any, w: Any) -> Any:
    results = []
    for d in range(A):
        c, ys = jnp.zeros(4), []
        for i in range(2):
            ys.append(first(x)[d, i] * c)
            c = jnp.sin(c) * w + first(x)[:, i].mean(0)
        c = (c * w if d < 2 else jnp.exp(c)) * w
        for i in range(2):
            c = jnp.sin(c * w) + i
        y = jnp.stack(ys)
        results.append(y**3 * c + y * w + first(x)[d] ** 2)
    return jnp.concatenate(results)


def s_nested(x: Any, w: Any) -> Any:
    def inner(y: Any, w: Any) -> Any:
        return y * lax.psum(jnp.sin(y * w).sum(), "b")

    y = lax.psum(x, "a") * x
    return jax.shard_map(inner, in_specs=(P(None, "b"), P("b")), out_specs=P(None, "b"), axis_names={"b"})(y, w)


def w_nested(x: Any, w: Any) -> Any:
    y = jnp.tile(first(x).sum(0), (A, 1)) * x
    return y * jnp.repeat(jnp.sin(first(y) * w).sum((1, 2)), 2)[:, None]


def s_typed(x: Any, w: Any) -> Any:
    """Gathered into one variable, and a sum in parts that are added later."""
    everything = lax.all_gather(x * w, "a", tiled=True, to="invarying")
    reduced = lax.pcast(w, "a", to="reduced")
    parts = lax.pcast((x * lax.pcast(reduced, "a", to="varying")).sum(0), "a", to="unreduced")
    total = lax.psum(parts, "a")
    again = lax.all_gather(x, "a", tiled=True, to="reduced")
    local = lax.psum(lax.pcast(lax.pcast(again, "a", to="varying") * x.sum(), "a", to="unreduced"), "a")
    return jnp.sin(everything).sum(0) * total + local.sum(0) * w


def w_typed(x: Any, w: Any) -> Any:
    return jnp.sin(x * w).sum(0) * (x * w).sum(0) + (x * x.sum()).sum(0) * w


RING = [(i, (i + 1) % A) for i in range(A)]

PROGRAMS = {
    "psum": Sharded(s_psum, w_psum),
    "two axes": Sharded(s_two_axes, w_two_axes, (P("a", "b"), P("b")), (P("a", "b"), P())),
    "replicated": Sharded(s_replicated, w_replicated, (P("a"), P()), (P(), P(), P())),
    "partly manual": Sharded(s_psum, w_psum, axis_names=frozenset("a")),
    "nested": Sharded(s_nested, w_nested, axis_names=frozenset("a"), check_vma=(True,)),
    "typed": Sharded(s_typed, w_typed, out_specs=P(), check_vma=(True,)),
    "control": Sharded(s_control, w_control),
    "groups": Sharded(s_groups, w_groups, check_vma=(False,), jax=False),
    "axis_index": Sharded(lambda x, w: x * w * lax.axis_index("a"), lambda x, w: x * w * jnp.repeat(jnp.arange(A), 2)[:, None]),
    "pmax": Sharded(lambda x, w: lax.pmax(tied(x * w), "a"), lambda x, w: jnp.max(first(tied(x * w)), 0), out_specs=P(), jax=False),
    "pmin": Sharded(lambda x, w: lax.pmin(tied(x * w), ("a", "b")), lambda x, w: jnp.min(tied(x * w).reshape(A, 2, B, 2), (0, 2)),
                    (P("a", "b"), P("b")), P(), jax=False),
    "all_gather": gathered(False),
    "all_gather tiled": gathered(True),
    "psum_scatter": scattered(False),
    "psum_scatter tiled": scattered(True),
    "all_to_all": exchanged(1, 0, False),
    "all_to_all same": exchanged(1, 1, False),
    "all_to_all other": exchanged(0, 1, False),
    "all_to_all tiled": exchanged(1, 0, True),
    "ppermute": permuted(RING),
    "ppermute in part": permuted([(0, 2), (3, 1)]),
}


def losses(program: Sharded, check_vma: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Scalar functions of ``(x, w)``: the sharded one, and that of one device."""
    settings: dict[str, Any] = {"axis_names": program.axis_names} if program.axis_names else {}
    sharded = jax.shard_map(program.local, mesh=mesh, in_specs=program.in_specs, out_specs=program.out_specs,
                            check_vma=check_vma, **settings)

    def scalar(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, w: sum(jnp.sum(jnp.sin(y) * (y + 1)) for y in jax.tree_util.tree_leaves(f(x, w)))

    return scalar(sharded), scalar(program.whole)


def derivatives(d: Any, f: Callable[..., Any], second: bool) -> Callable[..., dict[str, Any]]:
    def compute(x: Any, w: Any) -> dict[str, Any]:
        grad = d.grad(f, (0, 1))
        push = lambda x, w: d.jvp(f, (x, w), T)[1]  # noqa: E731
        found = {"out": f(x, w), "push": push(x, w), "grad": grad(x, w)}
        if second:
            found["forward over reverse"] = d.jvp(grad, (x, w), T)[1]
            found["reverse over reverse"] = d.vjp(grad, x, w)[1](T)
            found["reverse over forward"] = d.grad(push, (0, 1))(x, w)
        return found

    return compute


@pytest.mark.parametrize(("name", "check_vma"), [(n, c) for n, p in PROGRAMS.items() for c in p.check_vma])
def test_sharded(name: str, check_vma: bool) -> None:
    program = PROGRAMS[name]
    sharded, whole = losses(program, check_vma)
    got = jax.jit(derivatives(dr, sharded, True))(X, W)
    assert_same(got, jax.jit(derivatives(jax, whole, True))(X, W))
    if program.jax:
        assert_same(got["grad"], jax.jit(jax.grad(sharded, (0, 1)))(X, W))
