"""Changes of tensors in place, and how they are recorded."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualrev._jax.source_lines import source
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Values
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.node import Node, Pulled, node_class
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.storage import View
from dualrev.eager.graph.tangents import set_tangent, tangent_of
from dualrev.eager.graph.tensor import Cotangent, Tensor, array_of, described
from dualrev.eager.graph.views import numbers_of, ops_of, overlaps, put, put_op


def write(t: Tensor, array: Values, counted: bool = True) -> None:
    """Replace the value of a tensor, for all tensors that share its storage, and count the change.

    PyTorch's kernel for batch norm does not count that it writes to running statistics: a layer may be called twice before backward.
    """
    view = t._view
    storage = t._storage
    if mode.watcher is not None:
        mode.watcher.read(t)
    if view is not None:
        if overlaps(view.path, storage.array.shape):
            raise RuntimeError("unsupported operation: more than one element of the written-to tensor refers to a single memory "
                               "location. Please clone() the tensor before performing the operation.\n" + described(t))
        array = put(storage.array, view.path, array)
    storage.array = array  # type: ignore[assignment]  # as Storage declares it
    if counted:
        counter = t._counter
        counter.version += 1
        counter.changed = source()


def change(t: Tensor, op: Op, others: tuple[object, ...]) -> Tensor:
    """``t = op(t, *others)`` in place, recorded as PyTorch records it.

    Raises:
      RuntimeError: ``t`` is a leaf that requires grad, or the result does not fit into it.
    """
    records = _check_change(t, others)
    return _become(t, apply(op, (t, *others)), op.name, records)


def replace(t: Tensor, result: Tensor) -> Tensor:
    """Write a result into a tensor in place, recorded as the operation that it is a result of.

    The result must not have been computed from ``t`` itself, but from a tensor that holds its value from before the change.

    Raises:
      RuntimeError: as :func:`change`.
    """
    return _become(t, result, "Copy" if result._node is None else result._node.op_name, _check_change(t, (result,)))


def _check_change(t: Tensor, others: tuple[object, ...]) -> bool:
    """Refuse changes that PyTorch refuses; whether the change is recorded."""
    view = t._view
    records = mode.grad and (t.requires_grad or any(isinstance(x, Tensor) and x.requires_grad for x in others))
    if records or (view is not None and view.made == "no_grad" and mode.grad and view.base.requires_grad):
        check_may_change(t)
    if t._inference and not mode.inference and records:
        raise RuntimeError("Inplace update to inference tensor outside InferenceMode is not allowed.You can make a clone to get a "
                           "normal tensor before doing inplace update.\n" + described(t))
    return records


def _become(t: Tensor, result: Tensor, name: str, records: bool) -> Tensor:
    """Make a tensor the result of an operation that has this name."""
    view = t._view
    old, new = array_of(t), array_of(result)
    if new.shape != old.shape:
        raise RuntimeError(f"output with shape {list(old.shape)} doesn't match the broadcast shape {list(new.shape)}\n" + described(t))
    if new.dtype != old.dtype:
        if narrows(new.dtype, old.dtype):
            raise RuntimeError(f"result type {dtypes.type_name(new.dtype)} can't be cast to the desired output type "
                               f"{dtypes.type_name(old.dtype)}\n" + described(t))
        result = result.to(dtypes.of(old.dtype))
        new = array_of(result)
    if mode.dual_level:
        set_tangent(t, tangent_of(result))
    if not result._requires_grad:
        detaches = records and t._requires_grad
        write(t, new)
        if detaches and view is None:
            cut = node_class(name, Cut)(None, name, [(t, 0) if t._node is None else (t._node, t._slot)], (), (), source(), 1)
            rebase(t, cut, 0)
        elif detaches and view is not None:
            rebase_view(view, result)
        return t
    node = result._node
    assert node is not None
    counter = t._counter
    # The value before the change is kept, so its version is not checked; a saved output is the tensor's new value.
    checks: list[Any] = []
    before = iter(node.checks)
    for place, c, version in zip(before, before, before, strict=True):
        if place < 0 and c is result._counter:
            checks += (place, counter, counter.version + 1)
        elif place != 0:
            checks += (place, c, version)
    node.checks = checks
    write(t, new)
    if view is None:
        rebase(t, node, result._slot)
    else:
        rebase_view(view, result)
    return t


class Cut(Node):
    """The node of a value that was replaced by one that does not depend on it: its gradient stops here."""

    __slots__ = ()

    def pull_custom(self, cts: list[Cotangent | None], backward_pass: object) -> Pulled:
        return []


def rebase(t: Tensor, node: Node, slot: int) -> None:
    """Make a tensor the output of another node."""
    if t._retains and t._node is not None and t._node.slot_hooks is not None:
        kept = t._node.slot_hooks[t._slot].pop(-1, None)  # .grad is that of the new value
        if kept is not None:
            node.hooks_of(slot)[-1] = kept
    t._node, t._slot, t._requires_grad = node, slot, True
    t._generation += 1


def rebase_view(view: View, result: Tensor) -> None:
    """Record that the part of a base which a view shows was replaced."""
    base = view.base
    merged = apply(put_op(ops_of(view.path)), (base, result, *numbers_of(view.path)))
    rebase(base, merged._node, merged._slot)


#: Why a change of a view cannot be recorded, by ``View.made``.
_UNCLEAR = {
    "no_grad": "A view was created in no_grad mode and is being modified inplace with grad mode enabled. Given that this use case "
               "is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both the view and the inplace "
               "either both inside the no_grad block (if you don't want the inplace to be tracked) or both outside (if you want the "
               "inplace to be tracked).",
    "several": "Output {} of {} is a view and is being modified inplace. This view is the output of a function that returns "
               "multiple views. Such functions do not allow the output views to be modified inplace. You should replace the inplace "
               "operation by an out-of-place one.",
}


def check_may_change(t: Tensor) -> None:
    """Refuse changes of leaves that require grad, of their views, and of views whose changes cannot be recorded."""
    if t._view is not None:
        made = t._view.made
        if made is not None:
            node = t.grad_fn
            if made == "no_grad" or node is not None:
                raise RuntimeError(_UNCLEAR[made].format(t._slot, "" if node is None else node.op_name) + "\n" + described(t))
        base = t._view.base
        if t.requires_grad and base._node is None:
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place "
                               "operation.\n" + described(base if base._requires_grad else t)
                               + "; change it under torch.no_grad(), or change a .clone()")
    if t._requires_grad and t._node is None:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.\n" + described(t)
                           + "; change it under torch.no_grad() or through .data, or use the operation that is not in place")


def narrows(new: np.dtype, old: np.dtype) -> bool:
    """Whether a conversion from dtype ``new`` to ``old`` loses a kind: complex to float, float to integer, integer to bool."""
    return _kind(new) > _kind(old)


def _kind(dtype: np.dtype) -> int:
    return {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}.get(dtype.kind, 2)
