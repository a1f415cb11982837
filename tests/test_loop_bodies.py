"""Of a loop's body: what is computed before the loop, and which cotangents the loop's pull carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same
from jax import lax

import dualrev as dr
from dualrev._jax.calls import scan_layout
from dualrev.calls.linearization import Linearization

W = np.array([[0.3, -0.2, 0.1], [0.0, 0.4, -0.3], [0.2, 0.1, 0.5]])
X = np.array([0.3, -0.4, 0.7])
ALL_REST = {"speed": jnp.zeros(3), "force": jnp.zeros((3, 2)), "energy": jnp.zeros(())}


def state_of(x: Any) -> dict[str, Any]:
    return {"x": x, **ALL_REST}


def step(state: dict[str, Any], w: Any) -> dict[str, Any]:
    """A step that reads one part of the state that it writes, as those of simulators do."""
    x = state["x"]
    speed = jnp.sin(w @ x)
    force = jnp.outer(speed, x[:2])
    return {"x": x + 0.1 * speed, "speed": speed, "force": force, "energy": jnp.sum(force**2)}


def advance(kind: str, w: Any, x: Any, length: int = 4) -> dict[str, Any]:
    state = state_of(x)
    if kind == "scan":
        return lax.scan(lambda s, _: (step(s, w), None), state, None, length=length)[0]
    if kind == "reverse scan of slices":
        return lax.scan(lambda s, v: (step({**s, "x": s["x"] + v}, w), None), state, jnp.ones((length, 3)), reverse=True)[0]
    if kind == "while":
        return lax.while_loop(lambda s: s[1] < length, lambda s: (step(s[0], w), s[1] + 1), (state, 0))[0]
    if kind == "jit":
        return lax.scan(lambda s, _: (jax.jit(step)(s, w), None), state, None, length=length)[0]
    if kind == "checkpoint":
        return lax.scan(lambda s, _: (jax.checkpoint(step)(s, w), None), state, None, length=length)[0]
    if kind == "cond":
        def branch(s: Any, i: Any) -> Any:
            return lax.cond(i % 2 == 0, step, lambda s, w: step({**s, "x": 2 * s["x"]}, w), s, w), None
        return lax.scan(branch, state, jnp.arange(length))[0]
    assert kind == "loop in a loop"
    return lax.scan(lambda s, _: (lax.fori_loop(0, 2, lambda i, s: step(s, w), s), None), state, None, length=length)[0]


KINDS = ["scan", "reverse scan of slices", "jit", "checkpoint", "cond", "loop in a loop"]


def equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from equations(getattr(inner, "jaxpr", inner))


def scans(fun: Any, *args: Any) -> list[Any]:
    return [eqn for eqn in equations(jax.make_jaxpr(fun)(*args).jaxpr) if eqn.primitive is lax.scan_p]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["x", "energy"])
def test_a_pull_carries_what_goes_round(kind: str, what: str) -> None:
    """Parts of the state that no step reads have no cotangent, or one in the end alone."""
    def fun(x: Any) -> Any:
        return jnp.sum(advance(kind, W, x)[what] ** 2)

    np.testing.assert_allclose(dr.grad(fun)(X), jax.grad(fun)(X), rtol=1e-12)
    carried = [scan_layout(eqn.params)[1] for eqn in scans(dr.grad(fun), X)]
    assert min(carried) <= 2 + (what == "energy"), "the cotangents of the whole state go round"


@pytest.mark.parametrize("kind", [*KINDS, "while"])
def test_all_derivatives_of_such_a_loop(kind: str) -> None:
    def fun(w: Any, x: Any) -> Any:
        state = advance(kind, w, x)
        return jnp.sum(state["x"] ** 2) + jnp.sum(jnp.sin(state["force"]))

    def plain(w: Any, x: Any) -> Any:  # jax has no reverse mode of a while loop
        state = advance("scan" if kind == "while" else kind, w, x)
        return jnp.sum(state["x"] ** 2) + jnp.sum(jnp.sin(state["force"]))

    for got, want in zip(dr.grad(fun, (0, 1))(W, X), jax.grad(plain, (0, 1))(W, X), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(dr.jvp(fun, (W, X), (W, X))[1], jax.jvp(plain, (W, X), (W, X))[1], rtol=1e-11)
    np.testing.assert_allclose(dr.hessian(fun, 1)(W, X), jax.hessian(plain, 1)(W, X), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("schedule", ["sqrt", dr.Revolve(2)], ids=["sqrt", "revolve"])
def test_schedules(schedule: Any) -> None:
    def fun(x: Any) -> Any:
        return jnp.sum(advance("scan", W, x, 5)["x"] ** 2)

    np.testing.assert_allclose(dr.grad(fun, schedule=schedule)(X), jax.grad(fun)(X), rtol=1e-12)


def test_what_is_said_beforehand_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cotangent that the traced pull finds goes round, whatever was said of it before the tracing."""
    monkeypatch.setattr(Linearization, "reached", lambda self, cotangents: (False,) * sum(map(bool, self.active)))

    def fun(x: Any) -> Any:
        def shift(c: Any, _: Any) -> Any:
            a, b, d = c
            return (jnp.sin(b), jnp.cos(d), a * d), None
        return lax.scan(shift, (x, 2 * x, 3 * x), None, length=5)[0][0]

    np.testing.assert_allclose(dr.grad(fun)(0.3), jax.grad(fun)(0.3), rtol=1e-12)


def test_no_cotangent_at_all_is_zero() -> None:
    def fun(x: Any) -> Any:
        return lax.scan(lambda c, _: ((c[0] * 2, jnp.ones(())), None), (x, x), None, length=3)[0][1]

    assert dr.grad(fun)(0.3) == 0


# ------------------------------------------------------------------------------------------------------- before the loop


def bodies(fun: Any, *args: Any) -> list[set[str]]:
    return [{str(eqn.primitive) for eqn in equations(scan.params["jaxpr"].jaxpr)} for scan in scans(fun, *args)]


def test_constants_are_worked_on_before_the_loop() -> None:
    """What is computed from constants, in calls that take something else too, and what the derivative does not read."""
    places = np.array([2, -1, 0])

    @jax.jit
    def mixed(w: Any, x: Any) -> Any:
        return jnp.tanh(x) @ jnp.exp(w), jnp.floor(jnp.cosh(w)).sum()

    def fun(w: Any, x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            y, n = mixed(w, c)
            return jnp.sin(y)[places] + n * c, None
        return jnp.sum(lax.scan(body, x, None, length=3)[0])

    for got, want in zip(dr.grad(fun, (0, 1))(W, X), jax.grad(fun, (0, 1))(W, X), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    inside = bodies(dr.grad(fun, (0, 1)), W, X)
    assert len(inside) == 2
    for primitives in inside:
        assert not primitives & {"exp", "cosh", "floor"}, "constants are worked on at every step"
    np.testing.assert_allclose(dr.hessian(fun, 1)(W, X), jax.hessian(fun, 1)(W, X), rtol=1e-10)


def test_what_grows_stays_in_the_loop() -> None:
    """A number that is repeated is not read from an array of its own at every step."""
    def fun(s: Any, x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            return jnp.sin(c) * jnp.broadcast_to(s, c.shape), None
        return jnp.sum(lax.scan(body, x, None, length=3)[0])

    x = jnp.linspace(0.0, 1.0, 1000)
    first, _ = scans(dr.grad(fun, (0, 1)), 0.5, x)
    n_consts, _ = scan_layout(first.params)
    assert all(v.aval.shape != (1000,) for v in first.params["jaxpr"].jaxpr.invars[:n_consts])
    np.testing.assert_allclose(dr.grad(fun)(0.5, x), jax.grad(fun)(0.5, x), rtol=1e-12)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_loops_of_any_length(steps: int) -> None:
    def fun(w: Any, x: Any) -> Any:
        return jnp.sum(lax.while_loop(lambda s: s[1] < steps, lambda s: (jnp.exp(-w) @ s[0], s[1] + 1), (x, 0))[0] ** 2)

    def plain(w: Any, x: Any) -> Any:
        for _ in range(steps):
            x = jnp.exp(-w) @ x
        return jnp.sum(x**2)

    for grad in (dr.grad(fun, (0, 1)), jax.jit(dr.grad(fun, (0, 1)))):
        for got, want in zip(grad(W, X), jax.grad(plain, (0, 1))(W, X), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=0)


WINDOWS: dict[str, Callable[[Any, Any], Any]] = {
    "interior": lambda x, y: x.at[1:-1, 1:-1].set(y[1:-1, 1:-1] * x[2:, 1:-1]),
    "row": lambda x, y: x.at[2].set(jnp.sin(y[0] * x[-1])),
    "column": lambda x, y: x.at[:, -1].set(y[:, 1] * jnp.cos(x[:, 0])),
    "entry": lambda x, y: x.at[3, 1].set(x[0, 0] * y[1, 1]),
    "negative": lambda x, y: x.at[-2:, 1].set(y[:2, 0] * x[:2, 0]),
    "two, one over the other": lambda x, y: x.at[1:3].set(y[1:3] * x[:2]).at[2].set(x[0] ** 2),
    "outside, dropped": lambda x, y: x.at[7].set(y[0]) * y,
    "read": lambda x, y: x * x.at[1].get(mode="clip")[None] * y,
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_at_known_places_are_slices(name: str) -> None:
    def f(x: Any, y: Any) -> Any:
        return jnp.sum(lax.scan(lambda x, _: (0.9 * WINDOWS[name](x, y), None), x, None, length=4)[0] ** 3)

    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(4, 3)))
    assert_same(dr.grad(f, argnums=(0, 1))(x, y), jax.grad(f, argnums=(0, 1))(x, y))
    assert_same(dr.hvp(f, (x, y), (y, x)), jax.jvp(jax.grad(f, argnums=(0, 1)), (x, y), (y, x))[1])
    if name != "outside, dropped":
        program = str(jax.make_jaxpr(dr.grad(f, argnums=(0, 1)))(x, y))
        assert "scatter" not in program and "gather" not in program
