"""Blocks with values: products and sums of local Jacobians, as operations of a traced program."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.avals import DType, ShapedArray
from dualrev.engines.elimination.structure import Structure, dense, product, sum_of
from dualrev.linear.maps import LinearMap
from dualrev.linear.zeros import Tangent

#: Values: an array with an axis for each symbol of ``Block.over``, or a number that was known when the program was traced.
Values = jax.Array | np.ndarray


@dataclass(frozen=True)
class Move:
    """One output of a linear map as a function of one input, where the map moves and sums entries in a way that deltas can't state."""

    linear_map: LinearMap
    i: int
    o: int
    in_avals: Sequence[ShapedArray]
    out_avals: Sequence[ShapedArray | None]

    def push(self, t: jax.Array) -> jax.Array:
        """The results for tangents stacked along the axes in front."""
        def apply(t: jax.Array) -> Tangent:
            return self.linear_map.push(*[t if k == self.i else None for k in range(len(self.in_avals))])[self.o]

        return _stacked(apply, t, self.in_avals[self.i])

    def pull(self, ct: jax.Array) -> jax.Array:
        """The results for cotangents stacked along the axes in front."""
        def apply(ct: jax.Array) -> Tangent:
            return self.linear_map.pull(*[ct if k == self.o else None for k in range(len(self.out_avals))])[self.i]

        target = self.out_avals[self.o]
        assert target is not None  # an output without a tangent has no block
        return _stacked(apply, ct, target)

    def dense(self) -> jax.Array:
        """All entries, with the axes of the output and then those of the input."""
        aval = self.in_avals[self.i]
        pushed = self.push(jnp.asarray(np.eye(aval.size).reshape((*aval.shape, *aval.shape)), aval.dtype))
        return jnp.moveaxis(pushed, range(aval.ndim), range(-aval.ndim, 0)) if aval.ndim else pushed


def _stacked(apply: Callable[[jax.Array], Tangent], t: jax.Array, aval: ShapedArray) -> jax.Array:
    """A push or a pull of tangents of this type, stacked along any axes in front."""
    def array(t: jax.Array) -> jax.Array:
        found = apply(t)
        assert found is not None  # a block of zeros is no edge
        return found

    n = t.ndim - aval.ndim
    found = jax.vmap(array)(cast(lax.reshape(t, (math.prod(t.shape[:n]), *aval.shape)), aval.dtype))
    return lax.reshape(found, (*t.shape[:n], *found.shape[1:]))


@dataclass(frozen=True)
class Block:
    """A local Jacobian: a structure, and values over symbols of it (not always over all its ``axes``: those of an addition are 1)."""

    structure: Structure
    over: tuple[int, ...]
    values: Values
    #: In place of values: the linear map, which is applied to the other factor of a product.
    move: Move | None = None

    @staticmethod
    def of_dense(entries: jax.Array, structure: Structure) -> Block:
        """The block of this structure that has these entries."""
        positions = (*structure.out, *structure.ins)
        kept = [k for k, a in enumerate(positions) if a in structure.axes]
        left = entries[tuple([slice(None) if k in kept else 0 for k in range(len(positions))])]
        axes = [positions[k] for k in kept]
        values = left if axes == list(structure.axes) else jnp.einsum(left, axes, list(structure.axes))
        return Block(structure, structure.axes, values)

    def dense(self) -> jax.Array:
        """All entries, with the axes of the output and then those of the input."""
        s = self.structure
        positions = (*s.out, *s.ins)
        shape = tuple([s.sizes[a] for a in positions])
        if self.move is not None:
            return self.move.dense()
        spread = masked(spread_over(self.values, self.over, tuple(range(len(positions))), positions), positions, shape)
        return lax.broadcast_in_dim(spread, shape, tuple(range(len(shape)))) if spread.shape != shape else spread


def spread_over(values: Values, over: Sequence[int], symbols: Sequence[int], old: Sequence[int]) -> jax.Array:
    """Values over new symbols, of which several may stand for one old symbol (``old[k]`` for ``symbols[k]``): there they are diagonal.

    The result has an axis for each new symbol, of length 1 where the values do not vary.
    """
    first: dict[int, int] = {}
    for k, symbol in enumerate(old):
        first.setdefault(symbol, k)
    order = sorted(range(len(over)), key=lambda i: first[over[i]])
    moved = jnp.transpose(values, order) if order != list(range(len(over))) else jnp.asarray(values)
    shape = [1] * len(symbols)
    for i in order:
        shape[first[over[i]]] = values.shape[i]
    return lax.reshape(moved, tuple(shape))


def masked(values: jax.Array, symbols: Sequence[int], sizes: Sequence[int]) -> jax.Array:
    """Zeros where axes that share a symbol have different indices."""
    place: dict[int, int] = {}
    for k, symbol in enumerate(symbols):
        first = place.setdefault(symbol, k)
        if first != k and sizes[k] != 1:
            shape = [1] * len(symbols)
            shape[first] = shape[k] = sizes[k]
            values = _times(values, jnp.asarray(np.eye(sizes[k]).reshape(shape), values.dtype))
    return values


def _times(x: jax.Array, y: jax.Array) -> jax.Array:
    """The product of arrays of equal rank, whose axes of length 1 are broadcast."""
    if x.shape == y.shape:
        return lax.mul(x, y)
    shape = lax.broadcast_shapes(x.shape, y.shape)
    n = tuple(range(len(shape)))
    return lax.mul(*[z if z.shape == shape else lax.broadcast_in_dim(z, shape, n) for z in (x, y)])


@overload
def cast(values: jax.Array, dtype: DType) -> jax.Array: ...


@overload
def cast(values: Values, dtype: DType) -> Values: ...


def cast(values: Values, dtype: DType) -> Values:
    """Values in another dtype; of complex ones where a real dtype is asked for, the real part."""
    if values.dtype == dtype:
        return values
    if isinstance(values, np.ndarray):
        return values.astype(dtype)
    if jnp.iscomplexobj(values) and not jnp.issubdtype(dtype, jnp.complexfloating):
        values = lax.real(values)
    return lax.convert_element_type(values, dtype)


def times(a: Block, b: Block, dtype: DType) -> Block:
    """``A B`` in a dtype."""
    p = product(a.structure, b.structure)
    if a.move is not None:
        n, rank = len(a.structure.ins), len(a.structure.out)
        entries = b.dense()
        pushed = a.move.push(jnp.moveaxis(entries, range(n), range(-n, 0)) if n else entries)
        return Block.of_dense(cast(jnp.moveaxis(pushed, range(-rank, 0), range(rank)) if rank else pushed, dtype), p.structure)
    if b.move is not None:
        return Block.of_dense(cast(b.move.pull(a.dense()), dtype), p.structure)
    left, right = [p.left[x] for x in a.over], [p.right[x] for x in b.over]
    wanted = set(p.result)
    over = [x for x in dict.fromkeys((*left, *right)) if x in wanted]
    x, y = cast(a.values, dtype), cast(b.values, dtype)
    repeats = p.repeats
    # Axes that the counted structure varies over, but the values do not: they are summed as equal terms.
    inner = {p.left[s] for s in a.structure.ins} - wanted
    sizes = dict(zip((*p.left, *p.right), (*a.structure.sizes, *b.structure.sizes), strict=True))
    counted = {p.left[s] for s in a.structure.axes} | {p.right[s] for s in b.structure.axes}
    repeats *= math.prod(sizes[s] for s in inner & counted if s not in left and s not in right)
    values = _contracted(x, left, y, right, over)
    if repeats != 1:
        is_known = isinstance(values, np.ndarray)
        values = values * values.dtype.type(repeats) if is_known else lax.mul(values, lax.full_like(values, repeats))
    number = {symbol: k for k, symbol in enumerate(p.result)}
    return Block(p.structure, tuple([number[s] for s in over]), values)


def _contracted(x: Values, left: Sequence[int], y: Values, right: Sequence[int], over: Sequence[int]) -> Values:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        wide = np.result_type(x.dtype, np.float32)  # bfloat16 is none of numpy's own
        return np.asarray(np.einsum(x.astype(wide), list(left), y.astype(wide), list(right), list(over)), x.dtype)
    for one, factor, axes in ((x, y, right), (y, x, left)):
        if isinstance(one, np.ndarray) and one.ndim == 0 and abs(one) == 1 and list(axes) == list(over):
            return factor if one == 1 else -factor if isinstance(factor, np.ndarray) else lax.neg(factor)
    x, y = jnp.asarray(x), jnp.asarray(y)
    if list(left) == list(right) == list(over):
        return lax.mul(x, y)
    if len(set(left) | set(right)) == len(over) and len(set(left)) == len(left) and len(set(right)) == len(right):
        return _times(*[spread_over(z, axes, over, over) for z, axes in ((x, left), (y, right))])
    return jnp.einsum(x, list(left), y, list(right), list(over), precision=lax.Precision.HIGHEST)


def plus(a: Block, b: Block, dtype: DType) -> Block:
    """``A + B`` in a dtype."""
    a, b = [x if x.move is None else Block.of_dense(x.dense(), dense(x.structure.out_shape, x.structure.in_shape)) for x in (a, b)]
    s = sum_of(a.structure, b.structure)
    n = len(s.structure.sizes)
    terms = []
    for term, old in ((a, s.left), (b, s.right)):
        spread = spread_over(cast(term.values, dtype), term.over, range(n), old)
        terms.append(masked(spread, old, s.structure.sizes))
    shape = lax.broadcast_shapes(*[t.shape for t in terms])
    total = lax.add(*[t if t.shape == shape else lax.broadcast_in_dim(t, shape, tuple(range(n))) for t in terms])
    over = tuple([k for k in range(n) if shape[k] != 1])
    return Block(s.structure, over, lax.reshape(total, tuple([shape[k] for k in over])) if len(over) != n else total)
