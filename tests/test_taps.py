"""Values and cotangents in the middle of a function, by name, and cotangents that are changed on their way back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P
from jax.tree_util import tree_structure

import dualrev as dr
from dualrev._jax.new_primitives import perturbed_p, tap_p
from dualrev.inspection.taps.marks import asking

X = jnp.array([0.3, -0.7, 1.1])
W = jnp.array([[0.2, -0.4, 0.6], [1.0, 0.5, -0.3]])


def same(a: Any, b: Any, rtol: float = 1e-6) -> None:
    trees: list[Any] = [jax.tree_util.tree_structure(x) for x in (a, b)]
    assert trees[0] == trees[1]
    jax.tree_util.tree_map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-12), a, b)


#: A tap as a function that is given one: ``f(x, mark)`` is called with ``dr.tap``, and with a function that adds a perturbation.
Program = Callable[..., Any]

PROGRAMS: dict[str, tuple[Program, tuple[int, ...]]] = {}


def program(*shape: int) -> Callable[[Program], Program]:
    """A program ``f(x, mark)``, with the shape of what is found at its tap ``"h"``."""
    def add(fun: Program) -> Program:
        PROGRAMS[fun.__name__] = fun, shape
        return fun
    return add


@program(2)
def straight(x: Any, mark: Any) -> Any:
    return jnp.sum(mark(jnp.tanh(W @ x)) ** 3)


@program(2)
def jitted(x: Any, mark: Any) -> Any:
    return jnp.sum(jax.jit(lambda x: mark(jnp.tanh(W @ x)) ** 3)(x))


@program(2)
def checkpointed(x: Any, mark: Any) -> Any:
    return jnp.sum(jax.checkpoint(lambda x: mark(jnp.tanh(W @ x)) ** 3)(x))


@program(2)
def checkpointed_by_cut(x: Any, mark: Any) -> Any:
    return jnp.sum(dr.checkpoint(lambda x: mark(jnp.tanh(W @ x)) ** 3, policy="auto")(x))


@program(4, 3)
def scanned(x: Any, mark: Any) -> Any:
    def step(c: Any, a: Any) -> Any:
        c = mark(jnp.sin(c) * a, stacked=True)
        return c, jnp.sum(c)

    c, sums = lax.scan(step, x, jnp.arange(1.0, 5.0))
    return jnp.sum(c) + jnp.sum(sums ** 2)


@program(4, 3)
def scanned_backwards(x: Any, mark: Any) -> Any:
    return jnp.sum(lax.scan(lambda c, a: (mark(jnp.sin(c) * a, stacked=True), None), x, jnp.arange(1.0, 5.0), reverse=True)[0])


@program(2, 3, 3)
def scan_in_scan(x: Any, mark: Any) -> Any:
    def inner(c: Any, _: Any) -> Any:
        return mark(jnp.sin(c) * 1.1, stacked=True), None

    return jnp.sum(lax.scan(lambda c, _: (lax.scan(inner, c, None, 3)[0] * 2.0, None), x, None, 2)[0])


@program(3, 2)
def mapped(x: Any, mark: Any) -> Any:
    return jnp.sum(jax.vmap(lambda a: mark(jnp.sin(a * W[:, 0]), stacked=True) ** 2)(x))


@program(2, 3)
def mapped_along_last(x: Any, mark: Any) -> Any:
    return jnp.sum(jax.vmap(lambda a: mark(jnp.sin(a * x), stacked=True) ** 2, in_axes=0, out_axes=1)(W[:, 0]))


@program(3)
def branched(x: Any, mark: Any) -> Any:
    return lax.cond(jnp.sum(x) > 0.0, lambda x: jnp.sum(mark(x ** 2) ** 2), lambda x: jnp.sum(x), x)


def found_by_perturbing(f: Program, shape: tuple[int, ...], x: Any) -> tuple[Any, Any]:
    """Value and cotangent of the tap, by ``jax.vjp`` of the program with a perturbation there."""
    h = jnp.tanh(W @ x) if shape == (2,) else x ** 2
    return h, jax.grad(lambda e: f(x, lambda h: h + e))(jnp.zeros(shape))


def unrolled(name: str, x: Any) -> tuple[Any, Any]:
    """The values of the steps of a loop, and the cotangents: of the program with the steps written out."""
    def steps(e: Any) -> tuple[Any, Any]:
        values = []
        if name == "scanned":
            c, total = x, jnp.zeros(())
            for k in range(4):
                c = jnp.sin(c) * (k + 1.0) + e[k]
                values.append(c)
                total = total + jnp.sum(c) ** 2
            return jnp.sum(c) + total, jnp.stack(values)
        if name == "scanned_backwards":
            c = x
            for k in (3, 2, 1, 0):
                c = jnp.sin(c) * (k + 1.0) + e[k]
                values.insert(0, c)
            return jnp.sum(c), jnp.stack(values)
        if name == "scan_in_scan":
            c = x
            for i in range(2):
                for k in range(3):
                    c = jnp.sin(c) * 1.1 + e[i, k]
                    values.append(c)
                c = c * 2.0
            return jnp.sum(c), jnp.stack(values).reshape(2, 3, 3)
        if name == "mapped":
            h = jnp.sin(x[:, None] * W[None, :, 0]) + e
            return jnp.sum(h ** 2), h
        h = jnp.sin(W[:, 0][:, None] * x[None]) + e
        return jnp.sum(h ** 2), h

    _, pull, values = jax.vjp(steps, jnp.zeros(PROGRAMS[name][1]), has_aux=True)
    return values, pull(jnp.ones(()))[0]


def tap(h: Any, stacked: bool = False) -> Any:
    return dr.tap(h, "h")


def plain(h: Any, stacked: bool = False) -> Any:
    return h


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_cotangents_are_those_of_a_perturbation(name: str) -> None:
    f, shape = PROGRAMS[name]
    value, cotangent = unrolled(name, X) if name in ("scanned", "scanned_backwards", "scan_in_scan", "mapped", "mapped_along_last") \
        else found_by_perturbing(f, shape, X)
    plainly, compiled = dr.taps(lambda x: f(x, tap), "h"), jax.jit(dr.taps(lambda x: f(x, tap)))
    for run in (compiled, plainly) if name in ("straight", "jitted", "scanned", "branched") else (compiled,):
        out, found = run(X)
        same(out, f(X, plain))
        same(found["h"].value, value)
        same(found["h"].cotangent, cotangent, 1e-5)
        assert np.all(found["h"].reached) and found["h"].value.shape == shape


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_tap_that_nobody_asks_for_is_nothing(name: str) -> None:
    f, _ = PROGRAMS[name]
    for of in (lambda g: g, dr.grad):
        with_tap, without = of(lambda x: f(x, tap)), of(lambda x: f(x, plain))
        assert "tap" not in str(jax.make_jaxpr(with_tap)(X))
        lowered = [jax.jit(g).lower(X) for g in (with_tap, without)]
        assert lowered[0].as_text() == lowered[1].as_text()
    hlo = [str(each.compile().as_text()) for each in lowered]
    assert without_names(hlo[0]) == without_names(hlo[1])
    tapes = [dr.linearize(lambda x, mark=mark: f(x, mark), X)[1] for mark in (tap, plain)]
    assert tapes[0].residual_bytes == tapes[1].residual_bytes and repr(tapes[0]) == repr(tapes[1])


#: Parts of a compiled program that tell where it comes from.
ORIGINS = ("FileNames", "FunctionNames", "FileLocations", "StackFrames", "HloModule")


def without_names(hlo: str) -> str:
    """A compiled program without what tells where it comes from."""
    lines = [line.split(", metadata=")[0].strip() for line in hlo.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith(ORIGINS) and not line[0].isdigit())


def test_programs_with_and_without_taps_are_kept_apart() -> None:
    f = jax.jit(lambda x: jnp.sum(dr.tap(jnp.sin(x), "h")))
    f(X)
    found = dr.taps(f)(X)[1]
    same(found["h"].cotangent, jnp.ones(3))
    assert "tap" not in str(jax.make_jaxpr(f)(X))


# --------------------------------------------------------------------------------------------------------------- loops


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


# ------------------------------------------------------------------------------------------------------- branches, batches


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


# --------------------------------------------------------------------------------------------------------- what it returns


def test_pytrees_aux_seeds_and_gradients() -> None:
    def loss(params: Any, x: Any) -> Any:
        state: Any = {"hidden": jnp.tanh(params["w"] @ x), "count": jnp.arange(2), "text": "none", "no": None}
        h = dr.tap(state, "state")
        return jnp.sum(h["hidden"] ** 2) + params["b"], {"aux": x}

    params = {"w": W, "b": jnp.ones(())}
    (value, aux), gradient, found = jax.jit(dr.taps(loss, argnums=0, has_aux=True))(params, X)
    same(((value, aux), gradient), jax.value_and_grad(loss, has_aux=True)(params, X))
    h = jnp.tanh(W @ X)
    assert set(found["state"].value) == {"hidden", "count", "text", "no"}
    same(found["state"].value["hidden"], h)
    same(found["state"].cotangent["hidden"], 2 * h)
    assert found["state"].cotangent["count"].dtype == jax.dtypes.float0 and found["state"].value["count"].tolist() == [0, 1]

    out, found = dr.taps(lambda x: {"y": x ** 2 * dr.tap(x, "x")}, seed={"y": X})(X)
    same((out["y"], found["x"].cotangent), (X ** 3, X ** 3))
    out, found = dr.taps(lambda x: dr.tap(x, "x") ** 2, cotangents=False)(X)
    assert found["x"].cotangent is None and out.shape == (3,)
    assert dr.taps(lambda x: x)(1.0) == (1.0, {})


def test_one_name_at_several_places_gives_a_tuple_in_order() -> None:
    found = dr.taps(lambda x: 3.0 * dr.tap(2.0 * dr.tap(x, "a"), "a"))(1.0)[1]["a"]
    assert isinstance(found, tuple) and len(found) == 2
    assert [(float(t.value), float(t.cotangent)) for t in found] == [(1.0, 6.0), (2.0, 3.0)]
    both = dr.taps(lambda x: dr.tap((x, x), "p")[0] * dr.tap((x, 2.0 * x), "p")[1])(3.0)[1]["p"]
    assert [tuple(map(float, t.cotangent)) for t in both] == [(6.0, 0.0), (0.0, 3.0)]


def test_only_the_names_that_are_asked_for() -> None:
    f = lambda x: dr.tap(dr.tap(x, "a") ** 2, "b") * dr.tap(x, "c")  # noqa: E731
    assert set(dr.taps(f, "b")(2.0)[1]) == {"b"}
    assert set(dr.taps(f, ["a", "c"])(2.0)[1]) == {"a", "c"}
    with pytest.raises(dr.errors.TapError, match=r"no tap of the function has the name 'd'; its taps are 'a', 'b', 'c'"):
        dr.taps(f, ["a", "d"])(2.0)
    with pytest.raises(dr.errors.TapError, match="it has no tap"):
        dr.taps(lambda x: x, "d")(2.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "complex64"])
def test_dtypes(dtype: str) -> None:
    x = jnp.array([0.5, 1.5], dtype)
    f = lambda x: jnp.sum(jnp.real(dr.tap(x * x, "h") * x)).astype("float32")  # noqa: E731
    found = dr.taps(f)(x)[1]["h"]
    assert found.value.dtype == found.cotangent.dtype == x.dtype
    same(found.cotangent.astype("complex64"), x.astype("complex64"))


def test_empty_arrays_keys_and_integers() -> None:
    def f(x: Any, key: Any) -> Any:
        d = dr.tap((jnp.zeros((0, 2)), key, jnp.arange(3), x), "d")
        return lax.cond(d[3] > 0.0, lambda: d[3], lambda: jax.random.normal(dr.tap(key, "k")) * d[3])

    found = jax.jit(dr.taps(f))(1.0, jax.random.key(3))[1]
    assert found["d"].cotangent[0].shape == (0, 2) and float(found["d"].cotangent[3]) == 1.0
    assert found["k"].value.dtype == jax.random.key(0).dtype and not found["k"].reached


# ------------------------------------------------------------------------------------------------------------- composition


def loss(w: Any, x: Any) -> Any:
    return jnp.sum(dr.tap(jnp.tanh(w * x), "h") ** 3)


def test_derivatives_of_taps() -> None:
    def penalized(w: Any) -> Any:
        value, found = dr.taps(loss)(w, X)
        return value + jnp.sum(found["h"].cotangent ** 2)

    def expected(w: Any) -> Any:
        return loss(w, X) + jnp.sum((3 * jnp.tanh(w * X) ** 2) ** 2)

    w = jnp.array([0.5, 0.3, -0.2])
    for of in (jax.grad, dr.grad, dr.hessian):
        same(jax.jit(of(penalized))(w), of(expected)(w), 1e-4)


def test_taps_under_vmap_are_of_each_example() -> None:
    xs = jnp.stack([X, 2 * X])
    found = jax.vmap(dr.taps(loss), in_axes=(None, 0))(X, xs)[1]["h"]
    same(found.cotangent, jnp.stack([dr.taps(loss)(X, x)[1]["h"].cotangent for x in xs]))


@pytest.mark.parametrize("grad", [dr.grad, jax.grad])
@pytest.mark.parametrize("wrap", [lambda u: u, jax.jit, lambda u: lambda x, w: lax.scan(lambda c, _: (u(c, w), None), x, None, 1)[0]])
def test_a_tap_inside_a_derivative_inside_the_function(grad: Any, wrap: Any) -> None:
    """The primal is seen, and the cotangent is that of the output by the primal."""
    u = wrap(lambda x, w: jnp.tanh(dr.tap(x * w, "h")))
    found = dr.taps(lambda w: grad(u)(1.0, w))(2.0)[1]["h"]
    h = jnp.tanh(2.0)
    same(jnp.ravel(found.value), jnp.array([2.0]))
    same(jnp.ravel(found.cotangent), jnp.array([-2.0 * 2.0 * h * (1 - h ** 2)]), 1e-5)


def test_taps_of_a_function_that_asks_for_taps() -> None:
    def outer(x: Any) -> Any:
        value, found = dr.taps(lambda x: jnp.sum(dr.tap(jnp.sin(x), "a") ** 2))(x)
        return value + jnp.sum(found["a"].cotangent * found["a"].value)

    found = dr.taps(outer)(X)[1]["a"]  # 3 sin(x)^2
    same(tuple(found)[:2], (jnp.sin(X), 6 * jnp.sin(X)), 1e-5)


def test_functions_with_rules() -> None:
    @jax.custom_vjp
    def g(x: Any) -> Any:
        return dr.tap(jnp.sin(x), "inside")

    g.defvjp(lambda x: (g(x), x), lambda x, ct: (2.0 * ct,))

    def f(x: Any) -> Any:
        return g(dr.tap(x, "before"))

    assert float(dr.taps(f, "before")(1.0)[1]["before"].cotangent) == 2.0
    assert float(dr.taps(f, cotangents=False)(1.0)[1]["inside"].value) == pytest.approx(np.sin(1.0))
    with pytest.raises(dr.errors.TapError, match=r"no cotangent reaches the tap 'inside' at .*test_taps.py:\d+.*custom_vjp_call"):
        dr.taps(f)(1.0)
    root = dr.implicit(lambda a: dr.tap(jnp.sqrt(a), "guess"), lambda s, a: s * s - a)
    assert float(dr.taps(lambda a: root(dr.tap(a, "a")), "a")(4.0)[1]["a"].cotangent) == 0.25


def test_what_can_hand_no_values_out_says_so() -> None:
    inside = dr.region("forward")(lambda x: dr.tap(2.0 * x, "r"))
    with pytest.raises(dr.errors.TapError, match=r"tap 'r' at .*test_taps.py.*'region'.*Tap what it takes or what it returns"):
        dr.taps(lambda x: inside(x))(1.0)
    with pytest.raises(dr.errors.TapError, match="'c' stands in the condition of a while_loop"):
        dr.taps(lambda x: lax.while_loop(lambda s: dr.tap(s, "c") < 3.0, lambda s: s + 1.0, x))(1.0)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="name must be a string; got 3"):
        dr.tap(X, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"returns float64\[3\]. Pass seed="):
        dr.taps(lambda x: dr.tap(x, "x"))(X)
    with pytest.raises(ValueError, match=r"seed must have the shapes .*got \[2\] for float64\[3\]"):
        dr.taps(lambda x: dr.tap(x, "x"), seed=X[:2])(X)
    with pytest.raises(TypeError, match="seed must have the structure"):
        dr.taps(lambda x: dr.tap(x, "x"), seed=(X,))(X)
    with pytest.raises(ValueError, match="record must be the number of steps"):
        dr.taps(loss, record=0)
    with pytest.raises(TypeError, match="leave out argnums"):
        dr.taps(loss, cotangents=False, argnums=0)
    with pytest.raises(TypeError, match="names must be a string"):
        dr.taps(loss, [1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
        dr.taps(loss, stride=2)  # type: ignore[call-arg]
    with pytest.raises(jax.errors.ConcretizationTypeError):
        dr.taps(lambda x: dr.tap(x, "x") if x > 0 else x)(1.0)


def test_an_error_inside_leaves_nothing_behind() -> None:
    def broken(x: Any) -> Any:
        dr.tap(x, "x")
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        dr.taps(broken)(1.0)
    assert "tap" not in str(jax.make_jaxpr(lambda x: dr.tap(x, "x") * 2.0)(1.0))


def test_threads_do_not_see_each_others_taps() -> None:
    seen: dict[str, str] = {}
    inside, done = threading.Event(), threading.Event()

    def f(x: Any) -> Any:
        inside.set()
        assert done.wait(30)
        return dr.tap(x, "x") * 2.0

    def other() -> None:
        inside.wait(30)
        seen["jaxpr"] = str(jax.make_jaxpr(lambda x: dr.tap(x, "y") * 2.0)(1.0))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert set(dr.taps(f)(1.0)[1]) == {"x"}
    thread.join()
    assert "tap" not in seen["jaxpr"]


def test_other_modes_read_a_tap_as_the_identity() -> None:
    def marked(x: Any) -> Any:
        return tap_p.bind(x, name="h", leaf=0, tree=tree_structure(0), axes=())

    def f(mark: Any) -> Any:
        return lambda x: jnp.sum(mark(jnp.sin(x) * x[::-1]) ** 2)

    a, b = f(marked), f(plain)
    assert "tap" in str(jax.make_jaxpr(a)(X))
    for of in (dr.grad, dr.hessian, dr.laplacian, dr.hessian_diagonal, jax.hessian):
        same(jax.jit(of(a))(X), jax.jit(of(b))(X), 1e-5)
    same(dr.jvp(a, (X,), (X,)), dr.jvp(b, (X,), (X,)))
    same(dr.derivatives(lambda t: a(t * X), 0.5, 3), dr.derivatives(lambda t: b(t * X), 0.5, 3), 1e-5)
    same(dr.jacobian(lambda x: marked(x ** 2), engine="elimination")(X), jnp.diag(2 * X))
    for pattern in (dr.sparse.hessian_pattern(a)(X), dr.sparse.hessian_pattern(b)(X)):
        assert pattern.todense().astype(int).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    pattern = dr.sparse.jacobian_pattern(lambda x: marked(x ** 2))(X)
    assert pattern.todense().astype(int).tolist() == np.eye(3, dtype=int).tolist()
    same(jax.vmap(dr.grad(a), in_axes=1)(jnp.stack([X, X], 1)), jnp.stack([dr.grad(b)(X)] * 2), 1e-5)
    same(jax.linear_transpose(marked, X)(X)[0], X)
    with asking():
        assert "tap" in str(jax.make_jaxpr(lambda x: dr.tap(x, "x"))(X))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_what_is_perturbed_has_the_derivative_of_a_sum(dtype: str) -> None:
    """The second operand's value is not read; its derivative is that of an addend, to any order, mapped or not."""
    x, e = jnp.array([0.3, -0.7, 1.1], dtype), jnp.array([5.0, 6.0, 7.0], dtype)

    def f(x: Any, e: Any) -> Any:
        return jnp.sum(jnp.real(perturbed_p.bind(x * x, e * e) ** 3))

    def expected(x: Any, e: Any) -> Any:
        return jnp.sum(jnp.real((x * x + e * e - lax.stop_gradient(e * e)) ** 3))

    for ours, theirs in ((dr, jax), (jax, jax)):
        same(ours.value_and_grad(f, (0, 1))(x, e), theirs.value_and_grad(expected, (0, 1))(x, e))
        rows = jax.vmap(ours.grad(f, (0, 1)), in_axes=(1, None))(jnp.stack([x, 2 * x], 1), e)
        same(rows[1], jax.vmap(jax.grad(expected, 1), in_axes=(0, None))(jnp.stack([x, 2 * x]), e))
    if dtype == "float64":
        same(dr.hessian(f, (0, 1))(x, e), jax.hessian(expected, (0, 1))(x, e))


# --------------------------------------------------------------------------------------------------------------- intercept

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
