"""Operations entry by entry of one tensor."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.registry import alias, both, method, unary


def _relu_of(x: jax.Array) -> jax.Array:
    # The derivative at 0 is 0, as PyTorch has it; NaN stays.
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


def abs_of(x: jax.Array) -> jax.Array:
    """The absolute value, with derivative 0 at 0, as PyTorch has it."""
    return jnp.abs(x) if jnp.issubdtype(x.dtype, jnp.complexfloating) or x.dtype.kind in "biu" else x * jnp.sign(x)


def _negative(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        raise RuntimeError("Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use the "
                           "`~` or `logical_not()` operator instead.")
    return jnp.negative(x)


def _angle(x: jax.Array) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.complexfloating):
        return jax.lax.stop_gradient(jnp.angle(x))
    # At zero the gradient is zero, as PyTorch has it.
    is_zero = x == 0
    return jnp.where(is_zero, jax.lax.stop_gradient(jnp.angle(x)), jnp.angle(jnp.where(is_zero, 1, x)))


_UNARY: dict[str, Callable[[jax.Array], jax.Array]] = dict(
    neg=_negative, exp=jnp.exp, exp2=jnp.exp2, expm1=jnp.expm1, log=jnp.log, log2=jnp.log2, log10=jnp.log10, log1p=jnp.log1p,
    sin=jnp.sin, cos=jnp.cos, tan=jnp.tan, asin=jnp.arcsin, acos=jnp.arccos, atan=jnp.arctan, sinh=jnp.sinh, cosh=jnp.cosh,
    tanh=jnp.tanh, asinh=jnp.arcsinh, acosh=jnp.arccosh, atanh=jnp.arctanh, sigmoid=jax.nn.sigmoid, sqrt=jnp.sqrt, rsqrt=jax.lax.rsqrt,
    square=jnp.square, reciprocal=jnp.reciprocal, abs=abs_of, sign=jnp.sign, sgn=jnp.sign, floor=jnp.floor, ceil=jnp.ceil,
    round=jnp.round, trunc=jnp.trunc, frac=lambda x: x - jnp.trunc(x), relu=_relu_of, erf=jax.lax.erf, erfc=jax.lax.erfc,
    erfinv=jax.lax.erf_inv, lgamma=jax.lax.lgamma, digamma=jax.lax.digamma, logical_not=jnp.logical_not, isnan=jnp.isnan,
    isinf=jnp.isinf, isfinite=jnp.isfinite, conj=jnp.conj, angle=_angle, bitwise_not=jnp.bitwise_not, deg2rad=jnp.deg2rad,
    rad2deg=jnp.rad2deg,
)
_FLOATS = {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh",
           "asinh", "acosh", "atanh", "sigmoid", "sqrt", "rsqrt", "reciprocal", "erf", "erfc", "erfinv", "lgamma", "digamma"}


def floating(fun: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The function, with integers converted to the default float."""
    def of(x: jax.Array) -> jax.Array:
        return fun(x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy))

    return of


_ROUND_WHOLE = Op("Round", _UNARY.pop("round"))
for _name, _fun in _UNARY.items():
    unary(_name, Op(_name.capitalize(), floating(_fun) if _name in _FLOATS else _fun))
for _new, _old in dict(negative="neg", absolute="abs", arcsin="asin", arccos="acos", arctan="atan", arcsinh="asinh", arccosh="acosh",
                       arctanh="atanh", fix="trunc").items():
    alias(_new, getattr(Tensor, _old))


_ROUND_DECIMALS = family("Round", lambda x, n: jnp.round(x * 10.0 ** n) / 10.0 ** n if n > 0
                         else jnp.round(x / 10.0 ** -n) * 10.0 ** -n)


@both
def round(input: Tensor, *, decimals: int = 0) -> Tensor:  # noqa: A001, A002
    """round of each entry, to a number of decimals."""
    return apply(_ROUND_WHOLE if decimals == 0 else _ROUND_DECIMALS(decimals), (input,))


@method
def round_(self: Tensor, *, decimals: int = 0) -> Tensor:
    """round of each entry, to a number of decimals, in place."""
    return change(self, _ROUND_WHOLE if decimals == 0 else _ROUND_DECIMALS(decimals), ())


_nan_to_num = family("NanToNum", lambda x, *values: jnp.nan_to_num(x, nan=values[0], posinf=values[1], neginf=values[2]))


@both
def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:  # noqa: A002
    """Replace NaN, infinity and minus infinity by numbers."""
    return apply(_nan_to_num(nan, posinf, neginf), (input,))
