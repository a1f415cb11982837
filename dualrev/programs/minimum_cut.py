"""The cheapest way to have some values of a program again: which to store, while the others are computed a second time.

Each value that is read again is stored, or its equation runs again, for which its operands must be there in turn.  Storing a value
and running an equation have costs; the sum of both is minimised.  This is a minimum cut.  Each value ``v`` is a node ``A(v)``,
"available", and each equation ``e`` a node ``R(e)``, "run again"::

    source --recompute_cost(e)--> R(e) --store_cost(v)--> A(v) --infinite--> sink     (to the sink where v is wanted)
                                          A(operand) --infinite--> R(e)

A cut edge is a price paid: ``R(e)`` behind the cut runs again, ``A(v)`` behind the cut while ``R(e)`` lies before it is stored, and
the infinite edges say that what runs again has its operands.  An input is a value whose equation can't run again.  No equation is
taken to run more than once.

Numbers that are computed again differ from the first ones in their last bits, where a compiler contracts a product and a sum in one
program and not in the other.  The derivative of ``max(x)`` finds the entries that are equal to the maximum: of an ``x`` that is
computed again none may be equal to the maximum of the first ``x``.  Both are stored, then, or both are computed again.  For the same
reason a comparison does not run again on numbers of which one is new and the other was made from what is computed again
(:func:`_mixed`).

Source: [FordFulkerson1956] for the cut; [Picard1976] for the choice of a set closed under what it requires.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev.programs.partition import Graph

COMPARISONS = (lax.eq_p, lax.ne_p, lax.lt_p, lax.le_p, lax.gt_p, lax.ge_p)
#: Operations whose derivative compares the result with operands.
CHOICES = frozenset(("reduce_max", "reduce_min", "scatter_max", "scatter_min", "pmax", "pmin"))

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
    once: set[int] = set()
    unstored: set[Var] = set()

    def store(v: Var) -> float:
        return math.inf if v in unstored else store_cost(v)

    def recompute(i: int) -> float:
        return math.inf if i in once or graph.eqns[i].effects else recompute_cost(graph.eqns[i])

    while True:
        saved, again = _cut(graph, makers, wanted, store, recompute)
        apart = _mixed(graph, makers, saved, again)
        results: set[Var] = set()
        for i in _half_stored(graph, wanted, saved):
            if math.isinf(recompute(i)):
                apart.update(makers[x] for x in graph.eqns[i].invars if not is_literal(x) and x in makers and x not in saved)
            else:
                results.update(graph.eqns[i].outvars)
        if apart <= once and results <= unstored:
            return saved
        once |= apart
        unstored |= results


def _cut(graph: Graph, makers: Mapping[Var, int], wanted: set[Var], store_cost: Callable[[Var], float],
         recompute_cost: Callable[[int], float]) -> tuple[set[Var], set[int]]:
    """The values to store, and the numbers of the equations that run again."""
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
        price = recompute_cost(makers[v])
        edges.append(("source", run, price))
        if math.isinf(price):
            continue
        for atom in dict.fromkeys(a for a in eqn.invars if not is_literal(a) and a not in graph.consts):
            if atom not in values:
                values[atom] = len(values)
                pending.append(atom)
            edges.append((("A", values[atom]), run, math.inf))
    behind = _behind(edges)
    again = {i for i in makers.values() if ("R", i) in behind}
    return {v for v, i in values.items() if ("A", i) in behind and (v not in makers or makers[v] not in again)}, again


def _mixed(graph: Graph, makers: Mapping[Var, int], saved: set[Var], again: set[int]) -> set[int]:
    """The comparisons of floating-point numbers that would run again on one operand that is computed again and on another for which
    the first program's numbers stand: those from which that one was made."""
    found = set()
    for i in sorted(again):
        eqn = graph.eqns[i]
        if eqn.primitive not in COMPARISONS or not jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.inexact):  # type: ignore[attr-defined]
            continue
        reached = [_before(graph, makers, x, saved) for x in eqn.invars]
        for new, old in (reached, reached[::-1]):
            computed = new - saved
            stored = old & saved
            if any(computed & _before(graph, makers, v, set()) for v in stored):
                found.add(i)
    return found


def _half_stored(graph: Graph, wanted: set[Var], saved: set[Var]) -> list[int]:
    """The choices whose result is stored, while an operand that the derivative reads as well is computed again."""
    given = {*graph.invars, *graph.consts}
    return [i for i, eqn in enumerate(graph.eqns) if str(eqn.primitive) in CHOICES and eqn.outvars[0] in wanted & saved
            and any(x in wanted and x not in saved and x not in given for x in eqn.invars if not is_literal(x))]


def _before(graph: Graph, makers: Mapping[Var, int], atom: Atom, stops: set[Var]) -> set[Var]:
    """A value and those that it was computed from, as far as ``stops``; without what the program is given, unless it is one of them."""
    found: set[Var] = set()
    pending = [atom]
    while pending:
        v = pending.pop()
        if is_literal(v) or v in found or (v not in makers and v not in stops):
            continue
        found.add(v)
        if v not in stops:
            pending.extend(graph.eqns[makers[v]].invars)
    return found


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
