"""Sweeps over a basis: a push (or pull) of each basis vector, all of them at once or a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from dualrev._jax.avals import ShapedArray, is_differentiable, tangent_aval, typeof
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.source_lines import within
from dualrev._jax.traces import is_eager
from dualrev.engines import forward
from dualrev.linear.basis import Indices, Size, basis_vectors, positions, push_all, shifted
from dualrev.linear.dense import DenseMap
from dualrev.linear.maps import LinearMap
from dualrev.linear.zeros import Tangent, fit
from dualrev.options.settings import Active, widened

#: Vectors of some spaces, stacked: those of the given numbers.
Vectors = Callable[[Indices], Sequence[jax.Array]]


def sweep(apply: Callable[..., Sequence[Tangent]], avals: Sequence[ShapedArray], chunk_size: int | None,
          apply_all: Callable[..., Sequence[Tangent]] | None = None) -> list[jax.Array]:
    """The results of ``apply``, a push or a pull, for each basis vector of the given spaces, stacked along a new first axis.

    Sizes may be symbols.  The rest as in :func:`sweep_vectors`.
    """
    return sweep_vectors(apply, lambda indices: basis_vectors(avals, indices), sum(aval.size for aval in avals), chunk_size, apply_all)


def sweep_vectors(apply: Callable[..., Sequence[Tangent]], vectors: Vectors, n: Size, chunk_size: int | None,
                  apply_all: Callable[..., Sequence[Tangent]] | None = None) -> list[jax.Array]:
    """The results of ``apply``, a push or a pull, for ``n`` vectors, stacked along a new first axis.

    ``chunk_size`` bounds the number of vectors in memory; ``apply_all`` takes stacked vectors, where ``vmap`` of ``apply`` will not do.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")

    def several(indices: Indices) -> list[jax.Array]:
        on_stack = apply_all or jax.vmap(lambda *t: list(apply(*t)))
        with within("directions"):
            return list(on_stack(*vectors(indices)))  # type: ignore[arg-type]  # no result is a symbolic zero

    if chunk_size is None:
        return several(positions(n))
    if is_symbolic_dim(n):
        return _padded_chunks(several, n, chunk_size)  # type: ignore[arg-type]
    if chunk_size >= n:
        return several(positions(n))
    if is_eager(()):
        chunks = [several(shifted(positions(min(chunk_size, n - start)), start)) for start in range(0, n, chunk_size)]
        return [jnp.concatenate(parts) for parts in zip(*chunks, strict=True)]
    return list(lax.map(lambda i: list(apply(*[b[0] for b in vectors(i[None])])), positions(n), batch_size=chunk_size))


def _padded_chunks(several: Callable[[Indices], list[jax.Array]], n: Size, chunk_size: int) -> list[jax.Array]:
    """As :func:`sweep` where ``n`` is a symbol: chunks of one size, the last one padded with zero vectors."""
    n_chunks = (n + (chunk_size - 1)) // chunk_size
    starts = lax.iota(jnp.int32, n_chunks) * chunk_size
    stacked = lax.map(lambda start: several(lax.add(lax.iota(jnp.int32, chunk_size), lax.broadcast(start, (chunk_size,)))), starts)
    return [lax.slice_in_dim(lax.reshape(x, (n_chunks * chunk_size, *x.shape[2:])), 0, n) for x in stacked]


def columns(stacked: Sequence[jax.Array], in_avals: Sequence[ShapedArray],
            out_avals: Sequence[ShapedArray]) -> list[list[jax.Array]]:
    """Blocks ``[output][input]`` of shape (output, input) from pushes stacked along their first axis."""
    blocks = []
    for pushed, out_aval in zip(stacked, out_avals, strict=True):
        row: list[jax.Array] = []
        offset: Size = 0
        for aval in in_avals:
            part = lax.slice_in_dim(pushed, offset, offset + aval.size)
            by_input = lax.transpose(part, (*range(1, part.ndim), 0))
            row.append(lax.reshape(by_input, (*out_aval.shape, *aval.shape)))
            offset += aval.size
        blocks.append(row)
    return blocks


def rows(stacked: Sequence[jax.Array], in_avals: Sequence[ShapedArray], out_avals: Sequence[ShapedArray]) -> list[list[jax.Array]]:
    """Blocks ``[output][input]`` of shape (output, input) from pulls stacked along their first axis."""
    blocks: list[list[jax.Array]] = []
    offset: Size = 0
    for out_aval in out_avals:
        blocks.append([lax.reshape(lax.slice_in_dim(pulled, offset, offset + out_aval.size), (*out_aval.shape, *aval.shape))
                       for pulled, aval in zip(stacked, in_avals, strict=True)])
        offset += out_aval.size
    return blocks


def push_columns(call: FlatFunction, flat: Sequence[jax.Array], positions: Sequence[int], n_out: Callable[[], int],
                 chunk_size: int | None, factor: complex = 1) -> tuple[list[jax.Array], list[list[jax.Array]]]:
    """Everything the function returned, and its Jacobian with respect to the inputs at ``positions``, by pushes.

    ``factor`` scales the basis: ``1j`` gives derivatives along the imaginary axis.
    """
    avals = [tangent_aval(typeof(flat[i])) for i in positions]

    def vectors(indices: Indices) -> list[jax.Array]:
        return [t if factor == 1 else t * factor for t in basis_vectors(avals, indices)]

    results, stacked = push_vectors(call, flat, positions, n_out, vectors, sum(aval.size for aval in avals), chunk_size)
    if not positions:
        return results, [[] for _ in results[: n_out()]]
    return results, columns(stacked, avals, [tangent_aval(typeof(x)) for x in results[: n_out()]])


def push_vectors(call: FlatFunction, flat: Sequence[jax.Array], positions: Sequence[int], n_out: Callable[[], int],
                 vectors: Vectors, n: Size, chunk_size: int | None) -> tuple[list[jax.Array], list[jax.Array]]:
    """Everything the function returned, and the pushes of ``n`` tangents of the inputs at ``positions``, stacked."""
    results: list[jax.Array] = []

    def push(tangents: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent]]:
        given: list[Tangent] = [None] * len(flat)
        for i, t in zip(positions, tangents, strict=True):
            given[i] = t
        outs, ts = forward.push_through(call, flat, given)
        # An integer output has zeros of its own dtype for derivatives, as in jax.
        return outs, [lax.full(x.shape, 0, x.dtype) if t is None else fit(t, typeof(x))
                      for x, t in zip(map(jnp.asarray, outs[: n_out()]), ts[: n_out()], strict=True)]

    def push_together(*tangents: jax.Array) -> list[Tangent]:
        aside: dict[int, Any] = {}  # results beside the outputs, which need not be arrays

        def push_arrays(ts: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent]]:
            outs, outs_t = push(ts)
            aside.update((i, x) for i, x in enumerate(outs) if not isinstance(x, jax.Array))
            return [x for i, x in enumerate(outs) if i not in aside], outs_t

        arrays, outs_t = push_all(push_arrays, tangents)
        found = iter(arrays)
        results[:] = [aside[i] if i in aside else next(found) for i in range(len(aside) + len(arrays))]
        return outs_t

    in_loop = chunk_size is not None and not is_eager(())
    if not positions:
        results[:] = call(*flat)
        return results, []
    stacked = sweep_vectors(lambda *ts: push(ts)[1], vectors, n, chunk_size, push_together)
    if in_loop or not stacked:  # values of a traced loop are not available outside it
        results[:] = call(*flat)
    return results, stacked


class FlatCall(Protocol):
    """A flat function, of whose results the first ``n_out`` are outputs once it has run."""

    n_out: int

    def __call__(self, *flat: jax.Array) -> Sequence[jax.Array]: ...


def dense_map(call: FlatCall, flat: Sequence[jax.Array], active: Sequence[Active],
              chunk_size: int | None) -> tuple[list[jax.Array], DenseMap]:
    """Everything the function returned, and its derivative as a matrix, by pushes.

    A function of complex inputs need not be holomorphic, so both real and imaginary directions are pushed.
    """
    positions = [i for i, flag in enumerate(active) if flag]
    results, real = push_columns(call, flat, positions, lambda: call.n_out, chunk_size)
    imaginary_in = [i for i in positions if jnp.iscomplexobj(flat[i])]
    imaginary: list[list[jax.Array | None]] = [[None] * len(positions) for _ in real]
    if imaginary_in:
        _, found = push_columns(call, flat, imaginary_in, lambda: call.n_out, chunk_size, factor=1j)
        for row, blocks in zip(imaginary, found, strict=True):
            for i, block in zip(imaginary_in, blocks, strict=True):
                row[positions.index(i)] = block
    outs = results[: call.n_out]
    differentiable = [is_differentiable(typeof(x)) for x in outs]
    nothing: list[jax.Array | None] = [None] * len(positions)
    return results, DenseMap([row if d else nothing for row, d in zip(real, differentiable, strict=True)],
                             [row if d else nothing for row, d in zip(imaginary, differentiable, strict=True)],
                             tuple([widened(tangent_aval(typeof(flat[i])), active[i]) for i in positions]))


def dense_of(linear_map: LinearMap, in_avals: Sequence[ShapedArray], out_avals: Sequence[ShapedArray]) -> DenseMap:
    """A linear map as a matrix, by pushing a basis through it; also one over the integers."""

    def push(*tangents: Tangent) -> list[jax.Array]:
        return [lax.full(a.shape, 0, a.dtype) if t is None else t
                for t, a in zip(linear_map.push(*tangents), out_avals, strict=True)]

    real = columns(sweep(push, in_avals, None), in_avals, out_avals)
    imaginary: list[list[jax.Array | None]] = [[None] * len(in_avals) for _ in real]
    if any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in in_avals):
        turned = columns(sweep(lambda *ts: push(*[t * 1j if jnp.iscomplexobj(t) else t for t in ts]), in_avals, None),
                         in_avals, out_avals)
        imaginary = [[b if jnp.issubdtype(a.dtype, jnp.complexfloating) else None for b, a in zip(row, in_avals, strict=True)]
                     for row in turned]
    return DenseMap(real, imaginary, tuple(in_avals))
