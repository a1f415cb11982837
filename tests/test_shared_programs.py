"""Functions that are made anew at each call: their programs are equal, and what is derived from one of them serves all."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev as dr
from dualrev.programs import shared
from dualrev.programs.shared import identity

_compilations = [0]


def _count(event: str, *_: Any, **__: Any) -> None:
    _compilations[0] += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_count)


def compilations(run: Callable[[], Any]) -> int:
    before = _compilations[0]
    jax.block_until_ready(run())
    return _compilations[0] - before


@pytest.fixture(autouse=True)
def no_contents() -> Iterator[None]:
    shared.forget_contents()
    yield
    shared.forget_contents()


# Each function makes its body anew: ``c`` is a number in the program, and ``v`` an array that the body closes over.

def scanned(x: jax.Array, c: float, v: jax.Array) -> jax.Array:
    return jnp.sum(lax.scan(lambda h, a: (jnp.sin(h) * a + c * v, jnp.where(h > 0, h, a)), x, jnp.arange(3.0))[0])


def with_relu(x: jax.Array, c: float, v: jax.Array) -> jax.Array:
    return jnp.sum(lax.scan(lambda h, a: (jax.nn.relu(h * v) + c * jax.nn.softplus(a), None), x, jnp.arange(3.0))[0])


def nested(x: jax.Array, c: float, v: jax.Array) -> jax.Array:
    def outer(h: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        inner = lax.scan(lambda g, b: (g * v + b, g[0]), h, jnp.arange(2.0))
        return jnp.tanh(inner[0]) + c, a * jnp.sum(inner[1])

    return jnp.sum(lax.scan(outer, x, jnp.arange(3.0))[0])


def fori(x: jax.Array, c: float, v: jax.Array) -> jax.Array:
    return jnp.sum(lax.fori_loop(0, 3, lambda i, h: jnp.sin(h) * v + c, x))


def while_loop(x: jax.Array, c: float, v: jax.Array) -> jax.Array:
    return jnp.sum(lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1]) * v + c), (0, x))[1])


def branch(x: jax.Array, c: float, v: jax.Array) -> jax.Array:
    return jnp.sum(lax.cond(x[0] > 0, lambda h: jnp.sin(h) * v, lambda h: h * c, x))


def compiled(x: jax.Array, c: float, v: jax.Array) -> jax.Array:
    return jnp.sum(jax.jit(lambda h, v: jnp.sin(h) * v + c * h)(x, v))


PROGRAMS = [scanned, with_relu, nested, fori, while_loop, branch, compiled]
X, V = jnp.array([0.3, -0.2, 0.7]), jnp.array([1.1, 0.4, -0.6])


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("derivative", [dr.grad, lambda f: lambda x: dr.jvp(f, (x,), (x,))[1]], ids=["grad", "jvp"])
def test_compiles_once(program: Any, derivative: Any) -> None:
    def run() -> Any:
        return derivative(lambda x: program(x, 0.5, V))(X)

    first = compilations(run)
    assert (first > 0, compilations(run)) == (True, 0)


@pytest.mark.parametrize("program", PROGRAMS)
def test_constants_are_those_of_the_call(program: Any) -> None:
    for c, v in itertools.product((0.5, -0.5, 0.0, -0.0), (V, 2 * V)):
        found = dr.grad(lambda x, c=c, v=v: program(x, c, v))(X)
        ones = jax.tree.map(jnp.ones_like, X)
        along = dr.jvp(lambda x, c=c, v=v: program(x, c, v), (X,), (ones,))[1]
        expected = jax.jacfwd(lambda x, c=c, v=v: program(x, c, v))(X)  # jax has no pull of a while loop
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(along, jnp.sum(expected), rtol=1e-12)


def body_of(function: Callable[..., Any], *args: Any) -> Any:
    return jax.make_jaxpr(function)(*args)


def twice(make: Callable[[], Callable[..., Any]], *args: Any) -> bool:
    """Whether the programs of two functions that are made anew are known to be equal."""
    one, two = body_of(make(), *args), body_of(make(), *args)
    assert one is not two
    return identity(one) is identity(two)


def test_equal_programs() -> None:
    assert twice(lambda: lambda x: jnp.sin(x) * 2.0, X)
    assert twice(lambda: lambda x: jax.nn.relu(lax.scan(lambda c, _: (c * 2.0, None), x, None, length=3)[0]), X)


def test_different_programs() -> None:
    def program(function: Callable[..., Any], *args: Any) -> Any:
        return identity(body_of(function, *args))

    made = [program(f, X) for f in (lambda c: [
        lambda x: x * c, lambda x: x * 2.0, lambda x: x / c, lambda x: x[::-1] * c, lambda x: (x * c, x), lambda x: c * x * x])(3.0)]
    made.append(program(lambda x: x * 3.0, X[:2]))
    made += [program(lambda x, s=s: x * s, X) for s in (0.0, -0.0, float("nan"), 1.0)]
    made += [program(lambda x, s=s: lax.integer_pow(x, s), X) for s in (2, 3)]
    assert len(set(map(id, made))) == len(made)


def test_names_and_settings_of_jax_tell_programs_apart() -> None:
    def named(name: str) -> Any:
        def function(x: jax.Array) -> jax.Array:
            with jax.named_scope(name):
                return jnp.sin(x)
        return identity(body_of(function, X))

    assert named("a") is not named("b")
    assert named("a") is named("a")

    def plain() -> Any:
        return identity(body_of(lambda x: jnp.sin(x), X))

    first = plain()
    with jax.default_matmul_precision("float32"):
        assert plain() is not first
    assert plain() is first


def test_options_tell_derivatives_apart() -> None:
    """Equal programs under different options have derivatives of their own."""
    def gradient(**options: Any) -> Any:
        return dr.grad(lambda x: jnp.sum(lax.scan(lambda h, _: (jnp.where(h > 0, jnp.sqrt(jnp.maximum(h, 0.0)), h), None), x, None,
                                                  length=2)[0]), **options)(jnp.array([0.0, 1.0]))

    assert np.isnan(gradient()[0])
    assert np.isfinite(gradient(zero_wins=True)[0])
    assert np.isnan(gradient()[0])


@pytest.mark.parametrize("make", [
    lambda v: lambda x: jax.pure_callback(lambda a: np.asarray(a), x, x), lambda v: lambda x: jax.debug.print("{}", x) or x,
    lambda v: lambda x: jax.jit(lambda x: x * v)(x)], ids=["callback", "effect", "constants"])
def test_what_may_hold_arrays_is_not_shared(make: Any) -> None:
    assert not twice(lambda: make(V), X)


def test_rules_of_users_are_not_shared() -> None:
    def function(factor: float) -> Callable[[jax.Array], jax.Array]:
        @jax.custom_vjp
        def rule(x: jax.Array) -> jax.Array:
            return x

        rule.defvjp(lambda x: (x, None), lambda _, ct: (factor * ct,))
        return lambda x: jnp.sum(lax.scan(lambda h, _: (rule(h), None), x, None, length=1)[0])

    assert [float(dr.grad(function(k))(X)[0]) for k in (2.0, 3.0)] == [2.0, 3.0]


def test_nothing_large_is_kept() -> None:
    def gradient() -> Any:
        big = jnp.ones(1000) * 3

        def body(h: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jax.checkpoint(jax.nn.relu)(h * jnp.sum(big)), None

        def function(x: jax.Array) -> jax.Array:
            y = jnp.sin(x[0] * big)  # a residual of the tape
            return jnp.sum(lax.scan(body, x, None, length=2)[0]) + jnp.sum(y**2) + jnp.sum(jax.jit(lambda x: x * big[0])(x))

        dr.grad(function)(X)
        return weakref.ref(big), weakref.ref(body)

    gradient()  # jax itself keeps an array of the first call of all
    gc.collect()
    before = sum(x.size == 1000 for x in jax.live_arrays())
    references = gradient()
    gc.collect()
    assert [r() for r in references] == [None, None]
    assert sum(x.size == 1000 for x in jax.live_arrays()) == before


def test_the_number_of_contents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "CONTENTS_KEPT", 5)
    made = [weakref.ref(identity(body_of(lambda x, k=k: x * float(k), X))) for k in range(12)]
    assert all(isinstance(r(), shared.Content) for r in made[-2:])
    gc.collect()
    assert sum(r() is not None for r in made) <= 5
    monkeypatch.setattr(shared, "EQUATIONS_KEPT", 2)
    identity(body_of(lambda x: x * 2.0 + 1.0, X))
    assert len(shared._contents.known) == 1
