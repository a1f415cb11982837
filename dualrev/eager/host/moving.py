"""Primitives that move entries: shapes, slices, joining, gathering, scattering, sorting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualrev._jax.avals import ShapedArray
from dualrev.eager.host.registry import HostFunction, made, plain

_Avals = Sequence[ShapedArray]


@made("broadcast_in_dim", cost=0.0)
def _broadcast(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    shape, dims = params["shape"], params["broadcast_dimensions"]
    if len(ins) > 1:
        return None
    if not dims:
        return lambda x: np.broadcast_to(x, shape)
    middle = [1] * len(shape)
    for d, n in zip(dims, ins[0].shape, strict=True):
        middle[d] = n
    return lambda x: np.broadcast_to(np.reshape(x, middle), shape)


@made("reshape", cost=0.0)
def _reshape(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    shape = params["new_sizes"]
    return None if params.get("dimensions") is not None else lambda x: x.reshape(shape)


@made("transpose", cost=0.0)
def _transpose(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    order = params["permutation"]
    return lambda x: x.transpose(order)


@made("squeeze", cost=0.0)
def _squeeze(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    shape = outs[0].shape
    rank = len(ins[0].shape)  # keys have the dimension of their two words besides
    return lambda x: np.reshape(x, (*shape, *x.shape[rank:]))


@made("expand_dims", cost=0.0)
def _expand(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    shape = outs[0].shape
    return lambda x: x.reshape(shape)


@made("slice", cost=0.0)
def _slice(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    strides = params["strides"] or (1,) * len(params["start_indices"])
    index = tuple([slice(a, b, s) for a, b, s in zip(params["start_indices"], params["limit_indices"], strides, strict=True)])
    return lambda x: x[index]


def _starts(given: Sequence[Any], shape: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Where slices of these sizes start: inside the array."""
    return [min(max(int(i), 0), n - size) for i, n, size in zip(given, shape, sizes, strict=True)]


@made("dynamic_slice", cost=0.0)
def _dynamic_slice(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    sizes, shape = params["slice_sizes"], ins[0].shape

    def sliced(x: Any, *starts: Any) -> Any:
        return x[tuple([slice(i, i + n) for i, n in zip(_starts(starts, shape, sizes), sizes, strict=True)])]

    return sliced


@made("dynamic_update_slice")
def _dynamic_update(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    shape, sizes = ins[0].shape, ins[1].shape

    def updated(x: Any, part: Any, *starts: Any) -> Any:
        result = np.array(x)
        result[tuple([slice(i, i + n) for i, n in zip(_starts(starts, shape, sizes), sizes, strict=True)])] = part
        return result

    return updated


def padding(config: Sequence[tuple[int, int, int]], given: Sequence[int], shape: Sequence[int]) -> HostFunction:
    """A function that pads arrays of a shape: ``config`` says how much before, after, and between the entries of each dimension."""
    # Where the entries go, and which of them are inside: padding may be negative.
    to, of = [], []
    for (low, _, between), n, m in zip(config, given, shape, strict=True):
        step = between + 1
        first = 0 if low >= 0 else -(low // step)
        last = min(n, -(-(m - low) // step))
        last = max(last, first)
        of.append(slice(first, last))
        start = low + first * step
        to.append(slice(start, start + (last - first - 1) * step + 1 if last > first else start, step))
    size = tuple(shape)

    def padded(x: Any, value: Any) -> Any:
        result = np.full(size, value, x.dtype)
        result[tuple(to)] = x[tuple(of)]
        return result

    return padded


@made("pad")
def _pad(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    return padding(params["padding_config"], ins[0].shape, outs[0].shape)


@made("stack")
def _stack(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    dim = params["axis"]
    return lambda *xs: np.stack(xs, dim)


@made("concatenate")
def _concatenate(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    dim = params["dimension"]
    return lambda *xs: np.concatenate(xs, dim)


@made("split", cost=0.0)
def _split(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    dim, ends = params["axis"], np.cumsum(params["sizes"])[:-1]
    return lambda x: np.split(x, ends, dim)


@made("unstack", cost=0.0)
def _unstack(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    dim = params["axis"]
    return lambda x: list(np.moveaxis(x, dim, 0))


@made("rev", cost=0.0)
def _reverse(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    dims = params["dimensions"]
    return lambda x: np.flip(x, dims)


@made("iota")
def _iota(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    shape, dim, dtype = params["shape"], params["dimension"], np.dtype(params["dtype"])
    if ins:
        return None
    column = [1] * len(shape)
    column[dim] = shape[dim]
    values = np.broadcast_to(np.arange(shape[dim]).astype(dtype).reshape(column), shape)
    return lambda: values


@made("tile")
def _tile(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    repeats = params["reps"]
    return lambda x: np.tile(x, repeats)


plain("optimization_barrier", lambda *xs: xs, 0.0)


class _Places:
    """The places in an operand that a gather reads, or a scatter writes: an array of indices for each dimension.

    ``rank`` is that of the result, or of the updates; ``windows`` are its dimensions inside the slices, the others count slices.
    """

    def __init__(self, shape: Sequence[int], sizes: Sequence[int], rank: int, windows: Sequence[int], collapsed: Sequence[int],
                 starts: Sequence[int], batching: Sequence[int], index_batching: Sequence[int], mode: str):
        self.shape, self.sizes, self.rank, self.starts, self.mode = shape, sizes, rank, list(starts), mode
        self.outer = [d for d in range(rank) if d not in windows]
        inner = [d for d in range(len(shape)) if d not in collapsed and d not in batching]
        #: For each dimension of the operand, that of the result which runs along it.
        window_of = dict(zip(inner, windows, strict=True))
        self.known = [self._known(d, window_of, dict(zip(batching, index_batching, strict=True))) for d in range(len(shape))]

    def _known(self, d: int, window_of: dict[int, int], batching: dict[int, int]) -> Any:
        """The indices of a dimension of the operand, as far as they do not depend on where slices start; 0 where they do not."""
        at: Any = 0
        for where, n in ((self.outer[batching[d]] if d in batching else None, self.shape[d]), (window_of.get(d), self.sizes[d])):
            if where is not None and not (n == 1 and d in self.starts):
                column = [1] * self.rank
                column[where] = n
                at = at + np.arange(n).reshape(column)
        return at

    def __call__(self, indices: Any) -> tuple[list[Any], Any]:
        """The indices for each dimension, which broadcast to the result, and which slices are inside: None where all are."""
        column = [1] * self.rank
        for d, n in zip(self.outer, indices.shape[:-1], strict=True):
            column[d] = n
        inside: Any = None
        places = list(self.known)
        for k, d in enumerate(self.starts):
            start = indices[..., k].astype(np.int64, copy=False)
            clipped = np.minimum(np.maximum(start, 0), self.shape[d] - self.sizes[d])
            if self.mode == "fill":
                ok = (start == clipped).reshape(column)
                inside = ok if inside is None else inside & ok
            at = clipped.reshape(column)
            places[d] = at if type(self.known[d]) is int else at + self.known[d]
        return places, None if inside is None or bool(inside.all()) else inside


def _mode(params: dict[str, Any]) -> str:
    """What happens to slices that are not inside: "fill", or "clip"."""
    return "fill" if "FILL" in str(params["mode"]) else "clip"


@made("gather", cost=4.0)
def _gather(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    shape, rank = ins[0].shape, len(outs[0].shape)
    mode = _mode(params)
    collapsed = numbers.collapsed_slice_dims
    if (mode == "clip" and len(collapsed) == 1 and not numbers.operand_batching_dims and numbers.start_index_map == collapsed
            and all(s == n for d, (s, n) in enumerate(zip(sizes, shape, strict=True)) if d not in collapsed)):
        dim = collapsed[0]
        n_outer = len(ins[1].shape) - 1
        if tuple(d for d in range(rank) if d not in numbers.offset_dims) == tuple(range(dim, dim + n_outer)):
            return lambda x, i: np.take(x, i[..., 0], dim, mode="clip")
    places = _Places(shape, sizes, rank, numbers.offset_dims, collapsed, numbers.start_index_map, numbers.operand_batching_dims,
                     numbers.start_indices_batching_dims, mode)
    dtype = np.dtype(outs[0].dtype)
    fill = params["fill_value"]
    if fill is None:
        whole = np.iinfo(dtype) if dtype.kind in "iu" else None
        fill = np.nan if dtype.kind in "fVc" else True if whole is None else whole.min if dtype.kind == "i" else whole.max

    def gathered(x: Any, indices: Any) -> Any:
        at, inside = places(indices)
        found = x[tuple(at)]
        return found if inside is None else np.where(inside, found, np.asarray(fill, dtype))

    return gathered


#: How each scatter combines an entry with an update.
_COMBINE = {"scatter-add": np.add, "scatter_add": np.add, "scatter_mul": np.multiply, "scatter_min": np.minimum,
            "scatter_max": np.maximum}


def _scatter(name: str) -> None:
    combine = _COMBINE.get(name)

    @made(name, cost=2.0 if combine is None else 15.0)
    def maker(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
        numbers = params["dimension_numbers"]
        shape, updates = ins[0].shape, ins[2].shape
        inner = [d for d in range(len(shape)) if d not in numbers.inserted_window_dims and d not in numbers.operand_batching_dims]
        sizes = [1] * len(shape)
        for d, w in zip(inner, numbers.update_window_dims, strict=True):
            sizes[d] = updates[w]
        places = _Places(shape, sizes, len(updates), numbers.update_window_dims, numbers.inserted_window_dims,
                         numbers.scatter_dims_to_operand_dims, numbers.operand_batching_dims, numbers.scatter_indices_batching_dims,
                         _mode(params))
        unique = params["unique_indices"] and combine is np.add

        def scattered(x: Any, indices: Any, values: Any) -> Any:
            at, inside = places(indices)
            result = np.array(x)
            if inside is not None:
                keep = np.broadcast_to(inside, values.shape)
                at = [np.broadcast_to(i, values.shape)[keep] for i in at]
                values = values[keep]
            if combine is None:
                result[tuple(at)] = values
            elif unique:
                result[tuple(at)] += values
            else:
                combine.at(result, tuple(at), values)
            return result

        return scattered


for _name in ("scatter", "scatter-add", "scatter_add", "scatter_mul", "scatter_min", "scatter_max"):
    _scatter(_name)
