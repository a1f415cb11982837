"""Containers of parameters."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any, Self

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.containers import described_items
from dualrev.eager.nn.modules.members import type_name
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter


def _as_parameter(x: Any) -> Any:
    """A tensor as a parameter; anything else as it is."""
    return Parameter(x) if isinstance(x, Tensor) and not isinstance(x, Parameter) else x


class ParameterList(Module):
    """A list of parameters."""

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self._size = 0
        self.extend(values or ())

    def _key(self, i: int) -> str:
        i = operator.index(i)
        if not -self._size <= i < self._size:
            raise IndexError(f"index {i} is out of range")
        return str(i % self._size)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(i)) for i in range(self._size))

    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return type(self)([getattr(self, str(k)) for k in range(self._size)[i]])
        return getattr(self, self._key(i))

    def __setitem__(self, i: int, x: Any) -> None:
        setattr(self, self._key(i), _as_parameter(x))

    def append(self, x: Any) -> Self:
        """One more parameter at the end."""
        self._size += 1
        self[self._size - 1] = x
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """More parameters at the end."""
        if not isinstance(values, (Sequence, Iterable)) or isinstance(values, Tensor):
            raise TypeError(f"ParameterList.extend should be called with an iterable, but got {type(values).__name__}")
        for x in values:
            self.append(x)
        return self

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def extra_repr(self) -> str:
        return described_items([(str(i), x) for i, x in enumerate(self)], lambda x: repr(x.dtype))


class ParameterDict(Module):
    """Parameters by name."""

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None):
        super().__init__()
        self._keys: dict[str, None] = {}
        self.update(parameters or {})

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, x: Any) -> None:
        self._keys[key] = None
        setattr(self, key, _as_parameter(x))

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def keys(self) -> KeysView[str]:
        return self._keys.keys()

    def values(self) -> Iterator[Any]:
        return (self[k] for k in self._keys)

    def items(self) -> Iterator[tuple[str, Any]]:
        return ((k, self[k]) for k in self._keys)

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter of a name, or a default."""
        return self[key] if key in self._keys else default

    def pop(self, key: str) -> Any:
        """Take a parameter out."""
        found = self[key]
        del self[key]
        return found

    def clear(self) -> None:
        """Take all parameters out."""
        for key in list(self._keys):
            del self[key]

    def update(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add parameters, or replace those of the same names."""
        for key, x in dict(parameters).items():
            self[key] = x

    def extra_repr(self) -> str:
        return described_items(list(self.items()), type_name)
