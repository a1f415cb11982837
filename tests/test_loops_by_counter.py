"""Loops that read and write arrays entry by entry, and loops that compute invariants: as jax, and in linear time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close
from jax import lax

import dualrev as dr

N = 7
Array = jax.Array


def fill(x: Array) -> Array:
    return lax.fori_loop(0, N, lambda i, out: out.at[i].set(jnp.sin(x[i])), jnp.zeros_like(x))


def fill_backwards(x: Array) -> Array:
    return lax.fori_loop(0, N, lambda i, out: out.at[N - 1 - i].set(jnp.sin(x[i]) * x[N - 1 - i]), jnp.zeros_like(x))


def fill_in_part(x: Array) -> Array:
    return lax.fori_loop(2, N - 1, lambda i, out: out.at[i].set(x[i - 1] - 2 * x[i] + x[i + 1]), x * x)


def every_other(x: Array) -> Array:
    return lax.fori_loop(0, N // 2, lambda i, out: out.at[2 * i].set(x[2 * i] * x[i]), jnp.cos(x))


def recurrence(x: Array) -> Array:
    return lax.fori_loop(1, N, lambda i, out: out.at[i].set(jnp.tanh(out[i - 1] + x[i])), x)


def two_steps_back(x: Array) -> Array:
    return lax.fori_loop(0, N - 2, lambda i, out: out.at[i + 2].set(out[i + 1] * x[i] + out[i]), x)


def forwards_and_back(x: Array) -> Array:
    y = lax.fori_loop(1, N, lambda i, c: c.at[i].set(c[i] - 0.3 * c[i - 1]), x)
    return lax.fori_loop(1, N, lambda i, c: c.at[N - 1 - i].set(c[N - 1 - i] - 0.5 * c[N - i]), y)


def what_comes(x: Array) -> Array:
    return lax.fori_loop(0, N - 1, lambda i, out: out.at[i].set(out[i] * out[i + 1]), x)


def too_far_back(x: Array) -> Array:
    return lax.fori_loop(5, N, lambda i, out: out.at[i].set(jnp.sin(out[i - 5]) * x[i]), x)


def one_place(x: Array) -> Array:
    return lax.fori_loop(1, N, lambda i, out: out.at[0].set(out[0] * x[i]), x)


def same_place_twice(x: Array) -> Array:
    return lax.fori_loop(0, N, lambda i, out: out.at[i // 2].set(x[i] * x[0]), jnp.zeros_like(x))


def out_of_bounds(x: Array) -> Array:
    return lax.fori_loop(0, N + 3, lambda i, out: out.at[i].set(x[i] ** 2), jnp.zeros_like(x))


def wraps(x: Array) -> Array:
    return lax.fori_loop(-2, 3, lambda i, out: out.at[i].set(x[i] ** 2), jnp.zeros_like(x))


def reads_the_whole(x: Array) -> Array:
    return lax.fori_loop(0, N, lambda i, out: out.at[i].set(x[i] + 0.1 * jnp.sum(out)), jnp.zeros_like(x))


def reads_its_result(x: Array) -> Array:
    def step(i: Array, out: Array) -> Array:
        out = out.at[i].set(jnp.sin(x[i]))
        return out.at[i].set(out[i] * x[i])

    return lax.fori_loop(0, N, step, jnp.zeros_like(x))


def rows(x: Array) -> Array:
    def step(i: Array, out: Array) -> Array:
        return out.at[i, :].set(jnp.sin(x[i]) * x)

    return lax.fori_loop(0, N, step, jnp.zeros((N, N))) @ x


def columns_of_two(x: Array) -> Array:
    table = jnp.outer(x, x)

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = state
        left = left.at[:, i].set(table[i] * x[i])
        return left, lax.dynamic_update_slice(right, (table[:, i] ** 2)[None], (i, jnp.zeros_like(i)))

    left, right = lax.fori_loop(0, N, step, (jnp.zeros((N, N)), jnp.ones((N, N))))
    return left @ x + jnp.sin(right) @ x


def two_writes(x: Array) -> Array:
    def step(i: Array, out: Array) -> Array:
        return out.at[0, i].set(x[i] ** 2).at[1, i].set(jnp.sin(x[i]))

    return lax.fori_loop(0, N, step, jnp.zeros((2, N))).sum(0)


def rows_of_rows(x: Array) -> Array:
    def row(i: Array, out: Array) -> Array:
        return lax.fori_loop(1, N, lambda j, out: out.at[i, j].set(out[i, j - 1] * x[j] + out[i - 1, j]), out)

    return lax.fori_loop(1, N, row, jnp.outer(x, jnp.cos(x))).sum(0)


def reversed_scan(x: Array) -> Array:
    def step(carry: Any, v: Array) -> Any:
        i, out = carry
        return (i + 1, out.at[i].set(v * x[i])), v * x[i] ** 2

    (_, out), ys = lax.scan(step, (0, jnp.zeros_like(x)), jnp.sin(x), reverse=True)
    return out * ys


def counts_down(x: Array) -> Array:
    def step(carry: Any, _: None) -> Any:
        i, out = carry
        return (i - 1, out.at[i].set(x[i] ** 2 + out[i + 1])), None

    return lax.scan(step, (N - 2, x), None, length=N - 1)[0][1]


def normalized(x: Array) -> Array:
    return lax.fori_loop(0, N, lambda i, out: out.at[i].set(x[i] / jnp.sqrt(jnp.sum(x * x))), jnp.zeros_like(x))


def solves(x: Array) -> Array:
    matrix = jnp.diag(x + 2) + 0.1 * jnp.outer(x, x)
    return lax.scan(lambda c, v: (jnp.tanh(jnp.linalg.inv(matrix @ matrix) @ c + v), c[0]), x, x)[1]


def softmax_of_weights(x: Array) -> Array:
    weights = jnp.outer(x, jnp.sin(x))
    return lax.scan(lambda c, _: (jnp.tanh(jax.nn.softmax(weights, 1) @ c), None), x, None, length=4)[0]


def invariant_in_a_call(x: Array) -> Array:
    norm = jax.jit(lambda x: jnp.linalg.norm(x))
    return lax.fori_loop(0, 4, lambda i, c: jnp.sin(c) / norm(x), x)


LOOPS: list[Callable[[Any], Any]] = [
    fill, fill_backwards, fill_in_part, every_other, recurrence, two_steps_back, forwards_and_back, what_comes, too_far_back, one_place,
    same_place_twice, out_of_bounds, wraps, reads_the_whole, reads_its_result, rows, columns_of_two, two_writes, rows_of_rows,
    reversed_scan, counts_down, normalized, solves, softmax_of_weights, invariant_in_a_call,
]


def loss(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    weights = jnp.cos(jnp.arange(1.0, N + 1))
    return lambda x: jnp.sum(f(x) * weights)


X = jnp.asarray(np.linspace(0.3, 1.7, N))


@pytest.mark.parametrize("f", LOOPS, ids=lambda f: f.__name__)
def test_gradients_and_hessians_are_those_of_jax(f: Callable[[Any], Any]) -> None:
    scalar = loss(f)
    value, gradient = jax.jit(dr.value_and_grad(scalar))(X)
    assert_close(value, scalar(X))
    assert_close(gradient, jax.grad(scalar)(X))
    assert_close(jax.jit(dr.hessian(scalar))(X), jax.hessian(scalar)(X), 1e-8)
    for ours, theirs in zip(jax.jit(dr.jvp, static_argnums=0)(f, (X,), (jnp.cos(X),)), jax.jvp(f, (X,), (jnp.cos(X),)), strict=True):
        assert_close(ours, theirs)


@pytest.mark.thorough
@pytest.mark.parametrize("f", LOOPS, ids=lambda f: f.__name__)
def test_batches_calls_and_checkpoints(f: Callable[[Any], Any]) -> None:
    scalar, xs = loss(f), jnp.stack([X, X[::-1], jnp.sin(X)])
    assert_close(jax.jit(jax.vmap(dr.grad(scalar)))(xs), jax.vmap(jax.grad(scalar))(xs))
    expected = jax.grad(scalar)(X)
    assert_close(dr.grad(jax.jit(scalar))(X), expected)
    assert_close(jax.jit(dr.grad(jax.checkpoint(scalar)))(X), expected)
    assert_close(jax.jit(dr.grad(scalar, schedule=dr.Revolve(2)))(X), expected)


def carried(f: Callable[[Any], Any], n: int) -> int:
    """The largest carry of the loops of a gradient, in entries."""
    def largest(jaxpr: Any) -> int:
        found = 0
        for eqn in jaxpr.eqns:
            inner = [v for value in eqn.params.values() for v in (value if isinstance(value, (tuple, list)) else [value])
                     if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
            if eqn.primitive is lax.scan_p:
                body = eqn.params["jaxpr"]
                carry = body.out_avals[: len(body.out_avals) - sum(v.aval.shape[:1] == (eqn.params["length"],)
                                                                   and v.aval.ndim > a.ndim for v, a in
                                                                   zip(eqn.outvars, body.out_avals, strict=True))]
                found = max([found, *(a.size for a in carry)])
            found = max([found, *(largest(getattr(j, "jaxpr", j)) for j in inner)])
        return found

    return largest(jax.make_jaxpr(dr.grad(lambda x: jnp.sum(jnp.sin(f(x)))))(jnp.linspace(0.3, 1.7, n)).jaxpr)


@pytest.mark.parametrize("f", [fill, fill_backwards, fill_in_part, recurrence, two_steps_back, forwards_and_back, what_comes,
                               reversed_scan, counts_down, normalized], ids=lambda f: f.__name__)
def test_no_array_goes_round(f: Callable[[Any], Any]) -> None:
    """The loops of the gradient carry numbers only; jax's carry the whole array, and copy it in every step."""
    assert carried(f, N) <= 1


@pytest.mark.parametrize("f", [same_place_twice, one_place, out_of_bounds, reads_the_whole], ids=lambda f: f.__name__)
def test_arrays_that_must_go_round_do(f: Callable[[Any], Any]) -> None:
    assert carried(f, N) == N


def test_a_write_that_depends_on_what_stands_there_is_left() -> None:
    """jax has no derivative of ``apply``; entry by entry it is the function's."""
    found = jax.jit(dr.grad(loss(lambda x: lax.fori_loop(0, N, lambda i, out: out.at[i].apply(jnp.sin), x))))(X)
    assert_close(found, jax.grad(loss(jnp.sin))(X))


def test_invariants_of_a_loop_of_no_steps_have_no_derivative() -> None:
    """The norm of zero has an infinite slope, which no step reads."""
    def f(x: Array) -> Array:
        return jnp.sum(lax.scan(lambda c, v: (c / jnp.sqrt(jnp.sum(x * x)), None), jnp.ones(2), jnp.zeros(0))[0]) + jnp.sum(x)

    assert_close(jax.jit(dr.grad(f))(jnp.zeros(3)), jnp.ones(3))


def counted(x: Any, test: Any, start: Any = 0, by: int = 1) -> Any:
    return jnp.sum(lax.while_loop(test, lambda s: (s[0] + by, jnp.sin(s[1]) * x + 0.1), (start, x))[1] ** 2)


@pytest.mark.parametrize(("test", "start", "by", "steps"), [
    (lambda s: s[0] < 5, 0, 1, 5), (lambda s: s[0] != 9, 3, 2, 3), (lambda s: s[0] > 1, 7, -3, 2), (lambda s: s[0] <= 200, 0, 1, 201),
    (lambda s: (s[0] < 9) & (s[0] < 4), 0, 1, 4)], ids=["below", "unequal", "downwards", "long", "both"])
def test_a_while_loop_that_a_counter_ends_is_a_scan(test: Any, start: int, by: int, steps: int) -> None:
    x = jnp.linspace(0.1, 0.9, 4)

    def of_known_length(x: Any) -> Any:
        return jnp.sum(lax.fori_loop(0, steps, lambda _, y: jnp.sin(y) * x + 0.1, x) ** 2)

    gradient = jax.jit(dr.grad(lambda x: counted(x, test, start, by)))
    assert_close(gradient(x), jax.grad(of_known_length)(x))
    assert "while" not in str(jax.make_jaxpr(gradient)(x))


@pytest.mark.parametrize(("test", "start", "options"), [
    (lambda s: (s[0] < 5) & (s[1][0] < 9.0), 0, {}), (lambda s: s[0] < 0, 0, {}), (lambda s: s[0] < 5, 0, {"loop_checkpoints": 2}),
    (lambda s: s[0] < 5, 0, {"max_steps": 8})], ids=["state", "no step", "stored states", "bounded"])
def test_other_while_loops_stay(test: Any, start: int, options: Any) -> None:
    x = jnp.linspace(0.1, 0.9, 4)
    jaxpr = jax.make_jaxpr(dr.grad(lambda x: counted(x, test, start), **options))(x)
    assert "while" in str(jaxpr)


def test_a_counter_that_is_traced_is_not_known() -> None:
    def f(x: Any, n: Any) -> Any:
        return counted(x, lambda s: s[0] < n)

    x = jnp.linspace(0.1, 0.9, 4)
    assert_close(jax.jit(dr.grad(f))(x, 5), jax.grad(lambda x: jnp.sum(lax.fori_loop(
        0, 5, lambda _, y: jnp.sin(y) * x + 0.1, x) ** 2))(x))
