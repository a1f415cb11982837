"""How an operation on tensors runs and is recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dualrev._jax import Tracer, source
from dualrev.eager.modes import mode
from dualrev.eager.node import node_class
from dualrev.eager.operation import Op, Record
from dualrev.eager.tensors import Storage, Tensor, described, refresh, view_array, wrap

#: PyTorch's refusal of tensors that were made under ``inference_mode``.
INFERENCE = ("Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation "
             "tracked by autograd. To work around this, you can make a clone to get a normal tensor and use it in autograd, or use "
             "`torch.no_grad()` instead of `torch.inference_mode()`.\n")

_constants: dict[Any, Any] = {}


def constant(value: Any) -> Any:
    """A number as an operand that is cheap to pass: a weakly typed array, kept."""
    key = (type(value), value)
    found = _constants.get(key)
    if found is None or (value == 0 and math.copysign(1.0, found) != math.copysign(1.0, value)):
        found = jnp.asarray(value)
        if isinstance(found, Tracer):
            return value
        if len(_constants) >= 4096:
            _constants.clear()
        _constants[key] = found
    return found

# -------------------------------------------------------------------------------------------------------------- operations

def apply(op: Op, args: Sequence[Any]) -> Any:
    """Run an operation on tensors and numbers, and record it where a tensor requires grad."""
    if mode.special:
        from dualrev.eager.special import apply_special

        return apply_special(op, args)
    values = []
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
        elif isinstance(a, (float, int)):
            values.append(constant(a))
        else:
            values.append(a)
        bit += bit
    if mask and mode.grad:
        return record(op, args, values, mask)
    out = op.plain(*values)
    if mode.inference:
        return tuple([_inferred(x) for x in out]) if op.many else _inferred(out)
    return tuple([wrap(x) for x in out]) if op.many else wrap(out)


def _inferred(array: Any) -> Tensor:
    t = wrap(array)
    t._inference = True
    return t


def record(op: Op, args: Sequence[Any], values: Sequence[Any], mask: int) -> Any:
    """Run an operation on values, and write its node."""
    out, kept = op.graded(mask)(*values)
    found: Record = kept.record
    if not op.many:
        result = wrap(out)
        if not found.active_outs[0]:
            return result
        results: Any = (result,)
        outs: Sequence[Any] = (out,)
    else:
        results = tuple([wrap(x) for x in out])
        outs = out
        if not any(found.active_outs):
            return results
    saved = []
    checks: list[tuple[int, Storage, int]] = []
    for kind, where in found.sources:
        if kind == 0:
            saved.append(values[where])
            t = args[where]
            if isinstance(t, Tensor):
                if t._inference:
                    raise RuntimeError(INFERENCE + described(t))
                checks.append((len(saved), t._counter, t._counter.version))
        elif kind == 1:
            saved.append(outs[where])
            checks.append((~len(saved), results[where]._counter, 0))
        else:
            saved.append(kept.new[where])
    edges = [None if not (isinstance(a, Tensor) and a._requires_grad) else (a if a._node is None else a._node, a._slot) for a in args]
    node_type = op.node_type
    if node_type is None:
        node_type = op.node_type = node_class(op.name)
    node = node_type(found, op.name, edges, saved, checks, source(), found.n_out)
    if found.has_new:
        node.inputs = values
    for slot, (t, moves) in enumerate(zip(results, found.active_outs, strict=True)):
        if moves:
            t._node = node
            t._slot = slot
            t._requires_grad = True
    return results if op.many else result
