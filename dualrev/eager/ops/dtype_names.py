"""Dtypes of tensors by name: ``type``, ``byte``, ``char``, and the dtype of a result."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.dtype_facts import category, promoted_dtype
from dualrev.eager.graph.tensor import Operand, Tensor, array_of
from dualrev.eager.ops.registry import FUNCTIONS, both, function, method


def _to(name: str, dtype: dtypes.dtype) -> None:
    setattr(Tensor, name, lambda self, memory_format=None: self.to(dtype))


for _name, _dtype in dict(byte=dtypes.uint8, char=dtypes.int8, cfloat=dtypes.complex64, cdouble=dtypes.complex128).items():
    _to(_name, _dtype)


@method
def type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:  # noqa: A001
    """The name of the tensor's type, as ``"torch.FloatTensor"``; with a type, the tensor converted to it."""
    if dtype is None:
        place = "torch.cuda" if self.is_cuda else "torch"
        return f"{place}.{dtypes.type_name(array_of(self).dtype)}Tensor"
    if isinstance(dtype, str):
        found = FUNCTIONS.get(dtype.removeprefix("torch.").removeprefix("cuda."))
        if not hasattr(found, "wanted"):
            raise ValueError(f"invalid type: '{dtype}'")
        result = self.to(found.wanted)  # type: ignore[union-attr]
        return result.cuda() if dtype.startswith("torch.cuda.") else result
    return self.to(getattr(dtype, "wanted", dtype))


@both
def is_signed(input: Tensor) -> bool:  # noqa: A002
    """Whether the dtype has negative numbers."""
    return array_of(input).dtype.kind not in "ub"


@function
def is_inference(input: Tensor) -> bool:  # noqa: A002
    """Whether it was made under ``inference_mode``."""
    return input._inference


@both
def is_conj(input: Tensor) -> bool:  # noqa: A002
    """Whether it is a conjugated view, which no tensor is here."""
    return False


@both
def is_neg(input: Tensor) -> bool:  # noqa: A002
    """Whether it is a negated view, which no tensor is here."""
    return False


@both
def resolve_conj(input: Tensor) -> Tensor:  # noqa: A002
    """The tensor itself: conjugates are computed at once."""
    return input


@both
def resolve_neg(input: Tensor) -> Tensor:  # noqa: A002
    """The tensor itself: negatives are computed at once."""
    return input


@both
def conj_physical(input: Tensor) -> Tensor:  # noqa: A002
    """The complex conjugate."""
    return input.conj()


@method
def conj_physical_(self: Tensor) -> Tensor:
    """The complex conjugate, in place."""
    return self.conj_()  # type: ignore[attr-defined, no-any-return]


def _number_type(x: Any) -> np.dtype:
    if isinstance(x, bool):
        return np.dtype(np.bool_)
    if isinstance(x, int):
        return np.dtype(np.int64)
    default = dtypes.get_default_dtype().numpy
    return default if isinstance(x, float) else np.dtype(np.complex128 if default == np.float64 else np.complex64)


def _over(strong: np.dtype | None, weak: np.dtype | None) -> np.dtype | None:
    """The dtype of the one, unless the other is of a higher kind."""
    if strong is None or weak is None:
        return weak if strong is None else strong
    return promoted_dtype(strong, weak) if category(weak) > category(strong) else strong


@function
def result_type(tensor1: Operand, tensor2: Operand) -> dtypes.dtype:
    """The dtype of the result of an operation on two tensors or numbers.

    >>> from dualrev import eager as torch
    >>> torch.result_type(torch.tensor([1, 2]), 1.0)
    torch.float32
    """
    kinds: list[np.dtype | None] = [None, None, None]  # with dimensions, without, numbers
    for x in (tensor1, tensor2):
        i = 2 if not isinstance(x, Tensor) else int(x.ndim == 0)
        dtype = array_of(x).dtype if isinstance(x, Tensor) else _number_type(x)
        before = kinds[i]
        kinds[i] = dtype if before is None else promoted_dtype(before, dtype)
    found = _over(kinds[0], _over(kinds[1], kinds[2]))
    assert found is not None
    return dtypes.of(found)
