"""Views: tensors that share a part of another tensor's storage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.traces import Tracer
from dualrev.eager.core.caches import caches
from dualrev.eager.core.evaluation import is_on_host
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.storage import Step, Storage, View
from dualrev.eager.graph.tensor import Tensor, array_of, wrap


class RecordedView(View):
    """A view whose operations are recorded anew when its base was changed by a recorded operation."""

    __slots__ = ()

    def renew(self, t: Tensor) -> None:
        self.generation = self.base._generation
        before, mode.grad = mode.grad, True
        handler, mode.handler = mode.handler, None
        try:
            fresh = apply(path_op(ops_of(self.path)), (self.base, *numbers_of(self.path)))
        finally:
            mode.grad, mode.handler = before, handler
        t._node, t._slot, t._requires_grad = fresh._node, fresh._slot, fresh._requires_grad


def view(op: Op, t: Tensor, starts: tuple[int, ...] | None = None, index: tuple[Any, ...] | None = None) -> Tensor:
    """The result of an operation that selects and orders entries, as a view of the tensor."""
    step = Step(op, starts, index)
    if index is not None and mode.handler is None and not (mode.grad and t.requires_grad) and is_on_host(array_of(t)):
        result = wrap(step.plain(array_of(t)))
        result._inference = mode.inference
    else:
        result = apply(op, (t, *step.numbers))
    share(result, t, _cut(step), result._storage.array, None if mode.grad else "no_grad")
    return result


def views(op: Op, t: Tensor) -> tuple[Tensor, ...]:
    """As :func:`view`, of an operation with several results."""
    results = apply(op, (t,))
    for i, result in enumerate(results):
        share(result, t, _cut(Step(pick_op(op, i))), result._storage.array, "several" if mode.grad else "no_grad")
    return results


def _cut(step: Step) -> tuple[Step, ...]:
    """The path of a view; under ``no_grad`` inside a function that is transformed, no derivative goes along it."""
    return (step, _STOP) if mode.functional and mode.cuts and not mode.grad else (step,)


@caches.memoized
def pick_op(op: Op, i: int) -> Op:
    """Output ``i`` of an operation."""
    picked = Op(op.name, lambda x: op.fun(x)[i])
    picked.statics = None if op.statics is None else (*op.statics, i)
    return picked


def share(result: Tensor, t: Tensor, path: tuple[Step, ...], array: jax.Array, made: str | None = None) -> None:
    """Make ``result``, whose value is ``array``, a view of ``t``."""
    base = t
    if t._view is not None:
        base, path, made = t._view.base, (*t._view.path, *path), made or t._view.made
    result._storage = t._storage
    result._counter = t._counter
    result._view = RecordedView(base, path, array, made)
    if base._tangent is not None and base._tangent[0] == mode.dual_level:
        result._tangent = None  # computed from that of the base when it is asked for


#: No derivative goes through it: transformations from outside know nothing of the graph that ``detach`` leaves.
_STOP = Step(Op("Detach", lax.stop_gradient))


def detached(t: Tensor) -> Tensor:
    """A tensor outside the graph that shares the storage and the count of changes."""
    result = _beside(t)
    if mode.functional and isinstance(array_of(t), Tracer):
        base = _beside(t if t._view is None else t._view.base)
        path = (_STOP,) if t._view is None else (*t._view.path, _STOP)
        result._view = RecordedView(base, path, _STOP.plain(array_of(t)))
    elif t._view is not None:
        result._view = RecordedView(_beside(t._view.base), t._view.path, array_of(t))
    result._inference = t._inference
    return result


def _beside(t: Tensor) -> Tensor:
    """A tensor of the whole storage of another one, outside the graph."""
    result = wrap(None)  # type: ignore[arg-type]  # it gets the storage of t
    result._storage, result._counter = t._storage, t._counter
    result._inference = t._inference
    return result


def data_of(t: Tensor) -> Tensor:
    """A tensor outside the graph that shares the storage; changes through it are not counted."""
    result = detached(t)
    result._counter = Storage(None)  # type: ignore[arg-type]  # a counter without a value
    if result._view is not None:
        result._view.base._counter = result._counter
    return result


def ops_of(path: tuple[Step, ...]) -> tuple[tuple[Op, bool], ...]:
    """The operations of a path, each with whether it takes starts."""
    return tuple([(step.op, step.starts is not None) for step in path])


def numbers_of(path: tuple[Step, ...]) -> tuple[Any, ...]:
    """The numbers that the operations of a path take, one after the other."""
    return tuple([n for step in path for n in step.numbers])


@caches.memoized
def path_op(ops: tuple[tuple[Op, bool], ...]) -> Op:
    """The operations of a view's path as one operation, of a base and all their numbers."""
    def along(x: jax.Array, *numbers: jax.Array) -> jax.Array:
        given = iter(numbers)
        for op, takes_starts in ops:
            x = op.fun(x, next(given)) if takes_starts else op.fun(x)
        return x

    return Op("AsStrided", along)


def overlaps(path: tuple[Step, ...], shape: tuple[int, ...]) -> bool:
    """Whether a view of a base of this shape contains an entry more than once."""
    if not any(step.op.name == "Expand" for step in path):
        return False
    places: Any = np.arange(math.prod(shape)).reshape(shape)
    for step in path:
        places = step.plain(places)
    return places.size > math.prod(shape) or np.unique(places).size < places.size


class Reinterpretation:
    """What a view of other numbers than the base's, as of the parts of complex ones, adds to its operation.

    ``back`` turns the view's value into the base's, and ``places`` the places of entries in the storage.
    """

    __slots__ = ("back", "places")

    def __init__(self, back: Callable[[Any], Any], places: Callable[[Any], Any]):
        self.back, self.places = back, places


#: The operations whose results are other numbers than those that they are given.
REINTERPRETATIONS: dict[Op, Reinterpretation] = {}


def _put_through(before: tuple[tuple[Op, bool], ...], op: Op, after: tuple[tuple[Op, bool], ...]) -> Op:
    """As :func:`put_op`, of a path with a reinterpretation in it."""
    first, last = put_op(before).fun, put_op(after).fun
    along, back = path_op(before).fun, REINTERPRETATIONS[op].back
    n = sum(takes for _, takes in before)

    def put(base: jax.Array, new: jax.Array, *numbers: jax.Array) -> jax.Array:
        part = op.fun(along(base, *numbers[:n]))
        return first(base, back(last(part, new, *numbers[n:])), *numbers[:n])

    return Op("CopySlices", put)


@caches.memoized
def put_op(ops: tuple[tuple[Op, bool], ...]) -> Op:
    """The operation that replaces the entries of a view: ``put(base, new, *numbers)`` is the base with ``new`` in their place."""
    for i, (op, _) in enumerate(ops):
        if op in REINTERPRETATIONS:
            return _put_through(ops[:i], op, ops[i + 1:])
    along = path_op(ops).fun

    def put(base: jax.Array, new: jax.Array, *numbers: jax.Array) -> jax.Array:
        places = along(jnp.arange(base.size).reshape(base.shape), *numbers)
        return base.ravel().at[places.ravel()].set(new.ravel()).reshape(base.shape)

    return Op("CopySlices", put)


def put(base: Any, path: tuple[Step, ...], new: Any) -> Any:
    """The value of a base with new entries in a view of it."""
    if is_on_host(base) and is_on_host(new):
        fresh: Any = np.array(base)
        part: Any = fresh
        for step in path:
            part = step.plain(part)
        # numpy copies where a new shape cannot be a view, and a large part may be jax's.
        if isinstance(part, np.ndarray) and part.flags.writeable and np.may_share_memory(part, fresh):
            part[...] = new
            return fresh
    return put_op(ops_of(path)).plain(base, new, *numbers_of(path))
