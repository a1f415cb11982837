"""Operations entry by entry of two operands, which broadcast."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor, array_of
from dualrev.eager.ops.promotion import broadcasting
from dualrev.eager.ops.registry import alias, both, method, renamed

NUMBERS = (int, float, complex)
#: Operations of two operands, by name.
OPS: dict[str, Op] = {}


def _true_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    if all(getattr(a, "dtype", None) == jnp.bool_ or jnp.issubdtype(jnp.result_type(a), jnp.integer) for a in (x, y)):
        x = jnp.asarray(x, dtypes.get_default_dtype().numpy)
    return jnp.true_divide(x, y)


OPERANDS = (Tensor, *NUMBERS)


def is_operand(x: object) -> bool:
    """Whether something can stand beside a tensor: a tensor, a number or an array."""
    return isinstance(x, OPERANDS) or hasattr(x, "__jax_array__") or hasattr(x, "dtype")


def _atan2(x: jax.Array, y: jax.Array) -> jax.Array:
    # At the origin the gradient is zero, as PyTorch has it.
    origin = (x == 0) & (y == 0)
    return jnp.where(origin, jax.lax.stop_gradient(jnp.arctan2(x, y)), jnp.arctan2(x, jnp.where(origin, 1, y)))


def _xlogy(x: jax.Array, y: jax.Array) -> jax.Array:
    # Where x is zero and the logarithm is not finite, the gradient is zero, as PyTorch has it.
    outside = (x == 0) & (y <= 0)
    return jax.scipy.special.xlogy(x, jnp.where(outside, 1, y))


#: The divisions that PyTorch refuses for integers by zero.
_WHOLE = {"floor_divide", "remainder", "fmod"}


def check_divisor(x: object, y: object) -> None:
    """Refuse integers divided by zero, where the divisor is known.

    Raises:
      RuntimeError: ``ZeroDivisionError``, in PyTorch's words.
    """
    for a in (x, y):
        if (array_of(a).dtype.kind if isinstance(a, Tensor) else np.result_type(type(a)).kind) not in "biu":
            return
    divisor = array_of(y) if isinstance(y, Tensor) else y
    if not isinstance(divisor, Tracer) and not np.all(np.asarray(divisor)):
        raise RuntimeError("ZeroDivisionError\na whole number is divided by zero; .float() first gives infinity")


_BINARY: dict[str, Callable[..., jax.Array]] = dict(
    mul=jnp.multiply, div=_true_divide, maximum=jnp.maximum, minimum=jnp.minimum, floor_divide=jnp.floor_divide,
    remainder=jnp.remainder, fmod=jnp.fmod, atan2=_atan2, logaddexp=jnp.logaddexp, xlogy=_xlogy,
    hypot=jnp.hypot, eq=jnp.equal, ne=jnp.not_equal, lt=jnp.less, le=jnp.less_equal, gt=jnp.greater, ge=jnp.greater_equal,
    logical_and=jnp.logical_and, logical_or=jnp.logical_or, logical_xor=jnp.logical_xor, bitwise_and=jnp.bitwise_and,
    bitwise_or=jnp.bitwise_or, bitwise_xor=jnp.bitwise_xor, bitwise_left_shift=jnp.left_shift,
    bitwise_right_shift=jnp.right_shift,
)


def _subtract(x: jax.Array, y: jax.Array) -> jax.Array:
    bools = [getattr(a, "dtype", np.dtype(type(a))) == np.bool_ for a in (x, y)]
    if all(bools):
        raise RuntimeError("Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
                           "operator instead.")
    if any(bools):
        raise RuntimeError("Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
                           "use the `~` or `logical_not()` operator instead.")
    return jnp.subtract(x, y)


ADD, SUB = Op("Add", broadcasting(jnp.add)), Op("Sub", broadcasting(_subtract))
OPS.update(add=ADD, sub=SUB)
#: ``x + alpha * y``: the number is an operand.
_ADD_SCALED = Op("Add", lambda x, y, alpha: broadcasting(jnp.add)(x, alpha * y))


def scaled(op: Op, alpha: float, sign: int = 1) -> tuple[Op, tuple[float, ...]]:
    """The operation that adds a multiple, and the number that it takes; the plain one where the number is one."""
    return (op, ()) if alpha == 1 else (_ADD_SCALED, (sign * alpha,))


def _check(name: str, x: object, y: object) -> None:
    """Refuse what is no operand."""
    for i, a in enumerate((x, y)):
        if not is_operand(a):
            raise TypeError(f"{name}(): argument '{('input', 'other')[i]}' (position {i + 1}) must be Tensor, not {type(a).__name__}")


def _register(name: str, op: Op) -> None:
    OPS[name] = op

    def entrywise(input: Operand, other: Operand) -> Tensor:  # noqa: A002
        _check(name, input, other)
        if name in _WHOLE:
            check_divisor(input, other)
        return apply(op, (input, other))

    def in_place(self: Tensor, other: Operand) -> Tensor:
        _check(name, self, other)
        if name in _WHOLE:
            check_divisor(self, other)
        return change(self, op, (other,))

    both(renamed(entrywise, name, f"{name} of each pair of entries, broadcast."))
    method(renamed(in_place, f"{name}_", f"{name} of each pair of entries, in place."))


def _of_bits(name: str, fun: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of bits, which numbers of floating point are refused."""
    shown = {"bitwise_left_shift": "lshift_cpu", "bitwise_right_shift": "rshift_cpu"}.get(name, f"{name}_cpu")

    def of(x: jax.Array, y: jax.Array) -> jax.Array:
        for a in (x, y):
            kind = jnp.result_type(a)
            if kind.kind not in "biu":
                raise NotImplementedError(f"\"{shown}\" not implemented for '{dtypes.type_name(kind)}'\nonly integers and truth values "
                                          "have bits")
        return fun(x, y)

    return of


_BINARY.update({name: _of_bits(name, fun) for name, fun in _BINARY.items() if name.startswith("bitwise")})
for _name, _fun in _BINARY.items():
    # A quotient may be changed in place: its pull is computed from the inputs.
    _register(_name, Op(_name.capitalize(), broadcasting(_fun), light=_name == "div"))


@both
def add(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:  # noqa: A002
    """``input + alpha * other``."""
    _check("add", input, other)
    op, number = scaled(ADD, alpha)
    return apply(op, (input, other, *number))


@both
def sub(input: Operand, other: Operand, *, alpha: float = 1) -> Tensor:  # noqa: A002
    """``input - alpha * other``."""
    _check("sub", input, other)
    op, number = scaled(SUB, alpha, -1)
    return apply(op, (input, other, *number))


@method
def add_(self: Tensor, other: Operand, *, alpha: float = 1) -> Tensor:
    """Add in place."""
    op, number = scaled(ADD, alpha)
    return change(self, op, (other, *number))


@method
def sub_(self: Tensor, other: Operand, *, alpha: float = 1) -> Tensor:
    """Subtract in place."""
    op, number = scaled(SUB, alpha, -1)
    return change(self, op, (other, *number))


def _rounded(mode: str | None) -> Op:
    if mode is None:
        return OPS["div"]
    if mode == "floor":
        return _FLOOR
    if mode == "trunc":
        return _TRUNC
    raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{mode}'")


_FLOOR = Op("Div:2", OPS["floor_divide"].fun)
_TRUNC = Op("Div:2", broadcasting(lambda x, y: jnp.trunc(x / y).astype(jnp.result_type(x, y))))


@both
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:  # noqa: A002
    """``input / other``, rounded with ``"floor"`` or ``"trunc"``."""
    _check("div", input, other)
    if rounding_mode is not None:
        check_divisor(input, other)
    return apply(_rounded(rounding_mode), (input, other))


@method
def div_(self: Tensor, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """Divide in place."""
    return change(self, _rounded(rounding_mode), (other,))


for _new, _old in dict(subtract="sub", multiply="mul", divide="div", true_divide="div", less="lt", less_equal="le", greater="gt",
                       greater_equal="ge", not_equal="ne", arctan2="atan2").items():
    alias(_new, getattr(Tensor, _old))


@both
def rsub(input: Operand, other: Operand) -> Tensor:  # noqa: A002
    """``other - input``."""
    return apply(SUB, (other, input))


# ------------------------------------------------------------------------------------------------------------------ powers

def _power_of(x: jax.Array, exponent: float, whole: bool) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return x ** exponent
    if not whole:
        return jnp.power(x.astype(dtypes.get_default_dtype().numpy), exponent)
    if exponent < 0:
        raise RuntimeError("Integers to negative integer powers are not allowed.\n.float() first, or write the exponent as a float")
    return x ** exponent


_power = family("Pow", _power_of)
def _raised(x: jax.Array, y: jax.Array) -> jax.Array:
    if not all(jnp.result_type(a).kind in "iu" for a in (x, y)):
        return jnp.power(x, y)
    # A whole number to a negative power is rounded to zero, unless it is 1 or -1.
    below = jnp.where(x == 1, 1, jnp.where(x == -1, 1 - 2 * (y & 1), 0))
    return jnp.where(y < 0, below, jnp.power(x, jnp.maximum(y, 0)))


_POWER, _POWER_OF_NUMBER = Op("Pow:1", broadcasting(_raised)), Op("Pow:2", broadcasting(_raised))


def _pow_op(exponent: Operand) -> tuple[Op, tuple[Operand, ...]]:
    if isinstance(exponent, NUMBERS) and not isinstance(exponent, bool):
        whole = isinstance(exponent, int)
        if isinstance(exponent, float) and exponent.is_integer():
            exponent = int(exponent)
        return _power(exponent, whole), ()
    return _POWER, (exponent,)


@both
def pow(input: Operand, exponent: Operand) -> Tensor:  # noqa: A001, A002
    """``input ** exponent``."""
    _check("pow", input, exponent)
    if isinstance(input, Tensor):
        op, rest = _pow_op(exponent)
        return apply(op, (input, *rest))
    return apply(_POWER_OF_NUMBER, (input, exponent))


@method
def pow_(self: Tensor, exponent: Operand) -> Tensor:
    """A power in place."""
    op, rest = _pow_op(exponent)
    return change(self, op, rest)


# ------------------------------------------------------------------------------------------------- without promotion

def _pairs(name: str, fun: Callable[..., jax.Array], op_name: str) -> None:
    op = Op(op_name, fun)
    if name == "heaviside":
        both(renamed(lambda input, values: apply(op, (input, values)), name, f"{name} of two tensors."))  # noqa: A006
    else:
        both(renamed(lambda input, other: apply(op, (input, other)), name, f"{name} of two tensors."))  # noqa: A006


_pairs("fmax", jnp.fmax, "Fmax")
_pairs("fmin", jnp.fmin, "Fmin")
_pairs("copysign", lambda x, y: jnp.where(x == 0, jax.lax.stop_gradient(jnp.copysign(x, y)), jnp.copysign(x, y)), "Copysign")
_pairs("logaddexp2", jnp.logaddexp2, "Logaddexp2")
_pairs("heaviside", jnp.heaviside, "Heaviside")


