"""Distinct entries, their numbers, histograms, and places in sorted sequences."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Scalar
from dualrev.eager.core.evaluation import kept
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.conversion import known
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.outputs import into
from dualrev.eager.ops.registry import both, function, method
from dualrev.eager.ops.selecting import nonzero

hist_edges = namedtuple("hist_edges", ["hist", "bin_edges"])
histogramdd_result = namedtuple("histogramdd", ["hist", "bin_edges"])
#: The most comparisons that take the place of a search.
_COMPARED = 2 ** 16


def _some_of(values: np.ndarray, inverse: Any, counts: Any, gives_inverse: bool, gives_counts: bool) -> Any:
    found = [values, *([inverse] if gives_inverse else []), *([counts] if gives_counts else [])]
    tensors = tuple([wrap(kept(np.ascontiguousarray(x))) for x in found])
    return tensors if len(tensors) > 1 else tensors[0]


@both
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,  # noqa: A002
           dim: int | None = None) -> Tensor | tuple[Tensor, ...]:
    """The distinct entries, or slices along a dimension, sorted; then, where asked for, the place of each, and their numbers.

    >>> from dualrev import eager as torch
    >>> torch.unique(torch.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    array = known(input, "unique()")
    d = None if dim is None else dim_of(dim, array.ndim)
    if d is not None and array.ndim == 0:
        d = None
    values, inverse, counts = np.unique(array, return_inverse=True, return_counts=True, axis=d, equal_nan=False)
    shape = array.shape if d is None else (array.shape[d],)
    return _some_of(values, inverse.reshape(shape), counts, return_inverse, return_counts)


@both
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,  # noqa: A002
                       dim: int | None = None) -> Tensor | tuple[Tensor, ...]:
    """The first of each run of equal entries, or of equal slices along a dimension; the other results as of ``unique``."""
    array = known(input, "unique_consecutive()")
    d = None if dim is None else dim_of(dim, array.ndim)
    rows = array.reshape(-1, 1) if d is None else np.moveaxis(array, d, 0).reshape(array.shape[d], -1)
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = np.any(rows[1:] != rows[:-1], 1)
    at = np.flatnonzero(begins)
    values = array.reshape(-1)[at] if d is None else np.take(array, at, d)
    inverse = np.cumsum(begins) - 1
    return _some_of(values, inverse.reshape(array.shape) if d is None else inverse, np.diff(np.append(at, len(rows))),
                    return_inverse, return_counts)


@both
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:  # noqa: A002
    """How often each whole number occurs, or the sum of its weights."""
    array = known(input, "bincount()")
    if array.dtype.kind in "fcbV":
        raise NotImplementedError(f"\"bincount_cpu\" not implemented for '{dtypes.type_name(array.dtype)}'")
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if weights is None:
        return wrap(np.bincount(array, minlength=minlength).astype(np.int64))
    amounts = known(weights, "bincount()")
    if amounts.shape != array.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    kind = np.float32 if amounts.dtype == np.float32 else np.float64
    return wrap(np.bincount(array, amounts, minlength).astype(kind))


def _ends(array: np.ndarray, low: Any, high: Any) -> tuple[Any, Any]:
    """The ends of a histogram: those of the entries where none are given."""
    if low == high and array.size:
        low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"range of [{low:g}, {high:g}] is not finite")
    return (low - 1, high + 1) if low == high else (low, high)


@both
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The numbers of entries in equal parts of a range, by default from the smallest entry to the largest."""
    array = known(input, "histc()").reshape(-1)
    if bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    if array.dtype.kind != "f":
        raise NotImplementedError(f'"histogram_cpu" not implemented for \'{dtypes.type_name(array.dtype)}\'')
    if max < min:
        raise RuntimeError("torch.histc: max must be larger than min")
    low, high = (array.dtype.type(x) for x in _ends(array, min, max))
    inside = array[(array >= low) & (array <= high)]
    places = np.minimum(((inside - low) * bins / (high - low)).astype(np.int64), bins - 1)
    found = np.bincount(places, minlength=bins).astype(array.dtype)
    return wrap(found) if out is None else into(out, found, "histc")


@both
def histogram(input: Tensor, bins: int | Tensor, *, range: Sequence[float] | None = None, weight: Tensor | None = None,  # noqa: A002
              density: bool = False) -> hist_edges:
    """``(hist, bin_edges)``: the numbers of entries, or the sums of their weights, between edges."""
    array = known(input, "histogram()").reshape(-1)
    if array.dtype.kind != "f":
        raise NotImplementedError(f'"histogram_cpu" not implemented for \'{dtypes.type_name(array.dtype)}\'')
    if isinstance(bins, Tensor):
        edges = known(bins, "histogram()")
        if edges.dtype != array.dtype:
            raise RuntimeError("torch.histogram(): input tensor and bins tensors should have the same dtype, but got input with dtype "
                               f"{dtypes.cpp_name(array.dtype)} and bins with dtype {dtypes.cpp_name(edges.dtype)}")
    else:
        low, high = (0, 0) if range is None else range
        low, high = _ends(array, low, high) if range is None or low == high else (low, high)
        edges = np.linspace(low, high, bins + 1, dtype=array.dtype)
    amounts = None if weight is None else known(weight, "histogram()").reshape(-1)
    found, _ = np.histogram(array, edges.astype(np.float64), weights=amounts)
    hist = found.astype(array.dtype)
    if density:
        hist = hist / (hist.sum() * np.diff(edges))
    return hist_edges(wrap(hist), wrap(edges.copy()))


@function
def histogramdd(input: Tensor, bins: int | Sequence[int] | Sequence[Tensor], *, range: Sequence[float] | None = None,  # noqa: A002
                weight: Tensor | None = None, density: bool = False) -> histogramdd_result:
    """``(hist, bin_edges)``: the numbers of points, or the sums of their weights, in boxes between edges.

    The last dimension of the input is that of the coordinates of a point.
    """
    array = known(input, "histogramdd()")
    if array.ndim < 2:
        raise RuntimeError(f"torch.histogramdd: input tensor should have at least 2 dimensions\nthis one has {array.ndim}")
    if array.dtype.kind != "f":
        raise NotImplementedError(f'"histogramdd" not implemented for \'{dtypes.type_name(array.dtype)}\'')
    points = array.reshape(-1, array.shape[-1])
    n = points.shape[1]
    given = [bins] * n if isinstance(bins, int) else list(bins)
    if len(given) != n:
        raise RuntimeError(f"histogramdd: The size of bins must be equal to the innermost dimension of the input.\nthere are "
                           f"{len(given)} bins for {n} coordinates")
    if range is not None and len(range) != 2 * n:
        raise RuntimeError(f"torch.histogramdd: for a {n}-dimensional histogram range should have {2 * n} elements, but got "
                           f"{len(range)}")
    edges: list[np.ndarray] = []
    for d, b in enumerate(given):
        low, high = (0, 0) if range is None else range[2 * d: 2 * d + 2]
        low, high = _ends(points[:, d], low, high) if range is None or low == high else (low, high)
        edges.append(known(b, "histogramdd()") if isinstance(b, Tensor) else np.linspace(low, high, b + 1, dtype=array.dtype))
    amounts = None if weight is None else known(weight, "histogramdd()").reshape(-1)
    found, _ = np.histogramdd(points.astype(np.float64), [e.astype(np.float64) for e in edges], weights=amounts)
    hist = found.astype(array.dtype)
    if density:
        with np.errstate(divide="ignore", invalid="ignore"):  # no point in any box
            hist = hist / hist.sum()
            for d, e in enumerate(edges):
                hist = hist / np.diff(e).reshape([-1 if k == d else 1 for k in np.arange(n)])
    return histogramdd_result(wrap(hist), tuple([wrap(e.copy()) for e in edges]))


def _search(sequence: jax.Array, values: jax.Array, dtype: np.dtype, right: bool) -> jax.Array:
    """How many entries of each sorted sequence come before each value."""
    kind = jnp.result_type(sequence, values)
    sequence, values = sequence.astype(kind), values.astype(kind)
    shape = values.shape
    if sequence.ndim == 1:
        values = values.reshape(-1)
    if values.size * sequence.shape[-1] <= _COMPARED:
        a, b = sequence[..., None, :], values[..., :, None]
        return jnp.sum(~(a > b if right else a >= b), -1).astype(dtype).reshape(shape)
    side = "right" if right else "left"

    def find(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.searchsorted(a, b, side=side)

    for _ in range(sequence.ndim - 1):
        find = jax.vmap(find)
    return find(sequence, values).astype(dtype).reshape(shape)


_searchsorted = family("Searchsorted", _search)


def _places(sequence: Tensor, values: Tensor | Scalar, out_int32: bool, right: bool) -> Tensor:
    dtype = np.dtype(np.int32 if out_int32 else np.int64)
    if not isinstance(values, Tensor):
        values = wrap(np.asarray(values, array_of(sequence).dtype if array_of(sequence).dtype.kind == "f" else None))
    return apply(_searchsorted(dtype, right), (sequence.detach(), values.detach()))


@function
def searchsorted(sorted_sequence: Tensor, input: Tensor | Scalar, *, out_int32: bool = False, right: bool = False,  # noqa: A002
                 side: str | None = None, sorter: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Where values would be inserted into sorted sequences, along the last dimension.

    >>> from dualrev import eager as torch
    >>> torch.searchsorted(torch.tensor([1, 3, 5]), torch.tensor([0, 3, 9]))
    tensor([0, 1, 3])
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True")
    shape = tuple(getattr(input, "shape", ()))
    if sorted_sequence.ndim == 0:
        raise RuntimeError("torch.searchsorted(): input value can be a scalar only when boundary tensor dimension is 1, but we got "
                           f"boundary tensor dim(0) and input value's dim({len(shape)}) numel(1)")
    if sorted_sequence.ndim != 1 and (len(shape) != sorted_sequence.ndim or shape[:-1] != tuple(sorted_sequence.shape[:-1])):
        raise RuntimeError("torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
                           f"tensor and input value tensor must match, but we got boundaries tensor {list(sorted_sequence.shape)} and "
                           f"input value tensor {list(shape)}")
    if sorter is not None:
        sorted_sequence = sorted_sequence.detach().gather(-1, sorter)
    found = _places(sorted_sequence, input, out_int32, right or side == "right")
    return found if out is None else into(out, array_of(found), "searchsorted")


@function
def bucketize(input: Tensor | Scalar, boundaries: Tensor, *, out_int32: bool = False, right: bool = False,  # noqa: A002
              out: Tensor | None = None) -> Tensor:
    """The number of the interval between boundaries that each value lies in."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    found = _places(boundaries, input, out_int32, right)
    return found if out is None else into(out, array_of(found), "bucketize")


def _isin_of(x: jax.Array, among: jax.Array, invert: bool) -> jax.Array:
    kind = jnp.result_type(x, among)
    x, among = jnp.asarray(x, kind), jnp.asarray(among, kind).reshape(-1)
    if x.size * among.size <= _COMPARED:
        found = jnp.any(x[..., None] == among, -1)
        return ~found if invert else found
    return jnp.isin(x, among, invert=invert, method="sort")


_isin = family("Isin", _isin_of)


@function
def isin(elements: Tensor | Scalar, test_elements: Tensor | Scalar, *, assume_unique: bool = False, invert: bool = False,
         out: Tensor | None = None) -> Tensor:
    """Whether each entry is among others."""
    found = apply(_isin(invert), tuple([x.detach() if isinstance(x, Tensor) else x for x in (elements, test_elements)]))
    return found if out is None else into(out, array_of(found), "isin")


@both
def argwhere(input: Tensor) -> Tensor:  # noqa: A002
    """The indices of nonzero entries, one in each row."""
    found: Any = nonzero(input)
    return found


@method
def is_same_size(self: Tensor, other: Tensor) -> bool:
    """Whether another tensor has the same shape."""
    return self.shape == other.shape
