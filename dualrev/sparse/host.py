"""Operations on numpy arrays: those that move entries, which also move nodes, and those that programs compute indices with.

What is not here is evaluated by jax; compiling it takes longer than analysing a small program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.avals import ShapedArray, is_extended
from dualrev._jax.jaxprs import JaxprEqn
from dualrev._jax.primitives import Params

#: ``(parameters, *operands) -> result`` on numpy arrays.
HostOperation: TypeAlias = Callable[..., Any]


# ------------------------------------------------------------------------------------------------ operations that move entries


def _broadcast(p: Params, x: np.ndarray, *_: Any) -> np.ndarray:
    shape = [1] * len(p["shape"])
    for n, d in zip(x.shape, p["broadcast_dimensions"], strict=True):
        shape[d] = n
    return np.broadcast_to(x.reshape(shape), p["shape"])


def _reshape(p: Params, x: np.ndarray, *_: Any) -> np.ndarray:
    return (x if p["dimensions"] is None else x.transpose(p["dimensions"])).reshape(p["new_sizes"])


def _slice(p: Params, x: np.ndarray) -> np.ndarray:
    strides = p["strides"] or (1,) * x.ndim
    return x[tuple(slice(*bounds) for bounds in zip(p["start_indices"], p["limit_indices"], strides, strict=True))]


def _pad(p: Params, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    for axis, (low, high, interior) in enumerate(p["padding_config"]):
        n = x.shape[axis]
        inner = max(n + (n - 1) * interior, 0) if n else 0
        spread = np.full((*x.shape[:axis], inner, *x.shape[axis + 1:]), value, x.dtype)
        spread[(slice(None),) * axis + (slice(None, None, interior + 1),)] = x
        size = inner + low + high
        out = np.full((*x.shape[:axis], max(size, 0), *x.shape[axis + 1:]), value, x.dtype)
        start, stop = max(low, 0), min(low + inner, size)
        if stop > start:
            out[(slice(None),) * axis + (slice(start, stop),)] = spread[(slice(None),) * axis + (slice(start - low, stop - low),)]
        x = out
    return x


def clamped(starts: Sequence[Any], shape: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """The window of a dynamic slice: starts are clamped so that it lies inside."""
    firsts = [min(max(int(s), 0), n - m) for s, n, m in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(s, s + m) for s, m in zip(firsts, sizes, strict=True))


def _dynamic_update_slice(_: Params, x: np.ndarray, update: np.ndarray, *starts: Any) -> np.ndarray:
    x = x.copy()
    x[clamped(starts, x.shape, update.shape)] = update
    return x


def _select(_: Params, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if len(cases) == 1:
        return cases[0]
    if len(cases) == 2:
        return np.where(which.astype(bool), cases[1], cases[0])
    result = cases[0]
    for i, x in enumerate(cases[1:], 1):
        result = np.where(which == i, x, result)
    return result


#: Operations that put entries elsewhere, and compute nothing: on any dtype.
MOVES: dict[str, HostOperation] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": lambda p, x: x.squeeze(p["dimensions"]),
    "expand_dims": lambda p, x: np.expand_dims(x, p["dimensions"]),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "slice": _slice,
    "pad": _pad,
    "concatenate": lambda p, *xs: np.concatenate(xs, p["dimension"]),
    "dynamic_slice": lambda p, x, *starts: x[clamped(starts, x.shape, p["slice_sizes"])],
    "dynamic_update_slice": _dynamic_update_slice,
    "select_n": _select,
    "split": lambda p, x: np.split(x, np.cumsum(p["sizes"])[:-1], p["axis"]),
    "tile": lambda p, x: np.tile(x, p["reps"]),
    "copy": lambda _, x: x,
    "tap": lambda _, x: x,
    "copy_p": lambda _, x: x,
    "stop_gradient": lambda _, x: x,
    "optimization_barrier": lambda _, *xs: list(xs),
}


CLIP, _PROMISE = jax.lax.GatherScatterMode.CLIP, jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS


def clips(params: Params) -> bool:
    """Whether a gather moves indices that are outside inside."""
    return params["mode"] in (CLIP, _PROMISE)


def scatter_window(params: Params, rank: int, update_shape: Sequence[int]) -> list[int]:
    """The sizes of the windows that a scatter writes, along each axis of its operand."""
    numbers = params["dimension_numbers"]
    absent = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = iter([update_shape[d] for d in numbers.update_window_dims])
    return [1 if d in absent else next(window) for d in range(rank)]


def gather_places(shape: Sequence[int], indices: np.ndarray, params: Params, out_shape: Sequence[int]) -> np.ndarray:
    """For each entry of a gather's result the flat place that it is read from; -1 where nothing is read."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    batch_out = [d for d in range(len(out_shape)) if d not in numbers.offset_dims]
    return _window_places(shape, indices, sizes, out_shape, batch_out, numbers.offset_dims, numbers.collapsed_slice_dims,
                          numbers.start_index_map, numbers.operand_batching_dims, numbers.start_indices_batching_dims,
                          clips=clips(params))


def scatter_places(shape: Sequence[int], indices: np.ndarray, params: Params, update_shape: Sequence[int]) -> np.ndarray:
    """For each entry of a scatter's updates the flat place that it is written to; -1 where it is dropped."""
    numbers = params["dimension_numbers"]
    batch = [d for d in range(len(update_shape)) if d not in numbers.update_window_dims]
    sizes = scatter_window(params, len(shape), update_shape)
    return _window_places(shape, indices, sizes, update_shape, batch, numbers.update_window_dims, numbers.inserted_window_dims,
                          numbers.scatter_dims_to_operand_dims, numbers.operand_batching_dims, numbers.scatter_indices_batching_dims,
                          clips=params["mode"] is CLIP)


def _window_places(shape: Sequence[int], indices: np.ndarray, sizes: Sequence[int], out_shape: Sequence[int], batch: Sequence[int],
                   offset: Sequence[int], collapsed: Sequence[int], index_map: Sequence[int], operand_batch: Sequence[int],
                   indices_batch: Sequence[int], *, clips: bool) -> np.ndarray:
    """The flat place of each entry of windows of ``sizes`` in an array of ``shape``, laid out as in ``out_shape``."""
    strides = np.array([math.prod(shape[d + 1:]) for d in range(len(shape))], np.int64)
    starts = np.zeros((*indices.shape[:-1], len(shape)), np.int64)
    starts[..., list(index_map)] = indices.astype(np.int64)
    limits = np.array([n - m for n, m in zip(shape, sizes, strict=True)], np.int64)
    inside = np.ones(indices.shape[:-1], bool)
    if clips:
        starts[..., list(index_map)] = np.clip(starts, 0, limits)[..., list(index_map)]
    else:
        inside = np.asarray(((starts >= 0) & (starts <= limits)).all(-1))
    for d, i in zip(operand_batch, indices_batch, strict=True):
        along = [1] * (indices.ndim - 1)
        along[i] = indices.shape[i]
        starts[..., d] = np.arange(indices.shape[i]).reshape(along)
    base = (starts @ strides).reshape([out_shape[d] if d in batch else 1 for d in range(len(out_shape))])
    inside = inside.reshape(base.shape)
    kept = [d for d in range(len(shape)) if d not in collapsed and d not in operand_batch]
    for out_d, d in zip(offset, kept, strict=True):
        along = [1] * len(out_shape)
        along[out_d] = sizes[d]
        base = base + (np.arange(sizes[d]) * strides[d]).reshape(along)
    return np.broadcast_to(np.where(inside, base, -1), tuple(out_shape))


# --------------------------------------------------------------------------------------------------- operations on known values


def _div(_: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if np.result_type(x, y).kind not in "iu":
        return np.asarray(np.divide(x, y))
    y = np.where(y == 0, np.ones_like(y), y)
    return np.asarray(np.where((x % y != 0) & ((x < 0) != (y < 0)), x // y + 1, x // y))


def _rem(_: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.fmod(x, np.where(y == 0, np.ones_like(y), y) if np.result_type(y).kind in "iu" else y))


def _iota(p: Params, *_: Any) -> np.ndarray:
    along = [1] * len(p["shape"])
    along[p["dimension"]] = p["shape"][p["dimension"]]
    return np.broadcast_to(np.arange(p["shape"][p["dimension"]]).reshape(along), p["shape"])



def _over(fun: Callable[..., Any]) -> HostOperation:
    return lambda p, x: fun(x, axis=tuple(p["axes"]))


def _plain(fun: Callable[..., Any]) -> HostOperation:
    return lambda _, *xs: fun(*xs)


COMPUTES: dict[str, HostOperation] = {
    "add": _plain(np.add), "sub": _plain(np.subtract), "mul": _plain(np.multiply), "neg": _plain(np.negative), "div": _div, "rem": _rem,
    "max": _plain(np.maximum), "min": _plain(np.minimum), "abs": _plain(np.abs), "sign": _plain(np.sign), "sqrt": _plain(np.sqrt),
    "exp": _plain(np.exp), "log": _plain(np.log), "sin": _plain(np.sin), "cos": _plain(np.cos), "tanh": _plain(np.tanh),
    "square": _plain(np.square), "floor": _plain(np.floor), "ceil": _plain(np.ceil),
    "eq": _plain(np.equal), "ne": _plain(np.not_equal), "lt": _plain(np.less), "le": _plain(np.less_equal),
    "gt": _plain(np.greater), "ge": _plain(np.greater_equal),
    "and": _plain(np.bitwise_and), "or": _plain(np.bitwise_or), "xor": _plain(np.bitwise_xor), "not": _plain(np.invert),
    "clamp": lambda _, low, x, high: np.minimum(np.maximum(x, low), high),
    "integer_pow": lambda p, x: x ** p["y"] if p["y"] >= 0 else 1 / x ** -p["y"],
    "iota": _iota,
    "convert_element_type": lambda _, x, *__: x,
    "reduce_sum": _over(np.sum), "reduce_prod": _over(np.prod), "reduce_max": _over(np.max), "reduce_min": _over(np.min),
    "reduce_and": _over(np.all), "reduce_or": _over(np.any),
}


def evaluate(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The results of an equation on known operands: numpy arrays where numpy has the operation."""
    name = str(eqn.primitive)
    host = MOVES.get(name) or COMPUTES.get(name)
    avals: list[ShapedArray] = [v.aval for v in eqn.outvars]  # type: ignore[misc]  # all are arrays
    if host is not None and all(isinstance(x, np.ndarray) for x in operands) and not any(is_extended(a.dtype) for a in avals):
        with np.errstate(all="ignore"):
            found = host(eqn.params, *operands)
        outs = found if eqn.primitive.multiple_results else [found]
        return [np.asarray(x, a.dtype) for x, a in zip(outs, avals, strict=True)]
    if name == "gather" and isinstance(operands[0], np.ndarray):
        x, indices = operands
        places = gather_places(x.shape, np.asarray(indices), eqn.params, avals[0].shape)
        if (places >= 0).all() and x.size:
            return [x.ravel()[places]]
    with jax.ensure_compile_time_eval():
        found = eqn.primitive.bind(*[jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in operands],
                                   **eqn.primitive.get_bind_params(eqn.params))
    outs = found if eqn.primitive.multiple_results else [found]
    return [x if is_extended(x.dtype) else np.asarray(x) for x in outs]
