"""Values and cotangents in the middle of a function, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import same
from jax import lax

import dualrev as dr

X = jnp.array([0.3, -0.7, 1.1])
W = jnp.array([[0.2, -0.4, 0.6], [1.0, 0.5, -0.3]])


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
