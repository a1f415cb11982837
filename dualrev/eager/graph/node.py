"""The graph that backward walks: a node for each recorded operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from dualrev._jax import line_of
from dualrev.eager.core.operation import Record

#: Nodes are numbered as they are made.
next_number = itertools.count().__next__


class Node:
    """An operation that was recorded: ``grad_fn`` of its outputs.

    ``edges[i]`` is ``(where input i comes from, which of its outputs)``: a node, or a leaf tensor; None where no gradient goes.
    Nodes are numbered as they are made, so that walking from the highest number down meets each after all that depend on it.
    """

    __slots__ = ("__dict__", "__weakref__", "checks", "edges", "freed", "hooked", "inputs", "n_out", "number", "op_name", "record",
                 "saved", "source")

    # What few nodes have stands in their __dict__.
    hooks: dict[int, Callable[..., Any]] | None = None
    prehooks: dict[int, Callable[..., Any]] | None = None
    #: For an output, the hooks of its tensor: ``{slot: {id: hook}}``.
    slot_hooks: dict[int, dict[int, Any]] | None = None

    def __init__(self, record: Record | None, op_name: str, edges: Sequence[Any], saved: Sequence[Any], checks: Sequence[Any],
                 source: Any, n_out: int, inputs: Sequence[Any] | None = None):
        self.record = record
        self.op_name = op_name
        self.edges = edges
        self.saved: Sequence[Any] | None = saved
        #: Which versions what was saved must have: ``place, counter, version`` of each, one after the other.
        self.checks = checks
        self.source = source
        self.n_out = n_out
        #: Input values, where a second derivative has to compute residuals again.
        self.inputs = inputs
        #: Which backward freed what it had saved.
        self.freed: Any = None
        #: Whether any of the hooks is there, or one has packed what was saved.
        self.hooked = False
        self.number = next_number()

    @property
    def metadata(self) -> dict[str, Any]:
        """A dictionary for whoever walks the graph."""
        return self.__dict__.setdefault("_metadata", {})

    def name(self) -> str:
        """The name that PyTorch gives: ``AddBackward0``."""
        return type(self).__name__

    def __getattr__(self, name: str) -> Any:
        from dualrev.eager.graph.interception import saved_of

        if name in ("_saved_self", "_saved_other", "_saved_exponent", "_saved_result"):
            return saved_of(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<{self.name()} object at {hex(id(self))}>"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """``(node, which of its outputs)`` for each input; leaves that require grad appear as :class:`AccumulateGrad`."""
        found: list[tuple[Any, int]] = []
        for edge in self.edges:
            if edge is None:
                found.append((None, 0))
            else:
                target, slot = edge
                found.append((target, slot) if isinstance(target, Node) else (AccumulateGrad(target), 0))
        return tuple(found)

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(grad_inputs, grad_outputs)`` after this node has run; what it returns, if anything, replaces grad_inputs."""
        self.hooked = True
        if self.hooks is None:
            self.hooks = {}
        return RemovableHandle(self.hooks, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(grad_outputs)`` before this node runs; what it returns, if anything, replaces grad_outputs."""
        self.hooked = True
        if self.prehooks is None:
            self.prehooks = {}
        return RemovableHandle(self.prehooks, hook)

    def hooks_of(self, slot: int) -> dict[int, Any]:
        """The hooks of an output's tensor, to add to."""
        self.hooked = True
        if self.slot_hooks is None:
            self.slot_hooks = {}
        return self.slot_hooks.setdefault(slot, {})

    def line(self) -> str:
        """The user's line that made it."""
        return line_of(self.source) if self.source is not None else ""


class AccumulateGrad:
    """Stands in ``next_functions`` for a leaf: the place where a gradient is added to ``.grad``."""

    __slots__ = ("variable",)

    next_functions: tuple[Any, ...] = ()

    def __init__(self, variable: Any):
        self.variable = variable

    def name(self) -> str:
        return "struct torch::autograd::AccumulateGrad"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccumulateGrad) and other.variable is self.variable

    def __hash__(self) -> int:
        return hash((AccumulateGrad, id(self.variable)))

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {hex(id(self.variable))}>"


class _Changes:
    """How often a module's attributes, members or hooks have been changed in this process."""

    count = 0


changes = _Changes()


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook away."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any], hook: Any):
        self._hooks = hooks
        self.id = next(self._ids)
        hooks[self.id] = hook
        changes.count += 1

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        self._hooks.pop(self.id, None)
        changes.count += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


_named: dict[Any, type[Any]] = {}


def node_class(op_name: str, base: type[Any] | None = None) -> type[Any]:
    """The class of an operation's nodes, for what PyTorch users see in ``type(y.grad_fn).__name__``."""
    key = op_name if base is None else (op_name, base)
    found = _named.get(key)
    if found is None:
        head, _, variant = op_name.partition(":")  # PyTorch numbers the variants of an operation
        name = head if head == "CopySlices" else f"{head}Backward{variant or 0}"
        found = _named[key] = type(name, (base or Node,), {"__slots__": ()})
    return found
