"""Primitives that work entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from dualrev._jax.avals import ShapedArray
from dualrev.eager.host.registry import HostFunction, made, plain


def _is_narrow(dtype: np.dtype) -> bool:
    """Whether it is a float of 16 bits or fewer."""
    return dtype.itemsize < 4 and dtype.kind in "fV"


def _special(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function of scipy, which has none of narrow floats."""
    def of(*args: Any) -> Any:
        dtype = args[0].dtype
        return fun(*[a.astype(np.float32) for a in args]).astype(dtype) if _is_narrow(dtype) else fun(*args)

    return of


def _by_type(name: str, real: Callable[..., Any], otherwise: dict[str, Callable[..., Any]], cost: float = 0.2) -> None:
    """Register a primitive whose function depends on the kind of its first operand's dtype."""
    made(name, cost=cost)(lambda params, ins, outs: otherwise.get(np.dtype(ins[0].dtype).kind, real))


def _divided(x: Any, y: Any) -> Any:
    """The quotient of whole numbers, rounded towards zero."""
    return (x - np.fmod(x, y)) // y


def _power(x: Any, n: int) -> Any:
    """``x ** n`` by squaring, as compilers have it."""
    if n < 0:
        return 1 / _power(x, -n)
    result = None
    while n:
        if n & 1:
            result = x if result is None else result * x
        n >>= 1
        if n:
            x = x * x
    return np.ones_like(x) if result is None else result


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


_EXACT: dict[str, HostFunction] = dict(
    neg=np.negative, sign=np.sign, floor=np.floor, ceil=np.ceil, is_finite=np.isfinite, sqrt=np.sqrt, abs=np.abs, real=np.real,
    imag=np.imag, conj=np.conj, square=np.square, add=np.add, sub=np.subtract, mul=np.multiply, max=np.maximum, min=np.minimum,
    add_any=np.add, nextafter=np.nextafter, eq=np.equal, ne=np.not_equal, lt=np.less, le=np.less_equal, gt=np.greater,
    ge=np.greater_equal,
    rsqrt=lambda x: 1 / np.sqrt(x), shift_left=np.left_shift, shift_right_arithmetic=np.right_shift, copy=np.array, copy_p=np.array,
    stop_gradient=lambda x: x, one_minus_square=lambda x: (1 + x) * (1 - x),
    complex=lambda x, y: x + 1j * y if x.dtype == np.float64 else x + np.complex64(1j) * y,
)
_TRANSCENDENTAL: dict[str, HostFunction] = dict(
    exp=np.exp, exp2=np.exp2, expm1=np.expm1, log=np.log, log1p=np.log1p, log2=np.log2, sin=np.sin, cos=np.cos, tan=np.tan,
    asin=np.arcsin, acos=np.arccos, atan=np.arctan, sinh=np.sinh, cosh=np.cosh, tanh=np.tanh, asinh=np.arcsinh,
    acosh=np.arccosh, atanh=np.arctanh, atan2=np.arctan2, pow=np.power, logistic=_sigmoid, cbrt=np.cbrt,
)
_SPECIAL: dict[str, HostFunction] = dict(
    erf=scipy.special.erf, erfc=scipy.special.erfc, erf_inv=scipy.special.erfinv, lgamma=scipy.special.gammaln,
    digamma=scipy.special.psi, polygamma=scipy.special.polygamma, igamma=scipy.special.gammainc,
    igammac=scipy.special.gammaincc, regularized_incomplete_beta=scipy.special.betainc,
    bessel_i0e=scipy.special.i0e, bessel_i1e=scipy.special.i1e, zeta=scipy.special.zeta,
)
for _name, _fun in _EXACT.items():
    plain(_name, _fun)
for _name, _fun in _TRANSCENDENTAL.items():
    plain(_name, _fun, 3.0)
for _name, _fun in _SPECIAL.items():
    plain(_name, _special(_fun), 20.0)
_by_type("div", np.true_divide, {"i": _divided, "u": np.floor_divide}, 0.4)
_by_type("rem", np.fmod, {}, 2.0)
_by_type("not", np.invert, {"b": np.logical_not})
_by_type("and", np.bitwise_and, {"b": np.logical_and})
_by_type("or", np.bitwise_or, {"b": np.logical_or})
_by_type("xor", np.bitwise_xor, {"b": np.logical_xor})


@made("select_n")
def _select(params: dict[str, Any], ins: Sequence[ShapedArray], outs: Sequence[ShapedArray]) -> HostFunction:
    """One case whole where the predicate is one number."""
    if not ins[0].shape:
        return lambda which, *cases: cases[int(which)]
    return lambda which, *cases: np.where(which, cases[1], cases[0]) if len(cases) == 2 else np.choose(which, cases)


plain("clamp", lambda low, x, high: np.minimum(np.maximum(x, low), high))


@made("integer_pow", cost=0.4)
def _integer_pow(params: dict[str, Any], ins: Sequence[ShapedArray], outs: Sequence[ShapedArray]) -> HostFunction:
    n = params["y"]
    return np.square if n == 2 else lambda x: _power(x, n)


@made("round")
def _round(params: dict[str, Any], ins: Sequence[ShapedArray], outs: Sequence[ShapedArray]) -> HostFunction:
    if int(params["rounding_method"]) == 1:
        return np.rint
    return lambda x: np.where(np.abs(x - np.trunc(x)) == 0.5, np.trunc(x) + np.sign(x), np.rint(x)).astype(x.dtype)


@made("shift_right_logical")
def _shift_right(params: dict[str, Any], ins: Sequence[ShapedArray], outs: Sequence[ShapedArray]) -> HostFunction:
    dtype = np.dtype(ins[0].dtype)
    if dtype.kind == "u":
        return np.right_shift
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return lambda x, n: np.right_shift(x.view(unsigned), n.view(unsigned)).view(dtype)


@made("convert_element_type")
def _convert(params: dict[str, Any], ins: Sequence[ShapedArray], outs: Sequence[ShapedArray]) -> HostFunction:
    dtype, given = np.dtype(outs[0].dtype), np.dtype(ins[0].dtype)
    if given.kind == "c" and dtype.kind != "c":
        return lambda x: x.real.astype(dtype)
    if given.kind in "fV" and dtype.kind in "iu":
        return lambda x: _whole(x, dtype)
    return lambda x: np.asarray(x).astype(dtype)


def _whole(x: Any, dtype: np.dtype) -> Any:
    """Floats as whole numbers: those that are too large become the largest, and NaN becomes zero, as compilers have it."""
    x = np.asarray(x)
    found = x.astype(dtype)
    info = np.iinfo(dtype)
    wide = x.astype(np.float64)
    if not np.all((wide > info.min) & (wide < info.max)):
        found = np.where(wide >= info.max, info.max, np.where(wide <= info.min, info.min, found))
        found = np.where(np.isnan(wide), 0, found).astype(dtype)
    return found


@made("bitcast_convert_type")
def _bits(params: dict[str, Any], ins: Sequence[ShapedArray], outs: Sequence[ShapedArray]) -> HostFunction | None:
    """Entries of another size are split along a new last dimension, or merged along the last one."""
    dtype, old = np.dtype(outs[0].dtype), np.dtype(ins[0].dtype)
    if dtype.itemsize < old.itemsize:
        return lambda x: np.ascontiguousarray(x)[..., None].view(dtype).reshape(outs[0].shape)
    if dtype.itemsize > old.itemsize:
        return lambda x: np.ascontiguousarray(x).view(dtype).reshape(outs[0].shape)
    return lambda x: np.ascontiguousarray(x).reshape(np.shape(x)).view(dtype)


@made("reduce_precision", cost=2.0)
def _reduce_precision(params: dict[str, Any], ins: Sequence[ShapedArray], outs: Sequence[ShapedArray]) -> HostFunction | None:
    """Fewer bits of the fraction, by rounding the last one that stays to even; of floats whose exponent keeps its bits."""
    dtype = np.dtype(ins[0].dtype)
    if dtype.kind != "f":
        return None
    info, bits = np.finfo(dtype), np.dtype(f"u{dtype.itemsize}")
    dropped = info.nmant - params["mantissa_bits"]
    if params["exponent_bits"] != info.iexp or dropped <= 0:
        return (lambda x: x) if params["exponent_bits"] == info.iexp else None
    one, shift = bits.type(1), bits.type(dropped)
    below_half, kept = (one << (shift - one)) - one, ~((one << shift) - one)

    def rounded(x: Any) -> Any:
        x = np.asarray(x)
        whole = x.view(bits)
        return np.where(np.isnan(x), x, ((whole + below_half + (whole >> shift & one)) & kept).view(dtype))

    return rounded
