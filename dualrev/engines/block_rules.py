"""Linear operations and products on derivatives in blocks (:mod:`dualrev.engines.direction_blocks`), as the axes of their rows say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.primitives import Params
from dualrev.engines.direction_blocks import Block, Blocks, Key, inner, loosened, settled
from dualrev.linear.zeros import Tangent
from dualrev.table.axes import Axes
from dualrev.table.rows import Row

#: An operation on whole operands: one tangent for each result.
Apply: TypeAlias = Callable[..., Sequence[Tangent]]


def pushed(row: Row, primals: Sequence[jax.Array], J: Sequence[Blocks | None], params: Params) -> list[Blocks | jax.Array | None]:
    """``Df`` of all directions, for each result, of a row that states its axes."""
    axes = row.axes(primals, params)
    assert axes is not None  # which is why this is called
    sizes = next(b.sizes for b in J if b is not None)
    found: list[list[Block]] = [[] for _ in axes.results]
    for key, arrays in _groups(row, J):
        for blocks, block in zip(found, _applied(row, primals, params, axes, key, arrays), strict=True):
            if block is not None:
                blocks.append(block)
    return [settled(blocks, sizes) for blocks in found]


def crossed(row: Row, primals: Sequence[jax.Array], J: Sequence[Blocks | None], params: Params) -> Tangent:
    """``Σ f(J_x[i], J_y[i])`` of a product over all directions."""
    axes = row.axes(primals, params)
    assert axes is not None  # as for :func:`pushed`
    p, q = sorted(row.linear_in)  # type: ignore[arg-type]  # of a product it is a set of two
    x, y = J[p], J[q]
    assert x is not None and y is not None

    def times(u: jax.Array, v: jax.Array) -> jax.Array:
        return row.bind([{p: u, q: v}.get(i, operand) for i, operand in enumerate(primals)], params)[0]

    names = tuple([[s[0] if s else -1 - axis - i * operand.ndim for axis, s in enumerate(axes.operands[i])]
                   for i, operand in ((p, primals[p]), (q, primals[q]))])
    places = {s[0]: axis for axis, s in enumerate(axes.results[0]) if s}
    return inner(x, y, times, names, places)  # type: ignore[arg-type]  # two of them


def _groups(row: Row, J: Sequence[Blocks | None]) -> list[tuple[Key, dict[int, jax.Array]]]:
    """Blocks that are pushed together: of a product each by itself, else those of several operands that are tied alike."""
    found: dict[object, tuple[Key, dict[int, jax.Array]]] = {}
    for i, blocks in enumerate(J):
        if blocks is not None:
            for key, array in blocks.items():
                group = (key, i) if row.kind == "product" else key
                found.setdefault(group, (key, {}))[1][i] = array
    return list(found.values())


def _applied(row: Row, primals: Sequence[jax.Array], params: Params, axes: Axes, key: Key,
             arrays: dict[int, jax.Array]) -> list[Block | None]:
    """The blocks of the results of some blocks of operands, with one key."""
    while True:
        symbols = [_symbols(axes, key, i, arrays) for i in range(len(key.factors))]
        loose = [i for i, s in enumerate(symbols) if s is None]
        placed = [_places(key, symbols, result, axes) for result in axes.results] if not loose else []
        loose += sorted({i for found in placed if isinstance(found, set) for i in found})
        if not loose:
            break
        pairs = {i: loosened((key, array), loose) for i, array in arrays.items()}
        key, arrays = next(iter(pairs.values()))[0], {i: array for i, (_, array) in pairs.items()}
    operands: list[jax.Array] = list(primals)
    levels: list[set[int]] = []  # of each leading axis, the operands that have it
    for i, (_, axis) in enumerate(key.factors):
        s = symbols[i]
        if axis is None:
            levels.append(set(arrays))
        elif s is not None and s and s[0] in axes.summed:
            which = set()
            for k, operand in enumerate(operands):
                if (s[0],) not in axes.operands[k]:
                    continue
                at = list(axes.operands[k]).index((s[0],))
                if k in arrays:
                    arrays = {**arrays, k: _in_front(arrays[k], len(levels), _leading(key, i, axes, symbols), at)}
                    operands[k] = lax.slice_in_dim(operand, 0, 1, axis=at)
                    which.add(k)
                elif row.kind == "product":
                    before = sum(k in level for level in levels)
                    operands[k] = _in_front(operand, before, before, at)
                    which.add(k)
                else:
                    operands[k] = lax.slice_in_dim(operand, 0, 1, axis=at)
            levels.append(which)
    order = [*arrays]

    def apply(*values: jax.Array) -> list[Tangent]:
        inside, tangents = values[: len(operands)], dict(zip(order, values[len(operands):], strict=True))
        if row.kind == "product":
            return list(row.bind([tangents.get(k, x) for k, x in enumerate(inside)], params))
        return row.first(inside, [tangents.get(k) for k in range(len(inside))], params)

    found: Apply = apply
    for level in reversed(levels):
        own = [0 if k in level and k not in arrays else None for k in range(len(operands))]
        found = jax.vmap(found, in_axes=(*own, *[0 if k in level else None for k in order]))
    moved = found(*operands, *[arrays[k] for k in order])
    return [None if x is None else (factors, x) for x, factors in zip(moved, placed, strict=True)]  # type: ignore[misc]


def _symbols(axes: Axes, key: Key, i: int, arrays: dict[int, jax.Array]) -> tuple[int, ...] | None:
    """The symbols of the axis that factor ``i`` is tied to: none for a leading one, None if the results cannot keep the tie."""
    axis = key.factors[i][1]
    if axis is None:
        return ()
    found = {axes.operands[k][axis] for k in arrays}
    if len(found) > 1 or not (symbols := found.pop()):
        return None
    if symbols[0] in axes.summed:
        return symbols if len(symbols) == 1 else None
    return symbols


def _places(key: Key, symbols: Sequence[tuple[int, ...] | None], result: Sequence[tuple[int, ...] | None],
            axes: Axes) -> Key | set[int]:
    """The structure of a result; or the factors that have to lead, as the result has not their axes."""
    parts: list[tuple[int, int | None, int]] = []  # length, symbol and factor
    for i, ((n, axis), s) in enumerate(zip(key.factors, symbols, strict=True)):
        if axis is None or not s or s[0] in axes.summed:
            parts.append((n, None, i))
        else:
            parts += [(axes.lengths.get(name, n) if len(s) > 1 else n, name, i) for name in s]
    factors: list[tuple[int, int | None]] = []
    missing: set[int] = set()
    k = 0
    while k < len(parts):
        n, name, i = parts[k]
        k += 1
        if name is None:
            factors.append((n, None))
            continue
        at = next((b for b, s in enumerate(result) if s and name in s), None)
        whole = () if at is None else result[at] or ()
        run = [part[1] for part in parts[k - 1: k - 1 + len(whole)]]
        if at is None or run != list(whole):
            missing.add(i)
            continue
        for m, _, _ in parts[k: k - 1 + len(whole)]:
            n *= m
        k += len(whole) - 1
        factors.append((n, at))
    return missing or Key(key.leaf, tuple(factors))


def _leading(key: Key, i: int, axes: Axes, symbols: Sequence[tuple[int, ...] | None]) -> int:
    """How many leading axes a block has when the axis of factor ``i`` is about to be one: those of summed factors before it are."""
    earlier = sum(axis is not None and bool(s) and s[0] in axes.summed  # type: ignore[index]  # it is not empty
                  for (_, axis), s in zip(key.factors[:i], symbols, strict=False))
    return key.n_leading + earlier


def _in_front(x: jax.Array, to: int, n_leading: int, axis: int) -> jax.Array:
    """``x`` with one of its axes as leading axis ``to``, and of length one in its place."""
    moved = jnp.moveaxis(x, n_leading + axis, to)
    return lax.expand_dims(moved, (n_leading + 1 + axis,))
