"""Registration of operations: as functions of ``dualrev.eager``, as methods of tensors, and under second names.

A module of this folder defines operations and registers them as it is imported; ``dualrev.eager.ops`` lists those modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])

#: The functions of ``dualrev.eager``, by name.
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def function(fun: F) -> F:
    """Register a function of ``dualrev.eager``."""
    FUNCTIONS[fun.__name__] = fun
    return fun


def both(fun: F) -> F:
    """Register a function of ``dualrev.eager`` that is a method of tensors too."""
    setattr(Tensor, fun.__name__, fun)
    return function(fun)


def method(fun: F) -> F:
    """Register a method of tensors."""
    setattr(Tensor, fun.__name__, fun)
    return fun


def alias(name: str, fun: Callable[..., Any]) -> None:
    """Register a second name of a function, and of the method of the same name."""
    FUNCTIONS[name] = fun
    if hasattr(Tensor, fun.__name__):
        setattr(Tensor, name, fun)


def renamed(fun: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    """The function, under a name and with a docstring."""
    fun.__name__ = fun.__qualname__ = name
    fun.__doc__ = doc
    return fun


def unary(name: str, op: Op) -> Callable[[Any], Tensor]:
    """Register an operation on one tensor as a function, a method and an in-place method."""
    def entrywise(input: Tensor) -> Tensor:  # noqa: A002
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}\n"
                            "torch.tensor(value) makes one")
        return apply(op, (input,))

    def in_place(self: Tensor) -> Tensor:
        return change(self, op, ())

    both(renamed(entrywise, name, f"{name} of each entry."))
    method(renamed(in_place, f"{name}_", f"{name} of each entry, in place."))
    return entrywise
