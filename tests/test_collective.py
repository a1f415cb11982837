"""Collectives and ``shard_map`` on 8 virtual devices, against the same function on one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close, assert_same
from cases import CASES
from jax import lax
from jax.interpreters import mlir
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from releases import here
from test_rules import Dualrev, Problem, leading

import dualrev as dr
from dualrev._jax.primitives import primitive

pytestmark = pytest.mark.promotes  # programs on shards multiply a matrix by a vector, entry by entry

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
    "nested": Sharded(s_nested, w_nested, axis_names=frozenset("a"), check_vma=(True,), jax=False),
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
    "all_to_all": exchanged(1, 0, False)._replace(jax=False),
    "all_to_all same": exchanged(1, 1, False),
    "all_to_all other": exchanged(0, 1, False)._replace(jax=False),
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


def derivatives(d: Any, f: Callable[..., Any], order: int) -> Callable[..., dict[str, Any]]:
    """Of order 1, with one of order 2 (``order=2``), or with all of them (``order=3``)."""

    def compute(x: Any, w: Any) -> dict[str, Any]:
        grad = d.grad(f, (0, 1))
        push = lambda x, w: d.jvp(f, (x, w), T)[1]  # noqa: E731
        found = {"out": f(x, w), "push": push(x, w), "grad": grad(x, w)}
        if order >= 2:
            found["forward over reverse"] = d.jvp(grad, (x, w), T)[1]
        if order >= 3:
            found["reverse over reverse"] = d.vjp(grad, x, w)[1](T)
            found["reverse over forward"] = d.grad(push, (0, 1))(x, w)
        return found

    return compute


@functools.cache
def expected_of(name: str) -> dict[str, Any]:
    _, whole = losses(PROGRAMS[name], True)
    return jax.jit(derivatives(jax, whole, 3))(X, W)


@pytest.mark.parametrize(("name", "check_vma"), [
    pytest.param(n, c, marks=() if c or len(p.check_vma) == 1 else pytest.mark.thorough)
    for n, p in PROGRAMS.items() for c in p.check_vma])
def test_sharded(name: str, check_vma: bool) -> None:
    program = PROGRAMS[name]
    sharded, _ = losses(program, check_vma)
    got = jax.jit(derivatives(dr, sharded, 3 if check_vma else 2))(X, W)
    expected = expected_of(name)
    assert_same(got, {what: expected[what] for what in got})
    if program.jax:
        assert_same(got["grad"], jax.jit(jax.grad(sharded, (0, 1)))(X, W))
    else:
        with pytest.raises((NotImplementedError, ValueError)):
            jax.jit(jax.grad(sharded, (0, 1)))(X, W)


@pytest.mark.parametrize(("name", "check_vma"), [("psum", True), ("pmax", False)])
@pytest.mark.thorough
def test_unjitted(name: str, check_vma: bool) -> None:
    sharded, _ = losses(PROGRAMS[name], check_vma)
    got = derivatives(dr, sharded, 1)(X, W)
    assert_same(got, {what: expected_of(name)[what] for what in got})


@pytest.mark.thorough
def test_unjitted_control_flow_reads_what_is_the_same_everywhere() -> None:
    def local(x: Any, w: Any) -> Any:
        return jnp.sin(x * w) * lax.psum(jnp.sum(x), "a") if w[0] < 9 else x

    f = on_mesh(local, (P("a"), P()), P("a"), True)
    assert_same(derivatives(dr, lambda x, w: f(x, w).sum(), 1)(X, W),
                jax.jit(derivatives(jax, lambda x, w: jnp.sum(jnp.sin(x * w) * jnp.sum(x)), 1))(X, W))


# --------------------------------------------------------------------------------------------------- around and inside


def on_mesh(f: Callable[..., Any], in_specs: Any, out_specs: Any, check_vma: bool) -> Callable[..., Any]:
    return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)


def energy(x: Any, w: Any) -> Any:
    return jnp.sum(jnp.sin(x * w) ** 2)


def layer(x: Any, w: Any) -> Any:
    return jnp.sin(x * w) * lax.psum(x, "a")


def inside(d: Any, check_vma: bool) -> dict[str, Callable[..., Any]]:
    """Functions of ``(x, w)`` that differentiate what one device does."""
    specs, blocks = (P("a", "b"), P("b")), P("a", "b")

    def of_shared(x: Any, w: Any) -> Any:
        # Without types, every device has a w of its own.
        slope = d.grad(energy, 1)(x, w)
        return slope if check_vma else lax.psum(slope, "a")

    def scanned(x: Any, w: Any) -> Any:
        return lax.scan(lambda c, a: (jnp.sin(c * a), c), jnp.sum(x), x[:, 0])[0] * w[0]

    return {
        "grad": on_mesh(d.grad(energy), specs, blocks, check_vma),
        "grad of what is shared": on_mesh(of_shared, specs, P("b"), check_vma),
        "grad of a sum": on_mesh(d.grad(lambda x, w: lax.psum(energy(x, w), ("a", "b")) ** 2), specs, blocks, check_vma),
        "grad of a scan": on_mesh(d.grad(scanned), specs, blocks, check_vma),
        "jvp": on_mesh(lambda x, w: d.jvp(lambda x, w: lax.pmean(jnp.sin(x * w) ** 2, "a"), (x, w), (x, w)), specs, P(None, "b"),
                       check_vma),
        "hessian": on_mesh(lambda x, w: d.hessian(lambda w: lax.psum(energy(x, w), "a"))(w)[None], specs, P("b"), check_vma),
        "jacobians": on_mesh(lambda x, w: (d.jacfwd(layer)(x, w)[None, None], d.jacrev(layer)(x, w)[None, None]), specs, blocks,
                             check_vma),
    }


def around(d: Any, check_vma: bool) -> dict[str, Callable[..., Any]]:
    """Functions of ``(x, w)`` that differentiate programs with ``shard_map`` somewhere in them."""
    specs = (P("a"), P())
    f = on_mesh(layer, specs, P("a"), check_vma)

    def closing(x: Any, w: Any) -> Any:
        return jnp.sum(on_mesh(lambda x: jnp.sin(x * w.sum()) * lax.psum(x, "a"), P("a"), P("a"), check_vma)(x))

    def loop(x: Any, w: Any) -> Any:
        return lax.scan(lambda c, _: (lax.cond(w[0] < 9, lambda c: f(c, w), lambda c: c, c), None), x, None, length=2)[0].sum()

    def both(x: Any, w: Any) -> Any:
        with_counts = on_mesh(lambda x, i, w: (jnp.sin(x * w) * i, jnp.argmax(x)[None]), (P("a"), P("a"), P()), P("a"), check_vma)
        return with_counts(x, jnp.arange(8)[:, None], w)[0].sum()

    def each(x: Any, w: Any) -> Any:
        return jnp.sum(jax.vmap(f, (1, 0))(x, w) ** 2)

    def linear(x: Any, w: Any) -> Any:
        return on_mesh(lambda x, w: (w * x + lax.psum(x, "a"), w), specs, specs, check_vma)(x, w)[0]

    return {
        "closure": d.grad(closing, (0, 1)),
        "closure alone": lambda x, w: d.grad(lambda w: closing(x, w))(w),
        "loop": d.grad(loop, (0, 1)),
        "integers": d.grad(both, (0, 1)),
        "vmap inside": d.grad(each, (0, 1)),
        "vmap outside": lambda x, w: jax.vmap(d.grad(lambda x, s: jnp.sum(f(x, s)), (0, 1)), (1, 0))(x, w),
        "vmap over a mesh axis": lambda x, w: jax.vmap(d.grad(lambda x, s: jnp.sum(f(x, s)), (0, 1)), (1, 0), spmd_axis_name="b")(x, w),
        "checkpoint": d.grad(lambda x, w: jnp.sum(jax.checkpoint(f)(jnp.exp(x), w)), (0, 1)),
        "linear_transpose": lambda x, w: d.linear_transpose(lambda x: linear(x, w), x)(x),
        "linearize": lambda x, w: d.linearize(f, x, w)[1](x, w),
        "jax over it": lambda x, w: jax.grad(lambda w: jnp.sum(d.grad(lambda x: jnp.sum(f(x, w)))(x) ** 2))(w),
        "over jax": lambda x, w: d.grad(lambda w: jnp.sum(jax.grad(lambda x: jnp.sum(f(x, w)))(x) ** 2))(w),
        "constant": lambda x, w: d.grad(lambda w: jnp.sum(w * f(x, x[0])))(w),
        "complex": lambda x, w: d.grad(lambda x: jnp.sum(jnp.abs(f(x, w)) ** 2))(x + 1j * x**2),
        "empty": d.grad(lambda x, w: jnp.sum(on_mesh(lambda x: lax.psum(x[:0], "a"), P("a"), P(), check_vma)(x * w)), (0, 1)),
    }


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("where", [inside, around])
def test_where_it_stands(where: Callable[..., dict[str, Callable[..., Any]]], check_vma: bool) -> None:
    def compute(d: Any) -> Any:
        return jax.jit(lambda x, w: {name: f(x, w) for name, f in where(d, check_vma).items()})(X, W)

    assert_same(compute(dr), compute(jax))


SKIPPED = {"random_gamma": "jax asks that keys vary as the other operand does"}


@pytest.mark.thorough
def test_every_rule_under_types_of_devices() -> None:
    """What a rule makes (zeros, masks, indices) is typed as its operands are."""
    for case in leading(CASES):
        if case.primitive in SKIPPED:
            continue
        problem = Problem(case, case.dtypes[0])
        leaves, tree = jax.tree_util.tree_flatten(problem.inputs)

        def local(*leaves: Any, problem: Problem = problem, tree: Any = tree) -> Any:
            inputs = jax.tree_util.tree_unflatten(tree, [x[0] for x in leaves])
            return jax.tree_util.tree_map(lambda x: x[None], problem.derivatives(Dualrev, 1, *inputs))

        stacked = [jnp.stack([jnp.asarray(x)] * A) for x in leaves]
        try:
            jax.make_jaxpr(on_mesh(local, P("a"), P("a"), True))(*stacked)
        except Exception as error:
            raise AssertionError(f"the rule for {case.primitive} {case.label}, under shard_map(check_vma=True)") from error


# ------------------------------------------------------------------------------------------------------ vmap and pmap

Y = jnp.asarray(np.random.default_rng(2).standard_normal((4, 4, 4)))

MAPPED: dict[str, Callable[[Any], Any]] = {
    "psum": lambda x: lax.psum(x**2, "i") * x + lax.psum(1.0, "i"),
    "pmean": lambda x: lax.pmean(x.sum() ** 2, "i") * x,
    "all_gather": lambda x: (lax.all_gather(x**2, "i") * x).sum(0),
    "all_gather tiled": lambda x: lax.all_gather(x**2, "i", axis=1, tiled=True)[:, 2:6] * x,
    "psum_scatter": lambda x: lax.psum_scatter(x**2, "i", scatter_dimension=1) * x,
    "psum_scatter tiled": lambda x: lax.psum_scatter(x**2, "i", tiled=True) * x,
    "all_to_all": lambda x: lax.all_to_all(x**2, "i", 1, 1) * x,
    "all_to_all tiled": lambda x: lax.all_to_all(x**2, "i", 0, 1, tiled=True).reshape(4, 4) * x,
    "ppermute": lambda x: lax.ppermute(x**2, "i", RING) * x,
    "axis_index": lambda x: x**2 * lax.axis_index("i"),
    "loop": lambda x: lax.scan(lambda c, a: (lax.psum(jnp.sin(c * a), "i"), c), x.sum(), x[0])[1] * x,
    "jit": lambda x: jax.jit(lambda x: lax.psum(jnp.sin(x), "i"))(x) * x,
}


def mapped(d: Any, functions: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def of(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        grad = d.grad(lambda x: jnp.sum(jnp.sin(f(x))))
        return lambda x: (grad(x), d.jvp(f, (x,), (jnp.cos(x),))[1], d.jvp(grad, (x,), (jnp.cos(x),))[1], d.vjp(grad, x)[1](jnp.cos(x)))

    return lambda y: {name: jax.vmap(of(f), axis_name="i")(y) for name, f in functions.items()}


def test_vmap() -> None:
    expected = jax.jit(mapped(jax, MAPPED))(Y)
    assert_same(jax.jit(mapped(dr, MAPPED))(Y), expected)
    assert_same(mapped(dr, {"all_gather": MAPPED["all_gather"]})(Y), {"all_gather": expected["all_gather"]})


def test_vmap_beyond_jax() -> None:
    def through(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda y: jnp.sum(jax.vmap(f, axis_name="i")(y))

    for reduce, name in ((lax.pmax, "max"), (lax.pmin, "min")):
        f = lambda x, reduce=reduce: reduce(tied(x), "i") * x  # noqa: E731
        with pytest.raises(NotImplementedError):
            jax.vmap(jax.grad(lambda x, f=f: f(x).sum()), axis_name="i")(Y)
        expected = jax.grad(lambda y, name=name: jnp.sum(getattr(jnp, name)(tied(y), 0) * y))(Y)
        assert_close(dr.grad(through(f))(Y), expected)
        assert_close(jax.vmap(dr.grad(lambda x, f=f: f(x).sum()), axis_name="i")(Y), expected)
    two = jax.vmap(jax.vmap(dr.grad(lambda x: lax.pmax(x, ("i", "j")) * x), axis_name="j"), axis_name="i")(Y[0])
    assert_close(two, jax.grad(lambda y: jnp.sum(jnp.max(y) * y))(Y[0]))
    outer = jax.vmap(dr.grad(lambda r: jax.vmap(lambda x: lax.pmax(x, ("i", "j")) * x, axis_name="j")(r).sum()), axis_name="i")(Y[0])
    assert_close(outer, jax.grad(lambda y: jnp.sum(jnp.max(y) * y))(Y[0]))

    swap = lambda x: (lax.all_to_all(x**2, "i", 0, 1) * x).sum()  # noqa: E731
    with pytest.raises(ValueError, match="cotangent type"):
        jax.vmap(jax.grad(swap), axis_name="i")(Y)
    assert_close(jax.vmap(dr.grad(swap), axis_name="i")(Y), jax.grad(lambda y: jnp.sum(jnp.transpose(y**2, (1, 2, 0)) * y))(Y))


@pytest.mark.thorough
def test_pmap() -> None:
    x = Y.reshape(8, 8)

    def f(x: Any, w: Any) -> Any:
        return lax.psum(jnp.sin(x * w), "i") * x

    def compute(d: Any) -> Any:
        outside = jax.pmap(f, axis_name="i", in_axes=(0, None))
        return (d.grad(lambda x, w: jnp.sum(outside(x, w) ** 2), (0, 1))(x, 1.3),
                jax.pmap(d.grad(lambda x, w: f(x, w).sum(), (0, 1)), axis_name="i", in_axes=(0, None))(x, 1.3))

    assert_same(compute(dr), compute(jax))
    most = jax.pmap(lambda x: lax.pmax(x, "i") * x, axis_name="i")
    assert_close(dr.grad(lambda x: jnp.sum(most(x) ** 2))(x), jax.grad(lambda x: jnp.sum((jnp.max(x, 0) * x) ** 2))(x))


# ----------------------------------------------------------------------------- operations that no CPU can run by themselves


def broadcast(x: Any, *, axis_name: Any, source: int) -> Any:
    return lax.psum(jnp.where(lax.axis_index(axis_name) == source, x, 0), axis_name)


def ragged(x: Any, y: Any, from_: Any, send: Any, to: Any, receive: Any, *, axis_name: Any, axis_index_groups: Any = None) -> Any:
    """``ragged_all_to_all`` by gathering everything, with one slice for each pair of devices."""
    me = lax.axis_index(axis_name)
    xs, froms, sends, tos = (lax.all_gather(v, axis_name) for v in (x, from_, send, to))
    for e in range(xs.shape[0]):
        for i in range(x.shape[0]):
            row = jnp.where(i < sends[e, me], tos[e, me] + i, y.shape[0])
            y = y.at[row].set(xs[e, jnp.minimum(froms[e, me] + i, x.shape[0] - 1)], mode="drop")
    return y


mlir.register_lowering(primitive("pbroadcast"), mlir.lower_fun(broadcast, multiple_results=False), platform="cpu")
mlir.register_lowering(primitive("ragged_all_to_all"), mlir.lower_fun(ragged, multiple_results=False), platform="cpu")
if here("pbroadcast_dynamic"):
    mlir.register_lowering(primitive("pbroadcast_dynamic"), mlir.lower_fun(
        lambda x, source, *, axis_name: broadcast(x, axis_name=axis_name, source=source), multiple_results=False), platform="cpu")


@pytest.mark.parametrize("check_vma", [True, False])
def test_pbroadcast(check_vma: bool) -> None:
    def loss(broadcast: Callable[..., Any]) -> Callable[..., Any]:
        f = on_mesh(lambda x, w: broadcast(jnp.sin(x * w)) * x, (P("a"), P()), P("a"), check_vma)
        return lambda x, w: jnp.sum(f(x, w) ** 2)

    expected = jax.jit(derivatives(jax, loss(lambda x: broadcast(x, axis_name="a", source=2)), 2))(X, W)
    built_in = loss(lambda x: lax.pbroadcast(x, "a", 2))
    assert_same(jax.jit(derivatives(dr, built_in, 2))(X, W), expected)
    with pytest.raises(TypeError, match="scalar fill_value"):
        jax.jit(jax.grad(built_in))(X, W)
    if here("pbroadcast_dynamic"):
        dynamic: Any = primitive("pbroadcast_dynamic")
        chosen = loss(lambda x: dynamic.bind(x, lax.pcast(jnp.int32(2), "a", to="varying"), axis_name="a"))
        assert_same(jax.jit(derivatives(dr, chosen, 1))(X, W), {k: expected[k] for k in ("out", "push", "grad")})


@pytest.mark.thorough
def test_ragged_all_to_all() -> None:
    # Device d sends SIZES[d, e] rows to e; nothing overlaps, and some slices are empty.
    sizes = np.array([[1, 0, 2, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 2]])
    come_from = np.cumsum(sizes, 1) - sizes
    land = np.cumsum(sizes, 0) - sizes + 1
    layout = [jnp.asarray(a).reshape(-1) for a in (come_from, sizes, land, sizes.T)]
    x, y = jnp.asarray(np.arange(24.0).reshape(12, 2)), jnp.asarray(np.arange(40.0).reshape(20, 2) / 7)

    def loss(exchange: Callable[..., Any]) -> Callable[..., Any]:
        f = on_mesh(lambda x, y, *layout: exchange(jnp.sin(x), y * y, *layout, axis_name="a"), P("a"), P("a"), True)
        return lambda x, y: jnp.sum(jnp.sin(f(x, y, *layout)))

    def compute(d: Any, f: Callable[..., Any]) -> Any:
        grad = d.grad(f, (0, 1))
        return jax.jit(lambda x, y: (d.jvp(f, (x, y), (x, y)), grad(x, y), d.jvp(grad, (x, y), (x, y))))(x, y)

    assert_same(compute(dr, loss(lax.ragged_all_to_all)), compute(jax, loss(ragged)))


# --------------------------------------------------------------------------------------------------------------- errors


def test_branches_that_differ_between_devices() -> None:
    def local(x: Any, w: Any) -> Any:
        return x * lax.cond(lax.axis_index("a") < 2, lambda w: w * 2, lambda w: w, w)

    def loss(local: Callable[..., Any]) -> Callable[[Any], Any]:
        return lambda w: on_mesh(local, (P("a"), P()), P("a"), True)(X, w).sum()

    right = jax.grad(lambda w: jnp.sum(X * jnp.repeat(jnp.array([2.0, 2.0, 1.0, 1.0]), 2)[:, None] * w))(W)
    wrong = jax.jit(jax.grad(loss(local)))(W)
    assert not np.allclose(wrong, right), "jax takes the result of the cond to be the same on all devices"
    with pytest.raises(dr.errors.NonLinearError, match=r"differs along the mesh axis 'a'.*lax.pcast\(x, \('a',\), to='varying'\)"):
        dr.grad(loss(local))(W)
    as_told = loss(lambda x, w: local(x, lax.pcast(w, ("a",), to="varying")))
    assert_close(jax.jit(dr.grad(as_told))(W), right)


@pytest.mark.thorough
def test_groups_without_types() -> None:
    f = on_mesh(lambda x: lax.pmax(x, "a", axis_index_groups=GROUPS) * lax.pcast(1.0, "a", to="varying"), P("a"), P("a"), True)
    with pytest.raises(NotImplementedError, match="check_vma=False"):
        dr.grad(lambda x: f(x).sum())(X)
