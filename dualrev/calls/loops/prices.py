"""What a loop pays, for each step, to store a value, to compute it again in the pull, or to compute it for all steps after the pull.

:class:`Seconds` are those of the time model (:mod:`dualrev.time_model`); :class:`Bytes` count memory alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from dualrev._jax.jaxprs import JaxprEqn, Var
from dualrev._jax.primitives import primitive
from dualrev.programs.jaxprs import nbytes_of
from dualrev.programs.partition import Graph
from dualrev.table.recomputation import is_cheap
from dualrev.table.rows import rows
from dualrev.time_model import Constants, recompute_cost, store_cost
from dualrev.time_model.fusion import program
from dualrev.time_model.pricing import APART

#: The number of steps that is assumed where only running the loop tells.
UNKNOWN_STEPS = 100
#: An array of fewer entries than the vector of a processor takes as long as one of this many.
VECTOR = 4
#: Operations that stay where the user or the compiler put them.
STAY = frozenset(map(primitive, ("device_put", "optimization_barrier", "rng_uniform", "pure_callback", "ffi_call")))


def may_run_again(eqn: JaxprEqn) -> bool:
    """Whether computing a value again gives the same value and is noticed by nobody."""
    if eqn.effects or eqn.primitive in STAY or str(eqn.primitive) in APART:
        return False
    row = rows.get(eqn.primitive)
    return is_cheap(eqn) or (row is not None and row.kind in ("linear", "product", "diagonal"))


class Prices(Protocol):
    """Prices for each step; infinite where something is impossible."""

    def store(self, v: Var) -> float:
        """A stack of the values: it is filled, written by the loop, and read."""

    def again(self, eqn: JaxprEqn) -> float:
        """Computing an equation again in the step of the pull."""


@dataclass(frozen=True)
class Bytes:
    """Memory is what matters, and expensive operations do not run twice."""

    def store(self, v: Var) -> float:
        return float(nbytes_of(v.aval))

    def again(self, eqn: JaxprEqn) -> float:
        return 0.0 if may_run_again(eqn) and is_cheap(eqn) else math.inf


@dataclass(frozen=True)
class Seconds:
    """Time is what matters.

    ``in_one_kernel``: whether the compiler makes one kernel of the loop.  ``together``: the bytes of all stacks that are gone through,
    where they are known.
    """

    constants: Constants
    steps: int
    in_one_kernel: bool
    together: float = 0.0

    def store(self, v: Var) -> float:
        c = self.constants
        seconds = store_cost(v.aval, c, self.steps, self.together)
        return seconds - c.loop_kernel_s + c.one_kernel_step_s * _small_loops(_size(v)) if self.in_one_kernel else seconds

    def again(self, eqn: JaxprEqn) -> float:
        if not may_run_again(eqn):
            return math.inf
        return recompute_cost(eqn, self.constants) * max(1.0, VECTOR / max(max(map(_size, eqn.outvars), default=1), 1))

    def after_loop(self, eqn: JaxprEqn) -> float:
        """A step's share of computing an equation for all steps at once, after the loop."""
        return recompute_cost(eqn, self.constants) if may_run_again(eqn) and is_cheap(eqn) else math.inf

    def passes(self, v: Var, times: float) -> float:
        """A step's share of going through a stack so many times after the loop."""
        nbytes = nbytes_of(v.aval)
        return times * nbytes / self.constants.rate(max(float(nbytes) * self.steps, self.together))


def _small_loops(size: int) -> float:
    """What writing a stack and reading it costs within one kernel, over a step of it: two small loops, none for a single number."""
    return min(2.0, .3 + size / 10)


def _size(v: Var) -> int:
    return nbytes_of(v.aval) // max(int(getattr(getattr(v.aval, "dtype", None), "itemsize", 8)), 1)


def is_one_kernel(graph: Graph, c: Constants) -> bool:
    """Whether the compiler makes one kernel of a loop with this body and of its pull, which touches about three times its bytes."""
    if c.one_kernel_bytes == 0 or any(str(eqn.primitive) in APART for eqn in graph.eqns):
        return False
    return math.isinf(c.one_kernel_bytes) or 3 * program(graph.computing(graph.outvars)).nbytes_touched < c.one_kernel_bytes
