"""Tensors made of data, filled with a number, or with the shape of another tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.source_lines import source
from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType, Values
from dualrev.eager.core.dtypes import jax_device, numpy_of
from dualrev.eager.core.evaluation import kept, wide
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.tensor import Operand, Tensor, array_of, described, wrap
from dualrev.eager.ops.arguments import OPTIONS, OUT, taking
from dualrev.eager.ops.data import array_from
from dualrev.eager.ops.outputs import into
from dualrev.eager.ops.registry import FUNCTIONS, function, method, renamed


def finished(array: Values, requires_grad: bool = False, device: Device | None = None, out: Tensor | None = None,
             name: str = "") -> Tensor:
    """A new leaf; or ``out``, with the array written into it."""
    array = placed(array, dtypes.default_device() if device is None else device)
    if out is not None:
        t = into(out, array, f"aten::{name}")
    else:
        t = wrap(array)
        t._made = source()
        if mode.inference:
            t._inference = True
    if requires_grad:
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients\n" + described(t))
        t.requires_grad_()
    return t


def placed(array: Any, device: Device | None) -> Any:
    """An array that was just made, on a device: by default jax's own; small arrays of CPUs stay numpy's."""
    if isinstance(array, Tracer):
        return array
    target = jax.devices()[0] if device is None else jax_device(device)
    if isinstance(array, np.ndarray) and target.platform == "cpu" and (device is None or target == jax.devices("cpu")[0]):
        return kept(array)
    if device is None and isinstance(array, jax.Array):
        return array
    with wide():
        return jax.device_put(array, target)


def dtype_for(dtype: DType | None, out: Tensor | None, otherwise: DType | None = None) -> np.dtype:
    """The array dtype that is asked for: ``dtype``, or that of ``out``, or ``otherwise``, by default the default float.

    Raises:
      RuntimeError: the first two are not the same.
    """
    if out is None:
        return numpy_of(dtype if dtype is not None else dtypes.get_default_dtype() if otherwise is None else otherwise)
    found = array_of(out).dtype
    if dtype is not None and numpy_of(dtype) != found:
        raise RuntimeError(f"dtype {dtypes.type_name(numpy_of(dtype))} does not match dtype of out parameter "
                           f"({dtypes.type_name(found)})\nleave out dtype=, or give an out= of this dtype")
    return found


# ------------------------------------------------------------------------------------------------------------------ of data


@function
@taking("Any data, *, torch.dtype dtype = None, torch.device device = None, bool pin_memory = False, bool requires_grad = False")
def tensor(data: Any, *, dtype: DType | None = None, device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of the data.

    Args:
      data: a number, nested sequences of numbers, or an array.
      dtype: by default the default float for Python floats, and the dtype of the data otherwise.
      device: "cpu" or "cuda".
      requires_grad: whether operations on it are recorded.

    Raises:
      ValueError: the sequences are ragged.
      RuntimeError: ``requires_grad`` is true and the dtype is not a float.

    >>> from dualrev import eager as torch
    >>> torch.tensor([[1, 2], [3, 4.5]], requires_grad=True)
    tensor([[1.0000, 2.0000],
            [3.0000, 4.5000]], requires_grad=True)
    """
    return finished(array_from(data, dtype), requires_grad, device)


def _same(data: Any, dtype: DType | None, device: Device | None) -> Tensor | None:
    """The data, if it is a tensor of this dtype and on this device; otherwise None."""
    if isinstance(data, Tensor) and (dtype is None or array_of(data).dtype == numpy_of(dtype)) and (
            device is None or dtypes.is_on(array_of(data), device)):
        return data
    return None


@function
@taking("Any data, *, torch.dtype dtype = None, torch.device device = None")
def as_tensor(data: Any, *, dtype: DType | None = None, device: Device | None = None) -> Tensor:
    """The data as a tensor: a tensor of the same dtype and device stays itself."""
    same = _same(data, dtype, device)
    if same is not None:
        return same
    return data.to(device, dtype) if isinstance(data, Tensor) else finished(array_from(data, dtype), False, device)


@function
@taking("Any obj, *, torch.dtype dtype = None, torch.device device = None, bool copy = None, bool requires_grad = False")
def asarray(obj: Any, *, dtype: DType | None = None, device: Device | None = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """The data as a tensor: one of the same dtype and device stays itself, unless ``copy``.

    Raises:
      ValueError: ``copy`` is false, and the dtype or device would be another.
    """
    same = _same(obj, dtype, device)
    if same is not None and not copy:
        return same
    if copy is False and not isinstance(obj, np.ndarray):
        raise ValueError("can't alias tensor with dtype or device of its own, or a sequence\nleave out copy=False")
    found = obj.to(device, dtype, copy=True) if isinstance(obj, Tensor) else finished(array_from(obj, dtype), False, device)
    if not requires_grad and isinstance(obj, Tensor):
        return found.detach()
    return found.requires_grad_(requires_grad)


@function
def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor with a copy of an array's values: arrays of jax share no memory with numpy."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    return finished(np.array(ndarray))


@method
@taking("Any data, *, torch.dtype dtype = None, torch.layout layout = None, torch.device device = None, bool pin_memory = False, "
        "bool requires_grad = False", method=True)
def new_tensor(self: Tensor, data: Any, *, dtype: DType | None = None, device: Device | None = None,
               requires_grad: bool = False) -> Tensor:
    """A new leaf, of this one's dtype."""
    return finished(array_from(data, dtype or self.dtype), requires_grad, device)


# ---------------------------------------------------------------------------------------------- filled with a number

_SIZE = f"tuple of ints size, *, {OUT}"


@function
@taking(_SIZE)
def zeros(size: Sequence[int], *, out: Tensor | None = None, dtype: DType | None = None, device: Device | None = None,
          requires_grad: bool = False) -> Tensor:
    """Zeros.

    >>> from dualrev import eager as torch
    >>> torch.zeros(2), torch.zeros(size=(3,), dtype=torch.bool)
    (tensor([0., 0.]), tensor([False, False, False]))
    """
    return finished(np.zeros(size, dtype_for(dtype, out)), requires_grad, device, out, "zeros")


@function
@taking(_SIZE)
def ones(size: Sequence[int], *, out: Tensor | None = None, dtype: DType | None = None, device: Device | None = None,
         requires_grad: bool = False) -> Tensor:
    """Ones."""
    return finished(np.ones(size, dtype_for(dtype, out)), requires_grad, device, out, "ones")


@function
@taking(f"tuple of ints size, *, torch.memory_format memory_format = None, {OUT}")
def empty(size: Sequence[int], *, out: Tensor | None = None, dtype: DType | None = None, device: Device | None = None,
          requires_grad: bool = False) -> Tensor:
    """Zeros, in place of uninitialized entries."""
    return finished(np.zeros(size, dtype_for(dtype, out)), requires_grad, device, out, "empty")


@function
@taking(f"tuple of ints size, tuple of ints stride, *, {OPTIONS}")
def empty_strided(size: Sequence[int], stride: Sequence[int], *, dtype: DType | None = None, device: Device | None = None,
                  requires_grad: bool = False) -> Tensor:
    """As ``empty``: arrays of jax choose their order in memory."""
    if len(size) != len(stride):
        raise RuntimeError(f"mismatch in length of strides and shape\nthe shape is {list(size)}, the strides are {list(stride)}")
    return empty(size, dtype=dtype, device=device, requires_grad=requires_grad)


@function
@taking(f"tuple of ints size, tuple of ints physical_layout, *, {OPTIONS}")
def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], *, dtype: DType | None = None, device: Device | None = None,
                   requires_grad: bool = False) -> Tensor:
    """As ``empty``: arrays of jax choose their order in memory."""
    if sorted(physical_layout) != list(range(len(size))):
        raise RuntimeError(f"Number of dimensions in size does not match the length of the physical_layout; {list(physical_layout)} is "
                           f"no order of {len(size)} dimensions")
    return empty(size, dtype=dtype, device=device, requires_grad=requires_grad)


def _kind_of(fill_value: Operand) -> DType:
    if isinstance(fill_value, Tensor):
        return array_of(fill_value).dtype
    kind = np.asarray(fill_value).dtype.kind
    return {"b": dtypes.bool, "f": dtypes.get_default_dtype(), "c": dtypes.complex64}.get(kind, dtypes.int64)


def _filled(size: Sequence[int], value: Any, kind: np.dtype) -> Any:
    if isinstance(value, Tracer):
        return jnp.full(size, value.astype(kind), kind)
    return np.full(size, np.asarray(value).astype(kind), kind)


@function
@taking(f"tuple of ints size, Number fill_value, *, {OUT}")
def full(size: Sequence[int], fill_value: Operand, *, out: Tensor | None = None, dtype: DType | None = None,
         device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """One number everywhere."""
    value = array_of(fill_value) if isinstance(fill_value, Tensor) else fill_value
    kind = dtype_for(dtype, out, _kind_of(fill_value))
    return finished(_filled(size, value, kind), requires_grad, device, out, "full")


# ----------------------------------------------------------------------------------------- of the shape or dtype of others

#: The last arguments of functions that take the shape of a tensor.
LIKE = f"torch.memory_format memory_format = None, {OPTIONS}"


def like(input: Tensor, dtype: DType | None, device: Device | None) -> dict[str, Any]:  # noqa: A002
    """The dtype and device that are asked for, by default those of a tensor."""
    array = array_of(input)
    if device is None and isinstance(array, jax.Array) and not isinstance(array, Tracer) and jax.devices()[0] not in array.devices():
        device = dtypes.device_of(array)
    return {"dtype": dtype or input.dtype, "device": device}


def _of_others(make: Callable[..., Tensor], name: str) -> None:
    """Register ``name_like``, which takes the shape of a tensor, and the method ``new_name``, which takes its dtype."""
    value = ", Number fill_value" if name == "full" else ""

    def of_shape(input: Tensor, *, dtype: DType | None = None, device: Device | None = None, **rest: Operand) -> Tensor:  # noqa: A002
        return make(input.shape, **like(input, dtype, device), **rest)

    def of_dtype(self: Tensor, size: Sequence[int], *, dtype: DType | None = None, device: Device | None = None,
                 **rest: Operand) -> Tensor:
        return make(size, **like(self, dtype, device), **rest)

    renamed(of_shape, f"{name}_like", f"As ``{name}``, with the shape and dtype of a tensor.")
    renamed(of_dtype, f"new_{name}", f"As ``{name}``, with the dtype of this tensor.")
    function(taking(f"Tensor input{value}, *, {LIKE}")(of_shape))
    method(taking(f"tuple of ints size{value}, *, {OPTIONS}", method=True)(of_dtype))


for _make in (zeros, ones, empty, full):
    _of_others(_make, _make.__name__)
zeros_like, ones_like = FUNCTIONS["zeros_like"], FUNCTIONS["ones_like"]
