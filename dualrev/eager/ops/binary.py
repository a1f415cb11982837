"""Operations entry by entry of two operands, which broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.promotion import broadcasting
from dualrev.eager.ops.registry import alias, both, method, renamed

NUMBERS = (int, float, complex)
#: Operations of two operands, by name.
OPS: dict[str, Op] = {}


def _true_divide(x: Any, y: Any) -> Any:
    if all(getattr(a, "dtype", None) == jnp.bool_ or jnp.issubdtype(jnp.result_type(a), jnp.integer) for a in (x, y)):
        x = jnp.asarray(x, dtypes.get_default_dtype().numpy)
    return jnp.true_divide(x, y)


OPERANDS = (Tensor, *NUMBERS)


def is_operand(x: Any) -> bool:
    """Whether something can stand beside a tensor: a tensor, a number or an array."""
    return isinstance(x, OPERANDS) or hasattr(x, "__jax_array__") or hasattr(x, "dtype")


_BINARY: dict[str, Callable[[Any, Any], Any]] = dict(
    mul=jnp.multiply, div=_true_divide, maximum=jnp.maximum, minimum=jnp.minimum, floor_divide=jnp.floor_divide,
    remainder=jnp.remainder, fmod=jnp.fmod, atan2=jnp.arctan2, logaddexp=jnp.logaddexp, xlogy=jax.scipy.special.xlogy,
    hypot=jnp.hypot, eq=jnp.equal, ne=jnp.not_equal, lt=jnp.less, le=jnp.less_equal, gt=jnp.greater, ge=jnp.greater_equal,
    logical_and=jnp.logical_and, logical_or=jnp.logical_or, logical_xor=jnp.logical_xor, bitwise_and=jnp.bitwise_and,
    bitwise_or=jnp.bitwise_or, bitwise_xor=jnp.bitwise_xor,
)
ADD, SUB = Op("Add", broadcasting(jnp.add)), Op("Sub", broadcasting(jnp.subtract))
OPS.update(add=ADD, sub=SUB)
add_scaled = family("Add", lambda x, y, alpha: broadcasting(jnp.add)(x, alpha * y))


def _check(name: str, x: Any, y: Any) -> None:
    """Refuse what is no operand."""
    for i, a in enumerate((x, y)):
        if not is_operand(a):
            raise TypeError(f"{name}(): argument '{('input', 'other')[i]}' (position {i + 1}) must be Tensor, not {type(a).__name__}")


def _register(name: str, op: Op) -> None:
    OPS[name] = op

    def entrywise(input: Any, other: Any) -> Tensor:  # noqa: A002
        _check(name, input, other)
        return apply(op, (input, other))

    def in_place(self: Tensor, other: Any) -> Tensor:
        _check(name, self, other)
        return change(self, op, (other,))

    both(renamed(entrywise, name, f"{name} of each pair of entries, broadcast."))
    method(renamed(in_place, f"{name}_", f"{name} of each pair of entries, in place."))


for _name, _fun in _BINARY.items():
    # A quotient may be changed in place: its pull is computed from the inputs.
    _register(_name, Op(_name.capitalize(), broadcasting(_fun), light=_name == "div"))


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


for _new, _old in dict(subtract="sub", multiply="mul", divide="div", true_divide="div", less="lt", less_equal="le", greater="gt",
                       greater_equal="ge", not_equal="ne", arctan2="atan2").items():
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
            exponent = int(exponent)
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


# ------------------------------------------------------------------------------------------------- without promotion

def _pairs(name: str, fun: Callable[[Any, Any], Any], op_name: str) -> None:
    op = Op(op_name, fun)
    if name == "heaviside":
        both(renamed(lambda input, values: apply(op, (input, values)), name, f"{name} of two tensors."))  # noqa: A006
    else:
        both(renamed(lambda input, other: apply(op, (input, other)), name, f"{name} of two tensors."))  # noqa: A006


_pairs("fmax", jnp.fmax, "Fmax")
_pairs("fmin", jnp.fmin, "Fmin")
_pairs("copysign", jnp.copysign, "Copysign")
_pairs("logaddexp2", jnp.logaddexp2, "Logaddexp2")
_pairs("heaviside", jnp.heaviside, "Heaviside")


_close = family("Isclose", lambda a, b, *how: jnp.isclose(a, b, *how))


@both
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:  # noqa: A002
    """Where entries are equal within tolerances."""
    return apply(_close(rtol, atol, equal_nan), (input, other))


_EQUAL = Op("Equal", lambda x, y: jnp.array_equal(x, y))


@both
def equal(input: Tensor, other: Tensor) -> bool:  # noqa: A002
    """Whether two tensors have the same shape and entries."""
    return bool(array_of(apply(_EQUAL, (input, other))))


@both
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:  # noqa: A002
    """Whether all entries are equal within tolerances."""
    return bool(jnp.allclose(array_of(input), array_of(other), rtol, atol, equal_nan))
