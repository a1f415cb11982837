"""The cheapest way to have some values of a program again: which to store, while the others are computed a second time.

Each value that is read again is stored, or its equation runs again, for which its operands must be there in turn.  Storing a value
and running an equation have costs; the sum of both is minimised.  This is a minimum cut.  Each value ``v`` is a node ``A(v)``,
"available", and each equation ``e`` a node ``R(e)``, "run again"::

    source --recompute_cost(e)--> R(e) --store_cost(v)--> A(v) --infinite--> sink     (to the sink where v is wanted)
                                          A(operand) --infinite--> R(e)

A cut edge is a price paid: ``R(e)`` behind the cut runs again, ``A(v)`` behind the cut while ``R(e)`` lies before it is stored, and
the infinite edges say that what runs again has its operands.  An input is a value whose equation can't run again.  No equation is
taken to run more than once.

Source: [FordFulkerson1956] for the cut; [Picard1976] for the choice of a set closed under what it requires.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dualrev._jax.jaxprs import JaxprEqn, Var, is_literal
from dualrev.programs.partition import Graph

#: Capacities are integers of 32 bits: the finite ones are scaled so that their sum is about this, which bounds the flow.
LARGEST = 2**30
#: The capacity of an edge that can't be cut.
INFINITE = 2**31 - 1

#: A node of the network: the value (available) or the equation (run again) of this number.
Node = tuple[str, int]


def minimum_cut(graph: Graph, wanted: set[Var], store_cost: Callable[[Var], float],
                recompute_cost: Callable[[JaxprEqn], float]) -> set[Var]:
    """The values to store, inputs among them, so that the ``wanted`` ones can be had again at the least cost.

    Costs are numbers >= 0 in one unit, infinite where something is impossible; an equation with an effect never runs again.
    Constants of the program cost nothing.  Among equally cheap choices, the one that runs the fewest equations again.

    Raises ValueError where a wanted value can neither be stored nor be computed.
    """
    makers = {v: i for i, eqn in enumerate(graph.eqns) for v in eqn.outvars}
    values: dict[Var, int] = {v: i for i, v in enumerate(v for v in wanted if v not in graph.consts)}
    pending = list(values)
    edges: list[tuple[Node | str, Node | str, float]] = [(("A", i), "sink", math.inf) for i in values.values()]
    met: set[Node] = set()
    while pending:
        v = pending.pop()
        if v not in makers:
            edges.append(("source", ("A", values[v]), store_cost(v)))
            continue
        run: Node = ("R", makers[v])
        edges.append((run, ("A", values[v]), store_cost(v)))
        if run in met:
            continue
        met.add(run)
        eqn = graph.eqns[makers[v]]
        price = math.inf if eqn.effects else recompute_cost(eqn)
        edges.append(("source", run, price))
        if math.isinf(price):
            continue
        for atom in dict.fromkeys(a for a in eqn.invars if not is_literal(a) and a not in graph.consts):
            if atom not in values:
                values[atom] = len(values)
                pending.append(atom)
            edges.append((("A", values[atom]), run, math.inf))
    behind = _behind(edges)
    return {v for v, i in values.items() if ("A", i) in behind and (v not in makers or ("R", makers[v]) not in behind)}


def _behind(edges: list[tuple[Node | str, Node | str, float]]) -> set[Node | str]:
    """The nodes behind the minimum cut that is nearest to the sink."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    places: dict[Node | str, int] = {"source": 0, "sink": 1}
    for start, end, _ in edges:
        places.setdefault(start, len(places))
        places.setdefault(end, len(places))
    n = len(places)
    finite = sum(cost for *_, cost in edges if math.isfinite(cost))
    # A power of two: integers stay what they are to each other, and so do equal sums of them.
    scale = 2.0 ** math.floor(math.log2(LARGEST / finite)) if finite else 1.0
    # A positive cost stays positive, however small it is beside the others.
    capacity = [INFINITE if math.isinf(cost) else max(round(cost * scale), 1) if cost > 0 else 0 for *_, cost in edges]
    rows = np.array([places[start] for start, *_ in edges], np.int32)
    columns = np.array([places[end] for _, end, _ in edges], np.int32)
    network = csr_array((np.array(capacity, np.int32), (rows, columns)), shape=(n, n))
    flow = maximum_flow(network, 0, 1).flow
    # Residual edges, reversed: the nodes reached from the sink lie behind the cut.
    rest = (network.astype(np.int64) - flow.astype(np.int64)).tocsr()
    rest.data = np.where(rest.data > 0, rest.data, 0)
    rest.eliminate_zeros()
    reached = set(breadth_first_order(rest.T.tocsr(), 1, return_predecessors=False).tolist())
    behind = {node for node, i in places.items() if i in reached}
    if any(math.isinf(cost) and start not in behind and end in behind for start, end, cost in edges):
        raise ValueError("minimum_cut: a wanted value can neither be stored nor be computed from what can be stored")
    return behind
