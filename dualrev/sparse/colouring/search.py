"""Which colouring costs least: by columns, by rows, or by both together, in several orders.

A colour of columns is a push, one of rows a pull; they cost ``forward`` and ``reverse``.  All columns of a row differ, so a colouring
by columns has at least as many colours as the fullest row has entries.  A few dense rows therefore cost many pushes, and dense columns
many pulls.  A two-sided colouring pulls the dense rows and pushes all columns, which must then differ in the other rows only; or the
reverse.  Where "dense" begins is tried for several numbers of entries, in the order of what they promise.

Source: [ColemanVerma1998] for two-sided colourings, [Culberson1992] for colouring again by classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dualrev.sparse.colouring import greedy, orders, recovery
from dualrev.sparse.colouring.orders import Order
from dualrev.sparse.colouring.positions import Positions
from dualrev.sparse.colouring.recovery import Colouring

#: Orders that are tried unless others are asked for, until one reaches the bound.
USUAL = ("natural", "largest_first", "smallest_last", "incidence_degree")
#: Where there are more pairs of neighbours, the usual orders are those that need degrees only.
MOST_PAIRS = 20_000
#: Entries coloured in one search with the usual orders; what promises the most comes first.
MOST_ENTRIES = 1_500_000
#: Thresholds that are tried for dense rows, and as many for dense columns.
MOST_THRESHOLDS = 4
#: With more colours than this, sets of colours take too much memory: each column (row) gets a colour of its own.
MOST_COLOURS = 16_384
#: A push and a pull are not taken to differ by more than this factor: predictions of so small a difference are rough.
MOST_APART = 4


@dataclass(frozen=True)
class Task:
    """What is looked for: costs of a push and a pull, orders, whether entries may follow by substitution, a time budget.

    ``is_priced``: whether the user gave the costs.
    """

    forward: float = 1.0
    reverse: float = 1.0
    order: str | Sequence[str] = "auto"
    substitution: bool = False
    time_budget: float = 0.0
    seed: int = 0
    is_priced: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return USUAL if self.order == "auto" else (self.order,) if isinstance(self.order, str) else tuple(self.order)


@dataclass(frozen=True)
class Way:
    """A kind of colouring: what it costs at least, or promises to cost, and how it is made from an order."""

    bound: float
    promise: float
    #: The number of vertices that are ordered, what they weigh, and their neighbours.
    weights: np.ndarray
    neighbours: Callable[[], list[list[int]]]
    n_pairs: int
    n_entries: int
    colour: Callable[[Order], tuple[Colouring, list[int]]]
    is_two_sided: bool = False


def jacobian_colouring(positions: Positions, engine: str = "auto", task: Task | None = None) -> Colouring:
    """A colouring of any matrix; ``engine``: ``"forward"`` for columns, ``"reverse"`` for rows, ``"auto"`` for what costs least."""
    task = task or Task()
    ways = []
    if engine in ("auto", "forward"):
        ways.append(_columns(positions, task))
    is_same = engine == "auto" and positions.is_symmetric and task.forward <= task.reverse
    if engine in ("auto", "reverse") and not is_same:  # rows of a symmetric matrix are coloured as its columns
        ways.append(_rows(positions, task))
    if engine == "auto" and positions.nnz:
        most = min(way.bound for way in ways)
        ways += [way for way in _two_sided(positions, task) if way.bound < most]
    return _best(ways, task)


def is_decided(colouring: Colouring, task: Task) -> bool:
    """Whether no costs of a pull between that of a push and `MOST_APART` times that would give another choice than equal costs do.

    A pull costs at least a push: it writes what it reads.
    """
    positions = colouring.positions
    least_pulls = int(positions.column_degrees.max(initial=0))
    n_forward, n_reverse = colouring.n_forward, colouring.n_reverse
    if not n_reverse:
        if n_forward <= least_pulls or positions.is_symmetric:
            return True
        return n_forward <= jacobian_colouring(positions, "reverse", task).n_reverse
    least_pushes = int(positions.row_degrees.max(initial=0))
    if not n_forward:
        return MOST_APART * n_reverse <= least_pushes
    return n_forward + MOST_APART * n_reverse <= min(least_pushes, MOST_APART * least_pulls)


def hessian_colouring(positions: Positions, task: Task | None = None) -> Colouring:
    """A colouring of a symmetric matrix: star, or acyclic where entries may follow by substitution; or by columns if that is less."""
    if not positions.is_symmetric:
        raise ValueError(f"the pattern of a Hessian is square and symmetric; got one of shape {positions.shape} in which (i, j) and "
                         "(j, i) are not nonzero together")
    task = task or Task()
    columns = _columns(positions, task)
    graph = positions.without_diagonal
    n = positions.shape[0]
    is_neutral = [False] * n

    def colour(order: Order) -> tuple[Colouring, list[int]]:
        if task.substitution:
            found = greedy.acyclic(graph.lists, order, is_neutral, True)
            return recovery.by_substitution(positions, positions, np.array(found, np.int64)), found
        found = greedy.star(graph.lists, order, is_neutral, True)
        return recovery.of_symmetric(positions, np.array(found, np.int64)), found

    degrees = graph.row_degrees
    # An edge whose ends both have other neighbours lies in a triangle or in the middle of a path of four: two colours are too few.
    is_inner = bool(np.any((degrees[graph.rows] > 1) & (degrees[graph.columns] > 1))) and not task.substitution
    least = task.forward * (0 if not positions.nnz else 1 if not graph.nnz else 2 + is_inner)
    star = Way(least, least, degrees, lambda: graph.lists, graph.nnz, graph.nnz, colour)
    return _best([star, columns], task)


def _columns(positions: Positions, task: Task) -> Way:
    m, n = positions.shape
    degrees = positions.row_degrees
    fullest = int(degrees.max(initial=0))

    def colour(order: Order) -> tuple[Colouring, list[int]]:
        found = list(range(n)) if fullest > MOST_COLOURS else greedy.distance_two(positions.transpose.lists, m, order)
        return recovery.of_columns(positions, np.array(found, np.int64)), found

    bound = task.forward * fullest
    return Way(bound, bound, _reach(positions), positions.sharing, int(np.sum(degrees * (degrees - 1))), positions.nnz, colour)


def _rows(positions: Positions, task: Task) -> Way:
    turned = positions.transpose
    m, n = positions.shape
    degrees = positions.column_degrees
    fullest = int(degrees.max(initial=0))

    def colour(order: Order) -> tuple[Colouring, list[int]]:
        found = list(range(m)) if fullest > MOST_COLOURS else greedy.distance_two(positions.lists, n, order)
        return recovery.of_rows(positions, np.array(found, np.int64)), found

    bound = task.reverse * fullest
    return Way(bound, bound, _reach(turned), turned.sharing, int(np.sum(degrees * (degrees - 1))), positions.nnz, colour)


def _reach(positions: Positions) -> np.ndarray:
    """For each column, how many entries stand in its rows: nearly its number of neighbours at distance 2."""
    return np.bincount(positions.columns, weights=positions.row_degrees[positions.rows], minlength=positions.shape[1])


def _two_sided(positions: Positions, task: Task) -> list[Way]:
    """Colourings in which dense rows are pulled and all columns pushed, or dense columns pushed and all rows pulled."""
    turned = positions.transpose
    found = [_with_dense(positions, positions, False, limit, promise, task)
             for limit, promise in _limits(positions, task.forward, task.reverse)]
    found += [_with_dense(positions, turned, True, limit, promise, task)
              for limit, promise in _limits(turned, task.reverse, task.forward)]
    return found


def _limits(positions: Positions, push: float, pull: float) -> list[tuple[int, float]]:
    """``(limit, promise)``: rows with more entries than the limit are pulled, and what that costs if no colour is lost.

    Dense rows that share a column differ, so they take about as many colours as the fullest column has entries in them.
    """
    degrees = positions.row_degrees
    steps = np.unique(degrees)[:-1]
    if len(steps) > 32:
        steps = steps[np.unique(np.geomspace(1, len(steps), 32).astype(int)) - 1]
    found = []
    for limit in steps.tolist():
        is_dense = (degrees > limit)[positions.rows]
        crossing = int(np.bincount(positions.columns[is_dense], minlength=1).max())
        found.append((limit, push * limit + pull * crossing))
    return sorted(found, key=lambda pair: pair[1])[:MOST_THRESHOLDS]


def _with_dense(positions: Positions, seen: Positions, is_turned: bool, limit: int, promise: float, task: Task) -> Way:
    """``seen``: the matrix, or its transpose, of which rows with more entries than the limit are dense."""
    m, n = positions.shape
    graph = positions.two_sided
    is_dense = seen.row_degrees > limit
    n_dense = int(is_dense.sum())
    # Vertices are columns and then rows; those on the dense side that are not dense are neutral.
    bulk, few = (range(n, n + m), np.flatnonzero(is_dense)) if is_turned else (range(n), n + np.flatnonzero(is_dense))
    is_neutral = np.concatenate([~is_dense, np.zeros(m, bool)] if is_turned else [np.zeros(n, bool), ~is_dense]).tolist()
    light = np.where(is_dense, 0, seen.row_degrees)
    weights = np.bincount(seen.columns, weights=light[seen.rows], minlength=seen.shape[1])

    def colour(order: Order) -> tuple[Colouring, list[int]]:
        whole = [bulk[i] for i in order] + few.tolist()
        make = greedy.acyclic if task.substitution else greedy.star
        found = make(graph.lists, whole, is_neutral, False)
        colours = np.array(found, np.int64)
        if task.substitution:
            made = recovery.by_substitution(positions, graph, colours)
        else:
            made = recovery.of_both(positions, colours[:n], colours[n:], task.forward, task.reverse)
        return made, [found[i] for i in bulk]

    push, pull = (task.reverse, task.forward) if is_turned else (task.forward, task.reverse)
    n_pairs = int(np.sum(light * (light - 1)))
    sparse = Positions.of_coordinates  # the rest of the matrix, without its dense rows

    def neighbours() -> list[list[int]]:
        keep = ~is_dense[seen.rows]
        return sparse(seen.shape, seen.rows[keep], seen.columns[keep]).sharing()

    return Way(push * limit + pull * min(n_dense, 1), promise, weights, neighbours, n_pairs, graph.nnz, colour,
               is_two_sided=True)


def _best(ways: Sequence[Way], task: Task) -> Colouring:
    """The cheapest colouring that is found; the ways that promise the most come first, and none that can't be cheaper is tried."""
    best: Colouring | None = None
    best_way, best_colours = ways[0], list[int]()
    spent = 0
    end = time.perf_counter() + task.time_budget

    def price(found: Colouring | None) -> float:
        return float("inf") if found is None else found.cost(task.forward, task.reverse)

    for way in sorted(ways, key=lambda way: way.promise):
        for name in task.names:
            if best is not None and (way.bound >= price(best) or way.promise >= 1.5 * price(best)):
                break
            is_usual = task.order == "auto"
            is_extra = way.is_two_sided or name != task.names[0]  # a first colouring by columns, and one by rows, are always made
            if best is not None and is_usual and is_extra and spent + way.n_entries > MOST_ENTRIES and time.perf_counter() >= end:
                break
            order = _order(name, way, is_usual)
            if order is None:
                continue
            spent += way.n_entries
            found, colours = way.colour(order)
            if price(found) < price(best):
                best, best_way, best_colours = found, way, colours
    for order in _again(best_colours, task.seed):
        if time.perf_counter() >= end or best_way.bound >= price(best):
            break
        found, colours = best_way.colour(order)
        if price(found) <= price(best):
            best_colours[:] = colours
            best = found
    assert best is not None  # some order of some way is always tried
    return best


def _order(name: str, way: Way, is_usual: bool) -> Order | None:
    if name in orders.BY_DEGREE:
        return orders.BY_DEGREE[name](way.weights)
    if is_usual and way.n_pairs > MOST_PAIRS:
        return None
    return orders.BY_NEIGHBOURS[name](way.neighbours())


def _again(colours: list[int], seed: int) -> Iterator[Order]:
    """Orders without end: class by class of the best colouring so far, the classes reversed, shuffled or by size; at times at random.

    Greedy colouring at distance 2 in such an order never needs more colours, and often fewer.
    """
    random = np.random.default_rng(seed)
    turn = 0
    while True:
        now = np.array(colours, np.int64)
        classes = int(now.max(initial=0)) + 1
        if turn % 4 == 3:
            yield random.permutation(len(now)).tolist()
        else:
            rank = [np.arange(classes)[::-1], random.permutation(classes), -np.bincount(now, minlength=classes)][turn % 4]
            yield np.lexsort((random.permutation(len(now)), rank[now])).tolist()
        turn += 1
