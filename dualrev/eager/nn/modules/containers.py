"""Modules that hold modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter

# -------------------------------------------------------------------------------------------------------------- containers

class Sequential(Module):
    """Modules in sequence."""

    def __init__(self, *modules: Any):
        super().__init__()
        items = modules[0].items() if len(modules) == 1 and isinstance(modules[0], OrderedDict) else enumerate(modules)
        for name, module in items:
            self.add_module(str(name), module)

    def forward(self, x: Any) -> Any:
        for module in self._modules.values():
            x = module(x)
        return x

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, int) and not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range")
        found = list(self._modules.values())[i]
        return Sequential(*found) if isinstance(i, slice) else found

    def append(self, module: Module) -> Any:
        """One more module at the end."""
        self.add_module(str(len(self)), module)
        return self


class ModuleList(Sequential):
    """A list of modules."""

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__(*modules)

    def __getitem__(self, i: Any) -> Any:
        return ModuleList(list(self._modules.values())[i]) if isinstance(i, slice) else super().__getitem__(i)

    def __repr__(self) -> str:
        groups: list[list[Any]] = []  # [first, last, text]: equal neighbours are shown once
        for i, module in enumerate(self):
            if groups and groups[-1][2] == repr(module):
                groups[-1][1] = i
            else:
                groups.append([i, i, repr(module)])
        lines = [f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in groups]
        return "ModuleList(\n  " + "\n".join(lines).replace("\n", "\n  ") + "\n)" if lines else "ModuleList()"

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """More modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def forward(self, *_: Any) -> Any:
        raise NotImplementedError('Module [ModuleList] is missing the required "forward" function')


class ModuleDict(Module):
    """Modules by name."""

    def __init__(self, modules: Any = ()):
        super().__init__()
        for name, module in dict(modules).items():
            self.add_module(name, module)

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def items(self) -> Any:
        return self._modules.items()


class ParameterList(Module):
    """A list of parameters."""

    def __init__(self, values: Iterable[Any] = ()):
        super().__init__()
        for i, x in enumerate(values):
            setattr(self, str(i), x if isinstance(x, Parameter) else Parameter(x))

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters.values())

    def __len__(self) -> int:
        return len(self._parameters)

    def __getitem__(self, i: int) -> Parameter:
        return list(self._parameters.values())[i]
