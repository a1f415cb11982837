"""Elimination orders, and how many multiplications each takes.

Eliminating a vertex multiplies each edge into it by each edge out of it, and adds the products to the edges past it.  The order decides
the number of multiplications; to find the best is NP-complete [Naumann2008], so that ``"search"`` anneals.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualrev.engines.elimination.graph import Graph
from dualrev.engines.elimination.pricing import product_ns, sum_ns
from dualrev.engines.elimination.structure import Structure, product, sum_of
from dualrev.time_model import constants

#: What a search makes as small as it can: multiplications as the literature counts them, those by other numbers than 1 and -1, or the
#: time that is predicted.
Objective: TypeAlias = Literal["multiplications", "nontrivial", "time"]
OBJECTIVES = ("multiplications", "nontrivial", "time")


@dataclass(frozen=True)
class Search:
    r"""Look for an order with few multiplications by simulated annealing.

    An order whose number of multiplications is larger by :math:`\delta` is taken with probability :math:`e^{-\delta / T}`, and the
    temperature :math:`T` falls.

    Args:
      seconds: the time limit; a search that reaches it depends on the speed of the machine.
      steps: the number of orders that are tried; a search that ends with them gives the same order for the same ``seed``.
      seed: of the random numbers.
      objective: ``"multiplications"`` as the literature counts them; ``"nontrivial"``, without those by 1 and -1; or ``"time"``, as
        :mod:`dualrev.time_model` predicts it, where a product of large matrices costs less than as many products of numbers.

    >>> import dualrev as dr
    >>> dr.Search(seconds=10.0, seed=1).steps
    4000

    Source: [KirkpatrickEtAl1983].
    """

    seconds: float = 5.0
    steps: int = 4000
    seed: int = 0
    objective: Objective = "multiplications"

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.steps < 1:
            raise ValueError(f"Search: seconds and steps must be positive; got seconds={self.seconds!r}, steps={self.steps!r}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"Search: objective must be one of {', '.join(map(repr, OBJECTIVES))}; got {self.objective!r}")


class Elimination:
    """A graph from which vertices are eliminated one by one, and the multiplications so far."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.into: dict[int, dict[int, Structure]] = {}
        self.out_of: dict[int, dict[int, Structure]] = {}
        for p, s, structure in graph.edges:
            self.into.setdefault(s, {})[p] = structure
            self.out_of.setdefault(p, {})[s] = structure
        self.multiplications = 0
        self.nontrivial = 0

    def cost(self, v: int) -> tuple[int, int]:
        """The multiplications that eliminating a vertex takes, with and without those by 1 and -1."""
        every = nontrivial = 0
        for a in self.out_of.get(v, {}).values():
            for b in self.into.get(v, {}).values():
                p = product(a, b)
                every += p.multiplications
                nontrivial += p.nontrivial
        return every, nontrivial

    def eliminate(self, v: int) -> None:
        before, after = self.into.pop(v, {}), self.out_of.pop(v, {})
        for source in before:
            del self.out_of[source][v]
        for target, a in after.items():
            row = self.into[target]
            del row[v]
            for source, b in before.items():
                p = product(a, b)
                self.multiplications += p.multiplications
                self.nontrivial += p.nontrivial
                old = row.get(source)
                new = p.structure if old is None else sum_of(old, p.structure).structure
                row[source] = self.out_of[source][target] = new


def counted(graph: Graph, order: Sequence[int]) -> tuple[int, int]:
    """Multiplications of an order, with and without those by 1 and -1."""
    elimination = Elimination(graph)
    for v in order:
        elimination.eliminate(v)
    return elimination.multiplications, elimination.nontrivial


def predicted_ns(graph: Graph, order: Sequence[int]) -> float:
    """The time that an order is predicted to take."""
    return Ids(graph, "time").count(order)


def markowitz(graph: Graph, noise: Callable[[], float] | None = None) -> tuple[int, ...]:
    """Eliminate the vertex that takes the fewest multiplications next; of equal ones, the last in the program."""
    elimination = Elimination(graph)
    left = set(graph.middle)
    costs = {v: elimination.cost(v) for v in left}
    order: list[int] = []
    while left:
        v = min(sorted(left), key=(lambda v: (*costs[v], -v)) if noise is None else lambda v: ((costs[v][0] + 1) * noise(),))
        touched = {*elimination.into.get(v, {}), *elimination.out_of.get(v, {})} & left
        elimination.eliminate(v)
        left.discard(v)
        order.append(v)
        # A neighbour's own edges changed, and so did those of vertices that share an edge with it only by their number.
        for u in touched - {v}:
            costs[u] = elimination.cost(u)
    return tuple(order)


class Ids:
    """The structures of a graph as small numbers, with tables of their products and sums: what makes counting fast."""

    def __init__(self, graph: Graph, objective: Objective):
        self.objective = objective
        self.numbers: dict[Structure, int] = {}
        self.structures: list[Structure] = []
        self.constants = constants()
        self.products: dict[tuple[int, int], tuple[int, float]] = {}
        self.sums: dict[tuple[int, int], tuple[int, float]] = {}
        self.edges = [(p, s, self.number(structure)) for p, s, structure in graph.edges]

    def number(self, structure: Structure) -> int:
        if structure not in self.numbers:
            self.numbers[structure] = len(self.structures)
            self.structures.append(structure)
        return self.numbers[structure]

    def product(self, a: int, b: int) -> tuple[int, float]:
        """The product of two structures, and what it costs."""
        found = self.products.get((a, b))
        if found is None:
            left, right = self.structures[a], self.structures[b]
            p = product(left, right)
            costs = {"multiplications": p.multiplications, "nontrivial": p.nontrivial}
            cost = product_ns(left, right, p, self.constants) if self.objective == "time" else costs[self.objective]
            found = self.products[a, b] = (self.number(p.structure), cost)
        return found

    def sum(self, a: int, b: int) -> tuple[int, float]:
        """The sum of two structures, and what it costs."""
        found = self.sums.get((a, b))
        if found is None:
            structure = sum_of(self.structures[a], self.structures[b]).structure
            cost = sum_ns(structure, self.constants) if self.objective == "time" else 0
            found = self.sums[a, b] = (self.number(structure), cost)
        return found

    def count(self, order: Sequence[int], limit: float = math.inf) -> float:
        """The cost of an order, by the objective; infinite once it is more than ``limit``."""
        into: dict[int, dict[int, int]] = {}
        out_of: dict[int, dict[int, int]] = {}
        for p, s, structure in self.edges:
            into.setdefault(s, {})[p] = structure
            out_of.setdefault(p, {})[s] = structure
        products, sums = self.products, self.sums
        total: float = 0
        for v in order:
            before, after = into.pop(v, {}), out_of.pop(v, {})
            for source in before:
                del out_of[source][v]
            for target, a in after.items():
                row = into[target]
                del row[v]
                for source, b in before.items():
                    new, cost = products.get((a, b)) or self.product(a, b)
                    total += cost
                    old = row.get(source)
                    if old is not None:
                        new, cost = sums.get((old, new)) or self.sum(old, new)
                        total += cost
                    row[source] = out_of[source][target] = new
            if total > limit:
                return math.inf
        return total


def annealed(graph: Graph, search: Search) -> tuple[int, ...]:
    """The best order that simulated annealing finds, from the better of the usual ones and noisy greedy ones."""
    rng = random.Random(search.seed)
    end = time.monotonic() + search.seconds
    ids = Ids(graph, search.objective)
    starts = [tuple(graph.middle), tuple(reversed(graph.middle)), markowitz(graph)]
    n = len(graph.middle)
    best = min(starts, key=ids.count)
    best_count = ids.count(best)
    if n < 2:
        return best
    for _ in range(min(20, search.steps // 50)):
        if time.monotonic() > end:
            return best
        tried = markowitz(graph, lambda: rng.uniform(0.7, 1.3))
        found = ids.count(tried, best_count)
        if found < best_count:
            best, best_count = tried, found
    now, now_count = list(best), best_count
    hot = max(1.0, 0.01 * best_count)
    for step in range(search.steps):
        if step % 16 == 0 and time.monotonic() > end:
            break
        temperature = hot * (1 - step / search.steps) ** 2 + 1e-9
        limit = now_count - temperature * math.log(1.0 - rng.random())
        moved = _moved(now, rng)
        found = ids.count(moved, limit)
        if found <= limit:
            now, now_count = moved, found
            if now_count < best_count:
                best, best_count = tuple(now), now_count
    return best


def _moved(order: list[int], rng: random.Random) -> list[int]:
    """The order with one vertex, or a run of them, in another place."""
    n = len(order)
    length = 1 if rng.random() < 0.7 else rng.randint(2, max(2, n // 8))
    i = rng.randrange(n)
    run, rest = order[i: i + length], order[:i] + order[i + length:]
    j = rng.randrange(len(rest) + 1) if rng.random() < 0.5 else max(0, min(len(rest), i + rng.randint(-8, 8)))
    return rest[:j] + run + rest[j:]


@functools.lru_cache(maxsize=256)
def order_of(graph: Graph, wanted: str | Search | tuple[int, ...]) -> tuple[int, ...]:
    """The vertices in the order in which they are eliminated; ``wanted`` names an order, or is one, as positions in the program."""
    if isinstance(wanted, Search):
        return annealed(graph, wanted)
    if isinstance(wanted, tuple):
        if sorted(wanted) != list(range(len(graph.middle))):
            raise ValueError(f"order must have each of the positions 0 to {len(graph.middle) - 1} of the program's intermediate values "
                             f"once; got {wanted!r}.  dr.eliminate(...).order has the right form")
        return tuple([graph.middle[i] for i in wanted])
    if wanted == "search":
        return annealed(graph, Search())
    if wanted == "markowitz":
        return markowitz(graph)
    return tuple(graph.middle if wanted == "forward" else reversed(graph.middle))
