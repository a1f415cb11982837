"""Saved values of nodes: packed by hooks, unpacked for the pull, and shown under PyTorch's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.modes import mode
from dualrev.eager.graph.node import Node
from dualrev.eager.graph.tensor import Tensor, array_of, wrap

#: PyTorch's refusal of a second backward.
FREED = ("Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed). "
         "Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify retain_graph=True if "
         "you need to backward through the graph a second time or if you need to access saved tensors after calling backward.")


class Packed:
    """A saved value as ``saved_tensors_hooks`` packed it."""

    __slots__ = ("dtype", "packed", "shape", "unpack")

    def __init__(self, packed: Any, unpack: Any, array: Any):
        self.packed = packed
        self.unpack = unpack
        self.shape, self.dtype = array.shape, array.dtype


def unpack(saved: Sequence[Any]) -> Sequence[Any]:
    """Saved values as they were before packing."""
    for x in saved:
        if type(x) is Packed:
            break
    else:
        return saved
    return [array_of(x.unpack(x.packed)) if type(x) is Packed else x for x in saved]


def _saved_of(node: Node, name: str, wanted: tuple[int, int]) -> Any:
    """The value that a node has saved under PyTorch's name: an input, ``_saved_self`` or ``_saved_other``, or its result.

    Raises:
      RuntimeError: it was freed.
      AttributeError: the node has not saved it.
    """
    if node.freed is not None or node.saved is None:
        raise RuntimeError(FREED)
    if node.record is None or wanted not in node.record.sources:
        raise AttributeError(f"{node.name()} has not saved {name}\nit reads other values: an operation here saves what its pull reads")
    edge = node.edges[wanted[1]] if wanted[0] == 0 else (node, 0)
    if edge is not None and isinstance(edge[0], Tensor):
        return edge[0]
    found = wrap(unpack(node.saved)[node.record.sources.index(wanted)])
    if edge is not None:
        found._node, found._slot, found._requires_grad = edge[0], edge[1], True
    return found


def pack(node: Node) -> None:
    """Let the innermost hooks pack what a node has saved."""
    if mode.packers and node.saved:
        packer, unpacker = mode.packers[-1]
        before, mode.packers = mode.packers, ()
        try:
            def packed(x: Any) -> Any:
                return Packed(packer(wrap(x)), unpacker, x) if hasattr(x, "shape") else x

            node.hooked = True
            node.saved = [packed(x) for x in node.saved]
            if node.inputs is not None:
                node.inputs = [packed(x) for x in node.inputs]
        finally:
            mode.packers = before


#: PyTorch's names of saved values, and where records have them: input 0 or 1, or the result.
_SAVED = {"_saved_self": (0, 0), "_saved_other": (0, 1), "_saved_exponent": (0, 1), "_saved_result": (1, 0)}


def _shown(name: str, wanted: tuple[int, int]) -> property:
    return property(lambda node: _saved_of(node, name, wanted))


for _name, _wanted in _SAVED.items():
    setattr(Node, _name, _shown(_name, _wanted))
