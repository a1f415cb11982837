"""What a checkpoint stores: the automatic policy, a minimum cut of the program, and which operations may be recomputed.

A policy is a function ``policy(primitive, *avals, **params)``: whether the results of one operation are stored.  :data:`min_cut`
reads the whole program instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dualrev._jax.avals import AbstractValue
from dualrev._jax.checkpoints import Answer, Policy
from dualrev._jax.jaxprs import JaxprEqn, Var, is_literal
from dualrev._jax.primitives import Primitive
from dualrev.options.schedules import Schedule
from dualrev.programs.jaxprs import nbytes_of
from dualrev.programs.minimum_cut import minimum_cut
from dualrev.programs.partition import Choice, Graph, held_eqns
from dualrev.table.exclusions import BY_ENGINES
from dualrev.table.rows import Cost, rows

#: The costs that amount to reading operands and writing results, as a compiler fuses such operations.
CHEAP: frozenset[Cost] = frozenset(("entrywise", "moves"))


def cost_of(primitive: Primitive) -> Cost:
    """The cost of computing an operation again, from its row; a call that engines handle without a row costs its program."""
    row = rows.get(primitive)
    return row.cost if row is not None else "its program" if str(primitive) in BY_ENGINES else "work"


def is_cheap(eqn: JaxprEqn) -> bool:
    """Whether the results of an equation may be recomputed: a call is as cheap as its program."""
    if eqn.effects:
        return False
    cost = cost_of(eqn.primitive)
    return cost in CHEAP or (cost == "its program" and all(cost_of(inner.primitive) != "work" and not inner.effects
                                                           for inner in held_eqns(eqn)))


class MinCut:
    """Store the fewest bytes such that no expensive operation runs twice.

    The cost of a value is its bytes.  In the program's graph, the values that the derivative reads are sinks; the values that may not
    be recomputed, that is inputs and results of expensive operations, are sources.  The values to store are a cheapest set that
    separates them: a minimum cut of the graph in which each value is an edge whose capacity is its bytes [Ford & Fulkerson 1956].  A
    chain ``sin(sin(...))`` over ``n`` numbers stores one array of ``n``.

    Elementwise operations (except special functions) and operations that only move entries are cheap; contractions, convolutions,
    reductions, gathers, linear algebra, loops, sorts, random bits and callbacks are not.  Inputs and results of the function cost
    half, since its caller often keeps them as well.

    For ``jax``, and for a single operation, it is the policy that stores the results of expensive operations.

    Source: [Chen et al. 2016] for recomputation; [Ford & Fulkerson 1956] for the cut.
    """

    def __call__(self, primitive: Primitive, *_: AbstractValue, **params: object) -> bool:
        return cost_of(primitive) == "work"

    def __repr__(self) -> str:
        return "dualrev.policies.min_cut"

    def choice(self, n_out: int) -> Choice:
        return lambda graph, wanted: fewest_bytes(graph, n_out, wanted)


#: The automatic policy.
min_cut = MinCut()


@dataclass(frozen=True)
class Scheduled:
    """A policy, and the schedule of the scans in the function that it is a policy for (see :mod:`dualrev.options.schedules`)."""

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
