"""Which example under ``vmap`` an entry belongs to: read from the axes that jax had while the operation was traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dualrev._jax.batches import Batch, Batched, batches_around
from dualrev._jax.jaxprs import JaxprEqn
from dualrev.inspection.finiteness.entries import Entry
from dualrev.table.rows import rows


class Members(NamedTuple):
    """``example``: for each ``vmap`` of the user's, outermost first, the position, or None where the value is the same for all; up to
    the last that has a position.

    ``steps``: positions along the axes that the package made of the steps of loops.  ``is_known``: whether all axes could be told.
    """

    example: tuple[int | None, ...] = ()
    steps: tuple[int, ...] = ()
    is_known: bool = True


def members_of(eqn: JaxprEqn, entry: Entry, shape: tuple[int, ...]) -> Members:
    """What an entry of a result of an operation belongs to."""
    example: list[int | None] = []
    steps: list[int] = []
    for batch in batches_around(_of_operation(eqn.source_info.name_stack.stack)):
        axes = _axes(batch, eqn, shape)
        if len(axes) != 1:
            return Members(is_known=False)
        (axis,) = axes
        number = None if axis is None else entry[axis]
        if axis is not None:
            entry, shape = entry[:axis] + entry[axis + 1:], shape[:axis] + shape[axis + 1:]
        if batch.axis == "":
            example.append(number)
        elif batch.axis == "steps" and number is not None:
            steps.append(number)
    while example and example[-1] is None:
        example.pop()
    return Members(tuple(example), tuple(steps))


def _of_operation(scopes: Sequence[object]) -> list[object]:
    """The scopes without those of calls around the operation: what a call runs has scopes of its own for the same ``vmap``."""
    within = list(scopes)
    last = next((scope for scope in reversed(within) if isinstance(scope, Batch)), None)
    if last is None or _is_call(last):
        return within
    return [scope for scope in within if not (isinstance(scope, Batch) and _is_call(scope))]


def _is_call(batch: Batch) -> bool:
    row = rows.get(batch.primitive)
    return row is not None and row.kind in ("call", "program")


def _axes(batch: Batch, eqn: JaxprEqn, shape: tuple[int, ...]) -> set[int | None]:
    """The axes that may be that of the examples in a result: one, unless the rule of ``vmap`` made other shapes on its way."""
    if eqn.primitive is batch.primitive and (found := _with_shape(batch.outs, shape)):
        return found
    # A result of the operation, or, in its pull, a cotangent of an operand: both have the axes of the value itself.
    return _with_shape([*batch.outs, *batch.ins], shape) or {i for i, n in enumerate(shape) if n == batch.size} or {None}


def _with_shape(values: Sequence[Batched], shape: tuple[int, ...]) -> set[int | None]:
    return {axis for other, axis in values if other == shape}
