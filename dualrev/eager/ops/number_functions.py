"""Parts, signs, powers, divisors and bounds of numbers; second names and in-place forms of operations entry by entry."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change, replace
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor, array_of, wrap
from dualrev.eager.ops import binary, ternary, unary  # noqa: F401  (their methods get second names here)
from dualrev.eager.ops.promotion import broadcasting
from dualrev.eager.ops.registry import FUNCTIONS, both, method, renamed

mantissa_exponent = namedtuple("mantissa_exponent", ["mantissa", "exponent"])


def _is_complex(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.complexfloating)


# ----------------------------------------------------------------------------------------------------------- of one tensor

_signbit = Op("Signbit", lambda x: jnp.signbit(x) if jnp.issubdtype(x.dtype, jnp.floating) else x < 0)
_isreal = Op("Isreal", lambda x: jnp.imag(x) == 0 if _is_complex(x) else jnp.ones(x.shape, jnp.bool_))


def _infinite(x: jax.Array, sign: int) -> jax.Array:
    if _is_complex(x):
        raise RuntimeError(f"is{'pos' if sign > 0 else 'neg'}inf does not support complex inputs.")
    return x == sign * jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros(x.shape, jnp.bool_)


_isposinf, _isneginf = Op("Isposinf", lambda x: _infinite(x, 1)), Op("Isneginf", lambda x: _infinite(x, -1))


@both
def signbit(input: Tensor) -> Tensor:  # noqa: A002
    """Whether the sign of each entry is negative, of zeros too."""
    if input.is_complex():
        raise RuntimeError("signbit is not implemented for complex tensors.")
    return apply(_signbit, (input.detach(),))


@both
def isreal(input: Tensor) -> Tensor:  # noqa: A002
    """Whether the imaginary part of each entry is zero."""
    return apply(_isreal, (input.detach(),))


@both
def isposinf(input: Tensor) -> Tensor:  # noqa: A002
    """Whether each entry is positive infinity."""
    return apply(_isposinf, (input.detach(),))


@both
def isneginf(input: Tensor) -> Tensor:  # noqa: A002
    """Whether each entry is negative infinity."""
    return apply(_isneginf, (input.detach(),))


@both
def positive(input: Tensor) -> Tensor:  # noqa: A002
    """The tensor itself."""
    if array_of(input).dtype.kind == "b":
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def _parts(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    _, exponent = jnp.frexp(jax.lax.stop_gradient(x))
    # The mantissa is computed in two steps, for a power of two may be out of range.
    half = exponent // 2
    mantissa = x * jnp.exp2(-half.astype(x.dtype)) * jnp.exp2(-(exponent - half).astype(x.dtype))
    return jnp.where(jnp.isfinite(x), mantissa, x), exponent.astype(jnp.int32)


_frexp = Op("Frexp", _parts, many=True)


@both
def frexp(input: Tensor) -> mantissa_exponent:  # noqa: A002
    """``(mantissa, exponent)``: the entries as a number below one times a power of two."""
    if array_of(input).dtype.kind not in "fV":
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    return mantissa_exponent(*apply(_frexp, (input,)))


# --------------------------------------------------------------------------------------------------------- of two operands

def _whole(name: str, fun: Any) -> Any:
    def of(x: jax.Array, y: jax.Array) -> jax.Array:
        for a in (x, y):
            if jnp.result_type(a).kind not in "iu":
                raise NotImplementedError(f"\"{name}_cpu\" not implemented for '{dtypes.type_name(jnp.result_type(a))}'")
        return fun(x, y)

    return broadcasting(of)


def _lcm(x: jax.Array, y: jax.Array) -> jax.Array:
    g = jnp.gcd(x, y)
    return jnp.where(g == 0, 0, jnp.abs(x // jnp.where(g == 0, 1, g) * y))


_gcd, _lcm_op = Op("Gcd", _whole("gcd", jnp.gcd)), Op("Lcm", _whole("lcm", _lcm))
_ldexp = Op("Ldexp", broadcasting(lambda x, y: _as_float(x) * jnp.exp2(_as_float(y)).astype(_as_float(x).dtype)))


def _as_float(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy)


def _wide(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.complex128 if _is_complex(x) else jnp.float64)


_float_power = Op("Pow", lambda x, y: jnp.power(*[a.astype(jnp.result_type(_wide(x), _wide(y))) for a in (_wide(x), _wide(y))]))


@both
def gcd(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """The greatest common divisor of each pair of entries."""
    return apply(_gcd, (input, other))


@both
def lcm(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """The least common multiple of each pair of entries."""
    return apply(_lcm_op, (input, other))


@both
def ldexp(input: Tensor, other: Operand) -> Tensor:  # noqa: A002
    """``input * 2 ** other``."""
    return apply(_ldexp, (input, other))


@both
def float_power(input: Operand, exponent: Operand) -> Tensor:  # noqa: A002
    """``input ** exponent`` in double precision."""
    return apply(_float_power, (input, exponent))


@method
def float_power_(self: Tensor, exponent: Operand) -> Tensor:
    """``self ** exponent``, in place; the tensor must hold doubles."""
    if array_of(self).dtype.itemsize != (16 if self.is_complex() else 8) or array_of(self).dtype.kind not in "fc":
        raise RuntimeError(f"the base given to float_power_ has dtype {dtypes.type_name(array_of(self).dtype)} but the operation's "
                           f"result requires dtype {'ComplexDouble' if self.is_complex() else 'Double'}")
    return change(self, _float_power, (exponent,))


def _changes(name: str, op: Op) -> None:
    def in_place(self: Tensor, other: Operand) -> Tensor:
        return change(self, op, (other,))

    method(renamed(in_place, f"{name}_", f"As ``{name}``, in place."))


for _name, _op in dict(gcd=_gcd, lcm=_lcm_op, ldexp=_ldexp).items():
    _changes(_name, _op)


# ------------------------------------------------------------------------------------------------------------------ bounds

@both
def clamp_min(input: Tensor, min: Operand) -> Tensor:  # noqa: A002
    """The entries, or ``min`` where they are below it."""
    return input.clamp(min=min)  # type: ignore[arg-type]


@both
def clamp_max(input: Tensor, max: Operand) -> Tensor:  # noqa: A002
    """The entries, or ``max`` where they are above it."""
    return input.clamp(max=max)  # type: ignore[arg-type]


@method
def clamp_min_(self: Tensor, min: Operand) -> Tensor:  # noqa: A002
    """As ``clamp_min``, in place."""
    return self.clamp_(min=min)  # type: ignore[arg-type]


@method
def clamp_max_(self: Tensor, max: Operand) -> Tensor:  # noqa: A002
    """As ``clamp_max``, in place."""
    return self.clamp_(max=max)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- forms of others in place

#: Names of in-place methods, and what they are second names of.
_SECOND = dict(clip_="clamp_", absolute_="abs_", negative_="neg_", arccos_="acos_", arccosh_="acosh_", arcsin_="asin_",
               arcsinh_="asinh_", arctan_="atan_", arctanh_="atanh_", arctan2_="atan2_", fix_="trunc_", divide_="div_",
               true_divide_="div_", multiply_="mul_", subtract_="sub_", greater_="gt_", greater_equal_="ge_", less_="lt_",
               less_equal_="le_", not_equal_="ne_")
for _new, _old in _SECOND.items():
    setattr(Tensor, _new, getattr(Tensor, _old))


def _copies(name: str) -> None:
    """The in-place form of a function: its result is copied into the tensor."""
    def in_place(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # What the function saves of the tensor is its value from before the change.
        before = wrap(array_of(self))
        before._node, before._slot, before._requires_grad = self.grad_fn, self._slot, self.requires_grad
        return replace(self, getattr(before, name)(*args, **kwargs))

    method(renamed(in_place, f"{name}_", f"As ``{name}``, in place."))


for _name in ("copysign", "cumprod", "cumsum", "heaviside", "lerp", "nan_to_num", "renorm", "tril", "triu"):
    _copies(_name)


@method
def fill_diagonal_(self: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Write a number onto the diagonal, in place; with ``wrap``, of a tall matrix again and again."""
    if self.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if self.ndim > 2 and len(set(self.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    return change(self, _fill_diagonal, (fill_value, wrap))


def _filled(x: jax.Array, value: jax.Array, wrap: jax.Array) -> jax.Array:
    step = sum([math.prod(x.shape[d + 1:]) for d in range(x.ndim)])
    flat = jnp.arange(x.size)
    hits = (flat % step == 0) & (wrap | (flat < step * min(x.shape)))
    return jnp.where(hits.reshape(x.shape), jnp.asarray(value).astype(x.dtype), x)


_fill_diagonal = Op("FillDiagonal", _filled)


@method
def apply_(self: Tensor, callable: Any) -> Tensor:  # noqa: A002
    """Replace each entry by what a Python function gives for it; slow."""
    return _each(self, (), callable, "apply_")


@method
def map_(self: Tensor, tensor: Tensor, callable: Any) -> Tensor:  # noqa: A002
    """Replace each entry by what a Python function gives for it and the entry of another tensor; slow."""
    return _each(self, (tensor,), callable, "map_")


def _each(t: Tensor, others: tuple[Tensor, ...], fun: Any, name: str) -> Tensor:
    if t.requires_grad or any(x.requires_grad for x in others):
        raise TypeError(f"Can't call {name}() on Variable that requires grad. Use var.detach().{name}() instead.")
    columns = [x.expand_as(t).reshape(-1).tolist() for x in (t, *others)]
    values = [fun(*row) for row in zip(*columns, strict=True)]
    return t.copy_(FUNCTIONS["tensor"](values, dtype=t.dtype).reshape(t.shape))


@method
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sum over the dimensions along which a tensor of this size would be broadcast."""
    shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    lead = self.ndim - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, self.shape[lead:], strict=True)):
        raise RuntimeError(f"size {{{list(shape)}}} is not expandable to size {{{list(self.shape)}}}.")
    dims = [*range(lead), *[lead + d for d, (n, m) in enumerate(zip(shape, self.shape[lead:], strict=True)) if n == 1 != m]]
    return (self.sum(dims, keepdim=True) if dims else self).reshape(shape)
