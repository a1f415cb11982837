"""What loops store: which residuals have a stack, what is computed again, and that nothing is done twice that anyone could notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same
from jax import lax

import dualrev as dr

STEPS = 7
#: Ways of choosing what is stored.
WAYS: tuple[Any, ...] = ("auto", True, False)


def lorenz(n: int) -> Callable[[Any], Any]:
    """A Runge-Kutta loop as people write it: entries taken wherever they are used."""

    def rate(y: Any, p: Any) -> Any:
        return jnp.stack([p[0] * (y[1] - y[0]), y[0] * (p[1] - y[2]) - y[1], y[0] * y[1] - p[2] * y[2]])

    def f(p: Any) -> Any:
        def step(y: Any, _: None) -> tuple[Any, None]:
            k1 = rate(y, p)
            k2 = rate(y + 0.01 * k1, p)
            return y + 0.01 * (k1 + k2), None

        start = jnp.stack([jnp.linspace(0.5, 1.5, n), jnp.ones(n), jnp.linspace(1.0, 2.0, n)])
        return jnp.sum(lax.scan(step, start, None, length=STEPS)[0] ** 2)

    return f


PARAMETERS = jnp.array([10.0, 28.0, 8 / 3])


def volatility(p: Any) -> Any:
    """A recursion of one number with an exponential in it."""

    def step(h: Any, r: Any) -> tuple[Any, Any]:
        z = r * jnp.exp(-h / 2)
        return p[0] + p[1] * (jnp.abs(z) - 0.8) + p[2] * h, h + z * z

    return jnp.sum(lax.scan(step, 0.0, jnp.linspace(-1.0, 1.0, STEPS))[1])


def layers(p: Any) -> Any:
    """Products of matrices, which are not run again, around entrywise operations, which are."""

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        z = jnp.sin(h @ p["w"] + x) * 2.0 + 1.0
        return jnp.tanh(z @ p["v"]) * jnp.sin(h), jnp.sum(h)

    h, sums = lax.scan(step, jnp.ones((4, 16)), jnp.linspace(0.0, 1.0, STEPS))
    return jnp.sum(h**2) + jnp.sum(sums)


def nested(p: Any) -> Any:
    def step(c: Any, _: None) -> tuple[Any, None]:
        inner = lax.fori_loop(0, 3, lambda i, x: x * jnp.cos(p[0] * x) + jnp.float64(i) * p[1], c)
        return lax.cond(inner[0] > 0, jnp.sin, lambda x: x * p[2], inner), None

    return jnp.sum(lax.scan(step, jnp.linspace(0.1, 1.0, 5), None, length=STEPS)[0])


def unknown_length(p: Any) -> Any:
    def step(c: Any) -> Any:
        i, x = c
        return i + 1, x + 0.1 * jnp.sin(x * p[0]) * p[1]

    return jnp.sum(lax.while_loop(lambda c: (c[0] < 9) & (c[1][0] < p[2]), step, (0, jnp.linspace(0.1, 1.0, 20)))[1] ** 2)


rng = np.random.default_rng(0)
PROGRAMS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "lorenz 1": (lorenz(1), PARAMETERS),
    "lorenz 200": (lorenz(200), PARAMETERS),
    "volatility": (volatility, jnp.array([0.1, 0.2, 0.9])),
    "layers": (layers, {"w": jnp.asarray(rng.normal(size=(16, 16)) / 4), "v": jnp.asarray(rng.normal(size=(16, 16)) / 4)}),
    "nested": (nested, jnp.array([1.1, 0.3, 0.7])),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients(name: str, way: Any) -> None:
    f, p = PROGRAMS[name]
    gradient = dr.grad(f, recompute_residuals=way)
    expected = jax.grad(f)(p)
    assert_same(jax.jit(gradient)(p), expected)
    assert_same(gradient(p), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_second_order_and_batches(name: str, way: Any) -> None:
    f, p = PROGRAMS[name]
    gradient, t = dr.grad(f, recompute_residuals=way), jax.tree.map(jnp.cos, p)
    expected = jax.jvp(jax.grad(f), (p,), (t,))[1]
    assert_same(dr.jvp(gradient, (p,), (t,))[1], expected)

    def along(p: Any) -> Any:
        return sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient(p)), jax.tree.leaves(t), strict=True))

    assert_same(jax.jit(dr.grad(along, recompute_residuals=way))(p), expected)
    batch = jax.tree.map(lambda x: jnp.stack([x, 1.01 * x]), p)
    assert_same(jax.vmap(gradient)(batch), jax.vmap(jax.grad(f))(batch))
    _, push = dr.linearize(f, p, recompute_residuals=way)
    assert_same(push(t), jax.jvp(f, (p,), (t,))[1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("max_steps", [None, 12])
def test_loops_of_unknown_length(way: Any, max_steps: int | None) -> None:
    p = jnp.array([1.3, 0.8, 5.0])
    scanned = jax.grad(lambda p: jnp.sum(lax.fori_loop(
        0, 9, lambda _, x: x + 0.1 * jnp.sin(x * p[0]) * p[1], jnp.linspace(0.1, 1.0, 20)) ** 2))(p)
    gradient = dr.grad(unknown_length, recompute_residuals=way, max_steps=max_steps)
    assert_same(gradient(p), scanned)
    assert_same(jax.jit(gradient)(p), scanned)


def stacks(f: Callable[[Any], Any], p: Any, **options: Any) -> list[tuple[int, ...]]:
    """The shapes of the stacks that the forward loop of a gradient writes."""
    jaxpr = jax.make_jaxpr(dr.grad(f, fuse_loops=False, **options))(p)
    scan = next(eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "scan")
    return [v.aval.shape for v in scan.outvars if v.aval.shape[:1] == (STEPS,)]


def test_the_state_alone_is_stacked_where_the_rest_is_arithmetic() -> None:
    assert stacks(lorenz(200), PARAMETERS, recompute_residuals=True) == [(STEPS, 3, 200)]
    assert len(stacks(lorenz(200), PARAMETERS)) < len(stacks(lorenz(200), PARAMETERS, recompute_residuals=False))


def test_products_of_matrices_are_not_run_again() -> None:
    f, p = PROGRAMS["layers"]
    products = [str(jax.make_jaxpr(dr.grad(f, recompute_residuals=way))(p)).count("dot_general") for way in WAYS]
    assert products[0] == products[1] == products[2]
    assert len(stacks(f, p, recompute_residuals=True)) < len(stacks(f, p, recompute_residuals=False))


def test_a_maximum_is_stored_or_computed_again_with_its_entries() -> None:
    """The pull finds the entries that equal it: of numbers that were rounded differently, none may do so."""
    def step(t: Any, p: Any) -> Any:
        return t + 0.1 * jnp.max(jnp.abs(p * t - 0.3) - 0.1)

    def f(p: Any) -> Any:
        return lax.scan(lambda t, _: (step(t, p), None), 1.0, None, length=STEPS)[0]

    def one_by_one(p: Any) -> Any:  # jax's own loop compares numbers of two programs, too
        t: Any = 1.0
        for _ in range(STEPS):
            t = step(t, p)
        return t

    p = jnp.linspace(0.1, 0.9, 64)
    jaxpr = str(jax.make_jaxpr(dr.grad(f))(p))
    assert (STEPS, 64) in stacks(f, p) or jaxpr.count("reduce_max") == 2
    assert_same(dr.grad(f)(p), jax.grad(one_by_one)(p))


def test_nobody_notices_that_a_step_is_computed_again(capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[float] = []

    def host(x: Any) -> Any:
        calls.append(float(x))
        return np.float64(2.0)

    def f(p: Any) -> Any:
        def step(c: Any, x: Any) -> tuple[Any, None]:
            factor = jax.pure_callback(host, jax.ShapeDtypeStruct((), "float64"), lax.stop_gradient(x))
            jax.debug.print("step {}", x)
            return jnp.sin(c * factor + p) * p, None

        return jnp.sum(lax.scan(step, jnp.ones(100), jnp.arange(4.0))[0])

    value = jax.jit(dr.grad(f))(0.3)
    jax.effects_barrier()
    assert sorted(calls) == [0.0, 1.0, 2.0, 3.0]
    assert capfd.readouterr().out.count("step") == 4

    def plain(p: Any) -> Any:
        return jnp.sum(lax.scan(lambda c, x: (jnp.sin(c * 2.0 + p) * p, None), jnp.ones(100), jnp.arange(4.0))[0])

    assert_same(value, jax.grad(plain)(0.3))


def test_a_loop_invariant_map_leaves_the_pull_of_the_loop() -> None:
    """The cotangent of a parameter is added up before the sum over its broadcast, which runs once after the loop."""
    jaxpr = jax.make_jaxpr(dr.grad(lorenz(200), fuse_loops=False))(PARAMETERS)
    loops = [eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "scan"]
    assert "reduce_sum" not in str(loops[-1].params["jaxpr"])
    assert "reduce_sum" in [eqn.primitive.name for eqn in jaxpr.jaxpr.eqns]


def test_the_platform_stays_one_that_the_compiler_knows() -> None:
    def f(p: Any) -> Any:
        def step(m: Any, _: None) -> tuple[Any, None]:
            return jnp.diag(jnp.diag(m) * p) + 0.1 * m.T @ m, None  # jnp.diag has a branch for each platform

        return jnp.sum(lax.scan(step, jnp.eye(3) + 0.1, None, length=STEPS)[0])

    assert_same(dr.grad(f)(0.3), jax.grad(f)(0.3))
    assert "conditional" not in str(jax.jit(dr.grad(f, fuse_loops=False)).lower(0.3).compile().as_text())


def test_an_option_that_is_none_of_the_ways() -> None:
    with pytest.raises(ValueError, match="recompute_residuals must be 'auto', True or False; got 'time'"):
        dr.grad(jnp.sin, recompute_residuals="time")(1.0)  # type: ignore[call-overload]
