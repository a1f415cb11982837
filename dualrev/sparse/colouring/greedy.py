"""Greedy colourings of the graph of a matrix, each in time about linear in the number of nonzeros.

A set of colours is an int, whose bit ``c`` stands for colour ``c``: to join sets is one operation, and the smallest colour that is not
in a set ``s`` is the lowest zero bit, ``~s & (s + 1)``.  Beside each vertex stand the sets that its next neighbour must know of, kept
up to date as colours are given, so that neighbours of neighbours are not visited.

A vertex that is *neutral* gets no colour.  All entries at it are read from its neighbours' colours, which must differ from each other.
Columns in one colour are pushed together, rows in one colour are pulled together.

- Distance 2: no two columns with an entry in one row have one colour [CurtisEtAl1974].  All rows are neutral.
- Star: no path of four vertices has two colours only, so that each entry can be read directly, at one of its ends.  On the graph of a
  symmetric matrix [ColemanMore1984]; on the bipartite graph of rows and columns, each with colours of their own, it is
  two-sided [ColemanVerma1998; MontoisonEtAl2025].
- Acyclic: no cycle has two colours only, so that entries follow one from the other by substitution [ColemanCai1986].

Source: [GebremedhinEtAl2005] for the families of colourings and what each recovers; [GebremedhinEtAl2007] for greedy
star and acyclic colouring.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualrev.sparse.colouring.orders import Order
from dualrev.sparse.colouring.positions import Neighbours

#: In place of the colour of a vertex that has none.
NO_COLOUR = -1


def distance_two(rows_of: Neighbours, n_rows: int, order: Order) -> list[int]:
    """A colour for each column, so that columns with an entry in one row differ; ``rows_of`` lists the rows of each column."""
    used = [0] * n_rows
    colours = [NO_COLOUR] * len(rows_of)
    for v in order:
        rows, taken = rows_of[v], 0
        for i in rows:
            taken |= used[i]
        bit = ~taken & (taken + 1)
        for i in rows:
            used[i] |= bit
        colours[v] = bit.bit_length() - 1
    return colours


def star(neighbours: Neighbours, order: Order, is_neutral: Sequence[bool], is_proper: bool) -> list[int]:
    """A star colouring of all vertices that are not neutral.  ``is_proper``: neighbours differ (they share one set of colours).

    For each vertex ``w``: ``near[w]``, the colours of its neighbours; ``twice[w]``, those that several of them have; ``closed[w]``,
    colours that no further neighbour of ``w`` may have: where ``w`` is neutral, all that are near; else the colours of those
    neighbours that are the centre of a star with ``w`` and others in the colour of ``w``.
    """
    n = len(neighbours)
    bits, near, twice, closed = [0] * n, [0] * n, [0] * n, [0] * n
    colours = [NO_COLOUR] * n
    for v in order:
        if is_neutral[v]:
            continue
        around, repeated = neighbours[v], twice[v]
        taken = near[v] if is_proper else 0
        if repeated:
            for w in around:  # of a star around v, no other edge may lead to the colour of v
                taken |= near[w] if bits[w] & repeated else closed[w]
        else:
            for w in around:
                taken |= closed[w]
        bit = ~taken & (taken + 1)
        bits[v] = bit
        colours[v] = bit.bit_length() - 1
        for w in around:
            its = bits[w]
            if near[w] & bit:  # w becomes the centre of a star, or is one
                if its:
                    if not twice[w] & bit:
                        closed[_other(neighbours[w], bits, bit, v)] |= its
                    closed[v] |= its
                twice[w] |= bit
            else:
                near[w] |= bit
            if its & repeated or is_neutral[w]:
                closed[w] |= bit
    return colours


def _other(around: list[int], bits: list[int], bit: int, v: int) -> int:
    """The one neighbour besides ``v`` in this colour."""
    return next(x for x in around if bits[x] == bit and x != v)


def acyclic(neighbours: Neighbours, order: Order, is_neutral: Sequence[bool], is_proper: bool) -> list[int]:
    """An acyclic colouring of all vertices that are not neutral.

    The edges from a vertex ``w`` to its neighbours in colour ``c`` lie in one tree of two colours, ``trees[w][c]``.  A new vertex must
    not join a tree twice: it may not take colour ``c`` if two of its neighbours in one colour lie in one tree with ``c``.
    """
    n = len(neighbours)
    colours, near = [NO_COLOUR] * n, [0] * n
    trees: list[dict[int, int]] = [{} for _ in range(n)]
    parents: list[int] = []

    def root(tree: int) -> int:
        while parents[tree] != tree:
            parents[tree] = tree = parents[parents[tree]]
        return tree

    for v in order:
        if is_neutral[v]:
            continue
        taken = near[v] if is_proper else 0
        met: set[tuple[int, int]] = set()
        for w in neighbours[v]:
            if is_neutral[w]:
                taken |= near[w]
            elif colours[w] != NO_COLOUR:
                for c, tree in trees[w].items():
                    end = root(tree), c
                    if end in met:
                        taken |= 1 << c
                    met.add(end)
        bit = ~taken & (taken + 1)
        colour = colours[v] = bit.bit_length() - 1
        own = trees[v]
        for w in neighbours[v]:
            near[w] |= bit
            its = colours[w]
            if its == NO_COLOUR:
                continue
            joined = own.get(its)
            found = trees[w].get(colour)
            if joined is None and found is None:
                joined = len(parents)
                parents.append(joined)
            elif joined is None:
                joined = root(found)  # type: ignore[arg-type]  # one of the two is there
            elif found is not None:
                parents[root(found)] = joined = root(joined)
            own[its] = trees[w][colour] = joined
    return colours
