"""Modules that hold modules or parameters."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self, overload

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter


class _Listed(Module):
    """Modules by their numbers, as a list has them."""

    def _key(self, i: int) -> str:
        """The name of module ``i``, counted from the end where it is negative."""
        i = operator.index(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range")
        return list(self._modules)[i]

    def _renumber(self, modules: Iterable[Module]) -> None:
        """Put these modules in place of all, under their numbers."""
        modules = list(modules)
        self._modules.clear()
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    @overload
    def __getitem__(self, i: int) -> Module: ...
    @overload
    def __getitem__(self, i: slice) -> Self: ...
    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return self._sliced(list(self._modules.items())[i])
        return self._modules[self._key(i)]

    def _sliced(self, items: list[tuple[str, Module]]) -> Self:
        raise NotImplementedError(f"{type(self).__name__} must define _sliced()")

    def __setitem__(self, i: int, module: Module) -> None:
        setattr(self, self._key(i), module)

    def __delitem__(self, i: int | slice) -> None:
        for name in list(self._modules)[i] if isinstance(i, slice) else [self._key(i)]:
            delattr(self, name)
        self._renumber(self._modules.values())

    def __add__(self, other: Iterable[Module]) -> Self:
        return type(self)(*self, *other) if isinstance(self, Sequential) else type(self)([*self, *other])  # type: ignore[call-arg, arg-type]

    def append(self, module: Module) -> Self:
        """One more module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """More modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def insert(self, index: int, module: Module) -> Self:
        """A module before that of an index."""
        modules = list(self)
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def pop(self, key: int) -> Module:
        """Take a module out."""
        found = self[key]
        del self[key]
        return found


class Sequential(_Listed):
    """Modules in sequence."""

    @overload
    def __init__(self, *modules: Module): ...
    @overload
    def __init__(self, modules: OrderedDict[str, Module], /): ...
    def __init__(self, *modules: Any):
        super().__init__()
        items = modules[0].items() if len(modules) == 1 and isinstance(modules[0], OrderedDict) else enumerate(modules)
        for name, module in items:
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:  # noqa: A002
        for module in self._modules.values():
            input = module(input)  # noqa: A001
        return input

    def _sliced(self, items: list[tuple[str, Module]]) -> Self:
        return type(self)(OrderedDict(items))


class ModuleList(_Listed):
    """A list of modules."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or ())

    def _sliced(self, items: list[tuple[str, Module]]) -> Self:
        return type(self)([module for _, module in items])

    def __repr__(self) -> str:
        groups: list[list[Any]] = []  # [first, last, text]: equal neighbours are shown once
        for i, module in enumerate(self):
            if groups and groups[-1][2] == repr(module):
                groups[-1][1] = i
            else:
                groups.append([i, i, repr(module)])
        lines = [f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in groups]
        return f"{self._get_name()}(\n  " + "\n".join(lines).replace("\n", "\n  ") + "\n)" if lines else f"{self._get_name()}()"


class ModuleDict(Module):
    """Modules by name."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None):
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def keys(self) -> KeysView[str]:
        return self._modules.keys()

    def items(self) -> ItemsView[str, Any]:
        return self._modules.items()

    def values(self) -> ValuesView[Any]:
        return self._modules.values()

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Take a module out."""
        return self._modules.pop(key)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules, or replace those of the same names."""
        for name, module in dict(modules).items():
            self[name] = module


def described_items(items: list[tuple[str, Any]], type_of: Callable[[Any], str]) -> str:
    """One line for each parameter: its type and size."""
    lines = []
    for name, x in items:
        if isinstance(x, Tensor):
            kind = "Parameter" if isinstance(x, Parameter) else "Tensor"
            size = "x".join(str(n) for n in x.shape)
            lines.append(f"  ({name}): {kind} containing: [{type_of(x)} of size {size}]")
        else:
            lines.append(f"  ({name}): Object of type: {type(x).__name__}")
    return "\n".join(lines)
