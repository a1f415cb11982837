"""The layout of a drawn graph: rows from inputs to outputs, few crossings, edges around boxes.

Method: [SugiyamaEtAl1981, sections 3 and 4].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

Point = tuple[float, float]

#: Distances between boxes of a row, between rows, and around the drawing.
ACROSS, DOWN, MARGIN = 18.0, 30.0, 12.0
_SWEEPS = 12


def layered(sizes: Sequence[Point], edges: Sequence[tuple[int, int]], floats: Callable[[int], bool],
            most_across: float = math.inf) -> tuple[list[Point], list[list[Point]], Point]:
    """The centres of boxes, the points of each edge, and the size of the drawing.

    Args:
      sizes: width and height of each box; they are numbered from inputs to outputs.
      edges: pairs of boxes.
      floats: whether a box without inputs is placed directly above its first consumer, instead of at the top.
      most_across: a row that is wider is broken into several.
    """
    level = _broken(_levels(len(sizes), edges, floats), [w for w, _ in sizes], most_across)
    # An edge over several rows gets a point of its own in each row between, for which space is reserved.
    boxes, links, chains = list(sizes), [], []
    for a, b in edges:
        chain = [a]
        for row in range(level[a] + 1, level[b]):
            chain.append(len(boxes))
            boxes.append((2.0, 0.0))
            level.append(row)
        chain.append(b)
        chains.append(chain)
        links += list(itertools.pairwise(chain))
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for i, row in enumerate(level):
        rows[row].append(i)
    above: list[list[int]] = [[] for _ in boxes]
    below: list[list[int]] = [[] for _ in boxes]
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    x = _across(rows, above, below, [w for w, _ in boxes], len(sizes))
    y, top = [0.0] * len(boxes), MARGIN
    for row_boxes in rows:
        height = max([boxes[i][1] for i in row_boxes], default=0.0)
        for i in row_boxes:
            y[i] = top + height / 2
        top += height + DOWN
    places = list(zip(x, y, strict=True))
    routes = []
    for chain in chains:
        a, b = chain[0], chain[-1]
        start, end = (x[a], y[a] + boxes[a][1] / 2), (x[b], y[b] - boxes[b][1] / 2)
        routes.append([start, *[places[i] for i in chain[1:-1]], end])
    width = max([x[i] + boxes[i][0] / 2 for i in range(len(boxes))], default=0.0) + MARGIN
    return places[: len(sizes)], routes, (width, top - DOWN + MARGIN if rows else 2 * MARGIN)


def _levels(n: int, edges: Sequence[tuple[int, int]], floats: Callable[[int], bool]) -> list[int]:
    level = [0] * n
    for a, b in sorted(edges, key=lambda e: e[1]):
        level[b] = max(level[b], level[a] + 1)
    first: dict[int, int] = {}
    for a, b in edges:
        first[a] = min(first.get(a, level[b]), level[b])
    return [first[i] - 1 if floats(i) and i in first else row for i, row in enumerate(level)]


def _broken(level: list[int], widths: Sequence[float], most: float) -> list[int]:
    """The levels, where boxes of one level that are too wide together stand in several rows."""
    found, row = list(level), 0
    for old in range(max(level, default=-1) + 1):
        used = 0.0
        for i in [i for i, own in enumerate(level) if own == old]:
            if used and used + widths[i] > most:
                row, used = row + 1, 0.0
            used += widths[i] + ACROSS
            found[i] = row
        row += 1
    return found


def _across(rows: list[list[int]], above: list[list[int]], below: list[list[int]], widths: list[float], n: int) -> list[float]:
    """The horizontal centre of each box: rows are ordered and placed by the mean of their neighbours, downward and upward in turn."""
    x = [0.0] * len(widths)
    for row in rows:
        _place(row, [0.0] * len(row), [1.0] * len(row), x, widths)
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for row in rows if down else rows[::-1]:
            wanted = {i: sum(x[j] for j in near[i]) / len(near[i]) if near[i] else x[i] for i in row}
            if sweep < _SWEEPS:
                row.sort(key=lambda i: wanted[i])
            # Points of long edges weigh most, so that these stay straight; boxes without a neighbour weigh least.
            weights = [8.0 if i >= n else 1.0 + len(near[i]) if near[i] else 0.1 for i in row]
            _place(row, [wanted[i] for i in row], weights, x, widths)
    least = min([x[i] - widths[i] / 2 for i in range(len(x))], default=0.0)
    return [v - least + MARGIN for v in x]


def _place(row: list[int], wanted: list[float], weights: list[float], x: list[float], widths: list[float]) -> None:
    """Place the boxes of a row, in this order and without overlap, as close as possible to their wanted positions.

    Weighted least squares, by pooling adjacent boxes that would overlap.
    """
    offset, offsets = 0.0, []
    for k, i in enumerate(row):
        if k:
            offset += (widths[row[k - 1]] + widths[i]) / 2 + ACROSS
        offsets.append(offset)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, number of boxes
    for want, weight, off in zip(wanted, weights, offsets, strict=True):
        mean, total, count = want - off, weight, 1
        while blocks and blocks[-1][0] >= mean:
            m, w, c = blocks.pop()
            mean, total, count = (mean * total + m * w) / (total + w), total + w, count + c
        blocks.append((mean, total, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for i, mean, off in zip(row, means, offsets, strict=True):
        x[i] = mean + off
