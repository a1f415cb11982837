"""Operations entry by entry."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.arguments import taking
from dualrev.eager.ops.checks import broadcast, same_dtype
from dualrev.eager.ops.registry import alias, both, broadcasting, function, method, renamed, unary

NUMBERS = (int, float, builtins.complex)


def relu_of(x: Any) -> Any:
    # Zero at zero, as PyTorch has it; NaN stays.
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


def abs_of(x: Any) -> Any:
    """The absolute value, with derivative 0 at 0, as PyTorch has it."""
    return jnp.abs(x) if jnp.issubdtype(x.dtype, jnp.complexfloating) or x.dtype.kind in "biu" else x * jnp.sign(x)


_UNARY: dict[str, Callable[[Any], Any]] = dict(
    neg=jnp.negative, exp=jnp.exp, exp2=jnp.exp2, expm1=jnp.expm1, log=jnp.log, log2=jnp.log2, log10=jnp.log10, log1p=jnp.log1p,
    sin=jnp.sin, cos=jnp.cos, tan=jnp.tan, asin=jnp.arcsin, acos=jnp.arccos, atan=jnp.arctan, sinh=jnp.sinh, cosh=jnp.cosh,
    tanh=jnp.tanh, asinh=jnp.arcsinh, acosh=jnp.arccosh, atanh=jnp.arctanh, sigmoid=jax.nn.sigmoid, sqrt=jnp.sqrt, rsqrt=jax.lax.rsqrt,
    square=jnp.square, reciprocal=jnp.reciprocal, abs=abs_of, sign=jnp.sign, sgn=jnp.sign, floor=jnp.floor, ceil=jnp.ceil,
    round=jnp.round, trunc=jnp.trunc, frac=lambda x: x - jnp.trunc(x), relu=relu_of, erf=jax.lax.erf, erfc=jax.lax.erfc,
    erfinv=jax.lax.erf_inv, lgamma=jax.lax.lgamma, digamma=jax.lax.digamma, logical_not=jnp.logical_not, isnan=jnp.isnan,
    isinf=jnp.isinf, isfinite=jnp.isfinite, conj=jnp.conj, angle=jnp.angle, bitwise_not=jnp.bitwise_not, deg2rad=jnp.deg2rad,
    rad2deg=jnp.rad2deg,
)
_floats = {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh",
           "asinh", "acosh", "atanh", "sigmoid", "sqrt", "rsqrt", "reciprocal", "erf", "erfc", "erfinv", "lgamma", "digamma"}


def floating(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that turns integers into the default float first."""
    def of(x: Any) -> Any:
        from dualrev.eager.core import dtypes

        return fun(x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy))

    return of


#: The operations that others are made of, by name.
OPS: dict[str, Op] = {"round": Op("Round", _UNARY.pop("round"))}
for _name, _fun in _UNARY.items():
    unary(_name, Op(_name.capitalize(), floating(_fun) if _name in _floats else _fun))
for _new, _old in dict(negative="neg", absolute="abs", arcsin="asin", arccos="acos", arctan="atan").items():
    alias(_new, getattr(Tensor, _old))


_ROUND = family("Round", lambda x, n: jnp.round(x * 10.0 ** n) / 10.0 ** n if n > 0 else jnp.round(x / 10.0 ** -n) * 10.0 ** -n)


@both
def round(input: Tensor, *, decimals: int = 0) -> Tensor:  # noqa: A001, A002
    """round of each entry, to so many decimals."""
    return apply(OPS["round"] if decimals == 0 else _ROUND(decimals), (input,))


@method
def round_(self: Tensor, *, decimals: int = 0) -> Tensor:
    """round of each entry, to so many decimals, in place."""
    return change(self, OPS["round"] if decimals == 0 else _ROUND(decimals), ())


_REAL, _IMAG = Op("Select", jnp.real), Op("Select", jnp.imag)
Tensor.real = property(lambda self: apply(_REAL, (self,)), doc="The real part.")  # type: ignore[attr-defined]
Tensor.imag = property(lambda self: apply(_IMAG, (self,)), doc="The imaginary part.")  # type: ignore[attr-defined]


def _parts(x: Any, y: Any, cartesian: bool) -> Any:
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in (x, y)):
        raise RuntimeError(f"Expected both inputs to be Half, Float or Double tensors but got {dtypes.type_name(x.dtype)} and "
                           f"{dtypes.type_name(y.dtype)}\nconvert them first: x.float()")
    same_dtype(x, y, "Expected object of scalar type {A} but got scalar type {B} for second argument")
    broadcast(x, y)
    x, y = jnp.broadcast_arrays(x, y)
    return jax.lax.complex(x, y) if cartesian else jax.lax.complex(x * jnp.cos(y), x * jnp.sin(y))


_COMPLEX, _POLAR = Op("Complex", lambda x, y: _parts(x, y, True)), Op("Polar", lambda x, y: _parts(x, y, False))


@function
@taking("Tensor real, Tensor imag")
def complex(real: Tensor, imag: Tensor) -> Tensor:  # noqa: A001
    """A complex tensor of two real ones."""
    return apply(_COMPLEX, (real, imag))


@function
@taking("Tensor abs, Tensor angle")
def polar(abs: Tensor, angle: Tensor) -> Tensor:  # noqa: A002
    """A complex tensor of its absolute values and angles."""
    return apply(_POLAR, (abs, angle))


# --------------------------------------------------------------------------------------------------------- two operands

def true_divide(x: Any, y: Any) -> Any:
    if all(getattr(a, "dtype", None) == jnp.bool_ or jnp.issubdtype(jnp.result_type(a), jnp.integer) for a in (x, y)):
        x = jnp.asarray(x, dtypes.get_default_dtype().numpy)
    return jnp.true_divide(x, y)


_OPERANDS = (Tensor, *NUMBERS)


def is_operand(x: Any) -> bool:
    return isinstance(x, _OPERANDS) or hasattr(x, "__jax_array__") or hasattr(x, "dtype")


_BINARY: dict[str, Callable[[Any, Any], Any]] = dict(
    mul=jnp.multiply, div=true_divide, maximum=jnp.maximum, minimum=jnp.minimum, floor_divide=jnp.floor_divide,
    remainder=jnp.remainder, fmod=jnp.fmod, atan2=jnp.arctan2, logaddexp=jnp.logaddexp, xlogy=jax.scipy.special.xlogy,
    hypot=jnp.hypot, eq=jnp.equal, ne=jnp.not_equal, lt=jnp.less, le=jnp.less_equal, gt=jnp.greater, ge=jnp.greater_equal,
    logical_and=jnp.logical_and, logical_or=jnp.logical_or, logical_xor=jnp.logical_xor, bitwise_and=jnp.bitwise_and,
    bitwise_or=jnp.bitwise_or, bitwise_xor=jnp.bitwise_xor,
)
ADD, SUB = Op("Add", broadcasting(jnp.add)), Op("Sub", broadcasting(jnp.subtract))
OPS.update(add=ADD, sub=SUB)
add_scaled = family("Add", lambda x, y, alpha: broadcasting(jnp.add)(x, alpha * y))


def _check(name: str, x: Any, y: Any) -> None:
    for i, a in enumerate((x, y)):
        if not is_operand(a):
            raise TypeError(f"{name}(): argument '{('input', 'other')[i]}' (position {i + 1}) must be Tensor, not {type(a).__name__}")


def _two(name: str, op: Op) -> None:
    OPS[name] = op

    def entrywise(input: Any, other: Any) -> Tensor:  # noqa: A002
        _check(name, input, other)
        return apply(op, (input, other))

    def in_place(self: Tensor, other: Any) -> Tensor:
        _check(name, self, other)
        return change(self, op, (other,))

    both(renamed(entrywise, name, f"{name} of each pair of entries, broadcast."))
    method(renamed(in_place, f"{name}_", f"{name} of each pair of entries, in place."))


for _name, _two_of in _BINARY.items():
    # A quotient may be changed in place, as its pull divides again.
    _two(_name, Op(_name.capitalize(), broadcasting(_two_of), light=_name == "div"))


@both
def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:  # noqa: A002
    """``input + alpha * other``."""
    _check("add", input, other)
    return apply(ADD if alpha == 1 else add_scaled(alpha), (input, other))


@both
def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:  # noqa: A002
    """``input - alpha * other``."""
    _check("sub", input, other)
    return apply(SUB if alpha == 1 else add_scaled(-alpha), (input, other))


@method
def add_(self: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """Add in place."""
    return change(self, ADD if alpha == 1 else add_scaled(alpha), (other,))


@method
def sub_(self: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """Subtract in place."""
    return change(self, SUB if alpha == 1 else add_scaled(-alpha), (other,))


def _rounded(mode: str | None) -> Op:
    if mode is None:
        return OPS["div"]
    if mode == "floor":
        return OPS["floor_divide"]
    if mode == "trunc":
        return _TRUNC
    raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{mode}'")


_TRUNC = Op("Div", broadcasting(lambda x, y: jnp.trunc(x / y).astype(jnp.result_type(x, y))))


@both
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:  # noqa: A002
    """``input / other``, rounded with ``"floor"`` or ``"trunc"``."""
    _check("div", input, other)
    return apply(_rounded(rounding_mode), (input, other))


@method
def div_(self: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Divide in place."""
    return change(self, _rounded(rounding_mode), (other,))


for _new, _old in dict(subtract="sub", multiply="mul", divide="div", true_divide="div", less="lt", greater="gt").items():
    alias(_new, getattr(Tensor, _old))


@both
def rsub(input: Any, other: Any) -> Tensor:  # noqa: A002
    """``other - input``."""
    return apply(SUB, (other, input))


# ------------------------------------------------------------------------------------------------------------------ powers

_power = family("Pow", lambda x, exponent: x ** exponent if jnp.issubdtype(x.dtype, jnp.inexact) or isinstance(exponent, int)
                else jnp.power(x.astype(jnp.float32), exponent))
_POWER = Op("Pow:1", broadcasting(jnp.power))


def _pow_op(exponent: Any) -> tuple[Op, tuple[Any, ...]]:
    if isinstance(exponent, NUMBERS) and not isinstance(exponent, bool):
        if isinstance(exponent, float) and exponent.is_integer():
            exponent = builtins.int(exponent)
        return _power(exponent), ()
    return _POWER, (exponent,)


@both
def pow(input: Any, exponent: Any) -> Tensor:  # noqa: A001, A002
    """``input ** exponent``."""
    _check("pow", input, exponent)
    if isinstance(input, Tensor):
        op, rest = _pow_op(exponent)
        return apply(op, (input, *rest))
    return apply(_POWER, (input, exponent))


@method
def pow_(self: Tensor, exponent: Any) -> Tensor:
    """A power in place."""
    op, rest = _pow_op(exponent)
    return change(self, op, rest)


_power_of = pow


# --------------------------------------------------------------------------------------------------------------- operators

def _operator(op: Op) -> Callable[[Tensor, Any], Any]:
    def run(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS) or is_operand(other):
            return apply(op, (self, other))
        return NotImplemented

    return run


def _swapped(name: str) -> Callable[[Tensor, Any], Any]:
    """The operator for a tensor on the right: it comes first in the graph, as PyTorch has it."""
    op = OPS[name]
    if name in ("add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor"):
        return _operator(op)
    return _operator(Op("Rsub:1" if name == "sub" else op.name, lambda x, y: op.fun(y, x)))


def _in_place(op: Op) -> Callable[[Tensor, Any], Any]:
    def run(self: Tensor, other: Any) -> Any:
        return change(self, op, (other,)) if is_operand(other) else NotImplemented

    return run


for _name, _symbol in dict(add="add", sub="sub", mul="mul", div="truediv", floor_divide="floordiv", remainder="mod").items():
    setattr(Tensor, f"__{_symbol}__", _operator(OPS[_name]))
    setattr(Tensor, f"__r{_symbol}__", _swapped(_name))
    setattr(Tensor, f"__i{_symbol}__", _in_place(OPS[_name]))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _operator(OPS[_name]))
for _name, _symbol in dict(bitwise_and="and", bitwise_or="or", bitwise_xor="xor").items():
    setattr(Tensor, f"__{_symbol}__", _operator(OPS[_name]))
    setattr(Tensor, f"__r{_symbol}__", _swapped(_name))
Tensor.__hash__ = object.__hash__  # type: ignore[method-assign]
Tensor.__neg__ = lambda self: self.neg()  # type: ignore[operator]
Tensor.__pos__ = lambda self: self  # type: ignore[operator]
Tensor.__abs__ = lambda self: self.abs()  # type: ignore[operator]
Tensor.__invert__ = lambda self: self.bitwise_not()  # type: ignore[operator]
Tensor.__pow__ = lambda self, exponent: self.pow(exponent) if is_operand(exponent) else NotImplemented  # type: ignore[operator]
Tensor.__rpow__ = lambda self, base: _power_of(base, self)  # type: ignore[operator]
Tensor.__ipow__ = lambda self, exponent: self.pow_(exponent)  # type: ignore[operator, misc]
