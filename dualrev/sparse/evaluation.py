"""The compressed matrix by pushes and pulls of colours, and its entries.

A forward colour is pushed as the sum of the unit tangents of its columns, a reverse colour is pulled as that of the unit cotangents of
its rows: ``vmap`` over colours, all at once or a chunk at a time.  Nothing here chooses anything: see
:mod:`dualrev.sparse.colouring.search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from dualrev._jax.avals import ShapedArray, common_dtype, convert_to, tangent_aval, typeof
from dualrev._jax.sharding import vary_as
from dualrev.engines import forward, sweeps
from dualrev.functional import flat_calls
from dualrev.functional.flat_calls import FlatCall
from dualrev.functional.results import pull_flat
from dualrev.linear import zeros
from dualrev.linear.basis import Indices
from dualrev.options.settings import Request
from dualrev.sparse.colouring.recovery import Colouring
from dualrev.sparse.reading import taken

#: So many levels of a substitution are written out; more are a loop.
MOST_LEVELS = 8
#: Vectors of at most so many entries are numbers of the program; larger ones are computed from colours, which takes longer.
MOST_CONSTANTS = 2**20


def colour_vectors(colours: np.ndarray, avals: Sequence[ShapedArray]) -> sweeps.Vectors:
    """The vectors of colours: 1 where an entry has the colour, in spaces that follow each other."""
    parts, start = [], 0
    for aval in avals:
        parts.append(colours[start: start + aval.size].astype(np.int32).reshape(aval.shape))
        start += aval.size

    def vectors(numbers: Indices) -> list[jax.Array]:
        stacked = []
        for part, aval in zip(parts, avals, strict=True):
            shape = (*numbers.shape, *part.shape)
            hot: jax.Array
            if isinstance(numbers, np.ndarray) and math.prod(shape) <= MOST_CONSTANTS:
                hot = jnp.asarray(numbers.reshape(-1, *[1] * part.ndim) == part, aval.dtype)
            else:
                asked = lax.broadcast_in_dim(jnp.asarray(numbers), shape, (0,))
                hot = lax.eq(lax.broadcast_in_dim(jnp.asarray(part), shape, tuple(range(1, len(shape)))), asked)
            stacked.append(vary_as(convert_to(hot, aval), aval))
        return stacked

    return vectors


def on_devices(mesh: Mesh | None, run: Callable[[sweeps.Vectors, int], Sequence[jax.Array]], vectors: sweeps.Vectors, n: int,
               is_padded: bool) -> list[jax.Array]:
    """``run(vectors, n)``, the results for ``n`` vectors stacked, where each device of a mesh takes as many of the vectors as others.

    What ``run`` reads is the same on all devices, and so are the results, which are gathered once.  ``is_padded``: there may be results
    for more vectors, which are zero, so that each device has as many.
    """
    if mesh is None:
        return list(run(vectors, n))
    each = -(-n // mesh.size)

    def on_device(numbers: jax.Array) -> list[jax.Array]:
        found = run(lambda indices: vectors(numbers.at[indices].get(mode="promise_in_bounds")), each)
        return [lax.all_gather(x, mesh.axis_names, tiled=True) for x in found]

    spread = PartitionSpec(mesh.axis_names)
    numbers = jnp.arange(each * mesh.size, dtype=np.int32)
    found = jax.shard_map(on_device, mesh=mesh, in_specs=spread, out_specs=PartitionSpec(), check_vma=False)(numbers)
    return [x if is_padded else lax.slice_in_dim(x, 0, n) for x in found]


def compressed_jacobian(call: FlatCall, flat: Sequence[jax.Array], colouring: Colouring, chunk_size: int | None,
                        request: Request, mesh: Mesh | None = None) -> tuple[list[jax.Array], jax.Array]:
    """Everything the function returned, and the compressed Jacobian: a row for each push, or each pull; of both, one flat array."""
    avals = [tangent_aval(typeof(x)) for x in flat]
    seeds = colour_vectors(colouring.column_colours, avals)
    results: list[jax.Array]
    if not colouring.n_reverse:
        if not colouring.n_forward:
            results = list(call(*flat))
            return results, _joined([], [], results[: call.n_out])
        results, pushed = _pushed(call, flat, lambda: call.n_out, seeds, colouring.n_forward, chunk_size, mesh)
        return results, _joined(pushed, [], results[: call.n_out])
    results, linear_map, s = flat_calls.linearize_flat(call, flat, "reverse", request)
    out_avals = [tangent_aval(a) for a in s.out_avals]
    pushed = []
    if colouring.n_forward:
        def push(*tangents: jax.Array) -> list[jax.Array]:
            return [zeros.fit(t, a) for t, a in zip(linear_map.push(*tangents), out_avals, strict=True)]

        pushed = on_devices(mesh, lambda vectors, n: sweeps.sweep_vectors(push, vectors, n, chunk_size), seeds, colouring.n_forward,
                            is_padded=False)

    def pull(*cotangents: jax.Array) -> list[jax.Array]:
        return [zeros.fit(ct, a) for ct, a in zip(linear_map.pull(*cotangents), s.ct_avals, strict=True)]

    pulled = on_devices(mesh, lambda vectors, n: sweeps.sweep_vectors(pull, vectors, n, chunk_size),
                        colour_vectors(colouring.row_colours, out_avals), colouring.n_reverse, is_padded=not colouring.n_forward)
    return results, _joined(pushed, pulled, results[: call.n_out])


def compressed_hessian(call: FlatCall, flat: Sequence[jax.Array], colouring: Colouring, chunk_size: int | None,
                       request: Request, mesh: Mesh | None = None) -> tuple[list[jax.Array], jax.Array]:
    """Everything a scalar function returned, and its compressed Hessian, by pushes through its gradient."""

    n = len(flat)
    if not colouring.n_forward:
        return list(call(*flat)), _joined([], [], flat)
    seeds = colour_vectors(colouring.column_colours, [tangent_aval(typeof(x)) for x in flat])
    results, pushed = _pushed(gradient_of(call, request), flat, lambda: n, seeds, colouring.n_forward, chunk_size, mesh)
    return results[n:], _joined(pushed, [], flat)


def _pushed(call: Callable[..., Sequence[jax.Array]], flat: Sequence[jax.Array], n_out: Callable[[], int], vectors: sweeps.Vectors,
            n: int, chunk_size: int | None, mesh: Mesh | None) -> tuple[list[jax.Array], list[jax.Array]]:
    """Everything a function returned, and pushes of vectors of its inputs, stacked; with a mesh, there may be zeros behind them."""
    if mesh is None:
        return sweeps.push_vectors(call, flat, range(len(flat)), n_out, vectors, n, chunk_size)

    def run(vectors: sweeps.Vectors, n: int) -> list[jax.Array]:
        return sweeps.push_vectors(call, flat, range(len(flat)), n_out, vectors, n, chunk_size)[1]

    pushed = on_devices(mesh, run, vectors, n, is_padded=True)
    return list(call(*flat)), pushed


def gradient_of(call: FlatCall, request: Request) -> Callable[..., list[jax.Array]]:
    """The flat function that returns the gradient of a scalar function, and then everything that this returned."""

    def gradient(*flat: jax.Array) -> list[jax.Array]:
        results, linear_map, s = flat_calls.linearize_flat(call, flat, "reverse", request)
        (out,) = results[: call.n_out]
        return [*pull_flat(linear_map, s, [lax.full_like(out, 1)]), *results]

    return gradient


def _joined(pushed: Sequence[jax.Array], pulled: Sequence[jax.Array], outs: Sequence[jax.Array]) -> jax.Array:
    """The compressed matrix in one dtype, that of all outputs together: a row for each pass, or if there are both, one flat array."""
    complex_ones = [x.dtype for x in (*pushed, *pulled) if jnp.iscomplexobj(x)]  # gradients by complex inputs
    dtype = common_dtype(*[typeof(x).dtype for x in outs], *complex_ones) if outs else jnp.result_type(float)
    sides = []
    for stacked in (pushed, pulled):
        parts = [lax.convert_element_type(lax.reshape(x, (x.shape[0], x.size // x.shape[0])), dtype) for x in stacked]
        if parts:
            sides.append(parts[0] if len(parts) == 1 else lax.concatenate(parts, 1))
    if len(sides) == 2:
        return lax.concatenate([lax.reshape(side, (side.size,)) for side in sides], 0)
    return sides[0] if sides else jnp.zeros(0, dtype)


def entries(colouring: Colouring, flat: jax.Array, chosen: np.ndarray | None = None) -> jax.Array:
    """The entries of the matrix in the order of its positions, or the chosen ones of them, from the compressed matrix."""
    source = colouring.source if chosen is None else colouring.source[chosen]
    return taken(flat, source, is_unique=colouring.is_direct and not colouring.is_symmetric)


def substituted(colouring: Colouring, flat: jax.Array) -> jax.Array:
    """What entries are read from: the compressed matrix, or the values that follow from it level by level."""
    if colouring.is_direct:
        return flat
    if len(colouring.levels) > MOST_LEVELS:
        return _substituted_in_a_loop(colouring, flat)
    values: list[jax.Array] = []
    for level in colouring.levels:
        found = taken(flat, level.source)
        if len(level.known):
            before = lax.concatenate(values, 0) if len(values) > 1 else values[0]
            found = found - jax.ops.segment_sum(taken(before, level.known), level.owner.astype(np.int32),
                                                num_segments=len(level.source), indices_are_sorted=True)
        values.append(found)
    return lax.concatenate(values, 0) if len(values) > 1 else values[0]


def _substituted_in_a_loop(colouring: Colouring, compressed: jax.Array) -> jax.Array:
    """As :func:`substituted`, with levels of one size; what fills them up goes to a value more than there are."""
    levels, flat = colouring.levels, lax.reshape(compressed, (compressed.size,))
    n = sum(len(level.source) for level in levels)
    width, most = (max(len(part) for part in parts) for parts in zip(*[(level.source, level.known) for level in levels], strict=True))
    shape = len(levels), width
    source, place = np.zeros(shape, np.int32), np.full(shape, n, np.int32)
    known, owner = np.full((len(levels), most), n, np.int32), np.full((len(levels), most), width - 1, np.int32)
    start = 0
    for i, level in enumerate(levels):
        size = len(level.source)
        source[i, :size], place[i, :size] = level.source, np.arange(start, start + size)
        known[i, : len(level.known)], owner[i, : len(level.known)] = level.known, level.owner
        start += size

    def step(values: jax.Array, level: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        source, place, known, owner = level
        found = flat.at[source].get(mode="promise_in_bounds")
        found = found - jax.ops.segment_sum(values.at[known].get(mode="promise_in_bounds"), owner, num_segments=width)
        values = values.at[place].set(jnp.where(place < n, found, lax.full_like(found, 0)), mode="promise_in_bounds")
        return values, None

    values, _ = lax.scan(step, jnp.zeros(n + 1, flat.dtype), tuple(map(jnp.asarray, (source, place, known, owner))))
    return values[:n]


def products(call: FlatCall, flat: Sequence[jax.Array], v: jax.Array, u: jax.Array, is_hessian: bool,
             request: Request) -> tuple[jax.Array, jax.Array]:
    """``(J v, J^T u)``, or ``(H v, H u)``, of flat vectors."""
    avals = [tangent_aval(typeof(x)) for x in flat]

    def split(x: jax.Array, avals: Sequence[ShapedArray]) -> list[jax.Array]:
        parts, start = [], 0
        for aval in avals:
            parts.append(convert_to(lax.reshape(lax.slice_in_dim(x, start, start + aval.size), aval.shape), aval))
            start += aval.size
        return parts

    def joined(parts: Sequence[jax.Array]) -> jax.Array:
        return lax.concatenate([lax.convert_element_type(lax.reshape(x, (x.size,)), v.dtype) for x in parts], 0)

    if is_hessian:
        pushed = [forward.push_through(gradient_of(call, request), flat, split(x, avals))[1][: len(flat)] for x in (v, u)]
        found = [joined([zeros.fit(t, a) for t, a in zip(each, avals, strict=True)]) for each in pushed]
        return found[0], found[1]
    _, linear_map, s = flat_calls.linearize_flat(call, flat, "reverse", request)
    outs = [tangent_aval(a) for a in s.out_avals]
    moved = [zeros.fit(t, a) for t, a in zip(linear_map.push(*split(v, avals)), outs, strict=True)]
    pulled = [zeros.fit(ct, a) for ct, a in zip(linear_map.pull(*split(u, outs)), s.ct_avals, strict=True)]
    return joined(moved), joined(pulled)
