"""What a checkpoint stores: the automatic policy, a minimum cut of the program, and which operations may be recomputed.

A policy is a function ``policy(primitive, *avals, **params)``: whether the results of one operation are stored.  :data:`min_cut`
reads the whole program instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualrev._jax.avals import AbstractValue
from dualrev._jax.checkpoints import Answer, Policy
from dualrev._jax.jaxprs import JaxprEqn, Var, is_literal
from dualrev._jax.primitives import Primitive
from dualrev.options.schedules import Schedule
from dualrev.programs.jaxprs import nbytes_of
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
        return lambda graph, wanted: cheapest_cut(graph, n_out, wanted)


#: The automatic policy.
min_cut = MinCut()


@dataclass(frozen=True)
class Scheduled:
    """A policy, and the schedule of the scans in the function that it is a policy for (see :mod:`dualrev.options.schedules`)."""

    policy: Policy
    schedule: Schedule

    def __call__(self, primitive: Primitive, *avals: AbstractValue, **params: object) -> Answer:
        return self.policy(primitive, *avals, **params)



# ------------------------------------------------------------------------------------------------------------------- the cut

#: Capacities are integers of 32 bits, and so is their sum.
LARGEST = 2**30


def cheapest_cut(graph: Graph, n_out: int, wanted: set[Var]) -> set[Var]:
    """The values to save, none of them an input: a minimum cut between values that may not be recomputed and the ``wanted`` ones.

    Each value is an edge from a node ``2i`` to ``2i + 1``; an equation leads from its operands to its results.
    """
    maker = {v: eqn for eqn in graph.eqns for v in eqn.outvars}
    held = wanted.intersection(graph.invars)
    reached = list(wanted.difference(graph.consts))
    place: dict[Var, int] = {v: i for i, v in enumerate(reached)}
    cheap: dict[int, bool] = {}
    flows: list[tuple[int, int]] = []
    source, sink = -2, -1
    i = 0
    while i < len(reached):
        v = reached[i]
        eqn = maker.get(v)
        if eqn is None:
            flows.append((source, 2 * i))
        else:
            if id(eqn) not in cheap:
                cheap[id(eqn)] = is_cheap(eqn)
            if not cheap[id(eqn)]:
                flows.append((source, 2 * i))
            else:
                for atom in dict.fromkeys(a for a in eqn.invars if not is_literal(a) and a not in graph.consts):
                    if atom not in place:
                        place[atom] = len(reached)
                        reached.append(atom)
                    flows.append((2 * place[atom] + 1, 2 * i))
        i += 1
    flows.extend((2 * i + 1, sink) for v, i in place.items() if v in wanted)

    inputs, outs = set(graph.invars), {v for v in graph.outvars[:n_out] if not is_literal(v)}
    costs = []
    for v in reached:
        nbytes = max(nbytes_of(v.aval), 1)
        # Of two equal costs, an input is preferred to a result; among others, the value nearer to the derivative.
        costs.append(0 if v in held else max(2 * nbytes - 1, 1) if v in inputs else 2 * nbytes if v in outs else 4 * nbytes)
    return {v for v in _separating(reached, costs, flows, source, sink) if v not in inputs}


def _separating(values: list[Var], costs: list[int], flows: list[tuple[int, int]], source: int, sink: int) -> set[Var]:
    """The values of the minimum cut that is nearest to the sink."""
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    if not values:  # as for a linear function
        return set()
    n = 2 * len(values) + 2
    scale = min(1.0, LARGEST / max(sum(costs), 1))
    edges = [(2 * i, 2 * i + 1) for i in range(len(values))] + [(a % n, b % n) for a, b in flows]
    capacity = [max(int(c * scale), min(c, 1)) for c in costs] + [2**31 - 1] * len(flows)
    rows, columns = np.array(edges, np.int32).T
    graph = csr_array((np.array(capacity, np.int32), (rows, columns)), shape=(n, n))
    flow = maximum_flow(graph, source % n, sink % n).flow
    # Residual edges, reversed: the nodes reached from the sink lie behind the cut.
    rest = (graph.astype(np.int64) - flow.astype(np.int64)).tocsr()
    rest.data = np.where(rest.data > 0, rest.data, 0)
    rest.eliminate_zeros()
    behind = set(breadth_first_order(rest.T.tocsr(), sink % n, return_predecessors=False).tolist())
    return {v for i, v in enumerate(values) if 2 * i + 1 in behind and 2 * i not in behind}
