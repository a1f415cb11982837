"""Values of tensors as Python numbers, lists and numpy arrays, and conversions to other dtypes and devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.source_lines import user_frame
from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType, Scalar
from dualrev.eager.core.dtypes import device_of, jax_device, numpy_of
from dualrev.eager.core.evaluation import as_jax
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import family
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.graph.views import data_of
from dualrev.eager.ops.arguments import memory_format
from dualrev.eager.ops.registry import both, method

# ------------------------------------------------------------------------------------------------------------- taking out

Tensor.dtype = property(lambda self: dtypes.of(array_of(self).dtype))  # type: ignore[assignment]
Tensor.device = property(lambda self: device_of(array_of(self)))  # type: ignore[assignment]
Tensor.is_cuda = property(lambda self: self.device.type == "cuda")  # type: ignore[assignment]
Tensor.is_cpu = property(lambda self: self.device.type == "cpu")  # type: ignore[assignment]
Tensor.nbytes = property(lambda self: array_of(self).nbytes)  # type: ignore[assignment]
Tensor.itemsize = property(lambda self: array_of(self).dtype.itemsize)  # type: ignore[assignment]


def _set_data(self: Tensor, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
    if value._storage is self._storage:
        return  # x.data *= 2 has changed the storage already
    if self._view is None and value._view is None:
        version = self._counter
        self._storage = value._storage
        self._counter = version
    else:
        write(self, array_of(value))
        self._counter.version -= 1


Tensor.data = property(data_of, _set_data, doc="The value outside the graph, sharing the storage; changes do not count.")  # type: ignore[assignment, misc]


#: What PyTorch's vmap says of values that Python asks for.
_UNDER_VMAP = {
    "item()": "vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over calling .item() on a Tensor, please "
              "try to rewrite what you're doing with other operations. If error is occurring somewhere inside PyTorch internals, "
              "please file a bug report.",
    "a condition": "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow. We don't support that "
                   "yet, please file an issue at https://github.com/pytorch/pytorch/issues .",
}


def known(self: Tensor, what: str) -> np.ndarray:
    """The entries of a tensor that is not being traced."""
    array = array_of(self)
    if isinstance(array, Tracer):
        under_vmap = _UNDER_VMAP[what] + "\n" if mode.examples and what in _UNDER_VMAP else ""
        raise RuntimeError(f"{under_vmap}{what} needs the value of a tensor that is being traced, at {user_frame()}\nits value is "
                           "known when the compiled program runs, not while it is compiled; use torch.where for a choice, or do this "
                           "outside")
    return np.asarray(array)


@method
def item(self: Tensor) -> Scalar:
    """The only entry as a Python number."""
    values = known(self, "item()")
    if values.size != 1:
        raise RuntimeError(f"a Tensor with {values.size} elements cannot be converted to Scalar")
    return values.item()


@method
def tolist(self: Tensor) -> Any:
    """The entries as nested lists."""
    return known(self, "tolist()").tolist()


@method
def numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The entries as a numpy array, a copy."""
    if self.requires_grad and not force:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
    return np.array(known(self, "numpy()"))


Tensor.jax = property(lambda self: as_jax(array_of(self)), doc="The value as an array of jax.")  # type: ignore[assignment]
Tensor.__array__ = lambda self, dtype=None, copy=None: np.asarray(self.numpy(), dtype)  # type: ignore[arg-type, method-assign]


def _number(self: Tensor) -> Any:
    n = array_of(self).size
    if n != 1:
        raise ValueError(f"only one element tensors can be converted to Python scalars\nthis one has {n}; .tolist() gives all")
    return known(self, "a Python number").item()


Tensor.__float__ = lambda self: float(_number(self))  # type: ignore[arg-type, method-assign]
Tensor.__int__ = lambda self: int(_number(self))  # type: ignore[arg-type, method-assign]
Tensor.__index__ = lambda self: int(_number(self))  # type: ignore[arg-type, method-assign]
Tensor.__complex__ = lambda self: complex(_number(self))  # type: ignore[arg-type, method-assign]


def _truth(self: Tensor) -> bool:
    n = array_of(self).size
    if n != 1:
        raise RuntimeError("Boolean value of Tensor with " + ("no values" if n == 0 else "more than one value") + " is ambiguous\n"
                           "use .any() or .all()")
    return bool(known(self, "a condition"))


Tensor.__bool__ = _truth  # type: ignore[assignment, method-assign]


@method
def __len__(self: Tensor) -> int:  # noqa: N807
    if self.ndim == 0:
        raise TypeError("len() of a 0-d tensor")
    return self.shape[0]


@method
def __contains__(self: Tensor, element: object) -> bool:  # noqa: N807
    if not isinstance(element, (Tensor, int, float, complex)):
        raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}.")
    return bool((self == element).any())


@method
def element_size(self: Tensor) -> int:
    """Bytes of one entry."""
    return array_of(self).dtype.itemsize


@both
def is_tensor(obj: object) -> bool:
    """Whether it is a tensor."""
    return isinstance(obj, Tensor)


@both
def is_floating_point(input: Tensor) -> bool:  # noqa: A002
    """Whether the dtype is a float."""
    return jnp.issubdtype(array_of(input).dtype, jnp.floating)


_cast = family("ToCopy", lambda x, dtype: x.astype(dtype))
_put = family("ToCopy", lambda x, target: jax.device_put(x, target))


@method
def to(self: Tensor, *args: object, dtype: DType | None = None, device: Device | None = None, non_blocking: bool = False,
       copy: bool = False, memory_format: memory_format | None = None, tensor: Tensor | None = None) -> Tensor:
    """The tensor with another dtype or on another device, or with those of another tensor; itself if it has both already."""
    flags = [a for a in args if isinstance(a, bool)]
    copy = copy or (len(flags) > 1 and flags[1])
    for a in args if tensor is None else (*args, tensor):
        if isinstance(a, (dtypes.dtype, type)):
            dtype = a
        elif isinstance(a, (str, dtypes.device)):
            device = a
        elif isinstance(a, Tensor):
            dtype, device = a.dtype, a.device
    result = self
    if dtype is not None and numpy_of(dtype) != array_of(self).dtype:
        result = apply(_cast(numpy_of(dtype)), (result,))
    if device is not None and not dtypes.is_on(array_of(result), device):
        result = apply(_put(jax_device(device)), (result,))
    return result.clone() if copy and result is self else result


def _to(name: str, dtype: DType) -> None:
    setattr(Tensor, name, lambda self, memory_format=None: self.to(dtype))


for _name in ("double", "half", "bfloat16", "long", "short"):
    _to(_name, getattr(dtypes, _name))
for _name, _dtype in dict(float=dtypes.float32, int=dtypes.int32, bool=dtypes.bool).items():
    _to(_name, _dtype)
Tensor.type_as = lambda self, other: self.to(other.dtype)  # type: ignore[method-assign]
Tensor.cpu = lambda self, memory_format=None: self.to("cpu")  # type: ignore[method-assign]


@method
def cuda(self: Tensor, device: Device | None = None, non_blocking: bool = False, memory_format: memory_format | None = None) -> Tensor:
    """On a GPU."""
    return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)


@both
def is_nonzero(input: Tensor) -> bool:  # noqa: A002
    """Whether the only entry is not zero."""
    return bool(input)
