"""The structure of a local Jacobian: which of its entries can be nonzero, and over which axes they vary.

A block is the Jacobian of one array by another: an array with the axes of the output and then those of the input.  Each axis has an
index symbol.  An output axis and an input axis with the same symbol make the block diagonal there (a Kronecker delta), and the values
vary over some of the symbols only::

    y = tanh(x), x of shape (n,)     J[i, i] = v[i]            out (i), in (i), values over (i)
    y = W @ x                        J[i, j] = W[i, j]         out (i), in (j), values over (i, j)
    y = W @ x, by W                  J[i, i, j] = x[j]         out (i), in (i, j), values over (j)
    y = broadcast(x)                 J[i, j, j] = 1            out (i, j), in (j), no values

Products and sums of blocks have such a structure again, so that counts need no values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

#: How an edge counts.  ``copy`` only moves or sums entries, as a slice or a broadcast does; ``unit`` has entries of 1 or -1, as
#: those of an addition; ``full`` has values.
Weight: TypeAlias = Literal["copy", "unit", "full"]


class Structure(NamedTuple):
    """The structure of a block, in canonical form: symbols are numbered as they first appear in ``(*out, *ins)``."""

    out: tuple[int, ...]
    ins: tuple[int, ...]
    #: The symbols that the values vary over.
    axes: tuple[int, ...]
    #: The length of each symbol's axis.
    sizes: tuple[int, ...]
    weight: Weight

    @property
    def size(self) -> int:
        """How many values there are."""
        return math.prod(self.sizes[a] for a in self.axes)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return tuple([self.sizes[a] for a in self.out])

    @property
    def in_shape(self) -> tuple[int, ...]:
        return tuple([self.sizes[a] for a in self.ins])

    def __str__(self) -> str:
        letters = "ijklmnpqrstuvw"

        def named(axes: Iterable[int]) -> str:
            return ",".join(letters[a] if a < len(letters) else f"a{a}" for a in axes)

        return f"{self.weight}[{named(self.out)}; {named(self.ins)}] over ({named(self.axes)})"


def structure_of(out: Sequence[int], ins: Sequence[int], axes: Iterable[int], sizes: dict[int, int], weight: Weight) -> Structure:
    """The canonical form.  Values cannot vary over an axis of length 1, and there a delta says nothing."""
    fresh = max([*out, *ins, 0]) + 1
    names: list[int] = []
    lengths = dict(sizes)
    for a in (*out, *ins):
        if sizes[a] == 1:
            a, fresh = fresh, fresh + 1
            lengths[a] = 1
        names.append(a)
    number = {a: i for i, a in enumerate(dict.fromkeys(names))}
    varying = tuple(sorted(number[a] for a in set(axes) if sizes[a] != 1))
    return Structure(tuple([number[a] for a in names[: len(out)]]), tuple([number[a] for a in names[len(out):]]), varying,
                     tuple([lengths[a] for a in number]), weight)


@functools.lru_cache(maxsize=4096)
def identity(shape: tuple[int, ...]) -> Structure:
    """The structure of a copy."""
    n = range(len(shape))
    return structure_of(n, n, (), dict(enumerate(shape)), "copy")


@functools.lru_cache(maxsize=4096)
def dense(out_shape: tuple[int, ...], in_shape: tuple[int, ...], weight: Weight = "full") -> Structure:
    """The structure of a block that has no zeros that are known."""
    sizes = dict(enumerate((*out_shape, *in_shape)))
    n = len(out_shape)
    return structure_of(range(n), range(n, len(sizes)), sizes, sizes, weight)


class Product(NamedTuple):
    """The product of two blocks."""

    structure: Structure
    #: Multiplications of scalars, with those by 1 and -1 and without.
    multiplications: int
    nontrivial: int
    #: For each symbol of the left factor, of the right factor and of the result: its symbol in the contraction.
    left: tuple[int, ...]
    right: tuple[int, ...]
    result: tuple[int, ...]
    #: The number of equal terms that are summed: lengths of contracted axes that no factor varies over.
    repeats: int


@functools.lru_cache(maxsize=65536)
def product(a: Structure, b: Structure) -> Product:
    """``A B``: the block of a by its input times the block of that input by another.

    One multiplication is counted for each combination of indices over which either factor varies, none if one of them is a copy
    [GriewankWalther2008, ch. 10; LohoffNeftci2024, sec. 3].
    """
    n = len(a.sizes)
    parent = list(range(n + len(b.sizes)))

    def root(x: int) -> int:
        while parent[x] != x:
            x = parent[x]
        return x

    for x, y in zip(a.ins, b.out, strict=True):
        if (p := root(x)) != (q := root(n + y)):
            parent[max(p, q)] = min(p, q)
    sizes = {root(x): size for x, size in enumerate((*a.sizes, *b.sizes))}
    out, ins = [root(x) for x in a.out], [root(n + x) for x in b.ins]
    left, right = {root(x) for x in a.axes}, {root(n + x) for x in b.axes}
    inner = {root(x) for x in a.ins} - {*out, *ins}
    repeats = math.prod(sizes[x] for x in inner - left - right)
    summed = {x for x in inner if sizes[x] != 1}
    if "full" in (a.weight, b.weight) or (summed and (a.weight, b.weight) != ("copy", "copy")) or repeats != 1:
        weight: Weight = "full"
    else:
        weight = "unit" if "unit" in (a.weight, b.weight) else "copy"
    work = math.prod(sizes[x] for x in left | right)
    counts = "copy" not in (a.weight, b.weight)
    axes = (left | right) - inner
    structure = structure_of(out, ins, axes, sizes, weight)
    # The symbols of the canonical form, of which those of length 1 have no counterpart that matters.
    result = dict(zip((*structure.out, *structure.ins), (*out, *ins), strict=True))
    return Product(structure, work if counts else 0, work if (a.weight, b.weight) == ("full", "full") else 0,
                   tuple([root(x) for x in range(n)]), tuple([root(n + x) for x in range(len(b.sizes))]),
                   tuple([result[x] for x in range(len(structure.sizes))]), repeats)


class Sum(NamedTuple):
    """The sum of two blocks."""

    structure: Structure
    #: For each term and each symbol of the sum, its symbol in the term.
    left: tuple[int, ...]
    right: tuple[int, ...]


@functools.lru_cache(maxsize=65536)
def sum_of(a: Structure, b: Structure) -> Sum:
    """``A + B``: diagonal where both are."""
    pairs = list(zip((*a.out, *a.ins), (*b.out, *b.ins), strict=True))
    number = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    sizes = {i: a.sizes[x] for (x, _), i in number.items()}
    axes: set[int] = set()
    for term, k in ((a, 0), (b, 1)):
        split = {x for x in range(len(term.sizes)) if sum(pair[k] == x for pair in number) > 1}
        axes.update(i for pair, i in number.items() if pair[k] in split or pair[k] in term.axes)
    symbols = [number[pair] for pair in pairs]
    structure = structure_of(symbols[: len(a.out)], symbols[len(a.out):], axes, sizes, "full")
    names = dict(zip((*structure.out, *structure.ins), symbols, strict=True))
    back = {i: pair for pair, i in number.items()}
    of = [back[names[x]] for x in range(len(structure.sizes))]
    return Sum(structure, tuple([x for x, _ in of]), tuple([y for _, y in of]))
