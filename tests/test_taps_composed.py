"""Taps within derivatives, other modes and rules; what can't carry them."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import same
from jax import lax
from jax.tree_util import tree_structure

import dualrev as dr
from dualrev._jax.new_primitives import perturbed_p, tap_p
from dualrev.inspection.taps.marks import asking

X = jnp.array([0.3, -0.7, 1.1])
W = jnp.array([[0.2, -0.4, 0.6], [1.0, 0.5, -0.3]])


def loss(w: Any, x: Any) -> Any:
    return jnp.sum(dr.tap(jnp.tanh(w * x), "h") ** 3)


def test_derivatives_of_taps() -> None:
    def penalized(w: Any) -> Any:
        value, found = dr.taps(loss)(w, X)
        return value + jnp.sum(found["h"].cotangent ** 2)

    def expected(w: Any) -> Any:
        return loss(w, X) + jnp.sum((3 * jnp.tanh(w * X) ** 2) ** 2)

    w = jnp.array([0.5, 0.3, -0.2])
    for of in (jax.grad, dr.grad, dr.hessian):
        same(jax.jit(of(penalized))(w), of(expected)(w), 1e-4)


def test_taps_under_vmap_are_of_each_example() -> None:
    xs = jnp.stack([X, 2 * X])
    found = jax.vmap(dr.taps(loss), in_axes=(None, 0))(X, xs)[1]["h"]
    same(found.cotangent, jnp.stack([dr.taps(loss)(X, x)[1]["h"].cotangent for x in xs]))


@pytest.mark.parametrize("grad", [dr.grad, jax.grad])
@pytest.mark.parametrize("wrap", [lambda u: u, jax.jit, lambda u: lambda x, w: lax.scan(lambda c, _: (u(c, w), None), x, None, 1)[0]])
def test_a_tap_inside_a_derivative_inside_the_function(grad: Any, wrap: Any) -> None:
    """The primal is seen, and the cotangent is that of the output by the primal."""
    u = wrap(lambda x, w: jnp.tanh(dr.tap(x * w, "h")))
    found = dr.taps(lambda w: grad(u)(1.0, w))(2.0)[1]["h"]
    h = jnp.tanh(2.0)
    same(jnp.ravel(found.value), jnp.array([2.0]))
    same(jnp.ravel(found.cotangent), jnp.array([-2.0 * 2.0 * h * (1 - h ** 2)]), 1e-5)


def test_taps_of_a_function_that_asks_for_taps() -> None:
    def outer(x: Any) -> Any:
        value, found = dr.taps(lambda x: jnp.sum(dr.tap(jnp.sin(x), "a") ** 2))(x)
        return value + jnp.sum(found["a"].cotangent * found["a"].value)

    found = dr.taps(outer)(X)[1]["a"]  # 3 sin(x)^2
    same(tuple(found)[:2], (jnp.sin(X), 6 * jnp.sin(X)), 1e-5)


def test_functions_with_rules() -> None:
    @jax.custom_vjp
    def g(x: Any) -> Any:
        return dr.tap(jnp.sin(x), "inside")

    g.defvjp(lambda x: (g(x), x), lambda x, ct: (2.0 * ct,))

    def f(x: Any) -> Any:
        return g(dr.tap(x, "before"))

    assert float(dr.taps(f, "before")(1.0)[1]["before"].cotangent) == 2.0
    assert float(dr.taps(f, cotangents=False)(1.0)[1]["inside"].value) == pytest.approx(np.sin(1.0))
    with pytest.raises(dr.errors.TapError, match=r"no cotangent reaches the tap 'inside' at .*taps_composed.py:\d+.*custom_vjp_call"):
        dr.taps(f)(1.0)
    root = dr.implicit(lambda a: dr.tap(jnp.sqrt(a), "guess"), lambda s, a: s * s - a)
    assert float(dr.taps(lambda a: root(dr.tap(a, "a")), "a")(4.0)[1]["a"].cotangent) == 0.25


def test_what_can_hand_no_values_out_says_so() -> None:
    inside = dr.region("forward")(lambda x: dr.tap(2.0 * x, "r"))
    with pytest.raises(dr.errors.TapError, match=r"tap 'r' at .*test_taps_composed.py.*'region'.*Tap what it takes or what it returns"):
        dr.taps(lambda x: inside(x))(1.0)
    with pytest.raises(dr.errors.TapError, match="'c' stands in the condition of a while_loop"):
        dr.taps(lambda x: lax.while_loop(lambda s: dr.tap(s, "c") < 3.0, lambda s: s + 1.0, x))(1.0)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="name must be a string; got 3"):
        dr.tap(X, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"returns float64\[3\]. Pass seed="):
        dr.taps(lambda x: dr.tap(x, "x"))(X)
    with pytest.raises(ValueError, match=r"seed must have the shapes .*got \[2\] for float64\[3\]"):
        dr.taps(lambda x: dr.tap(x, "x"), seed=X[:2])(X)
    with pytest.raises(TypeError, match="seed must have the structure"):
        dr.taps(lambda x: dr.tap(x, "x"), seed=(X,))(X)
    with pytest.raises(ValueError, match="record must be the number of steps"):
        dr.taps(loss, record=0)
    with pytest.raises(TypeError, match="leave out argnums"):
        dr.taps(loss, cotangents=False, argnums=0)
    with pytest.raises(TypeError, match="names must be a string"):
        dr.taps(loss, [1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
        dr.taps(loss, stride=2)  # type: ignore[call-arg]
    with pytest.raises(jax.errors.ConcretizationTypeError):
        dr.taps(lambda x: dr.tap(x, "x") if x > 0 else x)(1.0)


def test_an_error_inside_leaves_nothing_behind() -> None:
    def broken(x: Any) -> Any:
        dr.tap(x, "x")
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        dr.taps(broken)(1.0)
    assert "tap" not in str(jax.make_jaxpr(lambda x: dr.tap(x, "x") * 2.0)(1.0))


def test_threads_do_not_see_each_others_taps() -> None:
    seen: dict[str, str] = {}
    inside, done = threading.Event(), threading.Event()

    def f(x: Any) -> Any:
        inside.set()
        assert done.wait(30)
        return dr.tap(x, "x") * 2.0

    def other() -> None:
        inside.wait(30)
        seen["jaxpr"] = str(jax.make_jaxpr(lambda x: dr.tap(x, "y") * 2.0)(1.0))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert set(dr.taps(f)(1.0)[1]) == {"x"}
    thread.join()
    assert "tap" not in seen["jaxpr"]


def test_other_modes_read_a_tap_as_the_identity() -> None:
    def marked(x: Any) -> Any:
        return tap_p.bind(x, name="h", leaf=0, tree=tree_structure(0), axes=())

    def f(mark: Any) -> Any:
        return lambda x: jnp.sum(mark(jnp.sin(x) * x[::-1]) ** 2)

    a, b = f(marked), f(lambda h: h)
    assert "tap" in str(jax.make_jaxpr(a)(X))
    for of in (dr.grad, dr.hessian, dr.laplacian, dr.hessian_diagonal, jax.hessian):
        same(jax.jit(of(a))(X), jax.jit(of(b))(X), 1e-5)
    same(dr.jvp(a, (X,), (X,)), dr.jvp(b, (X,), (X,)))
    same(dr.derivatives(lambda t: a(t * X), 0.5, 3), dr.derivatives(lambda t: b(t * X), 0.5, 3), 1e-5)
    same(dr.jacobian(lambda x: marked(x ** 2), engine="elimination")(X), jnp.diag(2 * X))
    for pattern in (dr.sparse.hessian_pattern(a)(X), dr.sparse.hessian_pattern(b)(X)):
        assert pattern.todense().astype(int).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    pattern = dr.sparse.jacobian_pattern(lambda x: marked(x ** 2))(X)
    assert pattern.todense().astype(int).tolist() == np.eye(3, dtype=int).tolist()
    same(jax.vmap(dr.grad(a), in_axes=1)(jnp.stack([X, X], 1)), jnp.stack([dr.grad(b)(X)] * 2), 1e-5)
    same(jax.linear_transpose(marked, X)(X)[0], X)
    with asking():
        assert "tap" in str(jax.make_jaxpr(lambda x: dr.tap(x, "x"))(X))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_what_is_perturbed_has_the_derivative_of_a_sum(dtype: str) -> None:
    """The second operand's value is not read; its derivative is that of an addend, to any order, mapped or not."""
    x, e = jnp.array([0.3, -0.7, 1.1], dtype), jnp.array([5.0, 6.0, 7.0], dtype)

    def f(x: Any, e: Any) -> Any:
        return jnp.sum(jnp.real(perturbed_p.bind(x * x, e * e) ** 3))

    def expected(x: Any, e: Any) -> Any:
        return jnp.sum(jnp.real((x * x + e * e - lax.stop_gradient(e * e)) ** 3))

    for ours, theirs in ((dr, jax), (jax, jax)):
        same(ours.value_and_grad(f, (0, 1))(x, e), theirs.value_and_grad(expected, (0, 1))(x, e))
        rows = jax.vmap(ours.grad(f, (0, 1)), in_axes=(1, None))(jnp.stack([x, 2 * x], 1), e)
        same(rows[1], jax.vmap(jax.grad(expected, 1), in_axes=(0, None))(jnp.stack([x, 2 * x]), e))
    if dtype == "float64":
        same(dr.hessian(f, (0, 1))(x, e), jax.hessian(expected, (0, 1))(x, e))
