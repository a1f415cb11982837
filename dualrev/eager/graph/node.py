"""The nodes of the graph: one for each recorded operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from dualrev._jax.source_lines import SourceInfo, line_of
from dualrev.eager.core.caches import caches
from dualrev.eager.core.hooks import RemovableHandle
from dualrev.eager.core.operation import Record

#: Nodes are numbered as they are made.
next_number = itertools.count().__next__
#: Where the gradient of an input goes: ``(producer, which of its outputs)``, or None; a leaf's producer is the tensor itself, a class
#: that stands above this module.
Edge: TypeAlias = tuple[Any, int] | None
#: What a pull gives: ``(which input, its cotangent)``.
Pulled: TypeAlias = list[tuple[int, Any]]
#: Hooks get gradients of inputs and outputs, or of outputs, and may return others.
NodeHook: TypeAlias = Callable[[tuple[Any, ...], tuple[Any, ...]], Any]
NodePrehook: TypeAlias = Callable[[tuple[Any, ...]], Any]


class Node:
    """An operation that was recorded: ``grad_fn`` of its outputs.

    ``edges[i]`` is ``(producer of input i, which of its outputs)``; the producer is a node or a leaf tensor; None where no gradient
    flows.  Nodes are numbered as they are made, so that descending numbers are a reverse topological order.
    """

    __slots__ = ("__dict__", "__weakref__", "checks", "edges", "freed", "hooked", "inputs", "n_out", "number", "op_name", "record",
                 "saved", "source")

    # Attributes that few nodes have stand in their __dict__.
    hooks: dict[int, NodeHook] | None = None
    prehooks: dict[int, NodePrehook] | None = None
    #: For an output, the hooks of its tensor: ``{slot: {id: hook}}``.
    slot_hooks: dict[int, dict[int, Any]] | None = None

    def __init__(self, record: Record | None, op_name: str, edges: Sequence[Edge], saved: Sequence[object], checks: Sequence[Any],
                 source: SourceInfo | None, n_out: int, inputs: Sequence[object] | None = None):
        self.record = record
        self.op_name = op_name
        self.edges = edges
        self.saved: Sequence[Any] | None = saved
        #: The versions that saved values must still have: ``place, counter, version`` of each, one after the other.
        self.checks = checks
        self.source = source
        self.n_out = n_out
        #: Input values, where a second derivative recomputes residuals.
        self.inputs = inputs
        #: The call of backward that freed its saved values.
        self.freed: SourceInfo | None = None
        #: Whether it has hooks, or its saved values were packed by one.
        self.hooked = False
        self.number = next_number()

    @property
    def metadata(self) -> dict[str, Any]:
        """A dictionary for the user's own notes about this node."""
        return self.__dict__.setdefault("_metadata", {})

    def name(self) -> str:
        """The name that PyTorch gives: ``AddBackward0``."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"<{self.name()} object at {hex(id(self))}>"

    @property
    def next_functions(self) -> tuple[tuple[Node | AccumulateGrad | None, int], ...]:
        """``(node, which of its outputs)`` for each input; leaves that require grad appear as :class:`AccumulateGrad`."""
        found: list[tuple[Node | AccumulateGrad | None, int]] = []
        for edge in self.edges:
            if edge is None:
                found.append((None, 0))
            else:
                target, slot = edge
                found.append((target, slot) if isinstance(target, Node) else (AccumulateGrad(target), 0))
        return tuple(found)

    def register_hook(self, hook: NodeHook) -> RemovableHandle:
        """Call ``hook(grad_inputs, grad_outputs)`` after this node has run; a result other than None replaces grad_inputs."""
        self.hooked = True
        if self.hooks is None:
            self.hooks = {}
        return RemovableHandle(self.hooks, hook)

    def register_prehook(self, hook: NodePrehook) -> RemovableHandle:
        """Call ``hook(grad_outputs)`` before this node runs; a result other than None replaces grad_outputs."""
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

    def pull_custom(self, cts: list[Any], backward_pass: Any) -> Pulled:
        """The pull of a node without a record: ``(which input, its cotangent)`` from the cotangents of the outputs.

        ``backward_pass`` is the :class:`~dualrev.eager.graph.backward_pass.BackwardPass` that visits the node.
        """
        raise NotImplementedError(f"{type(self).__name__} must define pull_custom()")

    def line(self) -> str:
        """The user's line that made it."""
        return line_of(self.source) if self.source is not None else ""


class AccumulateGrad:
    """The entry of a leaf in ``next_functions``: its gradient is added to ``.grad``."""

    __slots__ = ("variable",)

    next_functions: tuple[()] = ()

    def __init__(self, variable: Any):
        self.variable = variable

    def name(self) -> str:
        return "struct torch::autograd::AccumulateGrad"

    def register_prehook(self, hook: NodePrehook) -> RemovableHandle:
        """Call ``hook(grad_outputs)`` before the gradient is added; a result other than None replaces it."""
        return RemovableHandle(accumulate_hooks(self.variable)[0], hook)

    def register_hook(self, hook: NodeHook) -> RemovableHandle:
        """Call ``hook(grad_inputs, grad_outputs)``, of which the first is empty, after the gradient was added."""
        return RemovableHandle(accumulate_hooks(self.variable)[1], hook)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccumulateGrad) and other.variable is self.variable

    def __hash__(self) -> int:
        return hash((AccumulateGrad, id(self.variable)))

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {hex(id(self.variable))}>"


def accumulate_hooks(leaf: Any) -> tuple[dict[int, NodePrehook], dict[int, NodeHook]]:
    """The hooks that run before and after a gradient is added to a leaf, to add to."""
    if leaf._accumulate_hooks is None:
        leaf._accumulate_hooks = {}, {}
    return leaf._accumulate_hooks


@caches.memoized
def node_class(op_name: str, base: type[Node] | None = None) -> type[Node]:
    """The class of an operation's nodes, for what PyTorch users see in ``type(y.grad_fn).__name__``."""
    head, _, variant = op_name.partition(":")  # PyTorch numbers the variants of an operation
    name = head if head == "CopySlices" else f"{head}Backward{variant or 0}"
    return type(name, (base or Node,), {"__slots__": ()})
