"""Functions of sizes that programs for ``torch.export`` write: here sizes are Python's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.registry import function

_NUMBERS = (np.integer, np.floating, int, float)
R = TypeVar("R")
T = TypeVar("T")


@function
def sym_float(a: Any) -> float:
    """A size as a float."""
    return float(a)


@function
def sym_int(a: Any) -> int:
    """A number rounded towards zero."""
    return math.trunc(a) if isinstance(a, float) else int(a)


@function
def sym_not(a: object) -> bool:
    """Whether a condition on sizes is false."""
    return not a


@function
def sym_ite(b: bool, t: T, f: T) -> T:
    """One of two numbers, by a condition."""
    if not isinstance(b, bool):
        raise AssertionError(f"expected SymBool or bool, got {type(b)}")
    if type(t) is not type(f):
        raise AssertionError(f"type mismatch: {type(t)} vs {type(f)}")
    return t if b else f


def _chosen(choose: Callable[..., Any], a: float, b: float) -> float:
    for x in (a, b):
        if not isinstance(x, _NUMBERS):
            raise AssertionError(f"expected {_NUMBERS}, got {type(x)}")
    found = choose(a, b)
    return float(found) if isinstance(a, float) or isinstance(b, float) else found


@function
def sym_max(a: float, b: float) -> float:
    """The larger of two numbers; a float where one is."""
    return _chosen(max, a, b)


@function
def sym_min(a: float, b: float) -> float:
    """The smaller of two numbers; a float where one is."""
    return _chosen(min, a, b)


@function
def sym_sum(*args: Any) -> Any:
    """The sum of numbers, given one by one or as one sequence."""
    return sum(args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args)


@function
def cond(pred: bool | Tensor, true_fn: Callable[..., R], false_fn: Callable[..., R], operands: Sequence[Any] = ()) -> R:
    """Call one of two functions of the operands, by a condition; derivatives are those of the function that was called.

    Raises:
      RuntimeError: the condition is no truth value, a branch is no function, or the operands are no sequence.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor(2.0, requires_grad=True)
    >>> torch.cond(x > 0, lambda x: x.sin(), lambda x: x.cos(), (x,)).backward()
    >>> x.grad
    tensor(-0.4161)
    """
    if not isinstance(pred, (bool, int, float, Tensor)):
        raise RuntimeError(f"Expected pred to be bool or tensor, but got {pred}.")
    if isinstance(pred, Tensor) and pred.numel() != 1:
        raise RuntimeError(f"Expected pred to be bool or single-element tensor, but got {pred}.")
    if not callable(true_fn) or not callable(false_fn):
        raise RuntimeError("Expect both branches to be callable.")
    if not isinstance(operands, (tuple, list)):
        raise RuntimeError("Expect operands to be a tuple of possibly nested dict/list/tuple that only consists of tensor leaves, but "
                           f"got {operands}.")
    return (true_fn if pred else false_fn)(*operands)
