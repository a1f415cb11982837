"""Derivatives along the unit vectors of all inputs, without the zeros that are known from the structure of a program.

In a network that is applied to each of ``n`` particles, the features of particle ``p`` depend on the inputs of particle ``p`` alone.
Of their derivatives along the ``n d`` unit vectors, ``J[q, i, p, ...]``, only those with ``q = p`` are not zero, and
``J[p, i, p, ...]`` are ``d`` arrays in place of ``n d``.

The directions of one input are the product of *factors*, at first one for each of its axes.  A block keeps a factor as a leading axis
of its array, or *ties* it to an axis of the value: it is zero but where both positions are equal.  A value has a sum of blocks: a
difference of positions ``x[p] - x[q]`` has one that is tied to the axis ``p`` and one that is tied to ``q``.  Operations keep ties as
the axes say that their rows state (:mod:`dualrev.table.axes`); a sum over a tied axis makes it a leading one, without an operation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray, typeof
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent


class Key(NamedTuple):
    """The structure of a block: the input that its directions belong to, and each factor of them, with the axis that it is tied to."""

    leaf: int
    factors: tuple[tuple[int, int | None], ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple([n for n, _ in self.factors])

    @property
    def n_leading(self) -> int:
        return sum(axis is None for _, axis in self.factors)

    @property
    def n_directions(self) -> int:
        """How many derivatives the block has for each entry of the value."""
        return math.prod(n for n, axis in self.factors if axis is None)

    @property
    def ties(self) -> frozenset[tuple[int, int]]:
        return frozenset((i, axis) for i, (_, axis) in enumerate(self.factors) if axis is not None)


#: A block: its structure, and its array ``(*leading factors, *shape of the value)``.
Block: TypeAlias = tuple[Key, jax.Array]


@jax.tree_util.register_pytree_node_class
class Blocks:
    """The derivatives of a value along all directions, as a sum of blocks.  ``sizes``: how many directions each input has."""

    __slots__ = ("arrays", "keys", "sizes")

    def __init__(self, blocks: Sequence[Block], sizes: tuple[int, ...]):
        self.keys = tuple([key for key, _ in blocks])
        self.arrays = [array for _, array in blocks]
        self.sizes = sizes

    def items(self) -> list[Block]:
        return list(zip(self.keys, self.arrays, strict=True))

    @property
    def aval(self) -> ShapedArray:
        """The type of the value."""
        found = typeof(self.arrays[0])
        return found.update(shape=found.shape[self.keys[0].n_leading:])  # type: ignore[no-any-return]

    def map(self, function: Callable[[jax.Array, int], jax.Array]) -> Blocks:
        """``function(array, number of leading axes)`` of each block."""
        return Blocks([(key, function(array, key.n_leading)) for key, array in self.items()], self.sizes)

    def tree_flatten(self) -> tuple[list[jax.Array], tuple[tuple[Key, ...], tuple[int, ...]]]:
        return self.arrays, (self.keys, self.sizes)

    @classmethod
    def tree_unflatten(cls, aux: tuple[tuple[Key, ...], tuple[int, ...]], arrays: Sequence[jax.Array]) -> Blocks:
        found = cls([], aux[1])
        found.keys, found.arrays = aux[0], list(arrays)
        return found


#: Derivatives along all directions, stacked along a first axis or in blocks; None for zero.
Along: TypeAlias = "jax.Array | Blocks | None"

T = TypeVar("T", "jax.Array", Blocks, "jax.Array | Blocks")


def scaled(factor: jax.Array, t: T) -> T:
    """``factor · t``, where ``t`` may have leading axes."""
    if isinstance(t, Blocks):
        return t.map(lambda array, _: scaled(factor, array))  # type: ignore[return-value]  # blocks for blocks
    n = t.ndim - factor.ndim
    return lax.mul(lax.broadcast_in_dim(factor, t.shape, range(n, t.ndim)) if n else factor, t)


def added(terms: Sequence[jax.Array | Blocks]) -> Along:
    """The sum of derivatives, all of which are stacked, or all of which are in blocks."""
    blocks = [t for t in terms if isinstance(t, Blocks)]
    if blocks:
        return settled([block for t in blocks for block in t.items()], blocks[0].sizes)
    total: Tangent = None
    for t in terms:
        total = zeros.add(total, t)  # type: ignore[arg-type]  # none is in blocks
    return total


def identity(avals: Sequence[ShapedArray]) -> list[Blocks]:
    """The derivatives of each input along the unit vectors of all."""
    sizes = tuple([a.size for a in avals])
    keys = [Key(i, tuple([(n, axis) for axis, n in enumerate(a.shape) if n != 1])) for i, a in enumerate(avals)]
    return [Blocks([(key, lax.full(a.shape, 1, a.dtype))], sizes) for key, a in zip(keys, avals, strict=True)]


def stacked(blocks: Blocks) -> jax.Array:
    """All directions of all inputs along one leading axis."""
    aval = blocks.aval
    found: list[jax.Array | None] = [None] * len(blocks.sizes)
    for key, array in blocks.items():
        _, full = loosened((key, array), range(len(key.factors)))
        found[key.leaf] = zeros.add(found[key.leaf], lax.reshape(full, (blocks.sizes[key.leaf], *aval.shape)))
    filled = [zeros.zeros_of(aval.update(shape=(n, *aval.shape))) if x is None else x for n, x in zip(blocks.sizes, found, strict=True)]
    return filled[0] if len(filled) == 1 else lax.concatenate(filled, 0)


def settled(blocks: Sequence[Block], sizes: tuple[int, ...]) -> Blocks | jax.Array | None:
    """The sum of blocks in its smallest form: all directions in one array where there is no tie left."""
    if not blocks:
        return None
    found: list[Block] = []
    for leaf in sorted({key.leaf for key, _ in blocks}):
        found += _merged([(key, array) for key, array in blocks if key.leaf == leaf])
    whole = Blocks(found, sizes)
    if len(found) == len(sizes) and not any(key.ties for key, _ in found):
        return stacked(whole)
    return whole


def loosened(block: Block, which: Sequence[int]) -> Block:
    """The block with these factors as leading axes, and zeros where they were tied."""
    key, array = block
    factors = list(key.factors)
    for i in which:
        n, axis = factors[i]
        if axis is None:
            continue
        lead = sum(tied is None for _, tied in factors[:i])
        at = sum(tied is None for _, tied in factors) + 1 + axis
        shape = (*array.shape[:lead], n, *array.shape[lead:])
        is_equal = lax.eq(lax.broadcasted_iota(np.int32, shape, lead), lax.broadcasted_iota(np.int32, shape, at))
        spread = lax.broadcast_in_dim(array, shape, [k for k in range(len(shape)) if k != lead])
        array = lax.select(is_equal, spread, lax.full_like(spread, 0))
        factors[i] = (n, None)
    return Key(key.leaf, tuple(factors)), array


def _refined(block: Block, lengths: tuple[int, ...]) -> Block:
    """The block with the factors of its directions split, or all made one; a tie to an axis that is split is loosened."""
    key, array = block
    if key.lengths == lengths:
        return block
    groups: list[list[int]] = []
    rest = list(lengths)
    for n in key.lengths:
        group: list[int] = []
        while rest and math.prod(group) < n:
            group.append(rest.pop(0))
        groups.append(group)
    if [math.prod(group) for group in groups] != list(key.lengths):
        groups = [[n] for n in key.lengths]
        key, array = loosened(block, range(len(key.factors)))
    key, array = loosened((key, array), [i for i, group in enumerate(groups) if len(group) > 1])
    factors = [(n, axis) for (_, axis), group in zip(key.factors, groups, strict=True) for n in group]
    if tuple([n for n, _ in factors]) != lengths:  # these are one
        factors = [(n, None) for n in lengths]
    leading = [n for n, axis in factors if axis is None]
    return Key(key.leaf, tuple(factors)), lax.reshape(array, (*leading, *array.shape[key.n_leading:]))


def _alike(blocks: Sequence[Block]) -> list[Block]:
    """Blocks of one input with the same factors."""
    lengths = {key.lengths for key, _ in blocks}
    if len(lengths) == 1:
        return list(blocks)
    cuts = sorted({math.prod(found[:k]) for found in lengths for k in range(1, len(found) + 1)})
    is_chain = all(b % a == 0 for a, b in itertools.pairwise(cuts))
    common = tuple([b // a for a, b in itertools.pairwise([1, *cuts]) if a != b]) if is_chain else (cuts[-1],)
    return [_refined(block, common) for block in blocks]


def _merged(blocks: Sequence[Block]) -> list[Block]:
    """The sum of blocks of one input: those that are tied alike are one, and one whose ties another lacks is added to that one."""
    if len(blocks) == 1:
        return list(blocks)
    found: dict[Key, jax.Array] = {}
    for key, array in _alike(blocks):
        found[key] = lax.add(found[key], array) if key in found else array
    for key in sorted(found, key=lambda key: -len(key.ties)):
        if (into := next((other for other in found if other.ties < key.ties), None)) is not None:
            missing = [i for i, axis in key.ties if (i, axis) not in into.ties]
            found[into] = lax.add(found[into], loosened((key, found.pop(key)), missing)[1])
    if len(found) > 1 and sum(key.n_directions for key in found) >= math.prod(next(iter(found)).lengths):
        (first, total), *others = [loosened((key, array), range(len(key.factors))) for key, array in found.items()]
        for _, array in others:
            total = lax.add(total, array)
        return [(first, total)]
    return list(found.items())


#: An operation on two arrays without leading axes.
Times: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


def inner(u: Blocks, v: Blocks, times: Times, symbols: tuple[Sequence[int], Sequence[int]],
          places: dict[int, int]) -> Tangent:
    """``Σ times(u[i], v[i])`` over all directions ``i``, for an operation that is linear in both.

    ``symbols`` name the axes of both, ``places`` the axes of the result; an axis that both have and the result lacks is summed over.
    """
    is_square = u is v and symbols[0] == symbols[1] and len(places) == len(symbols[0])
    total: Tangent = None
    for i, j in itertools.product(range(len(u.keys)), range(len(v.keys))):
        if u.keys[i].leaf != v.keys[j].leaf or (is_square and j > i):
            continue
        term = _pair(u.items()[i], v.items()[j], times, symbols, places)
        total = zeros.add(total, lax.add(term, term) if is_square and j < i else term)
    return total


def _pair(u: Block, v: Block, times: Times, symbols: tuple[Sequence[int], Sequence[int]], places: dict[int, int]) -> jax.Array:
    u, v = _alike([u, v])
    loose: tuple[list[int], list[int]] = [], []
    equal: list[tuple[int, int]] = []
    for i, ((_, a), (_, b)) in enumerate(zip(u[0].factors, v[0].factors, strict=True)):
        x, y = (None if axis is None else names[axis] for names, axis in zip(symbols, (a, b), strict=True))
        if x == y:
            continue  # both lead, or both are zero where this axis is not at the direction
        if x is not None and y is not None and x in places and y in places:  # the result is zero where these two differ
            equal.append((places[x], places[y]))
        else:
            loose[0].append(i)
            loose[1].append(i)
    (key, left), (_, right) = loosened(u, loose[0]), loosened(v, loose[1])
    apply = times
    for _ in range(key.n_leading):
        apply = jax.vmap(apply)
    found = apply(left, right)
    result = jnp.sum(found, range(key.n_leading)) if key.n_leading else found
    for a, b in equal:
        is_equal = lax.eq(lax.broadcasted_iota(np.int32, result.shape, a), lax.broadcasted_iota(np.int32, result.shape, b))
        result = lax.select(is_equal, result, lax.full_like(result, 0))
    return result
