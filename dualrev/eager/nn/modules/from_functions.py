"""Layers whose settings are the arguments of a function."""

from __future__ import annotations

from typing import Any

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.module import Module

#: A setting without a default.
REQUIRED: Any = object()


class Keeps(Module):
    """Base class of layers that keep the arguments of a function, of ``nn.functional``, as attributes."""

    function = ""
    names: tuple[str, ...] = ()
    defaults: tuple[object, ...] = ()
    #: The settings that ``repr`` shows; all where this is None.
    shown: tuple[str, ...] | None = None

    def __init__(self, *args: object, **kwargs: object):
        super().__init__()
        values = dict(zip(self.names, self.defaults, strict=True))
        if len(args) > len(self.names):
            raise TypeError(f"{type(self).__name__}.__init__() takes {len(self.names) + 1} positional arguments but {len(args) + 1} "
                            f"were given\n{type(self).__name__}() takes {', '.join(self.names) or 'no arguments'}")
        for name in kwargs.keys() - set(self.names):
            raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument '{name}'\n"
                            f"{type(self).__name__}() takes {', '.join(self.names) or 'no arguments'}")
        values.update(zip(self.names, args, strict=False))
        values.update(kwargs)
        missing = [name for name, value in values.items() if value is REQUIRED]
        if missing:
            raise TypeError(f"{type(self).__name__}.__init__() missing {len(missing)} required positional argument"
                            f"{'s' * (len(missing) > 1)}: {' and '.join(map(repr, missing))}")
        for name, value in values.items():
            setattr(self, name, value)

    def forward(self, *tensors: Tensor, **named: Tensor) -> Any:
        return getattr(F, self.function)(*tensors, **named, **{name: getattr(self, name) for name in self.names})

    def extra_repr(self) -> str:
        # PyTorch shows inplace only where it is true.
        shown = self.names if self.shown is None else self.shown
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown if name != "inplace" or self.inplace)


def keeps(module: str, class_name: str, function: str, *arguments: tuple[str, object], base: type[Keeps] = Keeps, **more: object
          ) -> type[Keeps]:
    """A class of layers, in a module, with the names and defaults of a function's arguments."""
    return type(class_name, (base,), {
        "function": function, "names": tuple([n for n, _ in arguments]), "__module__": module,
        "defaults": tuple([d for _, d in arguments]), "__doc__": f"``functional.{function}`` as a layer.", **more})
