"""How a linear operation carries axes: which axes of its operands are which axes of its results.

Axes are named by symbols, as in ``einsum``.  An operand's axis and a result's axis with the same symbol are one: an entry of the result
at position ``p`` of it depends on entries of the operand at position ``p`` alone.  So a reader that knows that entries at ``p`` depend
on some inputs only, such as those of particle ``p``, knows it of the result too::

    transpose (n, m) -> (m, n)           i j -> j i
    sum over the last axis               i j -> i             j is summed
    dot_general (n, k), (k, m) -> (n, m) i k, k j -> i j      k is summed
    concatenate along the last axis      i ., i . -> i .      a dot stands for an axis that is no axis of the result
    reshape (n, m, d) -> (n m, d)        i j k -> (ij) k

An axis that several symbols make up lists them from the slowest to the fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

#: The symbols of one axis; None for an axis that is none of the other side.
Symbols: TypeAlias = tuple[int, ...] | None


@dataclass(frozen=True)
class Axes:
    """The symbols of the axes of each operand and of each result."""

    operands: Sequence[Sequence[Symbols]]
    results: Sequence[Sequence[Symbols]]
    #: Symbols over which terms are added: the operation on a slice of length one of each operand that has the axis gives one term.
    summed: frozenset[int] = frozenset()
    #: The lengths of symbols that share an axis with others.
    lengths: Mapping[int, int] = field(default_factory=dict)


def placed(rank: int, to: Mapping[int, int], result_rank: int) -> Axes:
    """Of an operation on one operand: axis ``a`` is axis ``to[a]`` of the result."""
    back = {b: a for a, b in to.items()}
    return Axes([[(a,) if a in to else None for a in range(rank)]], [[(back[b],) if b in back else None for b in range(result_rank)]])


def kept(rank: int, but: Sequence[int] = ()) -> Axes:
    """Of an operation on one operand whose result has the same axes; those in ``but`` are no axes of the result."""
    return placed(rank, {a: a for a in range(rank) if a not in but}, rank)


def reshaped(shape: Sequence[int], new: Sequence[int]) -> Axes:
    """Of entries in the same order in another shape: axes that stay, one that is split into several, several that become one."""
    operand: list[Symbols] = [None] * len(shape)
    result: list[Symbols] = [None] * len(new)
    lengths: dict[int, int] = {}
    if 0 in shape:
        return Axes([operand], [result])
    i = j = 0
    while i < len(shape) and j < len(new):
        i_end, j_end, n, m = i + 1, j + 1, shape[i], new[j]
        while n != m:  # as many entries on both sides
            if n < m:
                n, i_end = n * shape[i_end], i_end + 1
            else:
                m, j_end = m * new[j_end], j_end + 1
        ins, outs = ([a for a in range(start, end) if lengths_of[a] != 1]
                     for start, end, lengths_of in ((i, i_end, shape), (j, j_end, new)))
        if len(ins) == 1 or len(outs) == 1:
            many, few, of_many, of_few, sizes = (ins, outs, operand, result, shape) if len(outs) == 1 else (
                outs, ins, result, operand, new)
            names = [len(lengths) + k for k in range(len(many))]
            for name, a in zip(names, many, strict=True):
                of_many[a], lengths[name] = (name,), sizes[a]
            of_few[few[0]] = tuple(names)
        i, j = i_end, j_end
    return Axes([operand], [result], lengths=lengths)


def reduced(rank: int, axes: Sequence[int]) -> Axes:
    """Of a sum over some axes."""
    return Axes([[(a,) for a in range(rank)]], [[(a,) for a in range(rank) if a not in axes]], frozenset(axes))


def contracted(ranks: Sequence[int], contract: Sequence[Sequence[int]], batch: Sequence[Sequence[int]]) -> Axes:
    """Of a contraction of two operands, whose result has batch axes first, then those of the first, then those of the second."""
    names: list[dict[int, int]] = [{}, {}]
    for k, pair in enumerate(zip(*batch, strict=True)):
        names[0][pair[0]] = names[1][pair[1]] = k
    summed = range(len(batch[0]), len(batch[0]) + len(contract[0]))
    for k, pair in zip(summed, zip(*contract, strict=True), strict=True):
        names[0][pair[0]] = names[1][pair[1]] = k
    fresh = len(batch[0]) + len(contract[0])
    result = list(range(len(batch[0])))
    for known, rank in zip(names, ranks, strict=True):
        for a in range(rank):
            if a not in known:
                known[a] = fresh
                result.append(fresh)
                fresh += 1
    return Axes([[(known[a],) for a in range(rank)] for known, rank in zip(names, ranks, strict=True)], [[(k,) for k in result]],
                frozenset(summed))


def alike(ranks: Sequence[int], rank: int, but: Sequence[int] = ()) -> Axes:
    """Of several operands with the axes of the result, or without axes; those in ``but`` are no axes of the result."""
    symbols: list[Symbols] = [None if a in but else (a,) for a in range(rank)]
    return Axes([symbols if n else [] for n in ranks], [symbols])


def beside(axes: Axes, count: int) -> Axes:
    """With so many more operands, whose axes are no axes of the result."""
    return Axes([*axes.operands, *[[]] * count], axes.results)
