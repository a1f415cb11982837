"""Recurrences that Python writes out become loops before they are linearized: derivatives as jax's, and few equations to compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev as dr
from dualrev.calls.entry_by_entry import entries_together
from dualrev.programs.entries import rolled

N = 70
X = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, N))


def one_state(x: Any) -> Any:
    s: Any = 0.0
    for i in range(N):
        s = jnp.tanh(0.5 * s + x[i])
    return s


def every_state_is_a_result(x: Any) -> Any:
    s, found = x[0], []
    for i in range(1, N):
        s = jnp.sin(s) * x[i] + s
        found.append(s)
    return jnp.sum(jnp.stack(found) ** 2) + found[3]


def of_two_steps_before(x: Any) -> Any:
    a, b = x[0], x[1]
    for i in range(2, N):
        a, b = b, jnp.tanh(0.3 * a - 0.8 * b * x[i - 1] + x[i])
    return a * b


def numbers_that_differ(x: Any) -> Any:
    s = x[0]
    for i in range(N):
        s = jnp.cos(s * (1.0 + 0.01 * i)) + 0.9**i * x[1]
    return s


def small_state(x: Any) -> Any:
    """Entries of a state; each step builds the next one."""
    y = x[:3]
    for _ in range(N):
        a, b, c = y[0], y[1], y[2]
        y = y + 0.01 * jnp.stack([10.0 * (b - a), a * (x[5] - c) - b, a * b - c * x[6]])
    return jnp.sum(y * y)


def backwards_in_pairs(x: Any) -> Any:
    s = x[0] * 2
    for i in range(N - 1, 1, -1):
        s = jnp.where(x[i] > 0, s * x[i], s - x[i - 1] * x[i])
    return s


def two_loops(x: Any) -> Any:
    s, r, z = x[0], x[1], jnp.exp(x)
    for i in range(N):
        s = s * jnp.sin(x[i]) + 1.0
    for i in range(N):
        r = jnp.cos(r * z[i]) - s
    return s * r


def matrix_rows(x: Any) -> Any:
    w = jnp.reshape(jnp.tile(x, 4), (N, 4))
    h = jnp.ones(4)
    for i in range(N):
        h = jnp.tanh(h * x[0] + w[i])
    return jnp.sum(h)


PROGRAMS = [one_state, every_state_is_a_result, of_two_steps_before, numbers_that_differ, small_state, backwards_in_pairs, two_loops,
            matrix_rows]
#: Those whose gradients are compared by default.
BRIEF = {every_state_is_a_result, numbers_that_differ}


def primitives(jaxpr: Any) -> list[str]:
    return [eqn.primitive.name for eqn in jaxpr.eqns]


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_blocks_become_a_loop(f: Callable[[Any], Any]) -> None:
    traced = jax.make_jaxpr(f)(X)
    found = entries_together(traced)
    assert "scan" in primitives(found)
    assert len(found.eqns) < 0.75 * len(traced.eqns) if f is every_state_is_a_result else len(found.eqns) < 100
    # Un-jitted, each operation of the program is compiled by itself: the loop has the same results to the last bit but for products
    # and sums that the compiler of the loop contracts.
    np.testing.assert_allclose(jax.core.eval_jaxpr(found.jaxpr, found.consts, X)[0], f(X), rtol=1e-13)


@pytest.mark.parametrize("f", [f if f in BRIEF else pytest.param(f, marks=pytest.mark.thorough) for f in PROGRAMS],
                         ids=lambda f: f.__name__)
def test_gradients(f: Callable[[Any], Any]) -> None:
    want = jax.grad(f)(X)  # un-jitted: compiling it takes a minute
    compiled = jax.jit(dr.grad(f)).lower(X)
    np.testing.assert_allclose(compiled.compile()(X), want, rtol=1e-10, atol=1e-12)
    assert compiled.as_text().count("\n") < 700  # of jax's gradient, thousands


@pytest.mark.parametrize("f", [one_state, pytest.param(of_two_steps_before, marks=pytest.mark.thorough)], ids=lambda f: f.__name__)
def test_other_modes(f: Callable[[Any], Any]) -> None:
    def scanned(x: Any) -> Any:  # a program that compiles quickly
        return jax.core.eval_jaxpr(found.jaxpr, found.consts, x)[0]

    found = entries_together(jax.make_jaxpr(f)(X))
    want = jax.jit(jax.hessian(scanned))(X)
    inner = jax.jit(f)
    np.testing.assert_allclose(jax.jit(dr.hessian(f))(X), want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda x: dr.hvp(inner, (x,), (X,)))(X), want @ X, rtol=1e-9, atol=1e-12)
    batch = jnp.stack([X, -X])
    got = jax.jit(jax.vmap(dr.grad(f)))(batch)
    np.testing.assert_allclose(got, jax.jit(jax.vmap(jax.grad(scanned)))(batch), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex128"])
def test_dtypes(dtype: str) -> None:
    x = X.astype(dtype)
    found = entries_together(jax.make_jaxpr(of_two_steps_before)(x))
    assert "scan" in primitives(found)
    got, want = jax.core.eval_jaxpr(found.jaxpr, found.consts, x)[0], of_two_steps_before(x)
    assert got.dtype == want.dtype and got.weak_type == want.weak_type
    np.testing.assert_allclose(np.asarray(got, complex), np.asarray(want, complex), rtol=1e-4 if dtype == "float32" else 1e-12)


def test_what_is_no_chain_stays_as_it_is() -> None:
    def short(x: Any) -> Any:
        s = x[0]
        for i in range(rolled.REPEATED - 2):
            s = jnp.tanh(0.5 * s + x[i])
        return s

    def large(x: Any) -> Any:
        """A step works on many entries: the loop would write what the compiler keeps in one kernel."""
        s = jnp.tile(x, 2)
        for _ in range(N):
            s = jnp.tanh(s) * 0.9
        return jnp.sum(s)

    def differs(x: Any) -> Any:
        """Equal operations that read other values: each step another weight."""
        w, s = jnp.sin(x), x[0]
        for i in range(N):
            s = s * w[(i * i) % N] if i % 2 else s + w[i % 7] * s
            s = jnp.sin(s) if i % 7 == 3 else jnp.cos(s)
        return s

    for f in (short, large, differs):
        assert "scan" not in primitives(entries_together(jax.make_jaxpr(f)(X)))


def test_effects_stay_where_they_are() -> None:
    seen: list[float] = []

    def f(x: Any) -> Any:
        s = x[0]
        for i in range(N):
            s = jnp.tanh(0.5 * s + x[i])
            if i == 40:
                jax.debug.callback(lambda v: seen.append(float(v)), s)
        return s

    got = jax.jit(dr.grad(f))(X)
    jax.effects_barrier()
    assert len(seen) == 1
    np.testing.assert_allclose(got, jax.jit(jax.grad(one_scan))(X), rtol=1e-10, atol=1e-13)


def one_scan(x: Any) -> Any:
    return lax.scan(lambda s, v: (jnp.tanh(0.5 * s + v), None), x[0], x)[0]
