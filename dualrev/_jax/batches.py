"""``vmap``: which axes of operands and results are those of the examples, kept with the equations that an operation becomes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import jax
from jax._src.core import TraceTag as TraceTag  # one for each vmap
from jax._src.interpreters.batching import BatchTrace as _BatchTrace  # the trace of vmap: its methods see every axis

from dualrev._jax.avals import typeof
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.source_lines import Batching, Scope, enclosing, entering

#: The shape of a value, that of all examples together, and the axis of the examples; None where the value is the same for all.
Batched: TypeAlias = tuple[tuple[int, ...], int | None]


class Batch(Batching):
    """A scope of equations that compute an operation for all examples of a ``vmap``.

    ``axis`` is what the examples are: ``""`` for those of a user's ``vmap``, else the name of the package's own scope
    (:class:`~dualrev._jax.source_lines.Scope`).  ``vmap`` tells the scopes of one ``vmap`` from those of others.
    """

    __slots__ = ("axis", "ins", "outs", "primitive", "size", "vmap")

    def __init__(self, primitive: Primitive, axis: str, size: int, ins: Sequence[Batched], vmap: TraceTag):
        self.primitive = primitive
        self.axis = axis
        self.size = size
        self.ins = ins
        self.outs: Sequence[Batched] = ()
        self.vmap = vmap

    @property
    def name(self) -> str:
        """What lowering calls the scope."""
        return "batch"

    def wrap(self, stack: list[str]) -> None:
        """Adds nothing to the names of those within it."""


def batches_around(scopes: Sequence[object]) -> list[Batch]:
    """Among the scopes of an equation, one for each ``vmap`` around it, outermost first."""
    found: dict[int, Batch] = {}
    for scope in reversed(scopes):  # an inner vmap hands its operations to the one around it
        if isinstance(scope, Batch):
            found.setdefault(id(scope.vmap), scope)
    return list(found.values())


class _Recording(threading.local):
    """How many blocks are open in this thread, and the axes that are the package's own, by the identity of jax's data of them."""

    open = 0

    def __init__(self) -> None:
        self.own: dict[int, tuple[object, str]] = {}


_here = _Recording()
_lock = threading.Lock()
_n_blocks = 0
_methods: tuple[Callable[..., None], Callable[..., Any]] = _BatchTrace.__init__, _BatchTrace.process_primitive


def _made(trace: Any, *args: Any) -> None:
    _methods[0](trace, *args)
    if _here.open:
        scopes = enclosing()
        before = scopes[-2] if len(scopes) > 1 and getattr(scopes[-1], "name", "") == "vmap" else None
        if isinstance(before, Scope):
            _here.own[id(trace.axis_data)] = (trace.axis_data, before.name)


def _process(trace: Any, primitive: Primitive, tracers: Sequence[jax.Array], params: Params, /) -> Any:
    if not _here.open:
        return _methods[1](trace, primitive, tracers, params)
    batch = Batch(primitive, _here.own.get(id(trace.axis_data), (None, ""))[1], trace.axis_data.size,
                  [_batched(trace, x) for x in tracers], trace.tag)
    with entering(batch):
        out = _methods[1](trace, primitive, tracers, params)
    batch.outs = [_batched(trace, x) for x in (out if primitive.multiple_results else [out])]
    return out


def _batched(trace: Any, x: Any) -> Batched:
    value, axis = trace.to_batch_info(x)
    return tuple(getattr(typeof(value), "shape", ())), axis


class recording_batches(AbstractContextManager[None]):
    """``with recording_batches():`` equations that this thread traces under ``vmap`` get a :class:`Batch` for each ``vmap``.

    jax tells the axes to nobody but the trace of ``vmap``: two of its methods are replaced while a block is open.
    """

    def __enter__(self) -> None:
        global _n_blocks
        with _lock:
            _n_blocks += 1
            _BatchTrace.__init__, _BatchTrace.process_primitive = _made, _process  # type: ignore[method-assign]
        _here.open += 1

    def __exit__(self, *_: object) -> None:
        global _n_blocks
        _here.open -= 1
        if not _here.open:
            _here.own.clear()
        with _lock:
            _n_blocks -= 1
            if not _n_blocks:
                _BatchTrace.__init__, _BatchTrace.process_primitive = _methods  # type: ignore[method-assign]
