"""Forward mode on tensors: the tangents of tensors, pushed through operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev import errors
from dualrev._jax.avals import is_differentiable
from dualrev.calls.derived_programs import Wrapper
from dualrev.calls.evaluation import Pushforward
from dualrev.eager.core.evaluation import aval_of
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.graph.views import numbers_of, ops_of, path_op, put_op
from dualrev.options.settings import DEFAULT, under


def tangent_of(t: object) -> Tensor | None:
    """The tangent of a tensor at the open level."""
    if not isinstance(t, Tensor):
        return None
    if t._tangent is not None and t._tangent[0] == mode.dual_level:
        return t._tangent[1]
    view = t._view
    if view is not None and (whole := tangent_of(view.base)) is not None:
        return _without_tangents(path_op(ops_of(view.path)), (whole, *numbers_of(view.path)))
    return None


def set_tangent(t: Tensor, tangent: Tensor | None) -> None:
    """Set the tangent of a tensor whose value was replaced in place; that of a view goes into the tangent of its base."""
    level, view = mode.dual_level, t._view
    if view is None or (t._tangent is not None and t._tangent[0] == level):
        t._tangent = None if tangent is None else (level, tangent)
        return
    whole = tangent_of(view.base)
    if whole is None and tangent is None:
        return
    if whole is None:
        whole = wrap(np.zeros(view.base.shape, array_of(view.base).dtype))
    part = wrap(np.zeros(t.shape, array_of(t).dtype)) if tangent is None else tangent
    view.base._tangent = (level, _without_tangents(put_op(ops_of(view.path)), (whole, part, *numbers_of(view.path))))


def _without_tangents(op: Op, args: Sequence[object]) -> Any:
    """Apply an operation that pushes no tangents; other handlers stay."""
    level, handler = mode.dual_level, mode.handler
    mode.dual_level = 0
    if not mode.packers and mode.watcher is None:
        mode.handler = None
    try:
        return apply(op, args)
    finally:
        mode.dual_level, mode.handler = level, handler


def push_op(op: Op, active: tuple[bool, ...]) -> Op:
    """The pushforward of an operation, as an operation: values and tangents of the active inputs to those of the outputs."""
    found = op._pushes.get(active)
    if found is None:
        n = len(active)

        def push(*flat: jax.Array) -> list[jax.Array]:
            with errors.calling("forward_ad"):
                pushforward = under(DEFAULT, Pushforward, op.flat, [aval_of(x) for x in flat[:n]], active, Wrapper(op.name, None))
            given = iter(flat[n:])
            outs, tangents = pushforward(flat[:n], [next(given) if a else None for a in active])
            return [*outs, *[jnp.zeros_like(x) if t is None else t for x, t in zip(outs, tangents, strict=True)]]

        found = op._pushes[active] = Op(op.name, push, many=True, promotes=False)
    return found


def push(op: Op, args: Sequence[object]) -> Any:
    """Evaluate an operation on tensors, some of which have tangents, with the tangents of its outputs."""
    tangents = [tangent_of(a) for a in args]
    if all(t is None for t in tangents):
        return _without_tangents(op, args)
    active = tuple([t is not None for t in tangents])
    results = _without_tangents(push_op(op, active), [*args, *[t for t in tangents if t is not None]])
    n = len(results) // 2
    for out, t in zip(results[:n], results[n:], strict=True):
        if is_differentiable(aval_of(array_of(out))):
            out._tangent = (mode.dual_level, t)
    return tuple(results[:n]) if op.many else results[0]
