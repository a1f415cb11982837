"""Patterns of long loops: by the pattern of one step, applied step by step or as a power, against jax's derivatives at all steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax import lax

import dualrev
from dualrev.sparse import loops, steps
from dualrev.sparse.patterns import hessian_csr, jacobian_csr

Array = Any
dr: Any = dualrev
X = jnp.linspace(0.1, 1.0, 40)
FAR = "scan: numbers that change from step to step are unknown"


def rolled(x: Array) -> Array:
    return lax.fori_loop(0, 9, lambda i, c: jnp.sin(c) + 0.1 * jnp.roll(c, 1), x)


def results_of_each_step(x: Array) -> Array:
    return lax.scan(lambda c, _: (jnp.sin(c) + 0.1 * jnp.roll(c, 1), c[:3] * 2), x, None, length=8)[1]


def slices_in_reverse(x: Array) -> Array:
    return lax.scan(lambda c, a: (jnp.roll(c, 1) * 0.5 + a, c), x[:5], x.reshape(8, 5), reverse=True)[1]


def constants_and_two_states(x: Array) -> Array:
    def step(c: Any, _: None) -> Any:
        a, b = c
        return (a * x[7], jnp.concatenate([b[1:], a[None]]) + x[3]), None

    return lax.scan(step, (x[0], x[10:15]), None, length=4)[0][1]


def a_loop_in_a_loop(x: Array) -> Array:
    def step(c: Array, a: Array) -> Any:
        c = lax.while_loop(lambda c: jnp.sum(c) < 2.0, lambda c: c * 1.5 + 0.1, c)
        return c.at[0].add(a[0]), lax.scan(lambda s, y: (s + y, s * y), a[1], c)[1]

    return lax.scan(step, x[:4], x[4:].reshape(6, 6))[1]


def products(x: Array) -> Array:
    c, ys = lax.scan(lambda c, a: (c * a[0] + jnp.sin(c[::-1]), c[0] * a), x[:5], x.reshape(8, 5))
    return jnp.sum(ys[:2]) + c[1]


PROGRAMS: list[Callable[..., Array]] = [rolled, results_of_each_step, constants_and_two_states, a_loop_in_a_loop]


def pattern(f: Any, order: int = 1, n: int = 40) -> Any:
    csr = hessian_csr if order == 2 else jacobian_csr
    return csr(lambda x: [f(x)], [jax.typeof(jnp.zeros(n))])


@pytest.fixture(params=[50_000, 0], ids=["applied", "power"])
def by_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """No step is evaluated one by one; the pattern of a step is applied one by one, or where possible as a power."""
    monkeypatch.setattr(loops, "EQUATIONS", 0)
    if request.param:
        monkeypatch.setattr(steps.Step, "power", lambda *_: None)
    else:
        monkeypatch.setattr(steps, "APPLIED", 0)
    return bool(request.param)


@pytest.mark.parametrize("f", [slices_in_reverse, *[pytest.param(f, marks=pytest.mark.thorough) for f in PROGRAMS]])
def test_first_derivatives(f: Any, by_steps: bool) -> None:
    expected = np.asarray(jax.jacfwd(f)(X)).reshape(-1, 40) != 0
    found = pattern(f).toarray()
    assert not (expected & ~found).any()
    if by_steps or f in (rolled, constants_and_two_states):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("f", [products, lambda x: jnp.sum(constants_and_two_states(x)), lambda x: jnp.sum(rolled(x)[:4] ** 2)])
def test_second_derivatives(f: Any, by_steps: bool) -> None:
    expected = np.asarray(jax.hessian(f)(X)) != 0
    found = pattern(f, 2).toarray()
    assert not (expected & ~found).any()
    if by_steps:
        np.testing.assert_array_equal(found, expected)


def test_numbers_that_change_are_unknown_and_said(by_steps: bool) -> None:
    def f(x: Array) -> Array:
        return lax.fori_loop(0, 6, lambda i, c: c.at[i].multiply(x[i + 6]), x[:6])

    report = dr.sparse.pattern_report(f)(X)
    assert not (np.asarray(jax.jacfwd(f)(X)) != 0)[~pattern(f).toarray()].any()
    assert FAR in report.lost
    assert dr.sparse.pattern_report(rolled)(X).lost == {}  # nothing reads its counter


@pytest.mark.thorough
def test_a_number_that_stays_is_known(by_steps: bool) -> None:
    mask = jnp.zeros(40).at[3].set(1.0)
    f = lambda x: lax.fori_loop(0, 7, lambda i, c: (c[0], c[1] + c[0] * x), (mask, jnp.zeros(40)))[1]  # noqa: E731  (a loop)
    assert pattern(f).nnz == 1


@pytest.mark.parametrize("times", [3, 10**7])
def test_a_power_of_any_size(times: int) -> None:
    """A shift by one position: after as many steps as there are positions, nothing is left; and what is around a ring stays there."""
    n = 5000

    def shifted(x: Array) -> Array:
        return lax.fori_loop(0, times, lambda i, c: jnp.concatenate([jnp.zeros(1), c[:-1]]), x)

    def around(x: Array) -> Array:
        return lax.scan(lambda c, _: (jnp.sin(jnp.roll(c, 1)), None), x, None, length=times)[0]

    eye = sp.eye_array(n, dtype=bool, format="csr")
    left = sp.eye_array(n, k=-times, dtype=bool, format="csr") if times < n else sp.csr_array((n, n), dtype=bool)
    assert (pattern(shifted, n=n) != left).nnz == 0
    assert (pattern(around, n=n) != eye[(np.arange(n) - times) % n]).nnz == 0


@pytest.mark.thorough
def test_a_band_grows_with_each_step() -> None:
    """More equations than are evaluated one by one: the band is as wide as there are steps."""
    def f(x: Array) -> Array:
        def step(_: Array, c: Array) -> Array:
            for _ in range(30):
                c = jnp.sin(c)
            return c + 0.1 * jnp.concatenate([jnp.zeros(1), c[:-1]])

        return lax.fori_loop(0, 900, step, x)

    found = pattern(f, n=1000)
    assert found.nnz == sum(min(i + 1, 901) for i in range(1000))
    assert dr.sparse.pattern_report(f)(jnp.zeros(1000)).lost == {}
