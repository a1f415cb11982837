"""Symbolic zeros, float0 and the addition of tangents.

Inside the package the zero tangent (or cotangent) is ``None``: it costs nothing and needs no array.  At the boundary, jax's
convention holds: zeros are arrays, and what belongs to an integer or boolean value is an array of dtype float0.
"""

from __future__ import annotations

from typing import TypeAlias, overload

import jax
import numpy as np
from jax import lax

from dualrev._jax.avals import (
    ArrayLike,
    DType,
    ShapedArray,
    convert_to,
    extended_sum,
    extended_zeros,
    float0,
    is_extended,
    key_implementation,
    tangent_aval,
    typeof,
)
from dualrev._jax.sharding import explicit_sharding, in_mesh_context, on_own_mesh, vary_as
from dualrev._jax.traces import is_eager

#: A tangent or a cotangent of an array; None is the symbolic zero.
Tangent: TypeAlias = jax.Array | None


def zeros_of(aval: ShapedArray) -> jax.Array:
    """The zero array of a tangent's abstract value."""
    if aval.dtype == float0:
        return np.zeros(aval.shape, float0)  # type: ignore[return-value]  # jax has no class of its own for these
    if is_extended(aval.dtype):
        return extended_zeros(aval)
    return vary_as(convert_to(lax.full(aval.shape, 0, aval.dtype, sharding=explicit_sharding(aval)), aval), aval)


def zero_tangent(x: ArrayLike) -> jax.Array:
    """The zero tangent of a value."""
    return zeros_of(tangent_aval(typeof(x)))


def instantiate(t: Tangent, aval: ShapedArray) -> jax.Array:
    """``t``, or zeros where it is the symbolic zero; ``aval`` is the primal's."""
    return zeros_of(tangent_aval(aval)) if t is None else t


def fit(t: Tangent, aval: ShapedArray) -> jax.Array:
    """As :func:`instantiate`, with the primal's weak type: the form in which results leave the package."""
    t = vary_as(instantiate(t, aval), aval)
    if getattr(t, "weak_type", False) != aval.weak_type and t.dtype == aval.dtype:
        return convert_to(t, aval)
    return t


def cast(t: jax.Array, dtype: DType) -> jax.Array:
    """A tangent in another dtype."""
    return t if t.dtype == dtype else lax.convert_element_type(t, dtype)


@overload
def add(x: jax.Array, y: Tangent) -> jax.Array: ...


@overload
def add(x: Tangent, y: jax.Array) -> jax.Array: ...


@overload
def add(x: Tangent, y: Tangent) -> Tangent: ...


def add(x: Tangent, y: Tangent) -> Tangent:
    """The sum of two tangents, either of which may be the symbolic zero."""
    if x is None:
        return y
    if y is None:
        return x
    if is_extended(x.dtype):
        return extended_sum(x, y)
    summed = _add if is_eager((x, y)) else lax.add
    return on_own_mesh(summed, (x, y)) if in_mesh_context() else summed(x, y)


_add = jax.jit(lax.add)  # on concrete values, calling a compiled function takes half the time of binding an operation


def drop_float0(t: Tangent) -> Tangent:
    """The symbolic zero for a tangent that carries no information, else the tangent."""
    if t is None or getattr(t, "dtype", None) == float0:
        return None
    return t


def filler(aval: ShapedArray) -> jax.Array:
    """A placeholder of an abstract value's type, which nothing reads."""
    if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key):
        key = lax.broadcast(jax.random.key(0, impl=key_implementation(aval)), aval.shape, out_sharding=explicit_sharding(aval))
        return vary_as(key, aval)
    return vary_as(lax.full(aval.shape, 0, aval.dtype, sharding=explicit_sharding(aval)), aval)
