"""PyTorch's names of dtypes and devices."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core.modes import mode


class dtype:
    """A dtype with PyTorch's name; ``numpy`` is the dtype of the array underneath."""

    __slots__ = ("name", "numpy")

    def __init__(self, name: str, numpy: np.dtype | type):
        self.name = name
        self.numpy = np.dtype(numpy)

    @property
    def is_floating_point(self) -> builtins.bool:
        return jnp.issubdtype(self.numpy, jnp.floating)

    @property
    def is_complex(self) -> builtins.bool:
        return jnp.issubdtype(self.numpy, jnp.complexfloating)

    @property
    def is_signed(self) -> builtins.bool:
        return self.numpy.kind not in "ub"

    def to_complex(self) -> dtype:
        """The complex dtype whose parts have this one."""
        return of(np.result_type(self.numpy, np.complex64))

    @property
    def itemsize(self) -> builtins.int:
        return self.numpy.itemsize

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


float64 = double = dtype("float64", np.float64)
float32 = float = dtype("float32", np.float32)  # noqa: A001  (PyTorch's name)
float16 = half = dtype("float16", np.float16)
bfloat16 = dtype("bfloat16", jnp.bfloat16)
complex64 = cfloat = dtype("complex64", np.complex64)
complex128 = cdouble = dtype("complex128", np.complex128)
int64 = long = dtype("int64", np.int64)
int32 = int = dtype("int32", np.int32)  # noqa: A001
int16 = short = dtype("int16", np.int16)
int8 = dtype("int8", np.int8)
uint8 = dtype("uint8", np.uint8)
bool = dtype("bool", np.bool_)  # noqa: A001

_BY_NUMPY = {d.numpy: d for d in (float64, float32, float16, bfloat16, complex64, complex128, int64, int32, int16, int8, uint8, bool)}
#: PyTorch's names of the types of tensors, which its messages use.
_TYPES = {"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "complex64": "ComplexFloat",
          "complex128": "ComplexDouble", "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
          "bool": "Bool"}
#: What C++ calls them, as some of PyTorch's messages do.
_CPP = {"float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16", "int64": "long", "int32": "int",
        "int16": "short", "int8": "signed char", "uint8": "unsigned char", "bool": "bool", "complex64": "c10::complex<float>",
        "complex128": "c10::complex<double>"}
_default = [float32]


def of(numpy_dtype: np.dtype) -> dtype:
    """PyTorch's dtype for an array's dtype."""
    found = _BY_NUMPY.get(numpy_dtype)
    return dtype(str(numpy_dtype), numpy_dtype) if found is None else found


def type_name(numpy_dtype: np.dtype) -> str:
    """What PyTorch calls a tensor of this dtype in messages: ``Float``, ``Long``."""
    return _TYPES.get(of(numpy_dtype).name, str(numpy_dtype))


def cpp_name(numpy_dtype: np.dtype) -> str:
    """What C++ calls a dtype: ``float``, ``long``."""
    return _CPP.get(of(numpy_dtype).name, str(numpy_dtype))


def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats."""
    return _default[0]


def set_default_dtype(d: dtype) -> None:
    """Choose the dtype of tensors made from Python floats.

    >>> from dualrev import eager as torch
    >>> torch.set_default_dtype(torch.float32)
    """
    if not isinstance(d, dtype) or not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type\n{d!r} is not one")
    numpy_of(d)
    _default[0] = d


def numpy_of(d: dtype | np.dtype | type) -> np.dtype:
    """The array dtype for one of ours, or a Python or numpy type; 64 bits do not need jax's ``jax_enable_x64``.

    Inside a function of arrays they do.
    """
    python = {"float": _default[0].numpy, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_), "complex": np.dtype(np.complex64)}
    if isinstance(d, dtype):
        wanted = d.numpy
    elif isinstance(d, builtins.type) and d.__module__ == "builtins" and d.__name__ in python:
        wanted = python[d.__name__]
    else:
        wanted = np.dtype(d)
    return np.dtype(jax.dtypes.canonicalize_dtype(wanted)) if mode.narrow else wanted


def long_dtype() -> np.dtype:
    """The array dtype of whole numbers, indices and counts."""
    return numpy_of(int64)


class _Chosen(threading.local):
    """The device on which this thread makes tensors."""

    device: device | None = None


_chosen = _Chosen()


class device:
    """The device of a tensor, ``cpu`` or ``cuda``; as a ``with`` block, the device on which tensors are made."""

    __slots__ = ("_before", "index", "type")

    index: builtins.int | None
    type: str

    def __init__(self, type: device | str | builtins.int = "cpu", index: builtins.int | None = None):  # noqa: A002
        if isinstance(type, device):
            given, index = type.type, type.index
        elif isinstance(type, builtins.int) and not isinstance(type, builtins.bool):
            given, index = "cuda", type
        else:
            given = str(type)
        name, _, number = given.partition(":")
        if name not in ("cpu", "cuda", "meta"):
            raise RuntimeError(f"Expected one of cpu, cuda device type at start of device string: {name}")
        self.type = name
        self.index = index if not number else np.int64(number).item()

    def __enter__(self) -> device:
        before = getattr(self, "_before", ())
        jax_device(self)
        self._before: Sequence[device | None] = (*before, _chosen.device)
        _chosen.device = self
        return self

    def __exit__(self, *_: object) -> None:
        *self._before, _chosen.device = self._before

    def __eq__(self, other: object) -> builtins.bool:
        other = device(other) if isinstance(other, str) else other
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> builtins.int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type='{self.type}'" + ("" if self.index is None else f", index={self.index}") + ")"


def default_device() -> device | None:
    """The device of new tensors, if one was chosen; None is the one where jax makes its arrays."""
    return _chosen.device


def set_default_device(device: device | str | builtins.int | None) -> None:
    """Choose the device of new tensors; None is the one where jax makes its arrays.

    >>> from dualrev import eager as torch
    >>> torch.set_default_device("cpu")
    >>> torch.get_default_device()
    device(type='cpu')
    >>> torch.set_default_device(None)
    """
    if device is not None:
        jax_device(device)
    _chosen.device = None if device is None else globals()["device"](device)


def get_default_device() -> device:
    """The device of new tensors."""
    chosen = _chosen.device
    return device("cpu" if jax.devices()[0].platform == "cpu" else "cuda") if chosen is None else chosen


def jax_device(d: device | str | builtins.int) -> jax.Device:
    """The jax device for a device or its name.

    Raises:
      RuntimeError: there is no such device.
    """
    d = device(d)
    kind = "gpu" if d.type == "cuda" else d.type
    try:
        return jax.devices(kind)[d.index or 0]
    except (RuntimeError, IndexError):
        raise RuntimeError(f"No CUDA GPUs are available\nthis process has {[str(x) for x in jax.devices()]}; leave out .cuda() or "
                           f".to('{d}'), or install a jax that drives the GPU (pip install 'jax[cuda12]')") from None


def is_on(array: jax.Array | np.ndarray, d: device | str | builtins.int) -> builtins.bool:
    """Whether an array is on a device already; what is being traced is wherever its program runs."""
    target = jax_device(d)
    if isinstance(array, jax.Array):
        return isinstance(array, Tracer) or target in array.devices()
    return target == jax.devices("cpu")[0]


def device_of(array: jax.Array | np.ndarray) -> device:
    """The device of an array."""
    if isinstance(array, np.ndarray):
        return device("cpu")
    found = next(iter(array.devices())) if isinstance(array, jax.Array) and not isinstance(array, Tracer) else jax.devices()[0]
    return device("cpu") if found.platform == "cpu" else device("cuda", found.id)
