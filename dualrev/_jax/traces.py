"""Traces and tracers: where operations go, and whether anything is being traced."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax._src.core import EvalTrace as EvalTrace  # the trace of un-jitted evaluation: its values are concrete
from jax._src.core import ensure_no_leaks as ensure_no_leaks  # ends a trace; reports leaks where jax is asked to check
from jax._src.core import to_concrete_value as to_concrete_value  # so that Python control flow works on our tracers
from jax._src.core import trace_ctx as _trace_ctx  # .trace: the current trace (None inside a bind since 0.11)
from jax._src.interpreters import partial_eval as _partial_eval  # the tracers of programs that are being staged
from jax._src.interpreters.batching import BatchTrace as _BatchTrace  # the trace of vmap
from jax.core import Trace as Trace  # base class of an engine's trace
from jax.core import Tracer as Tracer  # base class of the values that an engine's trace watches
from jax.extend.core import set_current_trace as set_current_trace
from jax.extend.core import take_current_trace as take_current_trace
from jax.interpreters.ad import JVPTracer as JVPTracer  # libraries ask with isinstance whether a value is being pushed

from dualrev._jax.avals import AbstractValue
from dualrev._jax.primitives import Params, Primitive


def process(trace: Trace, primitive: Primitive, args: Sequence[jax.Array], params: Params) -> Any:
    """Run a primitive under ``trace``, which is not (yet) the current one."""
    with set_current_trace(trace):
        return primitive.bind(*args, **params)


def in_eager_context() -> bool:
    """Whether nothing is being traced: a bind would run on the device at once."""
    return type(_trace_ctx.trace) is EvalTrace


def evaluating() -> AbstractContextManager[None]:
    """Operations on concrete values inside the block are evaluated at once, whatever is being traced outside."""
    context: AbstractContextManager[None] = set_current_trace(EvalTrace())
    return context


def is_eager(values: Sequence[object]) -> bool:
    """Whether all values are concrete and nothing is being traced, so that a compiled function may be called."""
    for value in values:
        if isinstance(value, Tracer):
            return False
    return type(_trace_ctx.trace) is EvalTrace


def is_concrete(values: Sequence[object]) -> bool:
    """As :func:`is_eager`, also under a trace of ours that only adds infinitesimals to values that are known."""
    for value in values:
        if isinstance(value, Tracer):
            return False
    trace = _trace_ctx.trace
    while getattr(trace, "is_infinitesimal", False):
        trace = trace.parent
    return type(trace) is EvalTrace


def is_batching() -> bool:
    """Whether operations go to ``vmap`` now."""
    return isinstance(_trace_ctx.trace, _BatchTrace)


def is_staging() -> bool:
    """Whether operations become equations of a program now, of all members of a batch where ``vmap`` is around."""
    trace = _trace_ctx.trace
    while isinstance(trace, _BatchTrace):
        trace = trace.parent_trace
    return isinstance(trace, _partial_eval.DynamicJaxprTrace)


def is_staged_at_last(trace: Trace | None) -> bool:
    """As :func:`is_staging` under a trace, also where traces of ours stand between: what they do becomes equations of a program."""
    while trace is not None and not isinstance(trace, _partial_eval.DynamicJaxprTrace):
        trace = getattr(trace, "parent_trace" if isinstance(trace, _BatchTrace) else "parent", None)
    return trace is not None


def is_unjitted() -> bool:
    """Whether operations run on the device at once in the end, whatever traces of ours or of ``vmap`` they go through before."""
    trace = _trace_ctx.trace
    while type(trace) is not EvalTrace:
        trace = getattr(trace, "parent_trace" if isinstance(trace, _BatchTrace) else "parent", None)
        if trace is None:
            return False
    return True


def first_member(x: jax.Array) -> jax.Array:
    """Inside a function under ``vmap``: the first member's ``x``, as a value that is the same for all members."""
    trace = _trace_ctx.trace
    value, axis = trace.to_batch_info(x)
    if axis is None:
        return value
    with set_current_trace(trace.parent_trace):
        return jax.lax.index_in_dim(value, 0, axis, keepdims=False)


def is_same_for_all(x: jax.Array) -> bool:
    """Inside a function under ``vmap``: whether ``x`` is the same for all members."""
    return _trace_ctx.trace.to_batch_info(x)[1] is None


def in_front(x: jax.Array, n: int) -> jax.Array:
    """``n`` times ``x``, along a new first axis."""
    return jax.lax.broadcast(x, (n,))


class _Moving(_partial_eval.DynamicJaxprTracer):
    """Stands for a tangent of unknown value among the contents of a tracer.

    ``jax.closure_convert`` looks there for what may be differentiated, and knows the classes of jax's own tracers only: it takes a
    value that is being traced for one that may be.
    """

    __slots__ = ()

    def __init__(self, aval: AbstractValue):
        self.aval = aval

    def _short_repr(self) -> str:
        return "a tangent or cotangent"


def contents(aval: AbstractValue, **values: object) -> list[tuple[str, object]]:
    """What a tracer of ours answers when jax asks what it holds."""
    return [*values.items(), ("derivative", _Moving(aval))]


def current_trace() -> Trace:
    """The trace that operations go to now."""
    return _trace_ctx.trace
