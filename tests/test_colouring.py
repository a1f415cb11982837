"""Colourings of matrices: every entry is recovered, and on small matrices none has fewer colours than the exact optimum."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dualrev.sparse.colouring import greedy, orders, recovery, search
from dualrev.sparse.colouring.positions import Positions
from dualrev.sparse.colouring.recovery import Colouring, InvalidColouringError
from dualrev.sparse.colouring.search import Task, hessian_colouring, jacobian_colouring

ORDERS = [*orders.NAMES, "auto"]


def positions(dense: np.ndarray) -> Positions:
    return Positions.of_coordinates(dense.shape, *np.nonzero(dense))


def compressed(dense: np.ndarray, found: Colouring) -> np.ndarray:
    """Pushes of all forward colours, and then pulls of all reverse colours, of a matrix of integers."""
    push = (found.column_colours[None] == np.arange(found.n_forward)[:, None]).astype(np.int64)
    pull = (found.row_colours[None] == np.arange(found.n_reverse)[:, None]).astype(np.int64)
    return np.concatenate([(push @ dense.T).ravel(), (pull @ dense).ravel()])


def recovered(dense: np.ndarray, found: Colouring) -> np.ndarray:
    """The matrix that the entries make up."""
    values = compressed(dense, found)
    if found.levels:
        known = np.zeros(0, np.int64)
        for level in found.levels:
            less = np.zeros(len(level.source), np.int64)
            np.add.at(less, level.owner, known[level.known])
            known = np.concatenate([known, values[level.source] - less])
        values = known
    full = np.zeros_like(dense)
    full[found.positions.rows, found.positions.columns] = values[found.source]
    return full


def random_matrix(rng: np.random.Generator, most: int = 12) -> np.ndarray:
    """Integers; some with dense rows and columns, bands or blocks; some sizes are 0."""
    m, n = rng.integers(0, most, 2)
    dense = rng.random((m, n)) < rng.choice([0.05, 0.15, 0.3, 0.6])
    if m and n:
        kind = rng.integers(0, 4)
        if kind == 1:
            dense[rng.integers(0, m)] = True
        if kind in (1, 2):
            dense[:, rng.integers(0, n)] = True
        if kind == 3:
            dense |= np.abs(np.subtract.outer(np.arange(m), np.arange(n))) <= rng.integers(0, 3)
    return np.where(dense, rng.integers(1, 1000, (m, n)), 0)


def symmetric(rng: np.random.Generator, most: int = 12) -> np.ndarray:
    dense = random_matrix(rng, most)
    n = min(dense.shape)
    half = np.triu(dense[:n, :n], int(rng.integers(0, 2)))
    return half + np.triu(half, 1).T


def check_jacobians(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = random_matrix(rng)
    forward, reverse = rng.choice([1.0, 2.0, 0.5], 2).tolist()
    task = Task(forward, reverse, ORDERS[seed % len(ORDERS)])
    sides = {}
    for engine in ("forward", "reverse", "auto"):
        found = jacobian_colouring(positions(dense), engine, task)
        np.testing.assert_array_equal(recovered(dense, found), dense)
        assert found.is_direct
        assert engine != "forward" or not found.n_reverse
        assert engine != "reverse" or not found.n_forward
        sides[engine] = found.cost(task.forward, task.reverse)
    assert sides["auto"] <= min(sides["forward"], sides["reverse"])
    by_substitution = jacobian_colouring(positions(dense), "auto", Task(substitution=True))
    np.testing.assert_array_equal(recovered(dense, by_substitution), dense)


def check_two_sided(seed: int) -> None:
    """Every choice of dense rows or columns, whether it pays or not."""
    rng = np.random.default_rng(seed)
    dense = random_matrix(rng)
    if not dense.any():
        return
    for substitution in (False, True):
        for way in search._two_sided(positions(dense), Task(substitution=substitution)):
            found, _ = way.colour(rng.permutation(len(way.weights)).tolist())
            np.testing.assert_array_equal(recovered(dense, found), dense)


def check_hessians(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = symmetric(rng)
    n = len(dense)
    for substitution in (False, True):
        found = hessian_colouring(positions(dense), Task(order=ORDERS[seed % len(ORDERS)], substitution=substitution))
        np.testing.assert_array_equal(recovered(dense, found), dense)
    graph, order = positions(dense).without_diagonal, rng.permutation(n).tolist()
    star = np.array(greedy.star(graph.lists, order, [False] * n, True), np.int64)
    np.testing.assert_array_equal(recovered(dense, recovery.of_symmetric(positions(dense), star)), dense)
    acyclic = np.array(greedy.acyclic(graph.lists, order, [False] * n, True), np.int64)
    np.testing.assert_array_equal(recovered(dense, recovery.by_substitution(positions(dense), positions(dense), acyclic)), dense)


CHECKS = [check_jacobians, check_two_sided, check_hessians]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 3400), marks=pytest.mark.thorough)], ids=["few", "many"])
def test_every_entry_is_recovered(check: Callable[[int], None], seeds: range) -> None:
    for seed in seeds:
        check(seed)


# ---------------------------------------------------------------------------------------------------------- the exact optimum


def partitions(n: int, with_neutral: bool) -> Iterator[np.ndarray]:
    """All colourings of n vertices up to names of colours, the fewest colours first; -1 for no colour."""
    found = []

    def extend(colours: list[int], most: int) -> None:
        if len(colours) == n:
            found.append((most, list(colours)))
            return
        for c in range(-1 if with_neutral else 0, most + 1):
            extend([*colours, c], max(most, c + 1))

    extend([], 0)
    for _, colours in sorted(found):
        yield np.array(colours, np.int64)


def is_recovered(make: Callable[..., Colouring], *args: Any) -> bool:
    try:
        make(*args)
    except InvalidColouringError:
        return False
    return True


def fewest_columns(dense: np.ndarray) -> int:
    return next(int(c.max(initial=-1)) + 1 for c in partitions(dense.shape[1], False)
                if is_recovered(recovery.of_columns, positions(dense), c))


def fewest_symmetric(dense: np.ndarray) -> int:
    """By star colourings, where vertices that nothing is read from have no colour."""
    return next(int(c.max(initial=-1)) + 1 for c in partitions(len(dense), True)
                if is_recovered(recovery.of_symmetric, positions(dense), c))


def fewest_two_sided(dense: np.ndarray) -> int:
    m, n = dense.shape
    columns, rows = list(partitions(n, True)), list(partitions(m, True))
    pairs = sorted(itertools.product(columns, rows), key=lambda pair: pair[0].max(initial=-1) + pair[1].max(initial=-1))
    return next(int(c.max(initial=-1) + r.max(initial=-1)) + 2 for c, r in pairs
                if is_recovered(recovery.of_both, positions(dense), c, r, 1, 1))


@pytest.mark.parametrize(("n", "size"), [(12, 4), pytest.param(25, 5, marks=pytest.mark.thorough)])
def test_close_to_the_optimum(n: int, size: int) -> None:
    """Never fewer colours than the optimum, of which a search with a little time is within a tenth in the mean."""
    rng = np.random.default_rng(0)
    totals = np.zeros((3, 2))
    for _ in range(n):
        dense = np.zeros((size, size), np.int64)
        dense[rng.random((size, size)) < 0.4] = 1
        half = np.triu(dense)
        both = half + np.triu(half, 1).T
        task = Task(time_budget=0.005)
        found = [(jacobian_colouring(positions(dense), "forward", task).n_forward, fewest_columns(dense)),
                 (hessian_colouring(positions(both), task).n_forward, fewest_symmetric(both))]
        if size < 5 or rng.random() < 0.2:  # there are many pairs
            two_sided = jacobian_colouring(positions(dense), "auto", task)
            found.append((two_sided.n_forward + two_sided.n_reverse, fewest_two_sided(dense)))
        for kind, (ours, least) in enumerate(found):
            assert ours >= least
            totals[kind] += ours, least
    assert (totals[:, 0] <= 1.1 * totals[:, 1]).all(), totals


def arrow(n: int) -> np.ndarray:
    dense = np.eye(n, dtype=np.int64)
    dense[0] = dense[:, 0] = 1
    return dense


def counts(found: Colouring) -> tuple[int, int]:
    return found.n_forward, found.n_reverse


def test_known_matrices() -> None:
    """Colours that are known to be the fewest [GebremedhinEtAl2005]."""
    i = np.arange(40)
    band = (np.abs(np.subtract.outer(i, i)) <= 1).astype(np.int64)
    assert counts(jacobian_colouring(positions(band))) == (3, 0)
    assert counts(hessian_colouring(positions(band))) == (3, 0)
    assert counts(hessian_colouring(positions(band), Task(substitution=True))) == (2, 0)
    assert counts(jacobian_colouring(positions(arrow(40)))) == (2, 1)
    assert counts(jacobian_colouring(positions(arrow(40)), "forward")) == (40, 0)
    assert counts(hessian_colouring(positions(arrow(40)))) == (2, 0)
    blocks = np.zeros((33, 33), np.int64)
    blocks[:30, :3] = blocks[30:, 3:] = 1
    assert counts(jacobian_colouring(positions(blocks))) == (3, 3)
    assert counts(jacobian_colouring(positions(np.zeros((3, 4))))) == (0, 0)
    assert counts(jacobian_colouring(positions(np.ones((1, 9))))) == (0, 1)
    # Variables that meet only those of the other kind: constraints of a saddle point need no colour of their own.
    saddle = np.zeros((12, 12), np.int64)
    saddle[:10, :10] = np.eye(10)
    saddle[10, :5] = saddle[11, 5:10] = saddle[:5, 10] = saddle[5:10, 11] = 1
    assert hessian_colouring(positions(saddle)).n_forward == 2


def test_costs_decide() -> None:
    """Where pulls are dear, the dense columns of a matrix are left to pushes."""
    dense = np.ones((3, 5), np.int64)
    assert counts(jacobian_colouring(positions(dense), "auto", Task(forward=1.0, reverse=1.0))) == (0, 3)
    assert counts(jacobian_colouring(positions(dense), "auto", Task(forward=1.0, reverse=4.0))) == (5, 0)


def test_invalid_colours_are_found() -> None:
    dense = np.ones((2, 2))
    for make in (lambda: recovery.of_columns(positions(dense), np.zeros(2, np.int64)),
                 lambda: recovery.of_rows(positions(dense), np.zeros(2, np.int64)),
                 lambda: recovery.of_symmetric(positions(dense), np.zeros(2, np.int64)),
                 lambda: recovery.of_both(positions(dense), np.zeros(2, np.int64), np.full(2, -1), 1, 1)):
        with pytest.raises(InvalidColouringError, match=r"can't be recovered.*\(0, 0\)"):
            make()
    with pytest.raises(ValueError, match="square and symmetric"):
        hessian_colouring(positions(np.triu(dense)))


@pytest.mark.parametrize("name", orders.NAMES)
def test_orders_are_permutations(name: str) -> None:
    found = positions(random_matrix(np.random.default_rng(3), 30))
    n = found.shape[1]
    order = orders.BY_DEGREE[name](found.column_degrees) if name in orders.BY_DEGREE else orders.BY_NEIGHBOURS[name](found.sharing())
    assert sorted(order) == list(range(n))


def test_an_order_is_what_it_says() -> None:
    star = [[1, 2, 3], [0], [0], [0, 4], [3]]
    assert list(orders.largest_first(np.array([3, 1, 1, 2, 1]))) == [0, 3, 1, 2, 4]
    last = list(orders.smallest_last(star))
    for k in range(5, 0, -1):  # the last of those that are left has the fewest neighbours among them
        degrees = {v: len(set(star[v]) & set(last[:k])) for v in last[:k]}
        assert degrees[last[k - 1]] == min(degrees.values())
    first = orders.incidence_degree(star)
    assert first[0] == 0
    # Of a connected graph, each vertex but the first has a neighbour before it.
    assert all(any(w in first[:k] for w in star[v]) for k, v in enumerate(first) if k)


def test_time_finds_fewer_colours() -> None:
    rng = np.random.default_rng(1)
    found = positions(rng.random((60, 60)) < 0.08)
    usual, longer = (jacobian_colouring(found, "forward", Task(order="natural", time_budget=t)) for t in (0.0, 0.3))
    assert longer.n_forward < usual.n_forward


@pytest.mark.thorough
def test_a_million_entries() -> None:
    rng = np.random.default_rng(0)
    n, k = 100_000, 10
    found = Positions.of_coordinates((n, n), np.repeat(np.arange(n), k), rng.integers(0, n, n * k))
    colours = jacobian_colouring(found)
    assert colours.n_forward + colours.n_reverse < 40
