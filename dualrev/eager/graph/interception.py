"""What operations do beyond evaluating and recording: pack what they save, push tangents, tell a compiler what they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.node import Node


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
    from dualrev.eager.graph.tensor import array_of

    return [array_of(x.unpack(x.packed)) if type(x) is Packed else x for x in saved]


def saved_of(node: Node, name: str) -> Any:
    """What a node has saved under PyTorch's name: an input, ``_saved_self`` or ``_saved_other``, or its result.

    Raises:
      RuntimeError: it was freed.
      AttributeError: the node has not saved it.
    """
    from dualrev.eager.graph.backward_pass import FREED
    from dualrev.eager.graph.tensor import Tensor, wrap

    if node.freed is not None or node.saved is None:
        raise RuntimeError(FREED)
    wanted = (1, 0) if name == "_saved_result" else (0, int(name in ("_saved_other", "_saved_exponent")))
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
    from dualrev.eager.graph.tensor import wrap

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


def apply_special(op: Op, args: Sequence[Any]) -> Any:
    """``apply`` where more is asked for than to evaluate and to record."""
    from dualrev.eager.graph.recording import apply
    from dualrev.eager.graph.tensor import Tensor

    if mode.watcher is not None:
        for a in args:
            if isinstance(a, Tensor):
                mode.watcher.read(a)
    if mode.dual_level:
        from dualrev.eager.autograd.forward_ad import push, tangent_of

        if any(tangent_of(a) is not None for a in args):
            return push(op, args)
    mode.special = False
    try:
        results = apply(op, args)
    finally:
        mode.special = True
    if mode.watcher is not None:
        for t in results if op.many else (results,):
            mode.watcher.born(t._storage)
    if mode.packers:
        nodes = {t._node: None for t in (results if op.many else (results,)) if t._node is not None}
        for node in nodes:
            pack(node)
    return results


def check_nan(node: Node, cts: Sequence[Any]) -> None:
    """Raise if a node made a NaN.

    Raises:
      RuntimeError: names the operation, and the line that ran it forward.
    """
    from dualrev.eager.graph.tensor import Tensor, array_of

    for i, ct in enumerate(cts):
        if ct is None:
            continue
        array = array_of(ct) if isinstance(ct, Tensor) else ct
        if jnp.issubdtype(array.dtype, jnp.inexact) and bool(jnp.isnan(array).any()):
            line = node.line()
            raise RuntimeError(f"Function '{node.name()}' returned nan values in its {i}th output.\n"
                               + (f"the operation ran forward at {line}" if line else "the operation's line is not known"))
