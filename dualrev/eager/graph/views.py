"""Views: tensors that share a part of another tensor's storage."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.caches import caches
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.storage import Storage, View
from dualrev.eager.graph.tensor import Tensor, array_of, wrap


class RecordedView(View):
    """A view whose operations are recorded anew when its base was changed by a recorded operation."""

    __slots__ = ()

    def renew(self, t: Tensor) -> None:
        self.generation = self.base._generation
        before, mode.grad = mode.grad, True
        handler, mode.handler = mode.handler, None
        try:
            fresh = apply(path_op(self.path), (self.base,))
        finally:
            mode.grad, mode.handler = before, handler
        t._node, t._slot, t._requires_grad = fresh._node, fresh._slot, fresh._requires_grad


def view(op: Op, t: Tensor) -> Tensor:
    """The result of an operation that selects and orders entries, as a view of the tensor."""
    result = apply(op, (t,))
    share(result, t, (op,), result._storage.array, None if mode.grad else "no_grad")
    return result


def views(op: Op, t: Tensor) -> tuple[Tensor, ...]:
    """As :func:`view`, of an operation with several results."""
    results = apply(op, (t,))
    for i, result in enumerate(results):
        share(result, t, (pick_op(op, i),), result._storage.array, "several" if mode.grad else "no_grad")
    return results


@caches.memoized
def pick_op(op: Op, i: int) -> Op:
    """Output ``i`` of an operation."""
    return Op(op.name, lambda x: op.fun(x)[i])


def share(result: Tensor, t: Tensor, path: tuple[Op, ...], array: jax.Array, made: str | None = None) -> None:
    """Make ``result``, whose value is ``array``, a view of ``t``."""
    base = t
    if t._view is not None:
        base, path, made = t._view.base, (*t._view.path, *path), made or t._view.made
    result._storage = t._storage
    result._counter = t._counter
    result._view = RecordedView(base, path, array, made)
    if base._tangent is not None and base._tangent[0] == mode.dual_level:
        result._tangent = None  # computed from that of the base when it is asked for


def detached(t: Tensor) -> Tensor:
    """A tensor outside the graph that shares the storage and the count of changes."""
    result = wrap(None)  # type: ignore[arg-type]  # it gets the storage of t
    result._storage, result._counter = t._storage, t._counter
    if t._view is not None:
        result._view = RecordedView(detached(t._view.base), t._view.path, array_of(t))
    result._inference = t._inference
    return result


def data_of(t: Tensor) -> Tensor:
    """A tensor outside the graph that shares the storage; changes through it are not counted."""
    result = detached(t)
    result._counter = Storage(None)  # type: ignore[arg-type]  # a counter without a value
    if result._view is not None:
        result._view.base._counter = result._counter
    return result


@caches.memoized
def path_op(path: tuple[Op, ...]) -> Op:
    """The operations of a view's path as one operation."""
    def along(x: jax.Array) -> jax.Array:
        for op in path:
            x = op.fun(x)
        return x

    return Op("AsStrided", along)


@caches.memoized
def overlaps(path: tuple[Op, ...], shape: tuple[int, ...]) -> bool:
    """Whether a view of a base of this shape contains an entry more than once."""
    n = math.prod(shape)
    places = np.asarray(path_op(path).plain(np.arange(n).reshape(shape))).ravel()
    return places.size > n or np.unique(places).size < places.size


@caches.memoized
def put_op(path: tuple[Op, ...]) -> Op:
    """The operation that replaces the entries of a view: ``put(base, new)`` is the base with ``new`` in their place."""
    along = path_op(path).fun

    def put(base: jax.Array, new: jax.Array) -> jax.Array:
        places = along(jnp.arange(base.size).reshape(base.shape))
        return base.ravel().at[places.ravel()].set(new.ravel()).reshape(base.shape)

    return Op("CopySlices", put)
