"""Where each entry of a matrix is read once it is compressed: the colours that are needed, and one index for each entry.

With forward colours the compressed matrix is :math:`P = J S`, a row for each colour; with reverse colours :math:`Q = R J`.  Entry
``(i, j)`` stands in ``P[colour of j, i]`` if no other column in that colour has an entry in row ``i``, and in ``Q[colour of i, j]`` if
no other row in that colour has an entry in column ``j``.  Both lie one after the other in one flat array.

An entry may be read at either end; those that must be read at one end decide which colours are needed at all.  A colour that nothing
is read from is dropped: its vertices are neutral.

Source: [MontoisonEtAl2025] for what is dropped of a two-sided colouring.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dualrev.sparse.colouring.greedy import NO_COLOUR
from dualrev.sparse.colouring.positions import Positions


@dataclass(frozen=True, eq=False)
class Level:
    """Entries that follow by substitution from those of the levels before: ``flat[source] - sum of values[known]`` of each."""

    source: np.ndarray
    #: Numbers of values that are known, and for each, to which entry of this level it belongs (sorted).
    known: np.ndarray
    owner: np.ndarray


@dataclass(frozen=True, eq=False)
class Colouring:
    """Colours of the columns and rows of a matrix, and how its entries are recovered.

    A column (row) without a colour has -1.  ``levels``: none where each entry is read directly, from ``source``; else ``source``
    numbers the values that the levels give one after the other.
    """

    positions: Positions
    column_colours: np.ndarray
    row_colours: np.ndarray
    source: np.ndarray
    is_symmetric: bool = False
    levels: tuple[Level, ...] = ()

    @cached_property
    def n_forward(self) -> int:
        return int(self.column_colours.max(initial=NO_COLOUR)) + 1

    @cached_property
    def n_reverse(self) -> int:
        return int(self.row_colours.max(initial=NO_COLOUR)) + 1

    @property
    def is_direct(self) -> bool:
        return not self.levels

    def cost(self, forward: float, reverse: float) -> float:
        return forward * self.n_forward + reverse * self.n_reverse


class InvalidColouringError(ValueError):
    """Colours from which some entries of a matrix can't be recovered."""


def _unreadable(positions: Positions, entries: np.ndarray) -> InvalidColouringError:
    shown = ", ".join(f"({i}, {j})" for i, j in zip(positions.rows[entries[:5]], positions.columns[entries[:5]], strict=True))
    return InvalidColouringError(f"{len(entries)} of {positions.nnz} entries of a matrix of shape {positions.shape} can't be recovered "
                                 f"from these colours; the first at (row, column) {shown}")


def _alone(at: np.ndarray, colours: np.ndarray, n_colours: int) -> np.ndarray:
    """Whether each pair of a place and a colour stands in the lists once; pairs without a colour are not looked at."""
    keys = at * (n_colours + 1) + np.where(colours == NO_COLOUR, n_colours, colours)
    if len(keys) and int(keys.max()) < 8 * len(keys) + 1000:
        once = np.bincount(keys)[keys] == 1
    else:
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        once = counts[inverse] == 1
    found: np.ndarray = once & (colours != NO_COLOUR)
    return found


def of_columns(positions: Positions, colours: np.ndarray) -> Colouring:
    """All entries from forward passes."""
    colours, source = _one_sided(positions, colours, positions.columns, positions.rows, positions.shape[0])
    return Colouring(positions, colours, np.full(positions.shape[0], NO_COLOUR), source)


def of_rows(positions: Positions, colours: np.ndarray) -> Colouring:
    """All entries from reverse passes."""
    colours, source = _one_sided(positions, colours, positions.rows, positions.columns, positions.shape[1])
    return Colouring(positions, np.full(positions.shape[1], NO_COLOUR), colours, source)


def _one_sided(positions: Positions, colours: np.ndarray, coloured: np.ndarray, read_at: np.ndarray,
               length: int) -> tuple[np.ndarray, np.ndarray]:
    """The colours in use, and where each entry stands in the results of their passes, each of which has ``length`` numbers.

    An entry has the colour of its ``coloured`` index, and is read at its other one.
    """
    of_entry = colours[coloured]
    readable = _alone(read_at, of_entry, int(colours.max(initial=0)) + 1)
    if not readable.all():
        raise _unreadable(positions, np.flatnonzero(~readable))
    colours, of_entry = _renumbered(colours, of_entry, readable)
    return colours, of_entry * length + read_at


def of_both(positions: Positions, column_colours: np.ndarray, row_colours: np.ndarray, forward: float, reverse: float) -> Colouring:
    """Entries from forward or reverse passes, of which as few are kept as the entries need; a pass has its cost."""
    m, n = positions.shape
    n_columns, n_rows = int(column_colours.max(initial=NO_COLOUR)) + 1, int(row_colours.max(initial=NO_COLOUR)) + 1
    of_column, of_row = column_colours[positions.columns], row_colours[positions.rows]
    pushed = _alone(positions.rows, of_column, n_columns)
    pulled = _alone(positions.columns, of_row, n_rows)
    is_pushed = _chosen(positions, pushed, pulled, of_column, np.where(of_row == NO_COLOUR, NO_COLOUR, of_row + n_columns),
                        np.repeat([forward, reverse], [n_columns, n_rows]))
    column_colours, of_column = _renumbered(column_colours, of_column, is_pushed)
    row_colours, of_row = _renumbered(row_colours, of_row, ~is_pushed)
    start = (int(column_colours.max(initial=NO_COLOUR)) + 1) * m
    source = np.where(is_pushed, of_column * m + positions.rows, start + of_row * n + positions.columns)
    return Colouring(positions, column_colours, row_colours, source)


def of_symmetric(positions: Positions, colours: np.ndarray) -> Colouring:
    """Entries of a symmetric matrix, each from the column of its place or from that of its mirror image."""
    n_colours = int(colours.max(initial=NO_COLOUR)) + 1
    rows, columns = positions.rows, positions.columns
    own = _alone(rows, colours[columns], n_colours)
    mirrored = np.zeros_like(own)
    mirrored[positions.by_columns] = own  # the entries by columns are those of the transpose by rows, in order
    is_own = _chosen(positions, own, mirrored, colours[columns], colours[rows], np.ones(n_colours))
    needed = np.where(is_own, colours[columns], colours[rows])
    colours, needed = _renumbered(colours, needed, np.ones_like(is_own))
    place = np.where(is_own, rows, columns)
    none = np.full(positions.shape[0], NO_COLOUR)
    return Colouring(positions, colours, none, needed * positions.shape[0] + place, is_symmetric=True)


def _chosen(positions: Positions, first: np.ndarray, second: np.ndarray, first_colour: np.ndarray, second_colour: np.ndarray,
            costs: np.ndarray) -> np.ndarray:
    """Of each entry, whether it is read the first way; so that the colours that are read from cost little together.

    Colours that some entry must be read from are needed anyhow.  Pairs of colours that are left are a graph whose edges must be
    covered: the colour that covers the most for its cost is taken, again and again.
    """
    if not (first | second).all():
        raise _unreadable(positions, np.flatnonzero(~(first | second)))
    needed = np.zeros(len(costs), bool)
    needed[first_colour[first & ~second]] = True
    needed[second_colour[second & ~first]] = True
    either = first & second
    is_open = either & ~needed[first_colour] & ~needed[second_colour]
    edges: dict[int, set[int]] = defaultdict(set)
    for a, b in np.unique(np.stack([first_colour[is_open], second_colour[is_open]], 1), axis=0).tolist():
        edges[a].add(b)
        edges[b].add(a)
    while edges:
        best = max(edges, key=lambda c: (len(edges[c]) / costs[c], -c))
        needed[best] = True
        for other in edges.pop(best):
            if other != best:
                edges[other].discard(best)
                if not edges[other]:
                    del edges[other]
    chosen: np.ndarray = first & (~second | needed[first_colour])
    return chosen


def _renumbered(colours: np.ndarray, of_entry: np.ndarray, is_read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours that are read from, numbered from 0; vertices in another colour have none."""
    numbers = np.full(int(colours.max(initial=NO_COLOUR)) + 2, NO_COLOUR)
    used = np.unique(of_entry[is_read])
    numbers[used] = np.arange(len(used))
    numbers[NO_COLOUR] = NO_COLOUR
    return numbers[colours], numbers[of_entry]


def by_substitution(positions: Positions, graph: Positions, colours: np.ndarray) -> Colouring:
    """Entries one after the other: the last unknown one of its colour at a vertex is what the known ones leave of the sum.

    ``graph``: the adjacency of ``positions`` if that is symmetric, else of its two-sided graph.  Entry ``(u, v)`` of it may be read at
    ``u`` in the colour of ``v``, less the other entries at ``u`` in that colour.
    """
    is_symmetric = graph.shape == positions.shape
    m, n = positions.shape
    ends, others = graph.rows, graph.columns
    mirror = np.empty(graph.nnz, np.int64)
    mirror[graph.by_columns] = np.arange(graph.nnz)
    n_colours = int(colours.max(initial=NO_COLOUR)) + 1
    keys = ends * (n_colours + 1) + np.where(colours[others] == NO_COLOUR, n_colours, colours[others])
    left: dict[int, set[int]] = defaultdict(set)
    has_colour = colours[others] != NO_COLOUR
    key_of, mirror_of = keys.tolist(), mirror.tolist()
    for e in np.flatnonzero(has_colour).tolist():
        left[key_of[e]].add(e)
    number, level_of = np.full(graph.nnz, -1), np.full(graph.nnz, -1)
    found: list[tuple[int, int, list[int]]] = []  # (entry of the graph, its level, entries that are subtracted)
    done: dict[int, list[int]] = defaultdict(list)
    ready = deque(sorted(k for k, entries in left.items() if len(entries) == 1))
    while ready:
        key = ready.popleft()
        if len(left[key]) != 1:
            continue
        (e,) = left[key]
        before = done[key]
        level = 1 + max((int(level_of[x]) for x in before), default=-1)
        found.append((e, level, list(before)))
        both = {e, mirror_of[e]}
        for each in both:
            level_of[each] = level
            if has_colour[each]:
                other = left[key_of[each]]
                other.discard(each)
                done[key_of[each]].append(each)
                if len(other) == 1:
                    ready.append(key_of[each])
    if (level_of < 0).any():
        missing = np.flatnonzero((level_of < 0)[: positions.nnz] if is_symmetric else (level_of < 0)[positions.nnz:])
        raise _unreadable(positions, missing)
    found.sort(key=lambda item: item[1])
    for place, (e, _, _) in enumerate(found):
        number[e] = number[mirror[e]] = place
    read = np.array([e for e, _, _ in found], np.int64)
    if is_symmetric:
        colours, _ = _renumbered(colours, colours[others[read]], np.ones(len(read), bool))
        column_colours, row_colours = colours, np.full(m, NO_COLOUR)
        flat = colours[others[read]] * m + ends[read]
    else:
        at_row = ends[read] >= n
        of_column = np.where(at_row, colours[others[read]], 0)
        of_row = np.where(at_row, 0, colours[others[read]])
        column_colours, of_column = _renumbered(colours[:n], of_column, at_row)
        row_colours, of_row = _renumbered(colours[n:], of_row, ~at_row)
        start = (int(column_colours.max(initial=NO_COLOUR)) + 1) * m
        flat = np.where(at_row, of_column * m + ends[read] - n, start + of_row * n + ends[read])
    levels, begin = [], 0
    depths = np.array([level for _, level, _ in found])
    for level in range(int(depths.max(initial=0)) + 1):
        end = int(np.searchsorted(depths, level, side="right"))
        subtracted = [number[known] for _, _, known in found[begin:end]]
        owner = np.repeat(np.arange(end - begin), [len(known) for known in subtracted])
        known = np.concatenate(subtracted).astype(np.int64) if len(owner) else np.zeros(0, np.int64)
        levels.append(Level(flat[begin:end], known, owner))
        begin = end
    source = number if is_symmetric else number[positions.nnz:]
    return Colouring(positions, column_colours, row_colours, source, is_symmetric, tuple(levels))
