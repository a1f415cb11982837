"""What dtypes hold, and how they combine: ``finfo``, ``iinfo``, ``promote_types``, ``can_cast``."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes


class finfo:
    """The limits of a dtype of floats, by default the default one; of the parts of a complex one.

    >>> from dualrev import eager as torch
    >>> torch.finfo(torch.float32).eps
    1.1920928955078125e-07
    """

    __slots__ = ("bits", "dtype", "eps", "max", "min", "resolution", "smallest_normal", "tiny")

    def __init__(self, type: dtypes.dtype | None = None):  # noqa: A002
        kind = dtypes.get_default_dtype() if type is None else type
        if not isinstance(kind, dtypes.dtype) or kind.numpy.kind in "biu":
            raise TypeError("torch.finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.finfo'")
        found = jnp.finfo(kind.numpy)
        self.bits, self.dtype = int(found.bits), dtypes.of(np.dtype(found.dtype)).name
        self.eps, self.max, self.min = float(found.eps), float(found.max), float(found.min)
        self.tiny = self.smallest_normal = float(found.tiny)
        self.resolution = float(f"1e-{found.precision}")

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
                f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})")


class iinfo:
    """The limits of a dtype of whole numbers.

    >>> from dualrev import eager as torch
    >>> torch.iinfo(torch.int8).max
    127
    """

    __slots__ = ("bits", "dtype", "max", "min")

    def __init__(self, type: dtypes.dtype):  # noqa: A002
        if not isinstance(type, dtypes.dtype) or type.numpy.kind not in "iu":
            raise TypeError("torch.iinfo() requires an integer input type. Use torch.finfo to handle 'torch.iinfo'")
        found = np.iinfo(type.numpy)
        self.bits, self.dtype, self.max, self.min = found.bits, type.name, int(found.max), int(found.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"


def category(dtype: np.dtype) -> int:
    """The kind of a dtype: bool, whole numbers, floats and complex numbers, from 0 to 3."""
    return {"b": 0, "u": 1, "i": 1, "c": 3}.get(dtype.kind, 2)


def promoted_dtype(a: np.dtype, b: np.dtype) -> np.dtype:
    """The smallest dtype that PyTorch converts both to."""
    if category(a) < category(b):
        a, b = b, a
    if category(a) == 3 and category(b) == 2:
        return np.dtype(np.complex128) if b == np.float64 else a
    if a == b or category(a) > category(b):
        return a
    narrow = np.dtype(jnp.bfloat16)
    if narrow in (a, b):  # numpy does not know it
        other = b if a == narrow else a
        return np.dtype(np.float32) if other == np.float16 else other
    return np.promote_types(a, b)


def promote_types(type1: dtypes.dtype, type2: dtypes.dtype) -> dtypes.dtype:
    """The dtype of the result of an operation on tensors of these dtypes.

    >>> from dualrev import eager as torch
    >>> torch.promote_types(torch.int64, torch.float32)
    torch.float32
    """
    return dtypes.of(promoted_dtype(type1.numpy, type2.numpy))


def can_cast(from_: dtypes.dtype, to: dtypes.dtype) -> bool:
    """Whether a result of one dtype may be written into a tensor of another: no kind of number is lost."""
    return category(from_.numpy) <= category(to.numpy)
