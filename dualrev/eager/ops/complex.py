"""Complex tensors and their parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.arguments import taking
from dualrev.eager.ops.checks import broadcast, same_dtype
from dualrev.eager.ops.registry import both, function

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


@both
def is_complex(input: Tensor) -> bool:  # noqa: A002
    """Whether the dtype is complex."""
    return jnp.issubdtype(array_of(input).dtype, jnp.complexfloating)
