"""Derivatives at points where a function has a kink, a pole or a limit: the documented values, which are the table's policy.

The values are jax's unless ``jax`` says otherwise; both engines give them.  One line for each: the operation whose row decides,
what, the function, the point, the derivative by each argument, and jax's own where it differs (``"none"``: it has no rule).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

inf, nan = float("inf"), float("nan")


class Edge(NamedTuple):
    """A point and the derivative there."""

    primitive: str
    what: str
    fun: Callable[..., Any]
    point: tuple[Any, ...]
    value: tuple[Any, ...]
    #: jax's own value where it differs; a dictionary from the release in which it came.
    jax: Any = None
    #: Options of the call.
    options: dict[str, Any] = {}  # noqa: RUF012 (never written)


def array(x: Any) -> Any:
    return jnp.asarray(x, "float64")


def power(x: Any, y: Any) -> Any:
    return lax.pow(array(x), array(y))


EDGES = [
    Edge("abs", "|x| at 0", jnp.abs, (0.0,), (1.0,)),
    Edge("abs", "|x + 0i| at 0, complex", lambda x: jnp.abs(x.astype(complex)), (0.0,), (0.0,)),
    Edge("sign", "sign(x) at 0", jnp.sign, (0.0,), (0.0,)),
    Edge("max", "max(x, y) at a tie", lax.max, (1.0, 1.0), (0.5, 0.5)),
    Edge("max", "max(x, y) at y = nan", lax.max, (1.0, nan), (0.0, 0.0)),
    Edge("min", "min(x, y) at a tie", lax.min, (1.0, 1.0), (0.5, 0.5)),
    Edge("max", "relu(x) = jax.nn.relu at 0", jax.nn.relu, (0.0,), (0.0,)),
    Edge("max", "max(x, 0) at 0", lambda x: jnp.maximum(x, 0.0), (0.0,), (0.5,)),
    Edge("max", "leaky relu at 0", jax.nn.leaky_relu, (0.0,), (1.0,)),
    Edge("clamp", "clamp(0, x, 1) at x = 0", lambda x: lax.clamp(0.0, x, 1.0), (0.0,), (0.0,)),
    Edge("clamp", "clamp(0, x, 1) at x = 1", lambda x: lax.clamp(0.0, x, 1.0), (1.0,), (0.0,)),
    Edge("clamp", "clamp(l, 0, 1) at l = 0", lambda low: lax.clamp(low, array(0.0), array(1.0)), (0.0,), (0.0,)),
    Edge("clamp", "clamp(0, 1, u) at u = 1", lambda high: lax.clamp(array(0.0), array(1.0), high), (1.0,), (0.0,)),
    Edge("max", "jnp.clip(x, 0, 1) at 0", lambda x: jnp.clip(x, 0.0, 1.0), (0.0,), (0.5,)),
    Edge("sqrt", "√x at 0", jnp.sqrt, (0.0,), (inf,)),
    Edge("rsqrt", "1/√x at 0", lax.rsqrt, (0.0,), (-inf,)),
    Edge("cbrt", "∛x at 0", jnp.cbrt, (0.0,), (inf,)),
    Edge("sqrt", "√(x·x) at 0, of a vector", lambda x: jnp.sqrt(jnp.sum(x * x)), ([0.0, 0.0],), ([nan, nan],)),
    Edge("sqrt", "√(x·x) at 0, of a vector, zero_wins", lambda x: jnp.sqrt(jnp.sum(x * x)), ([0.0, 0.0],), ([0.0, 0.0],), [nan, nan],
         dict(zero_wins=True)),
    Edge("integer_pow", "x² at 0", lambda x: x ** 2, (0.0,), (0.0,)),
    Edge("integer_pow", "x⁻¹ at 0", lambda x: lax.integer_pow(x, -1), (0.0,), (-inf,)),
    Edge("pow", "x**0 at x = 0, whole exponent", lambda x: lax.pow(x, jnp.asarray(0)), (0.0,), (0.0,)),
    Edge("pow", "x**0.0 at x = 0", lambda x: power(x, 0.0), (0.0,), (0.0,), nan),
    Edge("pow", "x**1.0 at x = 0", lambda x: power(x, 1.0), (0.0,), (1.0,)),
    Edge("pow", "x**0.5 at x = 0", lambda x: power(x, 0.5), (0.0,), (inf,)),
    Edge("pow", "0**y at y = 2, by y", lambda y: power(0.0, y), (2.0,), (0.0,)),
    Edge("pow", "0**y at y = 0, by y", lambda y: power(0.0, y), (0.0,), (0.0,)),
    Edge("pow", "(-2)**y at y = 2, by y", lambda y: power(-2.0, y), (2.0,), (nan,)),
    Edge("log", "log x at 0", jnp.log, (0.0,), (inf,)),
    Edge("log", "log x at -1 (where it is nan)", jnp.log, (-1.0,), (-1.0,)),
    Edge("log1p", "log(1 + x) at -1", jnp.log1p, (-1.0,), (inf,)),
    Edge("div", "1/y at 0", lambda y: 1 / y, (0.0,), (-inf,)),
    Edge("div", "x/0 at 0, by x", lambda x: x / 0.0, (0.0,), (inf,)),
    Edge("div", "0/y at 0, by y", lambda y: 0.0 / y, (0.0,), (nan,)),
    Edge("atan2", "atan2(x, y) at (0, 0)", jnp.arctan2, (0.0, 0.0), (nan, nan)),
    Edge("atan2", "atan2(x, y) at (0, 1)", jnp.arctan2, (0.0, 1.0), (1.0, 0.0)),
    Edge("acos", "acos x at 1", jnp.arccos, (1.0,), (-inf,)),
    Edge("asin", "asin x at 1", jnp.arcsin, (1.0,), (inf,)),
    Edge("acosh", "acosh x at 1", jnp.arccosh, (1.0,), (inf,)),
    Edge("acosh", "acosh x at -2", jnp.arccosh, (-2.0,), (nan,), {(0, 10): 0.5773502691896257, (0, 12): nan}),
    Edge("atanh", "atanh x at 1", jnp.arctanh, (1.0,), (inf,)),
    Edge("tanh", "tanh x at 1000", jnp.tanh, (1000.0,), (0.0,)),
    Edge("logistic", "1/(1 + exp(-x)) at -1000", jax.nn.sigmoid, (-1000.0,), (0.0,)),
    Edge("logistic", "1/(1 + exp(-x)) at 1000", jax.nn.sigmoid, (1000.0,), (0.0,)),
    Edge("log1p", "softplus at 1000", jax.nn.softplus, (1000.0,), (1.0,)),
    Edge("log1p", "softplus at -1000", jax.nn.softplus, (-1000.0,), (0.0,)),
    Edge("exp", "logsumexp with an entry -inf", jax.scipy.special.logsumexp, ([-inf, 0.0, 0.0],), ([0.0, 0.5, 0.5],)),
    Edge("exp", "logsumexp with -inf alone", jax.scipy.special.logsumexp, ([-inf, -inf],), ([nan, nan],)),
    Edge("exp", "logaddexp at (inf, inf)", jnp.logaddexp, (inf, inf), (1.0, 1.0)),
    Edge("exp", "logaddexp at (-inf, -inf)", jnp.logaddexp, (-inf, -inf), (nan, nan)),
    Edge("exp", "softmax, first entry, at (1000, 0)", lambda x: jax.nn.softmax(x)[0], ([1000.0, 0.0],), ([0.0, 0.0],)),
    Edge("exp", "log softmax, second entry, at (1000, 0)", lambda x: jax.nn.log_softmax(x)[1], ([1000.0, 0.0],), ([-1.0, 1.0],)),
    Edge("reduce_max", "max of (1, 1, 0)", jnp.max, ([1.0, 1.0, 0.0],), ([0.5, 0.5, 0.0],)),
    Edge("reduce_min", "min of (1, 0, 0)", jnp.min, ([1.0, 0.0, 0.0],), ([0.0, 0.5, 0.5],)),
    Edge("cummax", "cummax of (1, 1), last", lambda x: lax.cummax(x)[1], ([1.0, 1.0],), ([0.5, 0.5],)),
    Edge("reduce_prod", "product of (0, 2, 3)", jnp.prod, ([0.0, 2.0, 3.0],), ([6.0, 0.0, 0.0],)),
    Edge("reduce_prod", "product of (0, 0, 3)", jnp.prod, ([0.0, 0.0, 3.0],), ([0.0, 0.0, 0.0],)),
    Edge("cumprod", "cumprod of (0, 2, 3), last", lambda x: lax.cumprod(x)[2], ([0.0, 2.0, 3.0],), ([6.0, 0.0, 0.0],)),
    Edge("sort", "sort of (1, 1, 0), second", lambda x: jnp.sort(x)[1], ([1.0, 1.0, 0.0],), ([1.0, 0.0, 0.0],)),
    Edge("sort", "median of (1, 1, 0, 1)", jnp.median, ([1.0, 1.0, 0.0, 1.0],), ([0.5, 0.5, 0.0, 0.0],)),
    Edge("top_k", "largest of (1, 1, 0)", lambda x: lax.top_k(x, 1)[0][0], ([1.0, 1.0, 0.0],), ([1.0, 0.0, 0.0],)),
    Edge("reduce_window_max", "largest in a window of (1, 1)",
         lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID")[0], ([1.0, 1.0],), ([1.0, 0.0],)),
    Edge("floor", "floor(x) at 1", jnp.floor, (1.0,), (0.0,)),
    Edge("round", "round(x) at 0.5", jnp.round, (0.5,), (0.0,)),
    Edge("rem", "rem(x, 2) at 4, by x", lambda x: lax.rem(x, array(2.0)), (4.0,), (1.0,)),
    Edge("rem", "rem(4, y) at 2, by y", lambda y: lax.rem(array(4.0), y), (2.0,), (-2.0,)),
    Edge("nextafter", "nextafter(x, 1) at 0, by x", lambda x: jnp.nextafter(x, 1.0), (0.0,), (1.0,), {(0, 10): "none", (0, 12): 1.0}),
    Edge("reduce_sum", "variance of (1, 1)", jnp.var, ([1.0, 1.0],), ([0.0, 0.0],)),
    Edge("sqrt", "standard deviation of (1, 1)", jnp.std, ([1.0, 1.0],), ([nan, nan],)),
    Edge("sqrt", "standard deviation of (1, 1), zero_wins", jnp.std, ([1.0, 1.0],), ([0.0, 0.0],), [nan, nan], dict(zero_wins=True)),
    Edge("select_n", "where(x < 1, x, √x) at 0, zero_wins", lambda x: jnp.where(x < 1, x, jnp.sqrt(x)), (0.0,), (1.0,), nan,
         dict(zero_wins=True)),
    Edge("sin", "sin(πx)/(πx) = jnp.sinc at 0", jnp.sinc, (0.0,), (0.0,)),
    Edge("mul", "0·log y at 0, by y (xlogy)", lambda y: jax.scipy.special.xlogy(0.0, y), (0.0,), (nan,)),
    Edge("erf_inv", "erf⁻¹ at 1", lax.erf_inv, (1.0,), (inf,)),
    Edge("erf_inv", "no entry of erf⁻¹ at 1", lambda x: (lax.erf_inv(x) * jnp.zeros(0)).sum(), (1.0,), (0.0,), nan),
    Edge("sqrt", "√(sum of no entry of sin x) + 3x", lambda x: jnp.sqrt(jnp.sin(x[:0]).sum()) + 3 * x.sum(), ([0.0, 2.0],),
         ([3.0, 3.0],)),
]
