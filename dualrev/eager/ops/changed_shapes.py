"""Shapes changed in place, and the refusals of other sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualrev.eager.core.annotations import Dims
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.inplace import check_may_change
from dualrev.eager.graph.tensor import Tensor, array_of, described
from dualrev.eager.ops.registry import method


def _become(t: Tensor, shape: Callable[[Tensor], Tensor]) -> Tensor:
    """Make a tensor a view of what it was."""
    if mode.grad and t.requires_grad:
        check_may_change(t)
    after = shape(_same(t))
    for name in ("_storage", "_counter", "_requires_grad", "_node", "_slot", "_view"):
        setattr(t, name, getattr(after, name))
    t._generation += 1
    return t


def _same(t: Tensor) -> Tensor:
    """Another tensor with the same value and place in the graph."""
    other: Tensor = object.__new__(Tensor)
    for name in ("_storage", "_counter", "_requires_grad", "_node", "_slot", "_view"):
        setattr(other, name, getattr(t, name))
    other._inference = t._inference
    return other


@method
def unsqueeze_(self: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1, in place."""
    return _become(self, lambda t: t.unsqueeze(dim))


@method
def squeeze_(self: Tensor, dim: Dims = None) -> Tensor:
    """Remove dimensions of size 1, in place."""
    return _become(self, lambda t: t.squeeze(dim))


@method
def transpose_(self: Tensor, dim0: int, dim1: int) -> Tensor:
    """Exchange two dimensions, in place."""
    return _become(self, lambda t: t.transpose(dim0, dim1))


Tensor.swapaxes_ = Tensor.swapdims_ = Tensor.transpose_  # type: ignore[method-assign]


@method
def t_(self: Tensor) -> Tensor:
    """Transpose a matrix, in place."""
    return _become(self, lambda t: t.t())


@method
def as_strided_(self: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """Become the part of the storage that ``as_strided`` takes."""
    return _become(self, lambda t: t.as_strided(size, stride, storage_offset))


def _refuse(name: str, instead: str) -> None:
    def refused(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError(f"{name}() is not offered\n{instead}; {described(self)}, of {array_of(self).size} entries")

    refused.__name__ = refused.__qualname__ = name
    refused.__doc__ = "Refused: storages here keep their size."
    method(refused)


for _name in ("resize_", "resize_as_"):
    _refuse(_name, "storages keep their size: make a new tensor, or use view or reshape")
