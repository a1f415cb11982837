"""The loops of a kernel that the entries of a value depend on.

A kernel goes through the entries of its root, row by row: a loop for each axis, and within them one for each axis that is summed.  What
does not depend on the inner loops, the compiler moves out of them, so that it is computed once for each step of those around; and
what is read from memory along another axis than its last one takes a line of memory for each entry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from dualrev.time_model.reading import Operation, Value, shape_of

#: For each axis of a value, how often the loop along it runs in all, the loops around it included; None where that is not known.
Nest: TypeAlias = "tuple[float, ...] | None"


def nest_of_root(shape: Sequence[int], times: float = 1.0) -> Nest:
    """Of what a kernel writes, row by row."""
    return tuple([times * math.prod(shape[:i + 1]) for i in range(len(shape))])


def times_of(nest: Nest, otherwise: float) -> float:
    """How often an entry is computed."""
    return otherwise if nest is None else max(nest, default=1.0)


def is_across(nest: Nest, v: Value) -> bool:
    """Whether the innermost loop goes across the rows of an array."""
    shape = shape_of(v.aval)
    if nest is None or len(nest) != len(shape):
        return False
    long = [times for times, n in zip(nest, shape, strict=True) if n > 1]
    return bool(long) and long[-1] < max(long)


def nests_of_operands(op: Operation, nest: Nest) -> list[Nest]:
    """Of the operands of an operation, by that of its result."""
    if nest is None:
        return [None] * len(op.ins)
    found: list[Nest] = []
    for atom, v in zip(op.eqn.invars, op.ins, strict=True):
        shape = shape_of(atom.aval)
        mapped = _nest_of_operand(op, nest, shape) if v is not None else None
        found.append(None if v is None else _in_shape(mapped, shape, shape_of(v.aval)))
    return found


def _nest_of_operand(op: Operation, nest: tuple[float, ...], shape: tuple[int, ...]) -> Nest:
    params = op.eqn.params
    if op.name == "transpose":
        turned = dict(zip(params["permutation"], nest, strict=True))
        return tuple([turned[i] for i in range(len(nest))])
    if op.name == "broadcast_in_dim":
        return tuple([nest[i] if n > 1 else 1.0 for i, n in zip(params["broadcast_dimensions"], shape, strict=True)])
    if op.kind == "reduce":
        axes = params.get("axes", ())
        outer, kept, times, inner = list(nest), [i for i in range(len(shape)) if i not in axes], times_of(nest, 1.0), {}
        if len(kept) != len(outer):
            return None
        for i in sorted(axes):
            inner[i] = times = times * shape[i]
        around = dict(zip(kept, outer, strict=True))
        return tuple([inner[i] if i in inner else around[i] for i in range(len(shape))])
    if not shape:
        return ()
    if op.kind == "entry" or op.name in ("slice", "dynamic_slice", "concatenate", "pad", "split"):
        return nest if len(shape) == len(nest) else None
    return None


def _in_shape(nest: Nest, shape: tuple[int, ...], own: tuple[int, ...]) -> Nest:
    """The same for the shape that the array was made with, of which this is another name."""
    if nest is None or shape == own:
        return nest
    long = [(n, times) for n, times in zip(shape, nest, strict=True) if n > 1]
    if [n for n, _ in long] != [n for n in own if n > 1]:
        return None
    rest = iter(long)
    return tuple([next(rest)[1] if n > 1 else 1.0 for n in own])
