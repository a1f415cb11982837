"""Unit tangents, and Jacobians by pushing all of them at once.

A complex input has unit tangents along both axes, as its derivative need only be linear over the reals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

from dualrev._jax.avals import ShapedArray, convert_to, typeof
from dualrev._jax.sharding import explicit_sharding, resharded, stacked_aval, vary_as
from dualrev._jax.source_lines import within
from dualrev._jax.traces import first_member
from dualrev._jax.trees import PyTree
from dualrev.linear.dense import DenseMap
from dualrev.linear.zeros import Tangent, zeros_of

#: A number of elements; in an exported program it may be an expression of symbols, which jax lets stand where an int does.
Size: TypeAlias = int

#: Numbers of basis vectors.
Indices: TypeAlias = jax.Array | np.ndarray


def basis_vectors(avals: Sequence[ShapedArray], indices: Indices) -> list[jax.Array]:
    """Rows ``indices`` of the standard basis of the product of the given spaces: one array ``(k, *shape)`` for each space."""
    blocks: list[jax.Array] = []
    offset: Size = 0
    for aval in avals:
        hot = lax.eq(lax.broadcast_in_dim(shifted(indices, -offset), (*indices.shape, aval.size), (0,)),
                     lax.broadcasted_iota(indices.dtype, (*indices.shape, aval.size), 1))
        block = vary_as(lax.reshape(convert_to(hot, aval), (*indices.shape, *aval.shape)), aval)
        if explicit_sharding(aval) is not None:
            block = resharded(block, explicit_sharding(stacked_aval(aval, *indices.shape)))
        blocks.append(block)
        offset += aval.size
    return blocks


def positions(n: Size) -> Indices:
    """``0, ..., n - 1``.  Where ``n`` is a symbol of an exported program, it is an operation of that program."""
    return lax.iota(np.int32, n) if is_symbolic_dim(n) else np.arange(n, dtype=np.int32)  # type: ignore[arg-type]


def shifted(indices: Indices, by: Size) -> Indices:
    """``indices + by``, where ``by`` may be a symbol."""
    if not is_symbolic_dim(by):
        return indices + by
    return lax.add(indices, lax.broadcast(lax.convert_element_type(jnp.asarray(by), indices.dtype), indices.shape))


def count(aval: ShapedArray) -> Size:
    """How many unit tangents an input has: an int, or a symbol."""
    n: Size = aval.size
    return n * (2 if _is_complex(aval) else 1)


def units(aval: ShapedArray) -> jax.Array:
    """The unit tangents of an input, along a new first axis."""
    (units,) = basis_vectors([aval], positions(aval.size))
    return lax.concatenate([units, units * 1j], 0) if _is_complex(aval) else units


def unit_tangents(avals: Sequence[ShapedArray]) -> list[jax.Array]:
    """For each of several inputs, its tangents in the basis of all of them."""
    return [lax.concatenate([units(a) if i == j else zeros_of(a.update(shape=(count(b), *a.shape))) for j, b in enumerate(avals)], 0)
            for i, a in enumerate(avals)]


def push_all(push: Callable[[Sequence[Tangent]], tuple[Sequence[jax.Array], Sequence[Tangent]]],
             tangents: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent]]:
    """``(outs, tangents out)`` for tangents stacked along their first axis, of which None is zero; outs are computed once."""

    if next(t.shape[0] for t in tangents if t is not None) == 0:  # no direction: values come from a push of zero
        outs, moved = push([None if t is None else zeros_of(typeof(t).update(shape=t.shape[1:])) for t in tangents])
        return list(outs), [None if t is None else lax.broadcast(t, (0,)) for t in moved]

    def both(*ts: Tangent) -> tuple[list[jax.Array], list[Tangent]]:
        outs, moved = push(ts)
        # An operation may batch its value along with its tangents: all members are equal then.
        return [first_member(x) for x in outs], list(moved)

    with within("directions"):
        return jax.vmap(both, out_axes=(None, 0))(*tangents)


def along_each(function: Callable[..., Any], *stacked: PyTree) -> Any:
    """``function`` of each of several directions, stacked along first axes: all at once, or one by one where jax cannot batch it."""
    try:
        with within("directions"):
            return jax.vmap(function)(*stacked)
    except NotImplementedError:
        return lax.map(lambda each: function(*each), stacked)


def matrix(moved: Sequence[jax.Array], in_avals: Sequence[ShapedArray]) -> DenseMap:
    """The Jacobian, from the tangents of each output in the basis of these inputs."""
    real: list[list[jax.Array]] = []
    imaginary: list[list[jax.Array | None]] = []
    for stacked in moved:
        row: list[jax.Array] = []
        turned: list[jax.Array | None] = []
        start: Size = 0
        for aval in in_avals:
            row.append(_block(stacked, start, aval))
            turned.append(_block(stacked, start + aval.size, aval) if _is_complex(aval) else None)
            start += count(aval)
        real.append(row)
        imaginary.append(turned)
    return DenseMap(real, imaginary, tuple(in_avals))


def _block(stacked: jax.Array, start: Size, aval: ShapedArray) -> jax.Array:
    part = lax.slice_in_dim(stacked, start, start + aval.size)
    moved = lax.transpose(part, (*range(1, part.ndim), 0))
    return lax.reshape(moved, (*part.shape[1:], *aval.shape))


def _is_complex(aval: ShapedArray) -> bool:
    return bool(jnp.issubdtype(aval.dtype, jnp.complexfloating))
