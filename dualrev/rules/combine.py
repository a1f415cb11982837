"""Reductions, whole or over windows, by an operation that the user gives, and functions applied in place.

The operation is a program on scalars.  A reduction is run as the tree of its applications, to all pairs of a level at once, and
the tree is differentiated: it is a program over operations that have rows.  Neighbours are paired with neighbours, so that the
operation need be associative and no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from dualrev import errors
from dualrev._jax import ClosedJaxpr, jaxpr_as_fun, primitive, stage
from dualrev.engines.staging import cached, linearization_of, pushforward_of
from dualrev.linear_maps import LinearMap
from dualrev.rules.control import splice
from dualrev.rules.index import read
from dualrev.rules.table import Row, aval_of, register, rows

Arrays = list[Any]


# ------------------------------------------------------------------------------------------------------------- the tree


class Level(NamedTuple):
    """Pairs to combine, and entries without a partner to keep, by their places in the level below."""

    left: np.ndarray
    right: np.ndarray
    alone: np.ndarray


def tree(lists: np.ndarray) -> tuple[list[Level], np.ndarray]:
    """The levels that combine each list of places, in order, and where each list's result stands in the last one.

    ``lists[j]`` ends with -1 where it is shorter than others; the place of an empty list is -1.  What several lists combine is
    combined once: windows that overlap share their subtrees, as sums over windows of doubling width do.
    """
    levels = []
    while lists.shape[1] > 1:
        if lists.shape[1] % 2:
            lists = np.pad(lists, ((0, 0), (0, 1)), constant_values=-1)
        left, right = lists[:, ::2], lists[:, 1::2]
        is_pair, is_alone = right >= 0, (left >= 0) & (right < 0)
        base = int(lists.max(initial=0)) + 1
        pairs, pair_of = np.unique(left[is_pair] * base + right[is_pair], return_inverse=True)
        alone, alone_of = np.unique(left[is_alone], return_inverse=True)
        levels.append(Level(pairs // base, pairs % base, alone))
        lists = np.full(left.shape, -1)
        lists[is_pair] = pair_of.reshape(-1)
        lists[is_alone] = len(pairs) + alone_of.reshape(-1)
    return levels, lists[:, 0] if lists.shape[1] else np.full(len(lists), -1)


def pick(x: Any, places: np.ndarray) -> Any:
    """``x`` at places along its first axis: a slice where they are evenly spaced."""
    n = len(places)
    step = int(places[1] - places[0]) if n > 1 else 1
    if n and step > 0 and np.array_equal(places, places[0] + step * np.arange(n)):
        return lax.slice_in_dim(x, int(places[0]), int(places[-1]) + 1, step)
    return x.at[places].get(mode="promise_in_bounds")


def along_first(operation: Callable[..., Arrays], xs: Arrays, lists: np.ndarray) -> Arrays:
    """Each list of places along the first axis combined to one; lists are not empty."""
    levels, results = tree(lists)
    for level in levels:
        combined = operation([pick(x, level.left) for x in xs], [pick(x, level.right) for x in xs])
        xs = [lax.concatenate([y, pick(x, level.alone)], 0) if len(level.alone) else y for x, y in zip(xs, combined, strict=True)]
    return [pick(x, results) for x in xs]


def entry_by_entry(jaxpr: Any) -> Callable[[Arrays, Arrays], Arrays]:
    """The user's operation on arrays."""
    scalars = jaxpr_as_fun(jaxpr)

    def operation(lefts: Arrays, rights: Arrays) -> Arrays:
        shape = rights[0].shape
        if 0 in shape:
            return rights
        axes = [0 if x.ndim else None for x in lefts] + [0] * len(rights)
        flat = [lax.reshape(x, (math.prod(shape),)) if x.ndim or i >= len(lefts) else x for i, x in enumerate((*lefts, *rights))]
        return [lax.reshape(out, shape) for out in jax.vmap(scalars, in_axes=tuple(axes))(*flat)]

    return operation


# --------------------------------------------------------------------------------------------------------- reductions


def reduction(jaxpr: Any, operands: Arrays, initials: Arrays, dimensions: Sequence[int]) -> Arrays:
    """``initial · x₁ · x₂ · ...``, in the order of the entries."""
    operation = entry_by_entry(jaxpr)
    shape = operands[0].shape
    kept = [i for i in range(len(shape)) if i not in dimensions]
    rest = tuple([shape[i] for i in kept])
    n = math.prod([shape[i] for i in dimensions])
    if not n:
        return [lax.broadcast(initial, rest) for initial in initials]
    xs = [lax.reshape(lax.transpose(x, (*dimensions, *kept)), (n, *rest)) for x in operands]
    (results) = along_first(operation, xs, np.arange(n)[None])
    results = [lax.squeeze(x, (0,)) for x in results]
    return operation(initials, results) if rest else scalar_result(operation, initials, results)
