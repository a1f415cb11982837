"""Operations that modes intercept: saved values, tangents, what a compiler is told, and what ``no_grad`` cuts off."""

from __future__ import annotations

from collections.abc import Sequence

from jax import lax

from dualrev._jax.traces import Tracer
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.saved import pack
from dualrev.eager.graph.tangents import push, tangent_of
from dualrev.eager.graph.tensor import Tensor


def apply_intercepted(op: Op, args: Sequence[object]) -> Tensor | tuple[Tensor, ...]:
    """``apply`` where a mode intercepts operations: this is its handler (:class:`~dualrev.eager.core.modes.Mode`)."""
    if mode.watcher is not None:
        for a in args:
            if isinstance(a, Tensor):
                mode.watcher.read(a)
    if mode.dual_level and any(tangent_of(a) is not None for a in args):
        return push(op, args)
    handler, mode.handler = mode.handler, None
    try:
        results = apply(op, args)
    finally:
        mode.handler = handler
    if mode.watcher is not None:
        for t in results if op.many else (results,):
            mode.watcher.born(t._storage)
    if mode.functional and mode.cuts and not mode.grad:
        for t in results if op.many else (results,):
            if isinstance(t._storage.array, Tracer):
                t._storage.array = lax.stop_gradient(t._storage.array)
    if mode.packers:
        nodes = {t._node: None for t in (results if op.many else (results,)) if t._node is not None}
        for node in nodes:
            pack(node)
    return results
