"""In which order vertices get their colours: greedy colouring takes the smallest colour that those before leave.

``natural`` is the order of the matrix.  ``largest_first`` takes vertices with many neighbours first [WelshPowell1967];
``smallest_last`` puts the vertex with the fewest neighbours among those left at the end, again and again [MatulaBeck1983];
``incidence_degree`` takes the vertex with the most coloured neighbours next [ColemanMore1983].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dualrev.sparse.colouring.positions import Neighbours

#: A sequence of vertices.
Order = Sequence[int]


def natural(degrees: np.ndarray) -> Order:
    return range(len(degrees))


def largest_first(degrees: np.ndarray) -> Order:
    """By degree, the largest first; equal ones in natural order."""
    found: list[int] = np.argsort(-degrees, kind="stable").tolist()
    return found


def smallest_last(neighbours: Neighbours) -> Order:
    """The reverse of taking away a vertex of the smallest degree among those left."""
    degrees = [len(around) for around in neighbours]
    buckets: list[list[int]] = [[] for _ in range(max(degrees, default=0) + 1)]
    for v in range(len(degrees)):
        buckets[degrees[v]].append(v)
    order: list[int] = []
    is_left = [True] * len(degrees)
    smallest = 0
    while len(order) < len(degrees):
        if not buckets[smallest]:
            smallest += 1
            continue
        v = buckets[smallest].pop()
        if not is_left[v] or degrees[v] != smallest:  # it stands in the bucket of its present degree, too
            continue
        is_left[v] = False
        order.append(v)
        for w in neighbours[v]:
            if is_left[w]:
                degrees[w] -= 1
                buckets[degrees[w]].append(w)
        smallest = max(smallest - 1, 0)
    order.reverse()
    return order


def incidence_degree(neighbours: Neighbours) -> Order:
    """Next comes the vertex with the most neighbours before it; of equal ones, that with the most neighbours."""
    n = len(neighbours)
    before = [0] * n
    buckets: list[list[int]] = [[] for _ in range(max(map(len, neighbours), default=0) + 1)]
    buckets[0] = sorted(range(n), key=lambda v: len(neighbours[v]))
    order: list[int] = []
    is_left = [True] * n
    most = 0
    while len(order) < n:
        if not buckets[most]:
            most -= 1
            continue
        v = buckets[most].pop()
        if not is_left[v] or before[v] != most:
            continue
        is_left[v] = False
        order.append(v)
        for w in neighbours[v]:
            if is_left[w]:
                before[w] += 1
                buckets[before[w]].append(w)
                most = max(most, before[w])
    return order


#: Orders that need degrees only, and orders that need the neighbours themselves.
BY_DEGREE: dict[str, Callable[[np.ndarray], Order]] = {"natural": natural, "largest_first": largest_first}
BY_NEIGHBOURS: dict[str, Callable[[Neighbours], Order]] = {"smallest_last": smallest_last, "incidence_degree": incidence_degree}
NAMES = (*BY_DEGREE, *BY_NEIGHBOURS)
