"""Abstract values: types of arrays, of their tangents and of their cotangents."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.core import primal_dtype_to_tangent_dtype as _primal_dtype_to_tangent_dtype  # extended dtypes have their own
from jax._src.dtypes import float0 as float0  # documented as jax.dtypes.float0; the tangent dtype of integers
from jax.core import AbstractValue as AbstractValue  # of anything: of an array, a reference, a value that a library defined
from jax.core import ShapedArray as ShapedArray  # the abstract value of an array

JAX_VERSION: tuple[int, ...] = tuple(int(part) for part in jax.__version__.split(".")[:2])


def abstract_outputs(primitive: Any, avals: Sequence[ShapedArray], params: dict[str, Any]) -> list[ShapedArray]:
    """Abstract values of what a primitive returns, without running it."""
    outs, _effects = primitive.abstract_eval(*avals, **params)
    return list(outs) if primitive.multiple_results else [outs]


#: The abstract value of a value.
typeof: Callable[[Any], Any] = jax.typeof


def tangent_aval(aval: Any) -> Any:
    """The abstract value of tangents of ``aval`` (float0 for integers and booleans)."""
    return aval.to_tangent_aval()

_DIFFERENTIABLE: dict[Any, bool] = {}


def tangent_dtype(dtype: Any) -> Any:
    """The dtype of tangents of values of a dtype."""
    return _primal_dtype_to_tangent_dtype(dtype)


def is_extended(dtype: Any) -> bool:
    """Whether a dtype is one that somebody defined, of which zero and the sum are what it says."""
    return jax.dtypes.issubdtype(dtype, jax.dtypes.extended)


def extended_zeros(aval: Any) -> Any:
    return jax.lax.broadcast(aval.dtype._rules.zero(aval.dtype), aval.shape)


def extended_sum(x: Any, y: Any) -> Any:
    return x.dtype._rules.add(x.dtype, x, y)


def is_differentiable(aval: Any) -> bool:
    """Whether values of ``aval`` have tangents other than float0."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None:
        return False
    try:
        return _DIFFERENTIABLE[dtype]
    except KeyError:
        tangent = aval.to_tangent_aval()
        answer = getattr(tangent, "dtype", float0) != float0
        _DIFFERENTIABLE[dtype] = answer
        return answer


def key_implementation(aval: Any) -> str:
    """The name of the generator that an array of random keys is for."""
    return aval.dtype._impl.name


def is_reference(aval: Any) -> bool:
    """Whether an abstract value is that of a mutable reference."""
    from jax._src.state.types import AbstractRef

    return isinstance(aval, AbstractRef)


def convert_to(x: Any, aval: Any) -> Any:
    """``x`` with the dtype of ``aval``, weakly typed if that is."""
    weak = bool(getattr(aval, "weak_type", False))
    own = typeof(x)
    if own.dtype == aval.dtype and own.weak_type == weak:
        return x
    return jax.lax.convert_element_type_p.bind(x, new_dtype=aval.dtype, weak_type=weak, sharding=None)


def cotangent_aval(aval: Any) -> Any:
    """The abstract value of cotangents: that of tangents, but what is reduced over a mesh axis has an unreduced cotangent."""
    return aval.to_ct_aval()


def is_array_like(x: Any) -> bool:
    """Whether jax accepts ``x`` as an array operand."""
    if isinstance(x, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        return True
    try:
        typeof(x)
    except TypeError:
        return False
    return True


def common_dtype(*dtypes: Any) -> Any:
    """The dtype that jax promotes these to by its standard table, whatever ``jax_numpy_dtype_promotion`` is."""
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes)
