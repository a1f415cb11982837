"""What the forward of a function of the user's keeps for its backward."""

from __future__ import annotations

from typing import TypeAlias

from dualrev.eager.graph.backward_pass import joined
from dualrev.eager.graph.node import Node
from dualrev.eager.graph.saved import FREED
from dualrev.eager.graph.tensor import Tensor, array_of

#: A kept tensor and its version, and its slot where it is an output.
Kept: TypeAlias = tuple[Tensor, int] | tuple[Tensor, int, int] | None


class Context:
    """What ``forward`` keeps for ``backward``."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []
        self._fixed: list[int] = []
        self._dirty: list[int] = []
        self._materialize = True
        self._node: Node | None = None
        self._freed = False
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep inputs or outputs; ``saved_tensors`` raises if they were changed in place."""
        for i, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(f"save_for_backward can only save variables, but argument {i} is of type {type(t).__name__}\n"
                                "anything else is kept as an attribute: ctx.name = value")
        self._kept = [None if t is None else (t, t._counter.version) for t in tensors]

    save_for_forward = save_for_backward

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """These outputs have no derivative."""
        self._fixed = [id(t) for t in tensors]

    def mark_dirty(self, *tensors: Tensor) -> None:
        """These inputs were changed in place, and are returned."""
        self._dirty = [id(t) for t in tensors]

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros instead of None for outputs without a gradient."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors that were kept.

        Raises:
          RuntimeError: the graph was freed, or a tensor was changed in place since.
        """
        if self._freed:
            raise RuntimeError(FREED)
        found: list[Tensor | None] = []
        for entry in self._kept:
            if entry is None:
                found.append(None)
                continue
            t, version = entry[0], entry[1]
            if t._counter.version != version:
                raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation\n"
                                   f"it is at version {t._counter.version}; expected version {version} instead")
            found.append(t if len(entry) == 2 else joined(array_of(t), (self._node, entry[2])))
        return tuple(found)
