"""Sweeps over a basis: many pushes (or pulls) at once, all of them or a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from dualrev._jax.avals import is_differentiable, tangent_aval, typeof
from dualrev._jax.traces import is_eager
from dualrev.engines import forward
from dualrev.linear.basis import basis_vectors, positions, push_all, shifted
from dualrev.linear.dense import DenseMap
from dualrev.linear.maps import LinearMap
from dualrev.linear.zeros import fit
from dualrev.options.settings import Active, widened


def sweep(move: Callable[..., Sequence[Any]], avals: Sequence[Any], chunk_size: int | None,
          move_all: Callable[..., Sequence[Any]] | None = None) -> list[Any]:
    """``move`` applied to each basis vector of the given spaces, stacked along a new first axis.

    ``chunk_size`` bounds how many are in memory at once; ``move_all`` applies it to stacked vectors, where that is not left to vmap.
    Sizes may be symbols.
    """
    n: Any = sum(aval.size for aval in avals)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")

    def several(indices: Any) -> list[Any]:
        moves = move_all or jax.vmap(lambda *t: list(move(*t)))
        return list(moves(*basis_vectors(avals, indices)))

    if chunk_size is None:
        return several(positions(n))
    if is_symbolic_dim(n):
        return _padded_chunks(several, n, chunk_size)
    if chunk_size >= n:
        return several(positions(n))
    if is_eager(()):
        chunks = [several(shifted(positions(min(chunk_size, n - start)), start)) for start in range(0, n, chunk_size)]
        return [jnp.concatenate(parts) for parts in zip(*chunks, strict=True)]
    return list(lax.map(lambda i: list(move(*[b[0] for b in basis_vectors(avals, i[None])])), positions(n),
                        batch_size=chunk_size))


def _padded_chunks(several: Callable[[Any], list[Any]], n: Any, chunk_size: int) -> list[Any]:
    """As :func:`sweep` for ``n`` that is a symbol: chunks of one size, the last of which goes on with zero vectors."""
    n_chunks = (n + (chunk_size - 1)) // chunk_size
    starts = lax.iota(jnp.int32, n_chunks) * chunk_size
    stacked = lax.map(lambda start: several(lax.add(lax.iota(jnp.int32, chunk_size), lax.broadcast(start, (chunk_size,)))), starts)
    return [lax.slice_in_dim(lax.reshape(x, (n_chunks * chunk_size, *x.shape[2:])), 0, n) for x in stacked]


def columns(stacked: Sequence[Any], in_avals: Sequence[Any], out_avals: Sequence[Any]) -> list[list[Any]]:
    """Blocks ``[output][input]`` of shape (output, input) from pushes stacked along their first axis."""
    blocks = []
    for pushed, out_aval in zip(stacked, out_avals, strict=True):
        row: list[Any] = []
        offset: Any = 0
        for aval in in_avals:
            part = lax.slice_in_dim(pushed, offset, offset + aval.size)
            moved = lax.transpose(part, (*range(1, part.ndim), 0))
            row.append(lax.reshape(moved, (*out_aval.shape, *aval.shape)))
            offset += aval.size
        blocks.append(row)
    return blocks


def rows(stacked: Sequence[Any], in_avals: Sequence[Any], out_avals: Sequence[Any]) -> list[list[Any]]:
    """Blocks ``[output][input]`` of shape (output, input) from pulls stacked along their first axis."""
    blocks: list[list[Any]] = []
    offset: Any = 0
    for out_aval in out_avals:
        blocks.append([lax.reshape(lax.slice_in_dim(pulled, offset, offset + out_aval.size), (*out_aval.shape, *aval.shape))
                       for pulled, aval in zip(stacked, in_avals, strict=True)])
        offset += out_aval.size
    return blocks


def push_columns(call: Callable[..., Sequence[Any]], flat: Sequence[Any], moving: Sequence[int], n_out: Callable[[], int],
                 chunk_size: int | None, factor: complex = 1) -> tuple[list[Any], list[list[Any]]]:
    """Everything the function returned, and its Jacobian with respect to the inputs ``moving``, by pushes of dual numbers.

    ``factor`` scales the basis: ``1j`` gives derivatives along the imaginary axis.
    """
    results: list[Any] = []

    def push(tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        given: list[Any] = [None] * len(flat)
        for i, t in zip(moving, tangents, strict=True):
            given[i] = t if factor == 1 else t * factor
        outs, ts = forward.push_through(call, flat, given)
        # An integer output has zeros of its own dtype for derivatives, as in jax.
        return outs, [lax.full(x.shape, 0, x.dtype) if t is None else fit(t, typeof(x))
                      for x, t in zip(map(jnp.asarray, outs[: n_out()]), ts[: n_out()], strict=True)]

    def push_together(*tangents: Any) -> list[Any]:
        aside: dict[int, Any] = {}  # what a function returns beside its outputs need not be an array

        def push_arrays(ts: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            outs, moved = push(ts)
            aside.update((i, x) for i, x in enumerate(outs) if not isinstance(x, jax.Array))
            return [x for i, x in enumerate(outs) if i not in aside], moved

        arrays, moved = push_all(push_arrays, tangents)
        found = iter(arrays)
        results[:] = [aside[i] if i in aside else next(found) for i in range(len(aside) + len(arrays))]
        return moved

    avals = [tangent_aval(typeof(flat[i])) for i in moving]
    in_loop = chunk_size is not None and not is_eager(())
    if not moving:
        results[:] = call(*flat)
        return results, [[] for _ in results[: n_out()]]
    stacked = sweep(lambda *ts: push(ts)[1], avals, chunk_size, push_together)
    if in_loop or not stacked:  # what a traced loop computes inside stays inside
        results[:] = call(*flat)
    return results, columns(stacked, avals, [tangent_aval(typeof(x)) for x in results[: n_out()]])


def dense_map(call: Any, flat: Sequence[Any], active: Sequence[Active], chunk_size: int | None) -> tuple[list[Any], DenseMap]:
    """Everything the function returned, and its derivative as a matrix, by pushes.

    A function of complex inputs need not be holomorphic, so both real and imaginary directions are pushed.
    """
    moving = [i for i, moves in enumerate(active) if moves]
    results, real = push_columns(call, flat, moving, lambda: call.n_out, chunk_size)
    imaginary_in = [i for i in moving if jnp.iscomplexobj(flat[i])]
    imaginary: list[list[Any]] = [[None] * len(moving) for _ in real]
    if imaginary_in:
        _, found = push_columns(call, flat, imaginary_in, lambda: call.n_out, chunk_size, factor=1j)
        for row, blocks in zip(imaginary, found, strict=True):
            for i, block in zip(imaginary_in, blocks, strict=True):
                row[moving.index(i)] = block
    outs = results[: call.n_out]
    differentiable = [is_differentiable(typeof(x)) for x in outs]
    real = [row if d else [None] * len(moving) for row, d in zip(real, differentiable, strict=True)]
    imaginary = [row if d else [None] * len(moving) for row, d in zip(imaginary, differentiable, strict=True)]
    return results, DenseMap(real, imaginary, tuple([widened(tangent_aval(typeof(flat[i])), active[i]) for i in moving]))


def dense_of(linear_map: LinearMap, in_avals: Sequence[Any], out_avals: Sequence[Any]) -> DenseMap:
    """A linear map as a matrix, by pushing a basis through it; integers are as good a ring as any."""

    def push(*tangents: Any) -> list[Any]:
        return [lax.full(a.shape, 0, a.dtype) if t is None else t
                for t, a in zip(linear_map.push(*tangents), out_avals, strict=True)]

    real = columns(sweep(push, in_avals, None), in_avals, out_avals)
    imaginary: list[list[Any]] = [[None] * len(in_avals) for _ in real]
    if any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in in_avals):
        turned = columns(sweep(lambda *ts: push(*[t * 1j if jnp.iscomplexobj(t) else t for t in ts]), in_avals, None),
                         in_avals, out_avals)
        imaginary = [[b if jnp.issubdtype(a.dtype, jnp.complexfloating) else None for b, a in zip(row, in_avals, strict=True)]
                     for row in turned]
    return DenseMap(real, imaginary, tuple(in_avals))
