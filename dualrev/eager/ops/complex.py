"""Complex tensors and their parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.graph.views import REINTERPRETATIONS, Reinterpretation, view
from dualrev.eager.ops.arguments import taking
from dualrev.eager.ops.checks import broadcast, same_dtype
from dualrev.eager.ops.registry import both, function

_AS_REAL = Op("ViewAsReal", lambda x: jnp.stack([jnp.real(x), jnp.imag(x)], -1))
_AS_COMPLEX = Op("ViewAsComplex", lambda x: jax.lax.complex(x[..., 0], x[..., 1]))
REINTERPRETATIONS[_AS_REAL] = Reinterpretation(_AS_COMPLEX.fun, lambda places: np.stack([2 * places, 2 * places + 1], -1))
REINTERPRETATIONS[_AS_COMPLEX] = Reinterpretation(_AS_REAL.fun, lambda places: places[..., 0] // 2)


def _imag_of(t: Tensor) -> Tensor:
    if not t.is_complex():
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")
    return view_as_real(t).select(-1, 1)


def _real_of(t: Tensor) -> Tensor:
    return view_as_real(t).select(-1, 0) if t.is_complex() else t


def _set_part(t: Tensor, value: Any, part: Tensor) -> None:
    part.copy_(value) if isinstance(value, Tensor) else part.fill_(value)


Tensor.real = property(_real_of, lambda t, value: _set_part(t, value, _real_of(t)), doc="The real part, a view.")  # type: ignore[assignment, misc]
Tensor.imag = property(_imag_of, lambda t, value: _set_part(t, value, _imag_of(t)), doc="The imaginary part, a view.")  # type: ignore[assignment, misc]


@function
def real(input: Tensor) -> Tensor:  # noqa: A002
    """The real part; a real tensor is its own."""
    return input.real


@function
def imag(input: Tensor) -> Tensor:  # noqa: A002
    """The imaginary part of a complex tensor."""
    return input.imag


@function
def view_as_real(input: Tensor) -> Tensor:  # noqa: A002
    """The real and imaginary parts of a complex tensor in a last dimension of size 2."""
    if not input.is_complex():
        raise RuntimeError("view_as_real is only supported for complex tensors")
    return view(_AS_REAL, input)


@function
def view_as_complex(input: Tensor) -> Tensor:  # noqa: A002
    """A complex tensor of the real and imaginary parts in the last dimension, of size 2."""
    if array_of(input).dtype not in (np.float32, np.float64, np.float16):
        raise RuntimeError("view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar type: "
                           f"{dtypes.type_name(array_of(input).dtype)}")
    if input.ndim == 0:
        raise RuntimeError("Input tensor must have one or more dimensions")
    if input.shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    return view(_AS_COMPLEX, input)


def _parts(x: jax.Array, y: jax.Array, cartesian: bool) -> jax.Array:
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


@both
def is_complex(input: Tensor) -> bool:  # noqa: A002
    """Whether the dtype is complex."""
    return jnp.issubdtype(array_of(input).dtype, jnp.complexfloating)
