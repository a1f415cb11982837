"""A value during propagation: its type, its nodes, and its number where that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from dualrev._jax.avals import ShapedArray, is_extended
from dualrev._jax.jaxprs import JaxprEqn
from dualrev._jax.traces import Tracer
from dualrev.sparse.graph import Nodes
from dualrev.sparse.host import evaluate

#: The least and the largest number of each entry of an integer value (:mod:`dualrev.sparse.ranges`).
Range: TypeAlias = tuple[np.ndarray, np.ndarray]

#: Makes a known number when it is asked for.
Make: TypeAlias = Callable[[], Any]


class Later:
    """The results of an operation on known values, evaluated when one of them is read."""

    __slots__ = ("eqn", "operands", "outs")

    def __init__(self, eqn: JaxprEqn, operands: Sequence[Value]):
        self.eqn = eqn
        self.operands: Sequence[Value] = operands
        self.outs: list[Any] | None = None

    def waiting(self) -> list[Later]:
        """The operations whose results this one reads and which have not been evaluated."""
        return [x.number[0] for x in self.operands if type(x.number) is tuple and x.number[0].outs is None]

    def results(self) -> list[Any]:
        """The results.  What they depend on is evaluated first, without recursion: a program may be long."""
        pending: list[Later] = [self]
        while pending:
            last = pending[-1]
            if last.outs is None:
                before = last.waiting()
                if before:
                    pending.extend(before)
                    continue
                last.outs = evaluate(last.eqn, [x.known() for x in last.operands])
                last.operands = ()
            pending.pop()
        assert self.outs is not None  # the loop ends with this one
        return self.outs


class Alternatives(NamedTuple):
    """The numbers that a value can have: one for each number of the choice ``source`` (:mod:`dualrev.sparse.alternatives`)."""

    source: object
    numbers: list[Any]


class Value:
    """One value.  ``nodes``: an array of nodes, or None where no entry depends on an input.

    ``number``: an array; or ``(operation, i)`` for result ``i`` of an operation that can be evaluated; or None if it is unknown.
    ``zero``: the entries that are zero for all inputs, of a value that depends on some; None if none is known to be.
    ``alternatives``: of an unknown number, those that it can have; None if they are many.  ``range``: of an unknown integer, between
    which numbers it lies; None if that is not known.
    """

    __slots__ = ("alternatives", "aval", "nodes", "number", "range", "zero")

    def __init__(self, aval: ShapedArray, nodes: Nodes | None = None, number: Any = None, zero: np.ndarray | None = None):
        self.aval = aval
        self.nodes = nodes
        self.number = number
        self.zero = zero
        self.alternatives: Alternatives | None = None
        self.range: Range | None = None

    @property
    def is_known(self) -> bool:
        return self.number is not None

    def known(self) -> Any:
        """The number, or None."""
        if type(self.number) is tuple:
            later, i = self.number
            self.number = later.results()[i]
        return self.number

    def nodes_or_empty(self) -> Nodes:
        return np.zeros(self.aval.shape, np.int64) if self.nodes is None else self.nodes


def as_number(x: object) -> Any:
    """A value of a program as a known number: an array of numpy; None for a tracer."""
    if isinstance(x, Tracer):
        return None
    if isinstance(x, jax.Array):
        return x if is_extended(x.dtype) else np.asarray(x)
    return np.asarray(x)


def constant(x: Any, aval: ShapedArray | None = None) -> Value:
    """A value that depends on no input."""
    aval = jax.typeof(x) if aval is None else aval
    number = as_number(x)
    return Value(aval, None, np.asarray(number, aval.dtype) if isinstance(number, np.ndarray) else number)


def is_same_number(x: Value, y: Value) -> bool:
    """Whether two known numbers are the same."""
    if not y.is_known:
        return False
    if x.number is y.number:
        return True
    a, b = x.known(), y.known()
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
