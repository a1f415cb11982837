"""Mutable references that a differentiated function makes for itself.

An engine keeps what such a reference holds now in a :class:`Box`.  Reading and writing it are operations on that value, so a
program that uses references has the derivative of the same program without them; so have the loops, branches and compiled
functions that it hands references to.  A reference from outside may be read, but not written with what moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev import errors
from dualrev._jax.avals import abstract_outputs, typeof
from dualrev._jax.primitives import primitive
from dualrev._jax.references import discharge_operation
from dualrev._jax.traces import Trace, Tracer, set_current_trace
from dualrev.linear import zeros

#: Operations that make a reference.
MAKERS = frozenset(p for p in (primitive("new_ref"), primitive("empty_ref")) if p is not None)
_empty, _freeze, _free = primitive("empty_ref"), primitive("freeze"), primitive("free_ref")


class Box(Tracer):
    """A reference, as the function sees it: what it holds changes."""

    __slots__ = ("value",)

    def __init__(self, trace: Trace, aval: Any, value: Any):
        super().__init__(trace, aval)
        self.value = value

    def _short_repr(self) -> str:
        return f"Ref({self.value})"


def make(trace: Trace, primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Box:
    """A new reference of an engine's trace."""
    aval: Any
    (aval,) = abstract_outputs(primitive, [typeof(x) for x in values], params)
    return Box(trace, aval, zeros.filler(aval.inner_aval) if primitive is _empty else values[0])


def holds_box(trace: Trace, values: Sequence[Any]) -> bool:
    return any(type(x) is Box and x._trace is trace for x in values)


def operate(trace: Trace, primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """An operation on references of this trace, as one on what they hold."""
    if primitive is _freeze:
        return values[0].value
    if primitive is _free:
        return []
    boxes = [type(x) is Box and x._trace is trace for x in values]
    avals = [typeof(x) for x in values]
    with set_current_trace(trace):
        found = discharge_operation(primitive, avals, boxes, [x.value if b else x for x, b in zip(values, boxes, strict=True)], params)
    if found is None:
        raise errors.reference_cannot_enter(primitive)
    new_values, results = found
    for box, value in zip(values, new_values, strict=True):
        if value is not None:
            box.value = value
    return results


def keep_out(trace: Any, primitive: Any, values: Sequence[Any]) -> None:
    """A user's rule may keep what it is given, and would not see it change."""
    if trace.has_references and holds_box(trace, values):
        raise errors.reference_cannot_enter(primitive)


def check_results(trace: Trace, results: Sequence[Any]) -> None:
    if holds_box(trace, results):
        raise errors.reference_returned()
