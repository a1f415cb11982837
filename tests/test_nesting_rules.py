"""Users' own rules, checkpoints and constants inside both engines and jax."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, FACES, Face, assert_close, assert_same
from jax import lax

import dualrev


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_jvp_is_respected(d: Face) -> None:
    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def apply(f: Any, x: Any, scale: Any) -> Any:
        return f(x) * scale

    @apply.defjvp
    def _(f: Any, primals: Any, tangents: Any) -> Any:
        x, scale = primals
        tx, ts = tangents
        return apply(f, x, scale), 10 * tx + 100 * ts

    assert_same(d.grad(lambda x, s: apply(jnp.sin, x, s), (0, 1))(1.0, 2.0), (jnp.float64(10.0), jnp.float64(100.0)))
    assert_same(jax.jit(d.grad(lambda x, s: apply(jnp.sin, x, s), (0, 1)))(1.0, 2.0), (jnp.float64(10.0), jnp.float64(100.0)))
    assert d.grad(lambda x: apply(jnp.sin, x, 2.0))(1.0) == 10.0
    assert d.jvp(jax.vmap(lambda x: apply(jnp.sin, x, 2.0)), (jnp.ones(2),), (jnp.ones(2),))[1].tolist() == [10.0, 10.0]


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_jvp_with_symbolic_zeros(d: Face) -> None:
    seen: list[tuple[bool, bool]] = []
    is_zero = lambda t: type(t) is jax.custom_derivatives.SymbolicZero  # noqa: E731

    @jax.custom_jvp
    def f(x: Any, y: Any) -> Any:
        return x * y

    def rule(primals: Any, tangents: Any) -> Any:
        (x, y), (tx, ty) = primals, tangents
        seen.append((is_zero(tx), is_zero(ty)))
        total = jnp.zeros_like(x)
        total = total if is_zero(tx) else total + 2 * tx * y
        return f(x, y), total if is_zero(ty) else total + 3 * x * ty

    f.defjvp(rule, symbolic_zeros=True)
    assert d.grad(lambda x: f(x, 5.0))(2.0) == 10.0
    assert seen[-1] == (False, True)
    assert d.grad(lambda y: f(5.0, y))(2.0) == 15.0
    assert seen[-1] == (True, False)
    assert d.grad(f, (0, 1))(2.0, 5.0) == (10.0, 6.0)
    assert seen[-1] == (False, False)
    assert d.grad(jax.jit(lambda x: f(x, 5.0)))(2.0) == 10.0
    assert d.grad(lambda x: lax.scan(lambda c, _: (f(c, 5.0), None), x, None, length=2)[0])(1.0) == 100.0


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_vjp_is_respected(d: Face) -> None:
    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def apply(f: Any, x: Any, p: Any) -> Any:
        return f(x) * p["w"]

    def fwd(f: Any, x: Any, p: Any) -> Any:
        return apply(f, x, p), (x, None, {"k": p["w"]})

    def bwd(f: Any, res: Any, ct: Any) -> Any:
        return (10 * ct, {"w": 100 * ct * res[2]["k"], "i": None})

    apply.defvjp(fwd, bwd)

    def program(x: Any, w: Any) -> Any:
        return apply(jnp.sin, x, {"w": w, "i": 3})

    assert d.grad(program, (0, 1))(1.0, 2.0) == (10.0, 200.0)
    assert jax.jit(d.grad(program, (0, 1)))(1.0, 2.0) == (10.0, 200.0)
    assert_close(d.jvp(program, (1.0, 2.0), (1.0, 1.0))[1], 210.0)
    assert_close(jax.jit(lambda x: d.jvp(program, (x, 2.0), (1.0, 1.0))[1])(1.0), 210.0)
    xs = jnp.array([1.0, 2.0])
    assert jax.vmap(d.grad(program))(xs, xs).tolist() == [10.0, 10.0]
    assert d.grad(lambda xs: jax.vmap(program)(xs, xs * 0 + 2).sum())(xs).tolist() == [10.0, 10.0]


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_vjp_with_symbolic_zeros(d: Face) -> None:
    seen: list[Any] = []

    @jax.custom_vjp
    def f(x: Any, y: Any) -> Any:
        return x * y, x + y

    def fwd(x: Any, y: Any) -> Any:
        seen.append((x.perturbed, y.perturbed))
        return f(x.value, y.value), (x.value, y.value)

    def bwd(res: Any, cts: Any) -> Any:
        x, y = res
        product, total = cts
        zero = isinstance(total, jax.custom_derivatives.SymbolicZero)
        seen.append(zero)
        return (2 * product * y, 3 * product * x)

    f.defvjp(fwd, bwd, symbolic_zeros=True)
    assert d.grad(lambda x: f(x, 5.0)[0])(2.0) == 10.0
    assert (True, False) in seen
    assert d.grad(lambda x, y: f(x, y)[0], (0, 1))(2.0, 5.0) == (10.0, 6.0)
    assert (True, True) in seen
    if d.engine == "reverse":
        assert True in seen


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_rules_with_python_control_flow(d: Face) -> None:
    @jax.custom_vjp
    def f(x: Any) -> Any:
        return jnp.sin(x) if x > 0 else jnp.cos(x)

    f.defvjp(lambda x: (f(x), x), lambda x, ct: (2 * ct if x > 0 else 3 * ct,))
    assert d.value_and_grad(f)(2.0)[1] == 2.0
    assert d.value_and_grad(f)(-2.0)[1] == 3.0

    @jax.custom_jvp
    def g(x: Any) -> Any:
        return jnp.sin(x) if x > 0 else jnp.cos(x)

    g.defjvp(lambda p, t: (g(*p), (2 if p[0] > 0 else 3) * t[0]))
    assert d.grad(g)(2.0) == 2.0
    assert d.grad(g)(-2.0) == 3.0


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_rules_that_close_over_traced_values(d: Face) -> None:
    def outer(x: Any) -> Any:
        @jax.custom_jvp
        def f(y: Any) -> Any:
            return x * y

        f.defjvp(lambda p, t: (x * p[0], x * t[0]))
        return f

    xs = jnp.arange(3.0)
    _, moved = d.jvp(lambda z: jax.vmap(lambda x: outer(x)(z))(xs), (1.0,), (2.0,))
    assert moved.tolist() == [0.0, 2.0, 4.0]
    assert d.grad(lambda z: jax.vmap(lambda x: outer(x)(z))(xs).sum())(1.0) == 3.0
    assert d.grad(lambda x: d.grad(lambda y: outer(x)(y) * y)(2.0))(3.0) == 4.0


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_vjp_that_differentiates_inside(d: Face) -> None:
    def f(x: Any) -> Any:
        return x**2

    @jax.custom_vjp
    def g(x: Any) -> Any:
        return f(x)

    g.defvjp(lambda x: d.vjp(f, x), lambda pull, ct: pull(ct))
    assert d.grad(g)(3.0) == 6.0
    assert d.grad(d.grad(g))(3.0) == 2.0
    assert jax.jit(lambda x: d.vjp(g, x)[1])(1.0)(3.0)[0] == 6.0


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_custom_rules_of_integers(d: Face) -> None:
    @jax.custom_jvp
    def f(x: Any, n: Any) -> Any:
        return x * n, n

    f.defjvp(lambda p, t: (f(*p), (2 * t[0], np.zeros((), jax.dtypes.float0))))
    assert d.grad(lambda x: f(x, 3)[0])(1.0) == 2.0
    _, moved = d.jvp(f, (1.0, 3), (1.0, np.zeros((), jax.dtypes.float0)))
    assert moved[0] == 2.0
    assert moved[1].dtype == jax.dtypes.float0


@pytest.mark.thorough
@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_libraries_of_jax_that_carry_custom_rules(d: Face) -> None:
    x = jnp.array([0.3, -0.7, 2.0])
    for f in (jax.nn.relu, jax.nn.silu, jax.nn.gelu, jax.nn.softplus, jax.nn.log_softmax, jax.scipy.special.logsumexp, jnp.sinc,
              jax.nn.relu6):
        assert_close(d.grad(lambda x, f=f: jnp.sum(f(x) * x))(x), jax.grad(lambda x, f=f: jnp.sum(f(x) * x))(x))


@pytest.mark.thorough
@pytest.mark.parametrize("d", FACES, ids=ENGINES)
@pytest.mark.parametrize("policy", ["everything_saveable", "nothing_saveable", "dots_saveable", None])
def test_checkpoint_policies(d: Face, policy: str | None) -> None:
    a = jnp.arange(6.0).reshape(2, 3) / 5

    def layer(x: Any) -> Any:
        return jnp.sin(a.T @ jnp.tanh(a @ x)) * x

    chosen = None if policy is None else getattr(jax.checkpoint_policies, policy)
    saved = jax.checkpoint(layer, policy=chosen)
    x = jnp.array([0.3, -0.7, 2.0])
    assert_close(d.jacrev(lambda x: saved(saved(x)))(x), jax.jacrev(lambda x: layer(layer(x)))(x))
    assert_close(d.jacfwd(d.grad(lambda x: saved(x).sum()))(x), jax.hessian(lambda x: layer(x).sum())(x))


def test_checkpoint_saves_memory() -> None:
    def layer(x: Any) -> Any:
        for _ in range(10):
            x = jnp.sin(x) * jnp.exp(-x)
        return x

    x = jnp.ones(1000)
    plain = dualrev.linearize(layer, x)[1].residual_bytes
    saved = dualrev.linearize(jax.checkpoint(layer), x)[1].residual_bytes
    assert saved <= plain / 4


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_stop_gradient(d: Face) -> None:
    assert d.grad(lambda x: x * lax.stop_gradient(x))(3.0) == 3.0
    assert d.jvp(lambda x: x * lax.stop_gradient({"a": x})["a"], (3.0,), (1.0,))[1] == 3.0
    assert d.grad(lambda x: d.grad(lambda y: y * lax.stop_gradient(x * y))(x))(3.0) == 0.0


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_prints_pass_through(d: Face, capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        jax.debug.print("x = {}", x)
        return jnp.sin(x)

    assert_close(jax.jit(d.grad(f))(0.5), np.cos(0.5))
    jax.effects_barrier()
    assert "x = 0.5" in capsys.readouterr().out
