"""Taylor series: recurrences against nested pushes of jax, mpmath and ``jax.experimental.jet``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.experimental import jet as jax_jet
from test_laplacian import flat, network, same
from test_modes import CONSTRUCTS, SHORT, X

import dualrev
from dualrev import errors
from dualrev._jax.primitives import Primitive

V = jnp.array([0.2, 0.5, -0.3, 0.7])
ORDER = 4


def nested(f: Callable[[Any], Any], order: int) -> list[Any]:
    """The derivatives of a function of one number at 0, by pushes of pushes of jax."""
    found = [f]
    for _ in range(order):
        found.append(functools.partial(lambda previous, t: jax.jvp(previous, (t,), (jnp.ones_like(t),))[1], found[-1]))
    return [jax.jit(derivative)(jnp.zeros(())) for derivative in found]


@pytest.mark.parametrize(("name", "wrap"), [
    pytest.param(name, wrap, marks=pytest.mark.thorough if how == "eager" or name not in SHORT else (), id=f"{name}-{how}")
    for name in CONSTRUCTS for how, wrap in (("eager", lambda f: f), ("jit", jax.jit))])
def test_constructs(name: str, wrap: Any) -> None:
    f = flat(CONSTRUCTS[name])
    by_jax = flat(lambda x: jnp.sin(x) * x * x[0]) if name == "custom_vjp" else f  # jax pushes through no custom_vjp
    expected = nested(lambda t: by_jax(X + t * V + t**3 * X), ORDER)
    out, series = wrap(lambda x, v: dualrev.jet(f, (x,), ((v, jnp.zeros_like(v), 6 * x, jnp.zeros_like(v)),)))(X, V)
    same([out, *series], expected, 1e-8)


#: Functions of one number, with a point.
ANALYTIC: dict[str, tuple[Any, Any, float]] = {
    "exp": (jnp.exp, mpmath.exp, 0.3), "log": (jnp.log, mpmath.log, 1.7), "sin": (jnp.sin, mpmath.sin, 0.4),
    "cos": (jnp.cos, mpmath.cos, 0.4), "tan": (jnp.tan, mpmath.tan, 0.4), "tanh": (jnp.tanh, mpmath.tanh, 0.4),
    "sqrt": (jnp.sqrt, mpmath.sqrt, 1.4), "rsqrt": (jax.lax.rsqrt, lambda x: 1 / mpmath.sqrt(x), 1.4),
    "reciprocal": (lambda x: 1 / x, lambda x: 1 / x, 1.4), "square": (jnp.square, lambda x: x * x, 1.4),
    "x**5": (lambda x: x**5, lambda x: x**5, 1.1), "x**-3": (lambda x: x**-3, lambda x: x**-3, 1.1),
    "x**2.5": (lambda x: x**2.5, lambda x: x**2.5, 1.1), "x**x": (lambda x: x**x, lambda x: x**x, 1.1),
    "logistic": (jax.nn.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), 0.2), "atan": (jnp.arctan, mpmath.atan, 0.6),
    "asin": (jnp.arcsin, mpmath.asin, 0.3), "acosh": (jnp.arccosh, mpmath.acosh, 2.1), "asinh": (jnp.arcsinh, mpmath.asinh, 0.5),
    "atanh": (jnp.arctanh, mpmath.atanh, 0.3), "erf": (jax.scipy.special.erf, mpmath.erf, 0.3),
    "log1p": (jnp.log1p, mpmath.log1p, 0.3), "expm1": (jnp.expm1, mpmath.expm1, 0.3), "cbrt": (jnp.cbrt, mpmath.cbrt, 1.2),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ("tanh", "sin", "sqrt") else pytest.mark.thorough)
                                  for name in ANALYTIC])
def test_derivatives_of_order_10(name: str) -> None:
    f, exact, x = ANALYTIC[name]
    with mpmath.workdps(60):
        expected = [float(c) for c in mpmath.taylor(exact, mpmath.mpf(x), 10)]
    found = jax.jit(lambda x: dualrev.derivatives(f, x, 10))(x)
    np.testing.assert_allclose([d / math.factorial(k) for k, d in enumerate(found)], expected, rtol=1e-8,
                               atol=1e-12 * max(map(abs, expected)))


@pytest.mark.thorough
def test_an_operation_of_ever_new_ones() -> None:
    """The derivatives of digamma are polygamma functions, of which each is an operation of its own."""
    with mpmath.workdps(60):
        expected = [float(mpmath.polygamma(k, mpmath.mpf(2.2))) for k in range(4)]
    same(jnp.stack(dualrev.derivatives(jax.lax.digamma, 2.2, 3)), jnp.array(expected))


def equations(f: Any, order: int) -> int:
    """The number of products and quotients of a series."""
    jaxpr = jax.make_jaxpr(lambda x: dualrev.derivatives(f, x, order))(0.3)
    return sum(str(eqn.primitive) in ("mul", "div") for eqn in jaxpr.eqns)


@pytest.mark.parametrize("name", ["exp", "sin", "tanh", "sqrt", "logistic", "atan", "erf", "log"])
def test_the_cost_is_quadratic(name: str) -> None:
    f = ANALYTIC[name][0]
    few, many = equations(f, 8), equations(f, 16)
    assert many < 4.5 * few, f"{few} products to order 8, {many} to order 16: nested pushes take 256 times as many"


@pytest.mark.parametrize("scaled", [True, False])
def test_signature_of_jax(scaled: bool) -> None:
    def f(x: Any, y: Any) -> Any:
        return {"a": jnp.sin(x) * y, "b": [jnp.exp(y) + 1, jnp.ones(2)]}

    arguments = ((X, V), ([V, X, V], [X, V, V]))
    got, expected = (d.jet(f, *arguments, factorial_scaled=scaled) for d in (dualrev, jax_jet))
    same(got, expected)
    chosen = (X > 0, X, V), ([V, V], [V, X], [X, V])  # what a boolean's series would say has no meaning
    got, expected = (d.jet(jnp.where, *chosen, factorial_scaled=scaled) for d in (dualrev, jax_jet))
    same(got, expected)


def test_a_shorter_series_and_trees() -> None:
    def f(x: Any, y: Any) -> Any:
        return x["u"] * x["v"][0] * y

    x: dict[str, Any] = {"u": X, "v": (V,)}
    term = {"u": V, "v": (X,)}
    zero = jax.tree.map(jnp.zeros_like, x)
    got = dualrev.jet(f, (x, V), ([term], [X, V, X]))
    same(got, dualrev.jet(f, (x, V), ([term, zero, zero], [X, V, X])))
    same(got[1], nested(lambda t: f({"u": X + t * V, "v": (V + t * X,)}, V + t * X + t**2 / 2 * V + t**3 / 6 * X), 3)[1:])
    same(dualrev.jet(f, (x, V), ([], [X]))[1], [x["u"] * V * X])


@pytest.mark.thorough
def test_lines_and_numbers() -> None:
    coefficients = jax.jit(lambda x, v: dualrev.taylor(lambda x: {"n": network(x["w"])}, {"w": x}, {"w": v}, 6))(X, V)
    expected = nested(lambda t: network(X + t * V), 6)
    same([c["n"] for c in coefficients], [d / math.factorial(k) for k, d in enumerate(expected)], 1e-7)
    same(dualrev.derivatives(lambda x: (x**3, jnp.float32(2)), 2.0, 4)[1:],
         tuple([(jnp.array(d), jnp.float32(0)) for d in (12.0, 12.0, 6.0, 0.0)]))
    same(jax.vmap(lambda x: dualrev.derivatives(jnp.sin, x, 2)[2])(X), -jnp.sin(X))


@pytest.mark.thorough
def test_compositions() -> None:
    third = lambda x: dualrev.derivatives(lambda t: network(X + t * x), 0.0, 3)[3]  # noqa: E731

    def nested_third(x: Any) -> Any:
        f = lambda t: network(X + t * x)  # noqa: E731
        for _ in range(3):
            f = functools.partial(lambda previous, t: jax.jvp(previous, (t,), (1.0,))[1], f)
        return f(0.0)

    for d in (jax, dualrev):
        same(jax.jit(d.grad(third))(V), jax.grad(nested_third)(V), 1e-8)
    same(dualrev.derivatives(lambda x: dualrev.derivatives(jnp.sin, x, 2)[2], 0.3, 2)[2], jnp.sin(0.3))
    complex_found = dualrev.derivatives(lambda z: jnp.exp(1j * z), jnp.array(0.2 + 0.1j), 3)[3]
    same(complex_found, -1j * jnp.exp(1j * (0.2 + 0.1j)))


def test_a_long_series_of_a_loop() -> None:
    """y' = y by Euler's method: (1 + t / n)ⁿ, whose derivatives are known."""
    n = 50
    found = jax.jit(lambda t: dualrev.derivatives(
        lambda t: jax.lax.fori_loop(0, n, lambda _, y: y * (1 + t / n), jnp.ones(())), t, 12))(0.0)
    same(jnp.stack(found), jnp.array([math.perm(n, k) / n**k for k in range(13)]))


def test_errors() -> None:
    with pytest.raises(ValueError, match="taylor: order must be at least 1; got 0"):
        dualrev.taylor(jnp.sin, X, V, 0)
    with pytest.raises(TypeError, match="order must be an int"):
        dualrev.derivatives(jnp.sin, 1.0, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order must be at least 1: series must have a term"):
        dualrev.jet(jnp.sin, (X,), ([],))
    with pytest.raises(ValueError, match="one series for each primal; got 2 for 1 primals"):
        dualrev.jet(jnp.sin, (X,), ([V], [V]))
    with pytest.raises(TypeError, match=r"series\[0\] must be a tuple or list of the derivatives of primals\[0\]; got None"):
        dualrev.jet(jnp.sin, (X,), (None,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected a callable value, got 3: taylor differentiates"):
        dualrev.taylor(3, X, V, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"term 1 of the series of primals\[0\] must have the shape of its primal, \(4,\); got \(\)"):
        dualrev.jet(jnp.sin, (X,), ([V, 1.0],))
    with pytest.raises(ValueError, match="v must have the structure"):
        dualrev.taylor(jnp.sin, X, (V,), 2)
    with pytest.raises(TypeError, match=r"no coefficients of dtype int32, as primals\[1\] has.*Close over"):
        dualrev.jet(lambda x, n: x**n, (X, jnp.int32(2)), ([V], [jnp.int32(0)]))
    with pytest.raises(TypeError, match="must be of dtype float64, its primal's; got complex128"):
        dualrev.jet(jnp.sin, (X,), ([V.astype("complex128")],))
    with pytest.raises(ValueError, match=r"x must be a scalar.*got shape \(4,\).*jax.vmap"):
        dualrev.derivatives(jnp.sin, X, 2)
    with pytest.raises(TypeError, match="needs arrays as outputs"):
        dualrev.taylor(lambda x: "text", X, V, 2)
    with pytest.raises(TypeError, match="must be tuples or lists"):
        dualrev.jet(jnp.sin, X, (V,))  # type: ignore[arg-type]
    with pytest.raises(errors.NoDerivativeError, match="pure_callback"):
        dualrev.taylor(lambda x: jax.pure_callback(np.sin, x, x), X, V, 2)
    with pytest.raises(errors.MissingRuleError, match="in Taylor mode"):
        made = Primitive("made_up")
        made.def_impl(lambda x: x)
        made.def_abstract_eval(lambda x: x)
        dualrev.taylor(made.bind, X, V, 2)
