"""Jacobians by elimination: from a tape, and an order, to the blocks of the Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
from jax import lax

from dualrev._jax.avals import ShapedArray
from dualrev.engines.elimination.blocks import Block, plus, times
from dualrev.engines.elimination.graph import Graph, Linearized, graph_of_tape
from dualrev.linear.maps import Tape
from dualrev.linear.zeros import Tangent

#: An order for a graph.
Chooser: TypeAlias = Callable[[Graph], Sequence[int]]


def jacobian_of(tape: Tape, in_avals: Sequence[ShapedArray], choose: Chooser) -> tuple[list[list[jax.Array | None]], Linearized]:
    """Blocks ``[output][input]``, None for zero, of a tape all of whose inputs are active; and its graph."""
    found = graph_of_tape(tape, in_avals)
    blocks = eliminated(found, choose(found.graph))
    core = [[blocks.get((p, t)) for p in found.sources] for t in found.targets]
    return _with_ends(found, core, in_avals), found


def eliminated(found: Linearized, order: Sequence[int]) -> dict[tuple[int, int], jax.Array]:
    """The Jacobians of the last vertices by the first ones, as arrays."""
    into: dict[int, dict[int, Block]] = {}
    out_of: dict[int, dict[int, Block]] = {}
    for (p, s), block in found.blocks.items():
        into.setdefault(s, {})[p] = block
        out_of.setdefault(p, {})[s] = block
    for v in order:
        before, after = into.pop(v, {}), out_of.pop(v, {})
        for source in before:
            del out_of[source][v]
        for target, a in after.items():
            row, dtype = into[target], found.avals[target].dtype
            del row[v]
            for source, b in before.items():
                new = times(a, b, dtype)
                old = row.get(source)
                row[source] = out_of[source][target] = new if old is None else plus(old, new, dtype)
    return {(p, t): block.dense() for t in found.targets for p, block in into.get(t, {}).items()}


def _with_ends(found: Linearized, core: list[list[jax.Array | None]], in_avals: Sequence[ShapedArray]) -> list[list[jax.Array | None]]:
    """The Jacobian of the outputs by the inputs, from that of the last vertices by the first: by the maps at both ends."""
    rows = core
    if found.head.entries or list(found.head.in_slots) != list(found.sources):
        rows = [_pulled(found, row, found.avals[t], len(in_avals)) for row, t in zip(core, found.targets, strict=True)]
    if not found.tail.entries and list(found.tail.in_slots) == list(found.tail.out_slots):
        return rows
    columns = [_pushed(found, [row[i] for row in rows], aval) for i, aval in enumerate(in_avals)]
    return [[column[o] for column in columns] for o in range(len(found.tail.out_slots))]


def _pulled(found: Linearized, row: list[jax.Array | None], target: ShapedArray, n_in: int) -> list[jax.Array | None]:
    """A row of blocks by the inputs: each row of each block is a cotangent of the first vertices."""
    if all(block is None for block in row):
        return [None] * n_in
    n, size = target.ndim, target.size
    cts = [None if block is None else _cast(lax.reshape(block, (size, *block.shape[n:])), found.avals[p])
           for block, p in zip(row, found.sources, strict=True)]
    pulled = _batched(found.head.pull, cts)
    return [None if x is None else lax.reshape(x, (*target.shape, *x.shape[1:])) for x in pulled]


def _pushed(found: Linearized, column: list[jax.Array | None], source: ShapedArray) -> list[jax.Array | None]:
    """A column of blocks for the outputs: each column of each block is a tangent of the last vertices."""
    if all(block is None for block in column):
        return [None] * len(found.tail.out_slots)
    size = source.size
    ts: list[Tangent] = []
    for block, t in zip(column, found.targets, strict=True):
        if block is None:
            ts.append(None)
            continue
        n = found.avals[t].ndim
        by_column = lax.reshape(block, (*block.shape[:n], size))
        ts.append(_cast(lax.transpose(by_column, (n, *range(n))), found.avals[t]))
    pushed = _batched(found.tail.push, ts)
    return [None if x is None else lax.reshape(lax.transpose(x, (*range(1, x.ndim), 0)), (*x.shape[1:], *source.shape)) for x in pushed]


def _cast(x: jax.Array, aval: ShapedArray) -> jax.Array:
    return x if x.dtype == aval.dtype else lax.convert_element_type(x, aval.dtype)


def _batched(apply: Callable[..., Sequence[Tangent]], given: Sequence[Tangent]) -> list[Tangent]:
    """A push or a pull of stacked tangents, of which None is zero."""
    which: list[bool] = []

    def one(*arrays: jax.Array) -> list[jax.Array]:
        values = iter(arrays)
        results = apply(*[None if t is None else next(values) for t in given])
        which[:] = [x is not None for x in results]
        return [x for x in results if x is not None]

    found = iter(jax.vmap(one)(*[t for t in given if t is not None]))
    return [next(found) if is_there else None for is_there in which]
