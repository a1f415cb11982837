"""Engines compose with themselves, with each other and with jax, at any depth and inside any construct."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, FACES, Face, assert_close, assert_same
from jax import lax

import dualrev

Scalar = Callable[[Any], Any]


def by_jvp(d: Any) -> Callable[[Scalar], Scalar]:
    return lambda f: lambda x: d.jvp(f, (x,), (jnp.ones_like(x),))[1]


FACES_AND_JAX: tuple[Any, ...] = (*FACES, jax)

#: Ways to differentiate a scalar function once.
OPERATORS: dict[str, Callable[[Scalar], Scalar]] = {
    "fwd": by_jvp(FACES[0]),
    "rev": FACES[1].grad,
    "rev-fwd": FACES[0].grad,
    "fwd-rev": by_jvp(FACES[1]),
    "lin": lambda f: lambda x: dualrev.linearize(f, x)[1](jnp.ones_like(x)),
    "jax-fwd": by_jvp(jax),
    "jax-rev": jax.grad,
}
BASIC = ("fwd", "rev", "jax-fwd", "jax-rev")


def compose(names: tuple[str, ...], f: Scalar) -> Scalar:
    for name in reversed(names):
        f = OPERATORS[name](f)
    return f


def tower(x: Any) -> Any:
    return jnp.sin(x) * x**3 + x / (1 + x * x)


@functools.cache
def truth(f: Scalar, order: int, x: float) -> Any:
    for _ in range(order):
        f = jax.grad(f)
    return f(x)


# ------------------------------------------------------------------------------------------------------------- towers


@pytest.mark.parametrize("names", list(itertools.product(OPERATORS, repeat=2)), ids="/".join)
def test_second_derivatives(names: tuple[str, ...]) -> None:
    assert_close(compose(names, tower)(0.7), truth(tower, 2, 0.7))


@pytest.mark.thorough
@pytest.mark.parametrize("names", list(itertools.product(BASIC, repeat=3)), ids="/".join)
def test_third_derivatives(names: tuple[str, ...]) -> None:
    assert_close(compose(names, tower)(0.7), truth(tower, 3, 0.7))


@pytest.mark.parametrize("names", [("fwd", "rev", "rev"), ("rev", "fwd", "rev"), ("rev", "rev", "rev"), ("fwd", "fwd", "fwd"),
                                   ("jax-rev", "rev", "fwd"), ("rev", "jax-fwd", "rev"), ("fwd", "jax-rev", "fwd")],
                                   ids="/".join)
def test_third_derivatives_with_jit(names: tuple[str, ...]) -> None:
    assert_close(jax.jit(compose(names, tower))(0.7), truth(tower, 3, 0.7))
    assert_close(compose(names, jax.jit(tower))(0.7), truth(tower, 3, 0.7))
    f: Scalar = tower
    for name in reversed(names):
        f = jax.jit(OPERATORS[name](f))
    assert_close(f(0.7), truth(tower, 3, 0.7))


@pytest.mark.parametrize("names", list(itertools.product(BASIC, repeat=2)), ids="/".join)
@pytest.mark.thorough
def test_with_vmap(names: tuple[str, ...]) -> None:
    xs = jnp.linspace(0.1, 0.9, 3)
    expected = jax.vmap(jax.grad(jax.grad(tower)))(xs)
    assert_close(jax.vmap(compose(names, tower))(xs), expected)
    outer, inner = OPERATORS[names[0]], OPERATORS[names[1]]
    diagonal = outer(lambda s: (jax.vmap(inner(tower))(xs * s) * 2).sum())(1.0)
    assert_close(diagonal, (expected * xs * 2).sum())


def test_fifth_derivative() -> None:
    f: Scalar = jnp.sin
    for k in range(5):
        f = OPERATORS[("fwd", "rev")[k % 2]](f)
    assert_close(f(0.3), np.cos(0.3))


# --------------------------------------------------------------------------------------------------------- constructs


@jax.custom_jvp
def cubed(x: Any) -> Any:
    return x**3


@cubed.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return cubed(x), 3 * x**2 * t


@jax.custom_vjp
def squared_sine(x: Any) -> Any:
    return jnp.sin(x) ** 2


squared_sine.defvjp(lambda x: (squared_sine(x), x), lambda x, ct: (ct * jnp.sin(2 * x),))


def c_jit(x: Any) -> Any:
    return jax.jit(lambda y: jnp.sin(y) * y)(x) * x


def c_jit_closure(x: Any) -> Any:
    inner = jax.jit(lambda y: y * x * x)
    return inner(jnp.sin(x)) + inner(2.0)


def c_scan(x: Any) -> Any:
    c, ys = lax.scan(lambda c, a: (jnp.sin(c) * a + x * c, c * c), x, jnp.array([0.5, 1.5, -0.3]))
    return c + ys.sum()


def c_scan_reverse(x: Any) -> Any:
    (c, _), ys = lax.scan(lambda c, a: ((c[0] * a + x, c[1] + 1), {"y": c[0] * x}), (x, 0), jnp.array([0.5, 1.5]), reverse=True)
    return c * ys["y"][0]


def c_fori(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) * x + i, x)


def c_map(x: Any) -> Any:
    return lax.map(lambda a: jnp.sin(a * x) * x, jnp.arange(3.0)).sum()


def c_associative_scan(x: Any) -> Any:
    return lax.associative_scan(lambda a, b: a * b + x, jnp.array([0.5, 1.5, 2.0]) * x).sum()


def c_cond(x: Any) -> Any:
    return lax.cond(x > 0.5, lambda y: jnp.sin(y) * x, lambda y: y**3, x * 2)


def c_switch(x: Any) -> Any:
    return lax.switch(jnp.floor(x * 2).astype(int), [lambda y: y, lambda y: jnp.exp(y) * x, lambda y: -y], x)


def c_checkpoint(x: Any) -> Any:
    return jax.checkpoint(lambda y: jnp.sin(jnp.exp(y) * x))(x) * x


def c_custom_jvp(x: Any) -> Any:
    return cubed(jnp.sin(x)) * x


def c_custom_vjp(x: Any) -> Any:
    return squared_sine(x * x) * x


def c_python_branch(x: Any) -> Any:
    while x < 3:
        x = x * jnp.exp(x) if x > 0 else -x
    return x**2


def c_jax_inside(x: Any) -> Any:
    return jax.grad(lambda y: jnp.sin(y * x) * y)(x) + jax.jvp(jnp.tanh, (x,), (x,))[1]


def c_ours_inside(x: Any) -> Any:
    return dualrev.grad(lambda y: jnp.sin(y * x) * y)(x) + dualrev.jvp(jnp.tanh, (x,), (x,))[1]


def c_nested_control(x: Any) -> Any:
    def body(c: Any, a: Any) -> Any:
        return lax.cond(a > 0, lambda c: cubed(c) * x, lambda c: jax.checkpoint(jnp.sin)(c) + a, c), None

    return lax.scan(body, x, jnp.array([0.5, -0.5]))[0]


CONSTRUCTS = {name[2:]: f for name, f in list(globals().items()) if name.startswith("c_")}
PAIRS = (("fwd", "rev"), ("rev", "fwd"), ("rev", "rev"), ("fwd", "fwd"), ("jax-rev", "rev"), ("rev", "jax-fwd"))
#: jax does not push through custom_vjp, so it is not asked to.
NO_JAX_PUSH = {"custom_vjp"}


@pytest.mark.parametrize("construct", list(CONSTRUCTS))
@pytest.mark.parametrize("names", PAIRS, ids="/".join)
def test_constructs(construct: str, names: tuple[str, ...]) -> None:
    if construct in NO_JAX_PUSH and "jax-fwd" in names:
        pytest.skip("jax has no forward mode of custom_vjp")
    f = CONSTRUCTS[construct]
    assert_close(compose(names, f)(0.7), truth(f, 2, 0.7))


@pytest.mark.thorough
@pytest.mark.parametrize("construct", [name for name in CONSTRUCTS if name != "python_branch"])
@pytest.mark.parametrize("name", ["fwd", "rev"])
def test_constructs_jitted_and_mapped(construct: str, name: str) -> None:
    f = CONSTRUCTS[construct]
    xs = jnp.array([0.3, 0.7])
    first = jax.vmap(jax.grad(f))(xs)
    assert_close(jax.jit(jax.vmap(OPERATORS[name](f)))(xs), first)
    assert_close(OPERATORS[name](lambda s: jax.vmap(f)(xs * s).sum())(1.0), (first * xs).sum())


def test_while_is_pushed_through() -> None:
    def f(x: Any) -> Any:
        return lax.while_loop(lambda c: c[0] < 10, lambda c: (c[0] + c[1] ** 2, c[1] * jnp.sin(x) + 1), (x, x))[0]

    for names in (("fwd",), ("jax-fwd", "fwd"), ("fwd", "jax-fwd"), ("fwd", "fwd"), ("rev-fwd",)):
        expected = compose(("jax-fwd",) * len(names), f)(0.7)
        assert_close(compose(names, f)(0.7), expected)
        assert_close(jax.jit(compose(names, f))(0.7), expected)
    xs = jnp.array([0.3, 0.7])
    assert_close(jax.vmap(OPERATORS["fwd"](f))(xs), jax.vmap(OPERATORS["jax-fwd"](f))(xs))


def test_reverse_passes_a_while_that_does_not_move() -> None:
    def f(x: Any) -> Any:
        n = lax.while_loop(lambda c: c < 3, lambda c: c + 1, 0)
        return x * n + lax.stop_gradient(lax.while_loop(lambda c: c < 3, lambda c: c * 2, x))

    assert_close(dualrev.grad(f)(1.0), 3.0)


@pytest.mark.parametrize("d", [*FACES, jax], ids=[*ENGINES, "jax"])
def test_differentiating_inside_bodies(d: Any) -> None:
    def body(c: Any, a: Any) -> Any:
        g = d.grad(lambda y: jnp.sin(y * a) * c)(c)
        out, pull = d.vjp(lambda y: y * y * a, c)
        return c + 0.1 * g, pull(out)[0] + d.jvp(jnp.exp, (c,), (a,))[1]

    def f(x: Any) -> Any:
        c, ys = lax.scan(body, x, jnp.array([0.5, 1.5]))
        c = lax.cond(c > 0, lambda c: d.grad(lambda y: y**3)(c), lambda c: c, c)
        return lax.fori_loop(0, 2, lambda _, c: c - 0.1 * d.grad(jnp.cos)(c), c) + ys.sum()

    def reference(x: Any) -> Any:
        ys = 0.0
        c = x
        for a in (0.5, 1.5):
            ys = ys + 2 * c**3 * a * a + jnp.exp(c) * a
            c = c + 0.1 * c * a * jnp.cos(c * a)
        c = 3 * c**2
        for _ in range(2):
            c = c + 0.1 * jnp.sin(c)
        return c + ys

    assert_close(f(0.6), reference(0.6))
    assert_close(jax.jit(f)(0.6), reference(0.6))
    for outer in FACES_AND_JAX:
        assert_close(outer.grad(f)(0.6), jax.grad(reference)(0.6))

    newton = lax.while_loop(lambda x: jnp.abs(x**2 - 2) > 1e-12, lambda x: x - (x**2 - 2) / d.grad(lambda y: y**2)(x), 1.0)
    assert_close(newton, np.sqrt(2.0))


# ------------------------------------------------------------------------------------------------------- perturbations


MIXTURES = list(itertools.product(BASIC, repeat=2))


@pytest.mark.parametrize("names", MIXTURES, ids="/".join)
def test_perturbations_are_not_confused(names: tuple[str, str]) -> None:
    outer, inner = (OPERATORS[n] for n in names)
    assert outer(lambda x: x * inner(lambda y: x + y)(1.0))(1.0) == 1.0
    assert outer(lambda x: x * inner(lambda y: x * y)(1.0))(3.0) == 6.0
    assert outer(lambda x: inner(lambda y: x)(1.0) * 1.0)(2.0) == 0.0
    assert outer(lambda x: inner(lambda y: x * y * y)(x))(3.0) == 12.0
    assert outer(lambda x: x * inner(jax.jit(lambda y: x + y))(1.0))(1.0) == 1.0


@pytest.mark.parametrize("names", MIXTURES, ids="/".join)
def test_functions_returned_from_derivatives(names: tuple[str, str]) -> None:
    """The derivative of ``x -> (y -> f(x + y))`` applied twice must not share its perturbation."""
    outer, inner = (OPERATORS[n] for n in names)

    def shift(g: Scalar) -> Callable[[Any], Scalar]:
        return lambda u: lambda x: g(u + x)

    def derived(g: Scalar) -> Scalar:
        return lambda x: outer(lambda u: shift(g)(u)(x))(0.0)

    assert_close(derived(inner(jnp.exp))(1.0), np.e)
    assert_close(derived(lambda x: inner(lambda u: shift(jnp.exp)(u)(x))(0.0))(1.0), np.e)


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_maps_made_inside_another_derivative(d: Face) -> None:
    def f(x: Any) -> Any:
        _, pull = d.vjp(lambda y: jnp.sin(x * y), x)
        _, jac = d.linearize(lambda y: y**2 * x, x)
        return pull(x)[0] + jac(x) + (jac.T @ x)

    def reference(x: Any) -> Any:
        return x * jnp.cos(x * x) * x + 2 * x * x * x * 2

    for outer in FACES_AND_JAX:
        assert_close(outer.grad(f)(0.7), jax.grad(reference)(0.7))
        assert_close(outer.jvp(f, (0.7,), (1.0,))[1], jax.grad(reference)(0.7))


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_pulls_are_differentiable_in_their_cotangent(d: Face) -> None:
    _, pull = d.vjp(lambda y: jnp.sin(y) * y, 0.7)
    slope = jax.grad(lambda y: jnp.sin(y) * y)(0.7)
    for outer in FACES_AND_JAX:
        assert_close(outer.grad(lambda u: pull(u)[0] ** 2)(3.0), 2 * 3.0 * slope**2)
        assert_close(outer.linear_transpose(lambda u: pull(u)[0], 1.0)(1.0)[0], slope)


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_closures_over_traced_values(d: Face) -> None:
    def program(a: Any, b: Any) -> Any:
        def f(x: Any) -> Any:
            return (jnp.sin(x * a) + lax.scan(lambda c, y: (c * b + y * x, None), a, jnp.arange(3.0))[0]).sum()

        return d.grad(f)(b)

    def of_jax(a: Any, b: Any) -> Any:
        def f(x: Any) -> Any:
            return (jnp.sin(x * a) + lax.scan(lambda c, y: (c * b + y * x, None), a, jnp.arange(3.0))[0]).sum()

        return jax.grad(f)(b)

    a, b = 0.3, 0.8
    assert_close(jax.jit(program)(a, b), of_jax(a, b))
    assert_close(jax.vmap(program)(jnp.array([a, 1.0]), jnp.array([b, 2.0]))[0], of_jax(a, b))
    assert_same(jax.grad(program, (0, 1))(a, b), jax.grad(of_jax, (0, 1))(a, b))
    assert_same(d.grad(program, (0, 1))(a, b), jax.grad(of_jax, (0, 1))(a, b))


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_python_control_flow_on_values(d: Face) -> None:
    def f(x: Any) -> Any:
        steps = 0
        while x < 100 and steps < int(x) + 20:
            x = x * 2 if bool(x > 3) else x * x + 1
            steps += 1
        return x * x.item() if hasattr(x, "item") else x

    assert_close(d.grad(f)(1.5), jax.grad(f)(1.5))
    assert d.grad(lambda x: sum(y**2 for y in x))(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert d.grad(lambda x: x[int(jnp.argmax(x))])(jnp.array([1.0, 3.0, 2.0])).tolist() == [0.0, 1.0, 0.0]
