"""How an operation on tensors is evaluated and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from dualrev._jax.source_lines import source
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.node import Edge, Node, next_number, node_class
from dualrev.eager.graph.tensor import Tensor, described, refresh, view_array, wrap

#: PyTorch's refusal of tensors that were made under ``inference_mode``.
INFERENCE = ("Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation "
             "tracked by autograd. To work around this, you can make a clone to get a normal tensor and use it in autograd, or use "
             "`torch.no_grad()` instead of `torch.inference_mode()`.\n")


def apply(op: Op, args: Sequence[object]) -> Any:
    """Evaluate an operation on tensors and numbers, and record it where a tensor requires grad."""
    handler = mode.handler
    if handler is not None:
        return handler(op, args)
    values: list[object] = []
    mask = 0
    bit = 1
    for a in args:
        if isinstance(a, Tensor):
            view = a._view
            if view is None:
                values.append(a._storage.array)
            else:
                if view.generation != view.base._generation:
                    refresh(a)
                values.append(view_array(a, view))
            if a._requires_grad:
                mask |= bit
        else:
            values.append(a)
        bit += bit
    if mask and mode.grad:
        return record(op, args, values, mask)
    out = op.plain(*values)
    if mode.inference:
        return tuple([_inferred(x) for x in out]) if op.many else _inferred(out)
    return tuple([wrap(x) for x in out]) if op.many else wrap(out)


def _inferred(array: jax.Array) -> Tensor:
    t = wrap(array)
    t._inference = True
    return t


def record(op: Op, args: Sequence[Any], values: Sequence[object], mask: int) -> Tensor | tuple[Tensor, ...]:
    """Evaluate an operation on values, and write its node.

    This runs for every operation of a program: attributes are set here, for a call of a constructor costs as much as five of them.
    """
    found, arrays = (op._graded.get(mask) or op.graded(mask))(*values)
    n_out = found.n_out
    results = [wrap(arrays[0])] if n_out == 1 else [wrap(x) for x in arrays[:n_out]]
    if not found.differentiable:
        return tuple(results) if op.many else results[0]
    saved = [values[where] if kind == 0 else arrays[where] if kind == 1 else arrays[n_out + where] for kind, where in found.sources]
    checks: list[Any] = []
    for place in found.guarded:
        if place >= 0:
            t = args[place]
            if isinstance(t, Tensor):
                if t._inference:
                    raise RuntimeError(INFERENCE + described(t))
                counter = t._counter
                checks += (place, counter, counter.version)
        else:
            checks += (place, results[~place]._storage, 0)
    edges: list[Edge] = [None] * len(args)
    for i in found.positions:
        a = args[i]
        origin = a._node
        edges[i] = (a, 0) if origin is None else (origin, a._slot)
    node = _new(op.node_type or node_type(op))
    node.record = found
    node.op_name = op.name
    node.edges = edges
    node.saved = saved
    node.checks = checks
    node.source = source()
    node.n_out = n_out
    node.inputs = values if found.has_new else None
    node.freed = None
    node.hooked = False
    node.number = next_number()
    if not op.many:
        result = results[0]
        result._node = node
        result._requires_grad = True
        return result
    for slot in found.differentiable:
        t = results[slot]
        t._node = node
        t._slot = slot
        t._requires_grad = True
    return tuple(results)


_new = object.__new__


def node_type(op: Op) -> type[Node]:
    """The class of an operation's nodes."""
    op.node_type = node_class(op.name)
    return op.node_type
