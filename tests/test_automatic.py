"""``engine="auto"``: the results of the way that it chooses, and the choice, with constants that are given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dualrev
from dualrev import time_model
from dualrev.functional import automatic
from dualrev.time_model import machine


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constants that come with the package for jax 0.10, whatever this machine was calibrated to."""
    monkeypatch.setattr(machine, "_constants", lambda backend: time_model.shipped("cpu", "0.10.2"))


def ways_of(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What is chosen from now on."""
    found: list[str | None] = []
    choose = automatic.Automatic._cheapest

    def noted(*args: Any) -> str | None:
        found.append(choose(*args))
        return found[-1]

    monkeypatch.setattr(automatic.Automatic, "_cheapest", noted)
    return found


def orbit(theta: jax.Array, y: jax.Array) -> jax.Array:
    """Two parameters of 100 Runge-Kutta steps."""
    def field(y: jax.Array) -> jax.Array:
        return jnp.stack([theta[0] * (y[1] - y[0]), y[0] * (1.0 - y[2]) - y[1], y[0] * y[1] - theta[1] * y[2]])

    def step(y: jax.Array, _: None) -> tuple[jax.Array, None]:
        first = field(y)
        second = field(y + 0.01 * first)
        third = field(y + 0.01 * second)
        return y + 0.01 * (first + second + third), None

    return jnp.sum(jax.lax.scan(step, y, None, length=100)[0])


def network(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.tanh(x @ weights["w"] + weights["b"][None]) ** 2)


ORBIT = (jnp.array([1.0, 0.3]), jnp.linspace(0.0, 1.0, 3 * 300).reshape(3, 300))
NETWORK = ({"w": jnp.linspace(-1.0, 1.0, 48).reshape(8, 6), "b": jnp.ones(6)}, jnp.ones((64, 8)))


def test_pushes_for_two_parameters_where_storing_states_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    # Memory so slow that stacks of states decide.
    slow = time_model.shipped("cpu", "0.10.2").replace(fresh_from=0.0, fresh_s=1e-7)
    monkeypatch.setattr(machine, "_constants", lambda backend: slow)
    found = ways_of(monkeypatch)
    gradient = dualrev.grad(orbit, engine="auto")(*ORBIT)
    assert found == ["forward"]
    np.testing.assert_array_equal(gradient, dualrev.grad(orbit, engine="forward")(*ORBIT))
    np.testing.assert_allclose(gradient, jax.grad(orbit)(*ORBIT), rtol=1e-10)


def test_one_pull_for_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ways_of(monkeypatch)
    value, gradient = jax.jit(dualrev.value_and_grad(network, engine="auto"))(*NETWORK)
    assert found == ["reverse"]
    expected = jax.jit(dualrev.value_and_grad(network))(*NETWORK)
    jax.tree.map(np.testing.assert_array_equal, (value, gradient), expected)


def test_many_inputs_are_pulled_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ways_of(monkeypatch)
    dualrev.grad(orbit, argnums=1, engine="auto")(*ORBIT)
    assert found == []


def test_a_choice_is_kept_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ways_of(monkeypatch)
    gradient = dualrev.grad(lambda x, scale: jnp.sum(scale * jnp.sin(x)), engine="auto")
    for n in (3, 3, 4, 3):
        gradient(jnp.ones(n), 2.0)
    assert len(found) == 2


def test_elimination_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicted for programs of few numbers; its result is that of ``engine="elimination"``."""
    def f(x: jax.Array) -> jax.Array:
        a, b = x[0] * jnp.sin(x[1]), x[2] / x[3]
        return jnp.stack([a * b, a + b, jnp.exp(a), b**2])

    monkeypatch.setattr(automatic.Automatic, "_cheapest",
                        lambda _, times, usual: "elimination" if "elimination" in times else usual)
    x, jacobian = jnp.arange(1.0, 5.0), dualrev.jacobian(f)
    assert jacobian.plan(x).chosen == "elimination"
    np.testing.assert_array_equal(jax.jit(jacobian)(x), jax.jit(dualrev.jacobian(f, engine="elimination"))(x))
    np.testing.assert_allclose(jax.jit(jacobian)(x), jax.jacobian(f)(x), rtol=1e-12)
    asked = [dualrev.jacobian(f, **options) for options in ({"chunk_size": 2}, {"zero_wins": True}, {"allow_int": True})]
    assert [plan.plan(x).left_out["elimination"] for plan in asked] == ["an option is about sweeps"] * 2 + [
        "derivatives of other than real inputs are asked for"]


@pytest.mark.parametrize("engine", ["forward", "reverse"])
@pytest.mark.parametrize(("call", "args"), [
    (lambda engine: dualrev.grad(lambda x: (jnp.sum(x ** 3), {"twice": 2 * x}), has_aux=True, engine=engine), (jnp.arange(3.0),)),
    (lambda engine: dualrev.value_and_grad(lambda x, y: jnp.vdot(x, y), argnums=(1, 0), engine=engine), (jnp.ones(3), jnp.ones(3))),
    (lambda engine: dualrev.grad(lambda x, y: x * y, argnums=-1, engine=engine), (2.0, 3.0)),
    (lambda engine: dualrev.grad(lambda z: z ** 3, holomorphic=True, engine=engine), (1.0 + 2.0j,)),
    (lambda engine: dualrev.grad(lambda z: jnp.real(z * jnp.conj(z)), engine=engine), (1.0 + 2.0j,)),
    (lambda engine: dualrev.grad(lambda x, n: jnp.sum(x ** 2) * n, argnums=(0, 1), allow_int=True, engine=engine), (jnp.ones(2), 3)),
    (lambda engine: functools.partial(dualrev.grad(lambda x, *, power: jnp.sum(x) ** power, engine=engine), power=3), (jnp.ones(2),)),
    (lambda engine: dualrev.hessian(lambda x: jnp.prod(x), engine=engine), (jnp.arange(1.0, 4.0),)),
    (lambda engine: jax.jit(dualrev.jacobian(lambda x: jnp.outer(x, x)[:2], engine=engine)), (jnp.arange(1.0, 4.0),)),
])
def test_the_results_are_those_of_the_engine_that_is_chosen(monkeypatch: pytest.MonkeyPatch, engine: str,
                                                            call: Callable[[str], Any], args: tuple[Any, ...]) -> None:
    asked = []

    def choose(_: Any, times: dict[str, float], usual: str) -> str:
        asked.append(next(name for name in times if name == engine))
        return asked[-1]

    monkeypatch.setattr(automatic.Automatic, "_cheapest", choose)
    found, expected = call("auto")(*args), call(engine)(*args)
    assert asked
    assert str(jax.tree.structure(found)) == str(jax.tree.structure(expected))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_the_trace_of_the_choice_is_the_result() -> None:
    """Within jit, the function runs once for each way and no more; results that do not depend on arguments stay what they are."""
    runs: list[int] = []

    def f(x: jax.Array, y: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        runs.append(0)
        return jnp.sum(jnp.sin(x) * y), {"number": 3, "name": "f", "of": y}

    @jax.jit
    def gradient(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        found, aux = dualrev.grad(f, has_aux=True, engine="auto")(x, 2.0 * y)
        assert type(aux["number"]) is int and aux["name"] == "f"
        return found, aux["of"]

    x = jnp.arange(3.0)
    found, of = gradient(x, x + 1.0)
    assert len(runs) == 2
    np.testing.assert_allclose(found, jnp.cos(x) * (2.0 * x + 2.0))
    np.testing.assert_allclose(of, 2.0 * x + 2.0)
    np.testing.assert_allclose(jax.vmap(gradient)(x[None], x[None])[0][0], jnp.cos(x) * 2.0 * x)


def test_python_control_flow_on_values_is_pulled() -> None:
    gradient = dualrev.grad(lambda x: x ** 2 if x > 0 else -x, engine="auto")
    assert float(gradient(3.0)) == 6.0
    assert float(gradient(-3.0)) == -1.0


@pytest.mark.parametrize("make", [dualrev.grad, dualrev.value_and_grad])
def test_errors_are_those_of_the_engine(make: Any) -> None:
    for call, error in ((lambda g: g(jnp.ones(2)), TypeError), (lambda g: g(1), TypeError), (lambda g: g(), TypeError)):
        with pytest.raises(error) as expected:
            call(make(lambda x: x * 2))
        with pytest.raises(error) as found:
            call(make(lambda x: x * 2, engine="auto"))
        assert str(found.value) == str(expected.value)
    with pytest.raises(ValueError, match="engine"):
        make(lambda x: x, engine="fastest")


def test_what_only_a_push_can_follow_is_pushed() -> None:
    @jax.custom_jvp
    def f(x: jax.Array) -> jax.Array:
        return x ** 2

    f.defjvp(lambda p, t: (f(p[0]), 2 * p[0] * jnp.abs(t[0])))  # no linear map: nothing can be pulled through it
    assert float(dualrev.grad(f, engine="auto")(3.0)) == 6.0


@pytest.mark.thorough
def test_under_other_transforms() -> None:
    theta, y = ORBIT[0], ORBIT[1][:, :8]
    gradient = dualrev.grad(orbit, engine="auto")
    expected = jax.jacfwd(jax.grad(orbit))(theta, y)
    np.testing.assert_allclose(dualrev.jacfwd(gradient)(theta, y), expected, rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(gradient)(theta, y), expected, rtol=1e-9)
    np.testing.assert_allclose(jax.vmap(gradient, (0, None))(jnp.stack([theta, theta]), y)[1], jax.grad(orbit)(theta, y), rtol=1e-9)


def test_a_policy_by_time() -> None:
    f = dualrev.checkpoint(lambda x: jnp.sum(jnp.exp(jnp.sin(x))), policy=dualrev.policies.min_cut(objective="time"))
    x = jnp.linspace(0.0, 1.0, 50)
    np.testing.assert_allclose(dualrev.grad(f)(x), jax.grad(lambda x: jnp.sum(jnp.exp(jnp.sin(x))))(x), rtol=1e-12)
    with pytest.raises(ValueError, match="objective must be 'bytes' or 'time'"):
        dualrev.policies.min_cut(objective="seconds")  # type: ignore[call-overload]
    assert repr(dualrev.policies.min_cut) == "dualrev.policies.min_cut"
