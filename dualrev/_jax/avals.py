"""Abstract values: types of arrays, of their tangents and of their cotangents."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.array import ArrayImpl as _ArrayImpl  # the class of arrays with values; .aval does not tell how they lie on a mesh
from jax._src.core import primal_dtype_to_tangent_dtype as _primal_dtype_to_tangent_dtype  # extended dtypes have their own
from jax._src.dtypes import float0 as float0  # documented as jax.dtypes.float0; the tangent dtype of integers
from jax.core import AbstractValue as AbstractValue  # of anything: of an array, a reference, a value that a library defined
from jax.core import ShapedArray as ShapedArray  # the abstract value of an array
from jax.sharding import SingleDeviceSharding
from jax.typing import ArrayLike as ArrayLike  # what jax takes for an array
from jaxlib.version import __version__ as jaxlib_version  # names the compiler

from dualrev._jax.primitives import Params, Primitive

if TYPE_CHECKING:
    from typing_extensions import TypeIs

#: The dtype of an array; an extended one, such as that of random keys, is a class of jax's with the same interface.
DType: TypeAlias = np.dtype

#: The release of the compiler.
JAXLIB_VERSION: str = jaxlib_version

JAX_VERSION: tuple[int, ...] = tuple(int(part) for part in jax.__version__.split(".")[:2])


def abstract_outputs(primitive: Primitive, avals: Sequence[ShapedArray], params: Params) -> list[ShapedArray]:
    """Abstract values of what a primitive returns, without running it."""
    outs, _effects = primitive.abstract_eval(*avals, **params)
    return list(outs) if primitive.multiple_results else [outs]


def typeof(x: object) -> ShapedArray:
    """The abstract value of a value: ``jax.typeof``, which for arrays on one device goes through four functions."""
    if type(x) is _ArrayImpl and type(x._sharding) is SingleDeviceSharding:
        return x.aval
    return jax.typeof(x)


def tangent_aval(aval: ShapedArray) -> ShapedArray:
    """The abstract value of tangents of ``aval`` (float0 for integers and booleans)."""
    return aval.to_tangent_aval()

_DIFFERENTIABLE: dict[DType, bool] = {}


def tangent_dtype(dtype: DType) -> DType:
    """The dtype of tangents of values of a dtype."""
    return _primal_dtype_to_tangent_dtype(dtype)


def is_extended(dtype: DType) -> bool:
    """Whether a dtype is one that somebody defined, of which zero and the sum are what it says."""
    return jax.dtypes.issubdtype(dtype, jax.dtypes.extended)


def extended_zeros(aval: ShapedArray) -> jax.Array:
    return jax.lax.broadcast(aval.dtype._rules.zero(aval.dtype), aval.shape)


def extended_sum(x: jax.Array, y: jax.Array) -> jax.Array:
    return x.dtype._rules.add(x.dtype, x, y)  # type: ignore[attr-defined]


def is_differentiable(aval: AbstractValue) -> bool:
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


def key_implementation(aval: ShapedArray) -> str:
    """The name of the generator that an array of random keys is for."""
    return aval.dtype._impl.name


def is_reference(aval: AbstractValue) -> bool:
    """Whether an abstract value is that of a mutable reference."""
    from jax._src.state.types import AbstractRef

    return isinstance(aval, AbstractRef)


def convert_to(x: jax.Array, aval: ShapedArray) -> jax.Array:
    """``x`` with the dtype of ``aval``, weakly typed if that is."""
    weak = bool(getattr(aval, "weak_type", False))
    own = typeof(x)
    if own.dtype == aval.dtype and own.weak_type == weak:
        return x
    return jax.lax.convert_element_type_p.bind(x, new_dtype=aval.dtype, weak_type=weak, sharding=None)


def cotangent_aval(aval: ShapedArray) -> ShapedArray:
    """The abstract value of cotangents: that of tangents, but what is reduced over a mesh axis has an unreduced cotangent."""
    return aval.to_ct_aval()


def is_array_like(x: object) -> TypeIs[ArrayLike]:
    """Whether jax accepts ``x`` as an array operand."""
    if isinstance(x, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        return True
    try:
        typeof(x)
    except TypeError:
        return False
    return True


def common_dtype(*dtypes: DType) -> DType:
    """The dtype that jax promotes these to by its standard table, whatever ``jax_numpy_dtype_promotion`` is."""
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes)
