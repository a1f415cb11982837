"""Making tensors, and taking values out of them."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax import Tracer, source
from dualrev.eager import dtypes
from dualrev.eager.dtypes import jax_device, numpy_of
from dualrev.eager.modes import mode
from dualrev.eager.names import function
from dualrev.eager.shapes import shape_of
from dualrev.eager.tensors import Tensor, array_of, described, wrap


def finished(array: Any, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A new leaf."""
    if device is not None and not isinstance(array, Tracer):
        array = jax.device_put(array, jax_device(device))
    t = wrap(array)
    t._made = source()
    if mode.inference:
        t._inference = True
    if requires_grad:
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients\n" + described(t))
        t.requires_grad_()
    return t


def _numbers(data: Any) -> Any:
    """Nested sequences with tensors among them as sequences of arrays."""
    if isinstance(data, Tensor):
        return array_of(data)
    if isinstance(data, (list, tuple)):
        return [_numbers(x) for x in data]
    return data


def _ragged(data: Any, dim: int) -> str | None:
    """Where sequences that should have the same length have not."""
    if not isinstance(data, (list, tuple)):
        return None
    for x in data:
        n, first = (len(y) if isinstance(y, (list, tuple)) else 0 for y in (x, data[0]))
        if n != first:
            return f"expected sequence of length {first} at dim {dim + 1} (got {n})"
    return next((found for x in data if (found := _ragged(x, dim + 1))), None)


def _leaves(data: Any) -> list[Any]:
    return list(itertools.chain.from_iterable(map(_leaves, data))) if isinstance(data, (list, tuple)) else [data]


@function
def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of the data.

    Args:
      data: a number, nested sequences of numbers, or an array.
      dtype: the default float for Python floats, and what the data has otherwise.
      device: "cpu" or "cuda".
      requires_grad: whether operations on it are recorded.

    Raises:
      ValueError: the sequences are ragged.
      RuntimeError: it is to require grad and is not of floating point.

    >>> from dualrev import eager as torch
    >>> torch.tensor([[1, 2], [3, 4.5]], requires_grad=True)
    tensor([[1.0000, 2.0000],
            [3.0000, 4.5000]], requires_grad=True)
    """
    data = _numbers(data)
    leaves = _leaves(data)
    if any(isinstance(x, Tracer) for x in leaves):
        array = jnp.asarray(data)
    elif isinstance(data, (jax.Array, np.ndarray, np.generic)):
        array = jnp.array(data, copy=True)
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
            values = values.astype(np.complex64)
        array = jnp.asarray(values, None if dtype is None else numpy_of(dtype))
    if dtype is not None:
        array = array.astype(numpy_of(dtype))
    return finished(array, requires_grad, device)


@function
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """The data as a tensor: a tensor of the same dtype stays itself."""
    if isinstance(data, Tensor) and (dtype is None or data.dtype == dtype):
        return data
    return tensor(data, dtype=dtype, device=device)


@function
def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor with a copy of an array's values: arrays of jax share no memory with numpy."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    return finished(jnp.array(ndarray))


def _sizes(size: tuple[Any, ...]) -> tuple[int, ...]:
    shape = shape_of(size)
    for s in shape:
        if s < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {s}: {list(shape)}")
    return shape


def _float(dtype: Any) -> Any:
    return dtypes.get_default_dtype().numpy if dtype is None else numpy_of(dtype)


@function
def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros."""
    return finished(jnp.zeros(_sizes(size), _float(dtype)), requires_grad, device)


@function
def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones."""
    return finished(jnp.ones(_sizes(size), _float(dtype)), requires_grad, device)


@function
def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros: what is not set has a value too."""
    return zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad)


@function
def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One number everywhere."""
    if dtype is None:
        kind = jnp.asarray(fill_value).dtype
        dtype = dtypes.get_default_dtype().numpy if kind.kind == "f" else kind
    return finished(jnp.full(_sizes((size,)), fill_value, numpy_of(dtype)), requires_grad, device)


@function
def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Equal steps from ``start`` up to, and without, ``end``."""
    if end is None:
        start, end = 0, start
    if dtype is None:
        dtype = dtypes.get_default_dtype() if any(isinstance(x, float) for x in (start, end, step)) else dtypes.int64
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError(f"upper bound and lower bound inconsistent with step sign\nfrom {start} to {end} by {step}")
    return finished(jnp.arange(start, end, step, numpy_of(dtype)), requires_grad, device)


@function
def linspace(start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """So many numbers from ``start`` to ``end``."""
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    return finished(jnp.linspace(start, end, steps, dtype=_float(dtype)), requires_grad, device)


@function
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal."""
    return finished(jnp.eye(n, m, dtype=_float(dtype)), requires_grad, device)
