"""What programs ask of storages: whether tensors share one, where a view starts in it, and how large it is.

A storage is one of jax's or numpy's arrays, and in-place changes replace it: there is no address in memory to write to.  Its number
stays the same for as long as it lives, and that of each entry follows from where the entry stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dualrev.eager.core import dtypes
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.conversion import known
from dualrev.eager.ops.registry import method

#: More than the bytes of any array: numbers of entries of different storages differ.
_APART = 2 ** 48


class UntypedStorage:
    """The bytes that tensors share."""

    def __init__(self, base: Tensor):
        self._base = base

    def data_ptr(self) -> int:
        """A number that no other storage has at the same time."""
        return id(self._base._storage) * _APART

    def nbytes(self) -> int:
        """How many bytes it has."""
        return self._base.nbytes

    def size(self) -> int:
        """How many entries it has: here bytes."""
        return self.nbytes()

    def __len__(self) -> int:
        return self.size()

    @property
    def device(self) -> dtypes.device:
        return self._base.device

    def element_size(self) -> int:
        """Bytes of one entry."""
        return 1

    def _entries(self) -> Any:
        return known(self._base, "a storage").reshape(-1).view("uint8")

    def __getitem__(self, i: int) -> Any:
        return self._entries()[i].item()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """The entries as Python numbers."""
        return self._entries().tolist()  # type: ignore[no-any-return]


class TypedStorage(UntypedStorage):
    """The entries that tensors share, as numbers of a dtype."""

    @property
    def dtype(self) -> dtypes.dtype:
        return self._base.dtype

    def size(self) -> int:
        """How many entries it has."""
        return self._base.numel()

    def element_size(self) -> int:
        """Bytes of one entry."""
        return self._base.itemsize

    def untyped(self) -> UntypedStorage:
        """The same storage as bytes."""
        return UntypedStorage(self._base)

    def _entries(self) -> Any:
        return known(self._base, "a storage").reshape(-1)


def _base(t: Tensor) -> Tensor:
    return t.detach() if t._view is None else t._view.base.detach()


@method
def untyped_storage(self: Tensor) -> UntypedStorage:
    """The bytes that the tensor shares with its views."""
    return UntypedStorage(_base(self))


@method
def storage(self: Tensor) -> TypedStorage:
    """The entries that the tensor shares with its views."""
    return TypedStorage(_base(self))


@method
def storage_type(self: Tensor) -> type[TypedStorage]:
    """The class of its storage."""
    return TypedStorage


@method
def data_ptr(self: Tensor) -> int:
    """The number of its first entry: equal for tensors that start at the same entry of one storage.

    >>> from dualrev import eager as torch
    >>> x = torch.zeros(2, 3)
    >>> x.view(-1).data_ptr() == x.data_ptr(), x[1].data_ptr() - x.data_ptr()
    (True, 12)
    """
    return id(self._storage) * _APART + self.storage_offset() * array_of(self).dtype.itemsize


@method
def const_data_ptr(self: Tensor) -> int:
    """As ``data_ptr``."""
    return self.data_ptr()
