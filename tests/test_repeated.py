"""Un-jitted pulls and pushes that are compiled as a whole: they give what single operations give, hold nothing, and are bounded."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same

import dualrev as dr
from dualrev.functional import repeated


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(repeated, "_programs", {})
    monkeypatch.setattr(repeated, "_seen", {})
    monkeypatch.setattr(repeated, "_n_compiled", 0)
    monkeypatch.setattr(repeated, "SEEN", 3)
    yield


def mixed(p: Any) -> Any:
    """Scalars of Python, integers, entries, a reused value, a custom rule and a compiled part."""
    a, n = p["a"], p["n"]
    h = jnp.tanh(a @ p["w"]) * 2.0 + n.astype(a.dtype)
    h = jax.nn.relu(h) + jax.jit(lambda x: jnp.sin(x) * x)(h) + h[:1] * h[1, 1]
    return jnp.sum(h * h[:, ::-1]) + 3.0 * p["s"]


def point(scale: float, rows: int = 3) -> Any:
    return {"a": scale * jnp.linspace(-1.0, 1.0, rows * 4).reshape(rows, 4), "w": jnp.linspace(0.1, 2.0, 16).reshape(4, 4) / scale,
            "n": jnp.int32(2), "s": jnp.asarray(scale)}


def same(x: Any, y: Any) -> None:
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        if np.asarray(a).dtype != jax.dtypes.float0:
            assert_same(a, b)
        assert np.shape(a) == np.shape(b) and a.dtype == b.dtype and getattr(a, "weak_type", False) == getattr(b, "weak_type", False)


def test_pulls_and_pushes() -> None:
    for k in range(7):
        x = point(1.0 + k / 8)
        same(dr.grad(mixed, allow_int=True)(x), jax.grad(mixed, allow_int=True)(x))
        J = dr.linearize(mixed, x)[1]
        t = jax.tree.map(lambda a: jnp.ones_like(a) if a.dtype != jnp.int32 else np.zeros((), jax.dtypes.float0), x)
        same(J(t), jax.jvp(mixed, (x,), (t,))[1])
    assert len(repeated._programs) == 2


def test_other_shapes_scalars_and_tracers() -> None:
    """A structure that is compiled serves neither other shapes nor traced values, and Python scalars are operands."""
    gradient = dr.grad(mixed, allow_int=True)
    for _ in range(4):
        gradient(point(1.0))
    same(gradient(point(1.0, rows=5)), jax.grad(mixed, allow_int=True)(point(1.0, rows=5)))
    same(jax.jit(gradient)(point(0.5)), jax.grad(mixed, allow_int=True)(point(0.5)))
    assert len(repeated._programs) == 1

    def f(x: Any, c: float) -> Any:
        return jnp.sin(x * c) * jnp.cos(x) + x

    for k in range(9):
        same(dr.grad(f)(0.5, float(k)), jax.grad(f)(0.5, float(k)))
        same(dr.grad(dr.grad(f))(0.5, float(k)), jax.grad(jax.grad(f))(0.5, float(k)))
        same(jax.vmap(dr.grad(f), (0, None))(jnp.arange(3.0), float(k)), jax.vmap(jax.grad(f), (0, None))(jnp.arange(3.0), float(k)))
    n_compiled = sum(program._cache_size() for program in repeated._programs.values())  # type: ignore[attr-defined]
    assert n_compiled == len(repeated._programs)


def chain(n: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        for _ in range(n):
            x = jnp.sin(x) * x
        return x

    return f


def test_what_is_rare_is_not_compiled_and_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(2, 12):
        dr.grad(chain(n))(0.5)
    assert not repeated._programs and repeated._n_compiled == 0
    monkeypatch.setattr(repeated, "KEPT", 2)
    for n in range(2, 7):
        for _ in range(3):
            dr.grad(chain(n))(0.5)
    assert len(repeated._programs) <= 2 and repeated._n_compiled == 2  # the next ones have to be seen as often again
    monkeypatch.setattr(repeated, "COUNTED", 4)
    for n in range(2, 12):
        dr.grad(chain(n))(0.25)
    assert len(repeated._seen) <= 4
    for _ in range(12):
        dr.grad(chain(repeated.MOST))(0.5)
    assert len(repeated._programs) <= 2


def test_a_program_goes_with_its_function() -> None:
    def step() -> Any:
        held = jnp.arange(3.0)
        inner = jax.jit(lambda x: jnp.sin(x) * held)
        for _ in range(5):
            dr.grad(lambda x: jnp.sum(inner(x) * inner(x) + x))(jnp.ones(3))
        assert len(repeated._programs) == 1
        return weakref.ref(held)

    held = step()
    gc.collect()
    assert held() is None and not repeated._programs


def test_settings_are_part_of_a_structure() -> None:
    def f(x: Any) -> Any:
        return jnp.where(x < 1, x, jnp.sqrt(x)) * 1.0 + jnp.sin(x) * 0.0

    for _ in range(6):
        assert np.isnan(dr.grad(f)(0.0)) and float(dr.grad(f, zero_wins=True)(0.0)) == 1.0


def test_invalid_values_are_located() -> None:
    def f(x: Any) -> Any:
        return jnp.sum(jnp.sqrt(jnp.sin(x) * x))

    for _ in range(5):
        dr.grad(f)(jnp.ones(2))
    assert len(repeated._programs) == 1
    with jax.debug_nans(True), pytest.raises(dr.errors.InvalidValueError, match=r"test_repeated.py:\d+"):
        dr.grad(f)(jnp.array([1.0, 0.0]))


def test_deleted_residuals_are_an_error() -> None:
    x = jnp.ones(3)
    for _ in range(5):
        pull = dr.vjp(lambda x: jnp.sum(jnp.sin(x) * x + jnp.cos(x)), x)[1]
        pull(1.0)
    x.delete()
    with pytest.raises(RuntimeError, match="deleted"):
        pull(1.0)


def test_effects_happen_once_for_each_pull() -> None:
    seen: list[float] = []

    @jax.custom_vjp
    def noted(x: Any) -> Any:
        return x

    def bwd(_: None, ct: Any) -> Any:
        jax.debug.callback(lambda v: seen.append(float(v)), ct)
        return (ct,)

    noted.defvjp(lambda x: (x, None), bwd)
    inner = jax.jit(lambda x: noted(jnp.sin(x)) * 2.0)
    for _ in range(6):
        dr.grad(lambda x: inner(x) * x + x)(0.5)
    jax.effects_barrier()
    assert seen == [1.0] * 6


def test_threads() -> None:
    """All pull the same structures at once, and each gets its own results."""
    wrong: list[Any] = []

    def work(k: int) -> None:
        for i in range(8):
            x = 0.1 * k + 0.01 * i
            if not np.allclose(dr.grad(chain(4))(x), expected(x), rtol=1e-6):
                wrong.append((k, i))

    expected = jax.jit(jax.grad(chain(4)))
    expected(0.0)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
