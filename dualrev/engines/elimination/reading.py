"""Local Jacobians, read from the linear maps of a tape: the structure and the values of each block.

The structure of a linear operation, or of a product, is found from its own push: of a basis, at random residuals, once for each use
that differs in shapes and parameters.  The values are then a push of a few seeds: inputs whose columns do not meet are pushed together.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.traces import Tracer, evaluating
from dualrev.engines.elimination.blocks import Block, Move, cast
from dualrev.engines.elimination.structure import Structure, dense, structure_of
from dualrev.linear.maps import LinearMap
from dualrev.linear.zeros import Tangent
from dualrev.table.operations import OpMap

#: The largest Jacobian, in entries, whose structure is looked for.
MOST_PROBED = 1 << 16
#: What is known of a block: its structure; with a number, where that is every value; with None in place of a number, where the map
#: itself is to be applied; nothing but None, where the block is zero.
Known: TypeAlias = Structure | tuple[Structure, complex | None] | None
#: Uses of operations whose structure is kept.
MOST_KEPT = 4096


def read(linear_map: LinearMap, i: int, o: int, in_avals: Sequence[ShapedArray],
         out_avals: Sequence[ShapedArray | None]) -> Block | None:
    """The Jacobian of output ``o`` by input ``i``; None where it is zero."""
    source, target = in_avals[i], out_avals[o]
    assert target is not None
    known = _known(linear_map, i, o, source, target)
    if known is None:
        return None
    if isinstance(known, Structure):
        return _by_seeds(linear_map, i, o, in_avals, out_avals, known)
    structure, constant = known
    if constant is not None:
        return Block(structure, (), np.asarray(constant, target.dtype))
    return Block(structure, structure.axes, np.zeros(()), Move(linear_map, i, o, in_avals, out_avals))


def _known(linear_map: LinearMap, i: int, o: int, source: ShapedArray, target: ShapedArray) -> Known:
    unknown = dense(target.shape, source.shape)
    if not isinstance(linear_map, OpMap):
        return unknown
    site = linear_map.site
    row = site.row
    if row.kind in ("linear", "product"):
        if row.kind == "product" and site.positions[i] not in row.linear_in:
            return None  # an operand without a derivative
        is_large = source.size * target.size > MOST_PROBED
        has_indices = any(isinstance(x, Tracer) and not jnp.issubdtype(x.dtype, jnp.inexact)
                          for x in jax.tree_util.tree_leaves(linear_map.residuals))
        if row.is_diagonal and (is_large or has_indices or (row.kind == "product" and source.shape == target.shape == ())):
            return _entrywise(source, target)
        if is_large or has_indices or not source.size * target.size:
            moves = row.kind == "linear" and row.cost == "moves"
            return (dense(target.shape, source.shape, "copy"), None) if moves else unknown
        return _probed(linear_map, i, o, source, target)
    return _entrywise(source, target) if row.is_diagonal else unknown


def _entrywise(source: ShapedArray, target: ShapedArray) -> Structure:
    """Of an operation applied entry by entry, whose operands are broadcast from scalars and axes of length 1."""
    n = target.ndim
    sizes = dict(enumerate(target.shape))
    ins = list(range(n)) if source.ndim == n else []
    for k in range(len(ins)):
        if source.shape[k] != target.shape[k]:
            sizes[n + k], ins[k] = 1, n + k
    return structure_of(range(n), ins, range(n), sizes, "full")


def is_complex_linear(linear_map: LinearMap, i: int, o: int, source: ShapedArray, target: ShapedArray) -> bool:
    """Whether a block of complex numbers is the local Jacobian: False where the map is linear over the reals only, or may be."""
    if not jnp.issubdtype(source.dtype, jnp.complexfloating):
        return True
    if not isinstance(linear_map, OpMap) or not jnp.issubdtype(target.dtype, jnp.complexfloating):
        return False
    row = linear_map.site.row
    if row.kind != "linear":
        return row.kind == "product" or row.is_diagonal
    if any(isinstance(x, Tracer) for x in jax.tree_util.tree_leaves(linear_map.residuals)):
        return row.cost == "moves"
    with evaluating():
        ones = jnp.ones(source.shape, source.dtype)
        n = len(linear_map.site.positions)
        once, turned = [linear_map.site.push(linear_map.residuals, tuple([t if k == i else None for k in range(n)]))[o]
                        for t in (ones, ones * 1j)]
        return turned is not None and once is not None and bool(jnp.allclose(turned, once * 1j))


_probes: dict[Any, Known] = {}


def _probed(linear_map: OpMap, i: int, o: int, source: ShapedArray, target: ShapedArray) -> Known:
    """The structure of a linear operation or a product, from its entries at random residuals."""
    leaves, tree = jax.tree_util.tree_flatten(linear_map.residuals)
    site = linear_map.site
    types = [typeof(x) for x in leaves]  # a literal of a program has neither shape nor dtype
    exact = [np.asarray(x) for x, a in zip(leaves, types, strict=True) if not jnp.issubdtype(a.dtype, jnp.inexact)]
    shapes = tuple([(a.shape, str(a.dtype)) for a in types])
    key = (site, i, o, source.shape, str(source.dtype), target.shape, shapes, tuple([x.tobytes() for x in exact]))
    if site.key is not None and key in _probes:
        return _probes[key]
    rng = np.random.default_rng(0)
    with evaluating():
        drawn = [jnp.asarray(rng.uniform(1.5, 2.5, a.shape) if jnp.issubdtype(a.dtype, jnp.inexact) else np.asarray(x), a.dtype)
                 for x, a in zip(leaves, types, strict=True)]
        probe = OpMap(site, jax.tree_util.tree_unflatten(tree, drawn))
        n = len(site.positions)

        def push(t: jax.Array) -> Tangent:
            return probe.site.push(probe.residuals, tuple([t if k == i else None for k in range(n)]))[o]

        basis = jnp.asarray(np.eye(source.size).reshape((source.size, *source.shape)), source.dtype)
        found = jax.vmap(push)(basis)
        entries = np.zeros(()) if found is None else np.asarray(found).astype(np.complex128 if jnp.iscomplexobj(found) else np.float64)
    result: Known = None
    if entries.any():
        by_input = entries.reshape((*source.shape, *target.shape))
        entries = np.moveaxis(by_input, range(source.ndim), range(-source.ndim, 0)) if source.ndim else by_input
        result = _structure_in(entries, target.ndim, site.row.kind == "linear", site.row.is_diagonal)
    if site.key is not None:
        if len(_probes) >= MOST_KEPT:
            _probes.clear()
        _probes[key] = result
    return result


def _structure_in(entries: np.ndarray, rank: int, is_constant: bool, is_entrywise: bool) -> Known:
    """The structure of these entries, output axes first; ``is_constant``: they are the entries at all residuals."""
    shape = entries.shape
    symbols = list(range(len(shape)))
    where = np.argwhere(entries)
    for b in range(rank, len(shape)):
        for a in range(rank):
            if shape[a] == shape[b] != 1 and symbols[b] == b and np.array_equal(where[:, a], where[:, b]):
                symbols[b] = a
    sizes = dict(enumerate(shape))
    names = list(dict.fromkeys(symbols))
    values = np.einsum(entries, symbols, names)
    axes = [name for k, name in enumerate(names) if not np.array_equal(values, np.broadcast_to(values.take([0], k), values.shape))]
    first = values.flat[0]
    if is_constant and not axes:
        weight = "unit" if is_entrywise else "copy"
        structure = structure_of(symbols[:rank], symbols[rank:], symbols if is_entrywise else (), sizes,
                                 weight if abs(first) == 1 else "full")  # type: ignore[arg-type]
        return structure, first
    if is_constant and set(np.unique(values)) <= {0, 1}:
        return dense(shape[:rank], shape[rank:], "copy"), None
    return structure_of(symbols[:rank], symbols[rank:], axes, sizes, "full")


def _by_seeds(linear_map: LinearMap, i: int, o: int, in_avals: Sequence[ShapedArray], out_avals: Sequence[ShapedArray | None],
              structure: Structure) -> Block | None:
    """The block with this structure: pushes, or pulls if these are fewer, of seeds in which diagonal axes are summed."""
    s = structure
    target = out_avals[o]
    assert target is not None
    loose_in = [k for k, a in enumerate(s.ins) if a not in s.out and s.sizes[a] != 1]
    loose_out = [k for k, a in enumerate(s.out) if a not in s.ins and s.sizes[a] != 1]
    n_push = int(np.prod([s.in_shape[k] for k in loose_in], dtype=int))
    n_pull = int(np.prod([s.out_shape[k] for k in loose_out], dtype=int))
    pushes = n_push <= n_pull
    aval, axes, loose, others = (in_avals[i], s.ins, loose_in, s.out) if pushes else (target, s.out, loose_out, s.ins)

    def move(t: jax.Array) -> Tangent:
        if pushes:
            return linear_map.push(*[t if k == i else None for k in range(len(in_avals))])[o]
        return linear_map.pull(*[t if k == o else None for k in range(len(out_avals))])[i]

    seeds = _seeds(aval.shape, tuple(loose))
    moved = jax.vmap(move)(jnp.asarray(seeds, aval.dtype)) if loose else move(jnp.asarray(seeds[0], aval.dtype))
    if moved is None:
        return None
    moved = lax.reshape(moved, (*[aval.shape[k] for k in loose], *moved.shape[1 if loose else 0:]))
    positions = [*[axes[k] for k in loose], *others]
    kept = [k for k, a in enumerate(positions) if a in s.axes]
    left = moved[tuple([slice(None) if k in kept else 0 for k in range(len(positions))])] if len(kept) != len(positions) else moved
    names = [positions[k] for k in kept]
    values = left if names == list(s.axes) else jnp.einsum(left, names, list(s.axes))
    return Block(s, s.axes, cast(values, target.dtype))


@functools.lru_cache(maxsize=256)
def _seeds(shape: tuple[int, ...], loose: tuple[int, ...]) -> np.ndarray:
    """A basis along the loose axes, ones along the others."""
    n = int(np.prod([shape[k] for k in loose], dtype=int))
    basis = np.eye(n).reshape(n, *[shape[k] if k in loose else 1 for k in range(len(shape))])
    return np.broadcast_to(basis, (n, *shape))
