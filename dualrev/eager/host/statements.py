"""Statements of a program that numpy evaluates: calls of functions on names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Arrays of fewer entries are not written over: a call with ``out`` takes as long as a new array.
_ENTRIES = 4096


class Statement:
    """``results = fun(operands)``, where names stand for arrays; ``kind`` is the shape and dtype of the one result of a ufunc."""

    __slots__ = ("fun", "is_tuple", "kind", "operands", "results")

    def __init__(self, results: Sequence[str], fun: str, operands: Sequence[str], is_tuple: bool = False, kind: Any = None):
        self.results, self.fun, self.operands, self.is_tuple, self.kind = results, fun, operands, is_tuple, kind

    def text(self, over: str | None) -> str:
        """The line of Python; the result is written over the array of a name where there is one."""
        left = ", ".join(self.results) + ("," if self.is_tuple else "")
        given = [*self.operands, *([] if over is None else [f"out={over}"])]
        call = f"{self.fun}({', '.join(given)})"
        return f"{left} = {call}" if left.strip(",") else call


def kind_of(fun: Any, aval: Any) -> Any:
    """The shape and dtype of what a ufunc makes anew, where that is large; None for the others."""
    return (aval.shape, np.dtype(aval.dtype)) if type(fun) is np.ufunc and math.prod(aval.shape) >= _ENTRIES else None


def lines(statements: Sequence[Statement], returned: Sequence[str]) -> list[str]:
    """The lines of a program.  What a ufunc made and only ufuncs read, is written over by the last of them, where it has the size."""
    made = {s.results[0]: s.kind for s in statements if s.kind is not None}
    last: dict[str, int] = {}
    shared = set(returned)
    for i, s in enumerate(statements):
        for name in s.operands:
            last[name] = i
            if s.kind is None:
                shared.add(name)  # its result may be a view of the operand
    found = []
    for i, s in enumerate(statements):
        over = None
        if s.kind is not None:
            over = next((x for x in s.operands if made.get(x) == s.kind and last[x] == i and x not in shared), None)
        if over is not None:
            # The array goes on under the name of the result.
            made[over] = None
        found.append(s.text(over))
    return found
