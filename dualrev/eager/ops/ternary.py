"""Operations entry by entry of three operands: clamp, where, masked_fill, lerp, addcmul, addcdiv."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Number
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor, array_of
from dualrev.eager.ops.checks import broadcast
from dualrev.eager.ops.promotion import promoted
from dualrev.eager.ops.registry import alias, both, function, method, renamed

#: A bound of arrays, or of tensors; None is no bound.
Bound: TypeAlias = Number | None
Limit: TypeAlias = Operand | None


def _clip(x: Any, low: Bound, high: Bound) -> jax.Array:
    # The derivative at a bound is that inside.
    if low is not None:
        x, low = promoted(x, low)
        x = jnp.where(x < low, low, x)
    if high is not None:
        x, high = promoted(x, high)
        x = jnp.where(x > high, high, x)
    return x


_CLAMPS = {(True, True): Op("Clamp", _clip), (True, False): Op("Clamp", lambda x, low: _clip(x, low, None)),
           (False, True): Op("Clamp", lambda x, high: _clip(x, None, high))}


def _clamp_op(low: Limit, high: Limit) -> tuple[Op, tuple[Operand, ...]]:
    if low is None and high is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    return _CLAMPS[low is not None, high is not None], tuple([b for b in (low, high) if b is not None])


@both
def clamp(input: Tensor, min: Limit = None, max: Limit = None) -> Tensor:  # noqa: A002
    """Entries limited to the bounds."""
    op, rest = _clamp_op(min, max)
    return apply(op, (input, *rest))


@method
def clamp_(self: Tensor, min: Limit = None, max: Limit = None) -> Tensor:  # noqa: A002
    """As ``clamp``, in place."""
    op, rest = _clamp_op(min, max)
    return change(self, op, rest)


alias("clip", clamp)


def _where_of(condition: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    broadcast(x, y, condition)
    if not any(hasattr(a, "dtype") and not getattr(a, "weak_type", False) for a in (x, y)):
        # Two Python numbers: whole ones give whole numbers, others the default float.
        kind = jnp.result_type(x, y)
        x = jnp.asarray(x, dtypes.get_default_dtype().numpy if kind.kind == "f" else kind)
    return jnp.where(condition, *promoted(x, y))


_WHERE = Op("Where", _where_of)


def _filled(x: jax.Array, mask: jax.Array, value: Any) -> jax.Array:
    broadcast(mask, x, mask)
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


_FILL = Op("MaskedFill", _filled)


def _mask(mask: Tensor) -> Tensor:
    if isinstance(mask, Tensor) and array_of(mask).dtype != np.bool_:
        raise RuntimeError("masked_fill_ only supports boolean masks, but got mask with dtype "
                           f"{dtypes.cpp_name(array_of(mask).dtype)}\nmask.bool() converts it")
    return mask


@function
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Tensor | tuple[Tensor, ...]:  # noqa: A002
    """``input`` where the condition is true, ``other`` elsewhere; with neither, the indices where it is true."""
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    if isinstance(condition, Tensor) and array_of(condition).dtype not in (np.bool_, np.uint8):
        raise RuntimeError("where expected condition to be a boolean tensor, but got a tensor with dtype "
                           f"{dtypes.type_name(array_of(condition).dtype)}\na comparison gives one: x != 0")
    return apply(_WHERE, (condition, input, other))


Tensor.where = lambda self, condition, other: where(condition, self, other)  # type: ignore[arg-type, assignment, method-assign, return-value]


@both
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:  # noqa: A002
    """``value`` where the mask is true."""
    return apply(_FILL, (input, _mask(mask), value))


@method
def masked_fill_(self: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """As ``masked_fill``, in place."""
    return change(self, _FILL, (_mask(mask), value))


_LERP = Op("Lerp", lambda start, end, weight: start + weight * (end - start))


@both
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:  # noqa: A002
    """``input + weight * (end - input)``."""
    if isinstance(input, Tensor) and isinstance(end, Tensor) and array_of(input).dtype != array_of(end).dtype:
        raise RuntimeError(f"expected dtype {dtypes.cpp_name(array_of(input).dtype)} for `end` but got dtype "
                           f"{dtypes.cpp_name(array_of(end).dtype).replace('long', 'long int')}")
    return apply(_LERP, (input, end, weight))


_ADDCMUL = Op("Addcmul", lambda x, a, b, value: x + value * a * b)
_ADDCDIV = Op("Addcdiv", lambda x, a, b, value: x + value * a / b)


@both
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:  # noqa: A002
    """``input + value * tensor1 * tensor2``."""
    return apply(_ADDCMUL, (input, tensor1, tensor2, value))


@both
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:  # noqa: A002
    """``input + value * tensor1 / tensor2``."""
    return apply(_ADDCDIV, (input, tensor1, tensor2, value))


method(renamed(lambda self, tensor1, tensor2, *, value=1: change(self, _ADDCMUL, (tensor1, tensor2, value)), "addcmul_", "In place."))
method(renamed(lambda self, tensor1, tensor2, *, value=1: change(self, _ADDCDIV, (tensor1, tensor2, value)), "addcdiv_", "In place."))
