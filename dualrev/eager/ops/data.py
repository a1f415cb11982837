"""Arrays from the data that tensors are made of: numbers, and nested sequences of them."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import DType, Values
from dualrev.eager.core.dtypes import numpy_of
from dualrev.eager.graph.tensor import Tensor, array_of


def _numbers(data: Any) -> Any:
    """Nested sequences with their tensors replaced by arrays."""
    if isinstance(data, Tensor):
        return array_of(data)
    if isinstance(data, (list, tuple)):
        return [_numbers(x) for x in data]
    return data


def _ragged(data: object, dim: int) -> str | None:
    """PyTorch's message about sequences of different lengths, or None."""
    if not isinstance(data, (list, tuple)):
        return None
    for x in data:
        n, first = (len(y) if isinstance(y, (list, tuple)) else 0 for y in (x, data[0]))
        if n != first:
            return f"expected sequence of length {first} at dim {dim + 1} (got {n})"
    return next((found for x in data if (found := _ragged(x, dim + 1))), None)


def _leaves(data: object) -> list[Any]:
    return list(itertools.chain.from_iterable(map(_leaves, data))) if isinstance(data, (list, tuple)) else [data]


def array_from(data: Any, dtype: DType | None) -> Values:
    """A new array of data, with the dtype that PyTorch infers if none is given.

    Raises:
      ValueError: the sequences are ragged.
      TypeError, RuntimeError: they contain something other than numbers.
    """
    data = _numbers(data)
    leaves = _leaves(data)
    if any(isinstance(x, Tracer) for x in leaves):
        array = jnp.asarray(data)
    elif isinstance(data, (jax.Array, np.ndarray, np.generic)):
        return np.array(data, None if dtype is None else numpy_of(dtype))
    else:
        try:
            values = np.asarray(jax.tree_util.tree_map(np.asarray, data) if any(isinstance(x, jax.Array) for x in leaves) else data)
        except ValueError as error:
            raise ValueError(f"{_ragged(data, 0)}\n{error}") from None
        if values.dtype.kind in "SUMm":
            wrong = next(x for x in leaves if not isinstance(x, (int, float, complex)))
            raise TypeError(f"new(): invalid data type '{type(wrong).__name__}'\na tensor holds numbers and truth values")
        if values.dtype.kind == "O":
            raise RuntimeError(f"Could not infer dtype of {type(leaves[0]).__name__}")
        if (values.dtype.kind == "f" and not any(isinstance(x, (np.ndarray, np.generic, jax.Array)) for x in leaves)) or not leaves:
            values = values.astype(dtypes.get_default_dtype().numpy)
        elif values.dtype.kind == "c" and not any(isinstance(x, (np.ndarray, np.generic)) for x in leaves):
            values = values.astype(np.complex128 if dtypes.get_default_dtype() is dtypes.float64 else np.complex64)
        return values if dtype is None else values.astype(numpy_of(dtype))
    return array if dtype is None else array.astype(numpy_of(dtype))
