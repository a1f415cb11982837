"""How far apart neighbours of a tensor stand in its storage, and which other shapes a view of the same entries can have.

A view is a path of steps from its base, whose entries stand one after the other.  The strides after each step follow from its static
arguments; where a step is none of those below, nothing is known, and the entries are taken to be in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualrev.eager.graph.storage import Step
from dualrev.eager.graph.tensor import Tensor, array_of

#: Strides by dimension, in entries.
Strides = tuple[int, ...]
#: Steps that leave the entries in order where they were in order.
_IN_ORDER = frozenset(("View", "Squeeze", "Unsqueeze", "Detach"))
_as_strided = np.lib.stride_tricks.as_strided
_ONE = np.zeros(1, np.int8)


def in_order(shape: Sequence[int]) -> Strides:
    """The strides of entries that stand one after the other."""
    return tuple([math.prod(shape[d + 1:]) for d in range(len(shape))])


def viewed(shape: Sequence[int], strides: Sequence[int], new: Sequence[int]) -> Strides | None:
    """The strides of the same entries, in the same order, in another shape; None where no strides give them.

    Dimensions whose neighbours follow each other, ``stride[d] = size[d + 1] * stride[d + 1]``, are one run of entries.  The sizes of
    the new shape must divide the runs, from the last one on.
    """
    if math.prod(shape) == 0:
        return tuple(strides) if tuple(shape) == tuple(new) else in_order([max(n, 1) for n in new])
    runs: list[list[int]] = []  # the entries of each, and how far apart they stand, last one first
    for n, s in reversed([(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]):
        if runs and s == runs[-1][0] * runs[-1][1]:
            runs[-1][0] *= n
        else:
            runs.append([n, s])
    found: list[int] = []
    left, step, k = (*(runs[0] if runs else (1, 1)), 1)
    for n in reversed(new):
        if n != 1 and left == 1 and k < len(runs):
            (left, step), k = runs[k], k + 1
        if left % n:
            return None
        found.append(step)
        left, step = left // n, step * n
    return tuple(found[::-1])


def _split(x: Any, bounds: tuple[int, ...], dim: int, i: int) -> Any:
    return np.split(x, bounds, dim)[i]


def _unbind(x: Any, dim: int, i: int) -> Any:
    return x[(slice(None),) * dim + (i,)]


def _view(x: Any, shape: tuple[int, ...]) -> Any:
    strides = viewed(x.shape, x.strides, shape)
    return None if strides is None else _as_strided(x, shape, strides)


#: What steps do to strides, by name: functions of an array of any entries, and of the static arguments of the step.
_STEPS: dict[str, Callable[..., Any]] = {
    "View": _view,
    "Transpose": np.swapaxes,
    "T": np.transpose,
    "Permute": np.transpose,
    "Expand": np.broadcast_to,
    "Squeeze": np.squeeze,
    "Unsqueeze": np.expand_dims,
    "Diagonal": np.diagonal,
    "Split": _split,
    "Unbind": _unbind,
    "Detach": lambda x: x,
}


def _after(step: Step, x: Any) -> Any:
    """An array with the strides after a step; None where they are not known."""
    if step.index is not None:
        return x[step.index]
    change = _STEPS.get(step.op.name)
    if change is None or step.starts is not None or (step.op.statics is None and step.op.name not in ("T", "Detach")):
        return None
    return change(x, *(step.op.statics or ()))


def _stand_in(t: Tensor) -> Any:
    """An array with the strides of a view, and where it starts; None where they are not known.

    It has one entry, which stands for all: none but the first is read.
    """
    assert t._view is not None
    base = array_of(t._view.base).shape
    x: Any = _as_strided(_ONE, base, in_order(base), writeable=False)
    for step in t._view.path:
        x = _after(step, x)
        if x is None:
            return None
    return x


def strides_of(t: Tensor) -> Strides | None:
    """The strides of a tensor; None where they are not known."""
    if t._view is None:
        return in_order(array_of(t).shape)
    x = _stand_in(t)
    return None if x is None else x.strides


def offset_of(t: Tensor) -> int | None:
    """Where the first entry of a tensor stands in its storage; None where it is not known."""
    if t._view is None:
        return 0
    x = _stand_in(t)
    return None if x is None else int(x.__array_interface__["data"][0] - _ONE.__array_interface__["data"][0])


def can_view(t: Tensor, shape: Sequence[int]) -> bool:
    """Whether the entries of a tensor can be seen in another shape without a copy; true where the strides are not known."""
    if t._view is None or all(step.op.name in _IN_ORDER and step.index is None for step in t._view.path):
        return True
    strides = strides_of(t)
    return strides is None or viewed(array_of(t).shape, strides, shape) is not None
