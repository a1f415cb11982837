"""Primitives that reduce or order dimensions: sums, extremes, cumulative ones, products of matrices, sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualrev._jax.avals import ShapedArray
from dualrev.eager.host.registry import HostFunction, made

_Avals = Sequence[ShapedArray]


def _reduction(name: str, fun: Callable[..., Any]) -> None:
    @made(name, cost=0.3)
    def maker(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
        dims, dtype, shape = tuple(params["axes"]), np.dtype(outs[0].dtype), outs[0].shape
        if dtype == ins[0].dtype and all(ins[0].shape[d] == 1 for d in dims):
            return lambda x: x.reshape(shape)
        return lambda x: fun(x, dims, dtype)


def least(dtype: np.dtype, largest: bool) -> Any:
    """What changes no maximum, or no minimum."""
    if dtype.kind == "b":
        return not largest
    if dtype.kind in "iu":
        return np.iinfo(dtype).min if largest else np.iinfo(dtype).max
    return -np.inf if largest else np.inf


def _sum(x: Any, dims: tuple[int, ...], dtype: np.dtype) -> Any:
    if dtype.itemsize < 4 and dtype.kind in "fV":  # narrow floats are added up in single precision
        return np.add.reduce(x, dims, np.float32).astype(dtype)
    return np.add.reduce(x, dims, dtype)


_reduction("reduce_sum", _sum)
_reduction("reduce_prod", lambda x, dims, dtype: np.prod(x, dims, dtype))
def _extreme(fun: Callable[..., Any], largest: bool) -> Callable[..., Any]:
    def of(x: Any, dims: tuple[int, ...], dtype: np.dtype) -> Any:
        return fun(x, dims) if x.size else fun(x, dims, initial=least(dtype, largest)).astype(dtype)

    return of


_reduction("reduce_max", _extreme(np.maximum.reduce, True))
_reduction("reduce_min", _extreme(np.minimum.reduce, False))
_reduction("reduce_and", lambda x, dims, dtype: np.bitwise_and.reduce(x, dims, dtype))
_reduction("reduce_or", lambda x, dims, dtype: np.bitwise_or.reduce(x, dims, dtype))
_reduction("reduce_xor", lambda x, dims, dtype: np.bitwise_xor.reduce(x, dims, dtype))


def _place(name: str, fun: Callable[..., Any]) -> None:
    @made(name, cost=1.0)
    def maker(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
        (dim,), dtype = params["axes"], np.dtype(params["index_dtype"])
        return lambda x: fun(x, dim).astype(dtype)


_place("argmax", np.argmax)
_place("argmin", np.argmin)


def _cumulative(name: str, fun: Callable[..., Any]) -> None:
    @made(name, cost=2.0)
    def maker(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
        dim, dtype = params["axis"], np.dtype(outs[0].dtype)
        if params["reverse"]:
            return lambda x: np.flip(fun(np.flip(x, dim), dim, dtype=dtype), dim)
        return lambda x: fun(x, dim, dtype=dtype)


for _name, _fun in dict(cumsum=np.add.accumulate, cumprod=np.multiply.accumulate, cummax=np.maximum.accumulate,
                        cummin=np.minimum.accumulate, cumlogsumexp=np.logaddexp.accumulate).items():
    _cumulative(_name, _fun)


@made("sort", cost=60.0)
def _sort(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    dim, n_keys = params["dimension"], params["num_keys"]

    def ordered(*xs: Any) -> list[Any]:
        order = np.argsort(xs[0], dim, kind="stable") if n_keys == 1 else np.lexsort(xs[:n_keys][::-1], dim)
        return [np.take_along_axis(x, order, dim) for x in xs]

    return ordered


@made("top_k", cost=60.0)
def _top_k(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if params.get("axis", len(ins[0].shape) - 1) != len(ins[0].shape) - 1 or np.dtype(ins[0].dtype).kind not in "fi":
        return None
    k = params["k"]

    def largest(x: Any) -> list[Any]:
        order = np.argsort(-x, -1, kind="stable")[..., :k]
        return [np.take_along_axis(x, order, -1), order.astype(np.int32)]

    return largest


@made("dot_general", cost=0.0)
def _dot(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction:
    ((left, right), (left_batch, right_batch)) = params["dimension_numbers"]
    a, b = ins
    dtype = np.dtype(outs[0].dtype)
    widens = any(np.dtype(x.dtype) != dtype for x in ins) or (dtype.itemsize < 4 and dtype.kind in "fV")
    work = np.dtype(np.float32) if dtype.itemsize < 4 and dtype.kind in "fV" else dtype
    left_free = [d for d in range(len(a.shape)) if d not in left and d not in left_batch]
    right_free = [d for d in range(len(b.shape)) if d not in right and d not in right_batch]
    left_order, right_order = [*left_batch, *left_free, *left], [*right_batch, *right, *right_free]
    batch = [a.shape[d] for d in left_batch]
    k = int(np.prod([a.shape[d] for d in left]))
    left_shape = [*batch, int(np.prod([a.shape[d] for d in left_free])), k]
    right_shape = [*batch, k, int(np.prod([b.shape[d] for d in right_free]))]
    shape = outs[0].shape
    if left_order == [*range(len(a.shape))] and right_order == [*range(len(b.shape))] and not widens and (
            [*a.shape] == left_shape and [*b.shape] == right_shape):
        return np.matmul

    turns = left_order != [*range(len(a.shape))], right_order != [*range(len(b.shape))]
    shapes = [*a.shape] != left_shape, [*b.shape] != right_shape

    def product(x: Any, y: Any) -> Any:
        if widens:
            x, y = np.asarray(x).astype(work), np.asarray(y).astype(work)
        x, y = x.transpose(left_order) if turns[0] else x, y.transpose(right_order) if turns[1] else y
        found = np.matmul(x.reshape(left_shape) if shapes[0] else x, y.reshape(right_shape) if shapes[1] else y)
        found = found if found.shape == shape else found.reshape(shape)
        return found.astype(dtype) if widens else found

    return product
