"""Mutable references that a differentiated function makes for itself.

A :class:`Box` is such a reference with its present value.  A read or a write becomes an operation on that value, so that the derivative
is that of the same program without references; so it is for the loops, branches and compiled functions that take the reference.  A
reference from outside may be read, but no active value may be written into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from dualrev import errors
from dualrev._jax.avals import AbstractValue, abstract_outputs, typeof
from dualrev._jax.primitives import Params, Primitive, primitive
from dualrev._jax.references import discharge_operation
from dualrev._jax.traces import Trace, Tracer, set_current_trace
from dualrev.linear import zeros

if TYPE_CHECKING:
    from dualrev.engines.base import EngineTrace, Results

#: Operations that make a reference.
MAKERS = frozenset(p for p in (primitive("new_ref"), primitive("empty_ref")) if p is not None)
_empty, _freeze, _free = primitive("empty_ref"), primitive("freeze"), primitive("free_ref")


class Box(Tracer):  # type: ignore[type-arg]
    """A reference that the function made, and the value that it holds now."""

    __slots__ = ("value",)

    def __init__(self, trace: Trace, aval: AbstractValue, value: jax.Array):
        super().__init__(trace, aval)
        self.value = value

    def _short_repr(self) -> str:
        return f"Ref({self.value})"


def make(trace: Trace, primitive: Primitive, values: Sequence[jax.Array], params: Params) -> Box:
    """A new reference of an engine's trace."""
    aval: Any  # of a reference
    (aval,) = abstract_outputs(primitive, [typeof(x) for x in values], params)
    return Box(trace, aval, zeros.filler(aval.inner_aval) if primitive is _empty else values[0])


def holds_box(trace: Trace, values: Sequence[jax.Array]) -> bool:
    """Whether any value is a reference of this trace."""
    return any(type(x) is Box and x._trace is trace for x in values)


def operate(trace: Trace, primitive: Primitive, values: Sequence[jax.Array], params: Params) -> Results:
    """The results of an operation on references of this trace, as an operation on the values that they hold."""
    if primitive is _freeze:
        (box,) = values
        assert isinstance(box, Box)
        return box.value
    if primitive is _free:
        return []
    boxes = [isinstance(x, Box) and x._trace is trace for x in values]
    held = [x.value if isinstance(x, Box) and x._trace is trace else x for x in values]
    avals = [typeof(x) for x in values]
    with set_current_trace(trace):
        found = discharge_operation(primitive, avals, boxes, held, params)
    if found is None:
        raise errors.reference_cannot_enter(primitive)
    new_values, results = found
    for box, value in zip(values, new_values, strict=True):
        if value is not None and isinstance(box, Box):
            box.value = value
    return results


def keep_out(trace: EngineTrace, primitive: Primitive, values: Sequence[jax.Array]) -> None:
    """Refuse references as operands of a user's rule: it may keep an operand, and would not see the changes."""
    if trace.has_references and holds_box(trace, values):
        raise errors.reference_cannot_enter(primitive)


def check_results(trace: Trace, results: Sequence[jax.Array]) -> None:
    """Refuse references among the results of a differentiated function."""
    if holds_box(trace, results):
        raise errors.reference_returned()
