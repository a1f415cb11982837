"""PyTorch's old constructors of tensors: ``Tensor(2, 3)``, ``LongTensor([1, 2])``."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dualrev._jax.source_lines import source
from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import DType, Values
from dualrev.eager.core.size import Size
from dualrev.eager.graph.tensor import Tensor, array_of, fill
from dualrev.eager.ops.arguments import Signature, read, shape_from
from dualrev.eager.ops.creation import finished
from dualrev.eager.ops.data import array_from
from dualrev.eager.ops.registry import FUNCTIONS, function, method

_SIZE = [Signature("tuple of ints size, *, torch.device device = None")]
_DATA = [Signature("*, torch.device device = None"), Signature("Any data, *, torch.device device = None")]


def _array_for(args: tuple[object, ...], kwargs: dict[str, Any], dtype: DType | None = None) -> Values:
    """The array of ``Tensor(...)``: zeros of a shape that integers give, or data."""
    first = args[0] if args else None
    if isinstance(first, int) or "size" in kwargs or len(args) > 1 or isinstance(first, Size):
        if isinstance(first, bool):
            raise TypeError("new(): data must be a sequence (got bool)\ntorch.tensor(value) takes single numbers")
        found = read("new", _SIZE, args, kwargs)
        return np.zeros(shape_from("new", found["size"]), dtypes.numpy_of(dtype or dtypes.get_default_dtype()))
    data = read("new", _DATA, args, kwargs).get("data", ())
    if isinstance(data, Tensor):
        return array_of(data) if dtype is None else array_of(data).astype(dtypes.numpy_of(dtype))
    if isinstance(data, Tracer):
        return data
    if not isinstance(data, (list, tuple, str, np.ndarray, np.generic, jax.Array)):
        raise TypeError(f"new(): data must be a sequence (got {type(data).__name__})\ntorch.tensor(value) takes single numbers")
    if isinstance(data, str):
        raise TypeError("new(): invalid data type 'str'\na tensor holds numbers and truth values")
    return array_from(data, dtype or dtypes.get_default_dtype())


@method
def __init__(self: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: N807
    requires_grad = kwargs.pop("requires_grad", False)
    fill(self, _array_for(args, kwargs))
    self._made = source()
    if requires_grad:
        self.requires_grad_()


class _OfType(type):
    """The tensors of a dtype: ``isinstance`` asks for it, and a call makes one."""

    wanted: dtypes.dtype

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor) and instance.dtype == cls.wanted

    def __call__(cls, *args: Any, **kwargs: Any) -> Tensor:
        return finished(_array_for(args, kwargs, cls.wanted))


for _name, _dtype in dict(Float=dtypes.float32, Double=dtypes.float64, Half=dtypes.float16, BFloat16=dtypes.bfloat16, Byte=dtypes.uint8,
                          Char=dtypes.int8, Short=dtypes.int16, Int=dtypes.int32, Long=dtypes.int64, Bool=dtypes.bool).items():
    FUNCTIONS[f"{_name}Tensor"] = _OfType(f"{_name}Tensor", (), {"wanted": _dtype, "__doc__": f"A tensor of {_dtype!r}."})


@function
def set_default_tensor_type(t: type[Tensor] | str, /) -> None:
    """Choose the dtype of tensors made from Python floats, by the name of a type of tensors; ``set_default_dtype`` is newer.

    Raises:
      TypeError: it is no type of tensors of floats.
    """
    name = t.rpartition(".")[2] if isinstance(t, str) else getattr(t, "__name__", "")
    found: Any = FUNCTIONS.get(name)
    if not isinstance(found, _OfType):
        raise TypeError(f"invalid type: '{t}'" if isinstance(t, str) else
                        "invalid type object: only floating-point types are supported as the default type")
    dtypes.set_default_dtype(found.wanted)
