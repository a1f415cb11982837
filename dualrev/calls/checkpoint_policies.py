"""What a checkpoint stores: the automatic policy, a minimum cut of the program, and a policy with a schedule.

A policy is a function ``policy(primitive, *avals, **params)``: whether the results of one operation are stored.  :data:`min_cut`
reads the whole program instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

from dualrev import time_model
from dualrev._jax.avals import AbstractValue
from dualrev._jax.checkpoints import Answer, Policy
from dualrev._jax.jaxprs import Var, is_literal
from dualrev._jax.primitives import Primitive
from dualrev.options.schedules import Schedule
from dualrev.programs.jaxprs import nbytes_of
from dualrev.programs.minimum_cut import minimum_cut
from dualrev.programs.partition import Choice, Graph
from dualrev.table.recomputation import cost_of, is_cheap

#: What a cut makes small.
Objective: TypeAlias = Literal["bytes", "time"]


@dataclass(frozen=True)
class MinCut:
    """Store what makes the fewest bytes, or the least time.

    By ``"bytes"``: store the fewest bytes such that no expensive operation runs twice.  Elementwise operations (except special
    functions) and operations that only move entries are cheap; contractions, convolutions, reductions, gathers, linear algebra,
    loops, sorts, random bits and callbacks are not.  Inputs and results of the function cost half, since its caller often keeps them
    as well.  A chain ``sin(sin(...))`` over ``n`` numbers stores one array of ``n``.

    By ``"time"``: each value that the derivative reads is stored, for the seconds that writing and reading it take, or computed
    again, for the seconds that :mod:`dualrev.time_model` predicts for that; the sum is least.  An expensive operation runs twice where
    that is faster, and a cheap one is stored where that is.

    Both are minimum cuts of the program's graph (see :mod:`dualrev.programs.minimum_cut`).  For ``jax``, and for a single operation,
    either is the policy that stores the results of expensive operations.

    ``min_cut(objective="time")`` is the policy by time; ``min_cut`` itself is that by bytes.

    Args:
      objective: ``"bytes"`` or ``"time"``.

    Raises:
      ValueError: another objective.

    >>> from dualrev import policies
    >>> policies.min_cut(objective="time")
    dualrev.policies.min_cut(objective='time')

    Source: [ChenEtAl2016] for recomputation; [FordFulkerson1956] for the cut.
    """

    objective: Objective = "bytes"

    @overload
    def __call__(self, primitive: None = None, *, objective: Objective) -> MinCut: ...

    @overload
    def __call__(self, primitive: Primitive, *avals: AbstractValue, **params: Any) -> bool: ...

    def __call__(self, primitive: Primitive | None = None, *_: AbstractValue, **params: Any) -> bool | MinCut:
        if primitive is not None:
            return cost_of(primitive) == "work"
        if params.keys() != {"objective"} or params["objective"] not in ("bytes", "time"):
            raise ValueError("min_cut: objective must be 'bytes' or 'time'; got "
                             + (", ".join(f"{name}={value!r}" for name, value in params.items()) or "nothing"))
        return MinCut(params["objective"])

    def __repr__(self) -> str:
        return "dualrev.policies.min_cut" + ("" if self.objective == "bytes" else f"(objective={self.objective!r})")

    def choice(self, n_out: int) -> Choice:
        cut = fewest_bytes if self.objective == "bytes" else least_time
        return lambda graph, wanted: cut(graph, n_out, wanted)


#: The automatic policy.
min_cut = MinCut()


@dataclass(frozen=True)
class Scheduled:
    """A policy, and the schedule of the scans in the function that it is a policy for (see :mod:`dualrev.options.schedules`).

    Args:
      policy: of ``jax.checkpoint_policies`` or this module; None stores nothing.
      schedule: ``"all"``, ``"sqrt"``, :class:`dualrev.Revolve` or :class:`dualrev.Bytes`.

    >>> from dualrev import policies
    >>> policies.Scheduled(policies.min_cut, "sqrt").schedule
    'sqrt'
    """

    policy: Policy
    schedule: Schedule

    def __call__(self, primitive: Primitive, *avals: AbstractValue, **params: object) -> Answer:
        return self.policy(primitive, *avals, **params)


def fewest_bytes(graph: Graph, n_out: int, wanted: set[Var]) -> set[Var]:
    """The values to save, none of them an input, so that the fewest bytes are stored and nothing expensive runs twice."""
    inputs, outs = set(graph.invars), {v for v in graph.outvars[:n_out] if not is_literal(v)}
    held = wanted & inputs

    def nbytes(v: Var) -> float:
        # Of two equal costs, an input is preferred to a result; among others, the value nearer to the derivative.
        n = max(nbytes_of(v.aval), 1)
        return 0 if v in held else max(2 * n - 1, 1) if v in inputs else 2 * n if v in outs else 4 * n

    return minimum_cut(graph, wanted, nbytes, lambda eqn: 0 if is_cheap(eqn) else math.inf) - inputs


def least_time(graph: Graph, n_out: int, wanted: set[Var]) -> set[Var]:
    """The values to save, none of them an input, so that storing and computing again takes the least time."""
    constants = time_model.margins()
    inputs, outs = set(graph.invars), {v for v in graph.outvars[:n_out] if not is_literal(v)}
    held = wanted & inputs

    def seconds(v: Var) -> float:
        # What has memory in any case is only read.
        if v in inputs or v in outs:
            return 0.0 if v in held else time_model.read_cost(v.aval, constants)
        return time_model.store_cost(v.aval, constants)

    return minimum_cut(graph, wanted, seconds, lambda eqn: time_model.recompute_cost(eqn, constants)) - inputs
