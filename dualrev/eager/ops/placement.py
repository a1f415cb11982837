"""Where and how a tensor is stored: what PyTorch's programs ask, with the answers of dense arrays."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.arguments import strided
from dualrev.eager.ops.copies import clone
from dualrev.eager.ops.registry import FUNCTIONS, both, function, method

for _name in ("is_meta", "is_sparse", "is_quantized", "is_nested", "is_mkldnn", "is_sparse_csr"):
    setattr(Tensor, _name, False)
Tensor.layout = strided


@method
def get_device(self: Tensor) -> int:
    """The number of its GPU, -1 on the CPU."""
    index = self.device.index
    return -1 if self.device.type == "cpu" else index or 0


@method
def is_shared(self: Tensor) -> bool:
    """Whether processes share it: no."""
    return False


@method
def is_pinned(self: Tensor, device: Device | None = None) -> bool:
    """Whether it lies in memory that a GPU reads directly: no."""
    return False


@method
def pin_memory(self: Tensor, device: Device | None = None) -> Tensor:
    """Itself: transfers to a device are jax's."""
    return self


@method
def share_memory_(self: Tensor) -> Tensor:
    """Itself: processes get copies."""
    return self


@method
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same part of the same storage."""
    return (self._storage is tensor._storage and tuple(self.shape) == tuple(tensor.shape)
            and self.storage_offset() == tensor.storage_offset() and self.stride() == tensor.stride())


@method
def dim_order(self: Tensor, *, ambiguity_check: Any = False) -> tuple[int, ...]:
    """The dimensions from the one with the longest strides to the one with the shortest."""
    strides = self.stride()
    return tuple(sorted(range(self.ndim), key=lambda d: -strides[d]))


@method
def as_subclass(self: Tensor, cls: type[Any]) -> Any:
    """The same value, storage and place in the graph, as a tensor of a subclass."""
    other = object.__new__(cls)
    for name in ("_storage", "_counter", "_requires_grad", "_node", "_slot", "_view"):
        setattr(other, name, getattr(self, name))
    return other


@method
def new_empty_strided(self: Tensor, size: Sequence[int], stride: Sequence[int], *, dtype: DType | None = None,
                      device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """Room for a tensor of a size; arrays of jax choose their strides."""
    return FUNCTIONS["empty_strided"](size, stride, dtype=self.dtype if dtype is None else dtype, device=device,
                                      requires_grad=requires_grad)


@both
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:  # noqa: A002
    """The indices of the first ``size`` entries that are not zero; rows that are left over are filled."""
    found = FUNCTIONS["nonzero"](input)[:size]
    out = FUNCTIONS["full"]((size, input.ndim), fill_value, dtype=dtypes.int64)
    out[: found.shape[0]] = found
    return out


@function
def is_same_size(input: Tensor, other: Tensor) -> bool:  # noqa: A002
    """Whether two tensors have the same shape."""
    return tuple(input.shape) == tuple(other.shape)


@function
def typename(obj: object) -> str:
    """The name of the type of an object, as ``Tensor.type`` gives that of tensors."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    kind = type(obj)
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ not in ("builtins", "__main__") else kind.__qualname__


@function
def is_storage(obj: object) -> bool:
    """Whether an object is a storage of PyTorch's: none is."""
    return False


@function
def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A tensor of the bytes of an object, copied.

    Raises:
      ValueError: there are no bytes, or not as many as are asked for.
    """
    size, kind = len(memoryview(buffer).cast("B")), dtypes.numpy_of(dtype)
    if size == 0 or count == 0:
        raise ValueError(f"both buffer length ({size}) and count ({count}) must not be 0")
    if not 0 <= offset < size:
        raise ValueError(f"offset ({offset} bytes) must be non-negative and no greater than buffer length ({size} bytes) minus 1")
    if count < 0 and (size - offset) % kind.itemsize:
        raise ValueError(f"buffer length ({size - offset} bytes) after offset ({offset} bytes) must be a multiple of element size "
                         f"({kind.itemsize})")
    if count > 0 and offset + count * kind.itemsize > size:
        raise ValueError(f"requested buffer length ({count} * {kind.itemsize} bytes) after offset ({offset} bytes) must not be greater "
                         f"than actual buffer length ({size} bytes)")
    return FUNCTIONS["tensor"](np.frombuffer(buffer, kind, count, offset).copy(), requires_grad=requires_grad)


@function
def scalar_tensor(s: float, *, dtype: DType | None = None, device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor without dimensions, by default of the default float."""
    kind = dtypes.get_default_dtype() if dtype is None else dtype
    return FUNCTIONS["tensor"](s, dtype=kind, device=device, requires_grad=requires_grad)


@both
def fill(input: Tensor, value: float | Tensor) -> Tensor:  # noqa: A002
    """A copy whose entries are all equal to a number."""
    return clone(input).fill_(value)


GeqrfResult = namedtuple("GeqrfResult", ["a", "tau"])


@both
def geqrf(input: Tensor) -> GeqrfResult:  # noqa: A002
    """Householder vectors and their factors of a QR factorization; without a derivative, as in PyTorch."""
    h, tau = np.linalg.qr(np.asarray(array_of(input)), mode="raw")
    return GeqrfResult(FUNCTIONS["tensor"](np.swapaxes(h, -1, -2)), FUNCTIONS["tensor"](tau))
