"""Contractions: products of two arrays with sums over axes, and windows that slide over an array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dualrev._jax.jaxprs import JaxprEqn
from dualrev.sparse.graph import Graph, Nodes
from dualrev.sparse.values import Value

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

#: The most products of entries that are told apart; beyond, all entries of a sum interact with all of the other factor's.
PRODUCTS = 4_000_000

#: The most entries that the zeros of a known factor are read for.
READ = 40_000_000


def factor(run: Propagation, x: Value) -> np.ndarray | None:
    """Which entries of a factor are not zero; None if that is not known, or none is.

    That of an active factor is known at one point only, and a second derivative has its own zeros.
    """
    if x.zero is not None:
        return ~x.zero
    if not x.is_known or (x.nodes is not None and (run.graph.second or not run.is_local)):
        return None
    nonzero = np.asarray(x.known()) != 0
    return None if nonzero.all() else nonzero


def dot_general(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Nodes | None:
    x, y = operands
    (x_sum, y_sum), (x_batch, y_batch) = eqn.params["dimension_numbers"]
    shape = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]

    def order(ndim: int, batch: Sequence[int], summed: Sequence[int]) -> list[int]:
        return [*batch, *[d for d in range(ndim) if d not in batch and d not in summed], *summed]

    n_batch = math.prod(x.aval.shape[d] for d in x_batch)
    n_sum = math.prod(x.aval.shape[d] for d in x_sum)
    n_x = math.prod(n for d, n in enumerate(x.aval.shape) if d not in x_batch and d not in x_sum)
    n_y = math.prod(n for d, n in enumerate(y.aval.shape) if d not in y_batch and d not in y_sum)

    def arranged(array: np.ndarray | None, batch: Sequence[int], summed: Sequence[int], rows: int) -> np.ndarray | None:
        if array is None:
            return None
        return array.transpose(order(array.ndim, batch, summed)).reshape(n_batch, rows, n_sum)

    if not (n_sum and n_batch * n_x * n_y):
        return None
    p, q = arranged(x.nodes, x_batch, x_sum, n_x), arranged(y.nodes, y_batch, y_sum, n_y)
    of_x = None if p is None else _summed(run, p, arranged(factor(run, y), y_batch, y_sum, n_y), n_y)
    of_y = None if q is None else _summed(run, q, arranged(factor(run, x), x_batch, x_sum, n_x), n_x).swapaxes(1, 2)
    result = run.graph.union(of_x, of_y)
    if run.graph.second and p is not None and q is not None:
        size = (n_batch, n_x, n_y, n_sum)
        if math.prod(size) <= PRODUCTS:
            each = run.graph.pair(np.broadcast_to(p[:, :, None], size), np.broadcast_to(q[:, None], size))
            assert each is not None  # both have nodes
            pairs: Nodes | None = run.graph.union_over(each, (3,))
        else:
            run.lost["dot_general: all terms of a sum together"] += 1
            pairs = run.graph.pair(of_x, of_y)
        result = run.graph.union(result, pairs)
    return None if result is None else result.reshape(shape)


def _summed(run: Propagation, p: Nodes, nonzero: np.ndarray | None, n_other: int) -> Nodes:
    """``(batch, rows, others)``: unions over the last axis of ``(batch, rows, sum)``, where the other factor is nonzero."""
    n_batch, rows, n_sum = p.shape
    if nonzero is not None and int(nonzero.sum()) * rows > READ:
        run.lost["dot_general: too large to read the zeros of a constant"] += 1
        nonzero = None
    if nonzero is None:
        united = run.graph.union_rows(p.reshape(n_batch * rows, n_sum)).reshape(n_batch, rows, 1)
        return np.broadcast_to(united, (n_batch, rows, n_other))
    return np.stack([_by_supports(run.graph, p[b], nonzero[b]) for b in range(n_batch)])


def _by_supports(graph: Graph, p: Nodes, nonzero: np.ndarray) -> Nodes:
    """``(rows, others)``: unions of ``p[row, k]`` over ``nonzero[other, k]``, once for each distinct support."""
    supports, inverse = distinct_rows(nonzero)
    other, k = np.nonzero(supports)
    members = p[:, k]
    owners = np.arange(len(p))[:, None] * len(supports) + other
    return graph.union_groups(owners.ravel(), members.ravel(), len(p) * len(supports)).reshape(len(p), len(supports))[:, inverse]


def distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of a boolean matrix, and the number of each row among them."""
    packed = np.ascontiguousarray(np.packbits(rows, axis=1))
    if not packed.size:
        return rows[:1], np.zeros(len(rows), np.int64)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], inverse.ravel()


# ------------------------------------------------------------------------------------------------------------------ windows


def positions(n: int, size: int, stride: int, padding: tuple[int, int], dilation: int, window_dilation: int) -> np.ndarray:
    """``(windows, size)``: where each window reads along one axis of length ``n``; -1 in the padding and in holes."""
    length = max((n - 1) * dilation + 1, 0) if n else 0
    reach = (size - 1) * window_dilation + 1
    count = max((length + sum(padding) - reach) // stride + 1, 0)
    at = np.arange(count)[:, None] * stride - padding[0] + np.arange(size) * window_dilation
    return np.where((at >= 0) & (at < length) & (at % dilation == 0), at // dilation, -1)


def windows(shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]],
            dilation: Sequence[int], window_dilation: Sequence[int]) -> np.ndarray:
    """``(number of windows, entries of a window)``: the flat places that windows over all axes read; the end for none."""
    size = math.prod(shape)
    k = len(shape)
    total, inside = np.zeros((1,) * (2 * k), np.int64), np.ones((1,) * (2 * k), bool)
    for d, settings in enumerate(zip(shape, sizes, strides, padding, dilation, window_dilation, strict=True)):
        at = positions(*settings)
        form = [1] * (2 * k)
        form[d], form[k + d] = at.shape
        total = total + at.reshape(form) * math.prod(shape[d + 1:])
        inside = inside & (at >= 0).reshape(form)
    found = np.where(inside, total, size)
    return found.reshape(math.prod(found.shape[:k]), math.prod(found.shape[k:]))


def convolution(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Nodes | None:
    """Sums over the window and the channels of a group; in order: batch, group, channel of the group, place."""
    x, w = operands
    params = eqn.params
    numbers, groups, batch_groups = params["dimension_numbers"], params["feature_group_count"], params["batch_group_count"]
    x_shape = [x.aval.shape[d] for d in numbers.lhs_spec]
    w_shape = [w.aval.shape[d] for d in numbers.rhs_spec]
    places = windows(x_shape[2:], w_shape[2:], params["window_strides"], params["padding"], params["lhs_dilation"],
                     params["rhs_dilation"])
    n, space, (n_places, n_window) = x_shape[0] // batch_groups, math.prod(x_shape[2:]), places.shape
    groups *= batch_groups  # one of the two is 1; a group of the batch is one of the features of a smaller batch
    c, o = w_shape[1], w_shape[0] // groups
    if not (c * n_window and n * n_places * o):
        return None

    def of_x(array: np.ndarray | None, outside: int | bool) -> np.ndarray | None:
        if array is None:
            return None
        array = array.transpose(numbers.lhs_spec).reshape(batch_groups, n, x_shape[1], space)
        array = array.swapaxes(0, 1).reshape(n, groups, c, space)
        entries = np.concatenate([array, np.full((n, groups, c, 1), outside, array.dtype)], 3)[..., places]
        return entries.transpose(0, 1, 3, 2, 4).reshape(n, groups, n_places, c * n_window)

    def of_w(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array.transpose(numbers.rhs_spec).reshape(groups, o, c * n_window)

    p, q = of_x(x.nodes, 0), of_w(w.nodes)
    result: Nodes | None = None
    if p is not None:
        nonzero = of_w(factor(run, w))
        parts = [_summed(run, p[:, g].reshape(1, n * n_places, c * n_window), None if nonzero is None else nonzero[None, g], o)
                 .reshape(n, n_places, o) for g in range(groups)]
        result = np.stack(parts, 1)
    if q is not None:
        known = factor(run, x)
        inside = of_x(np.ones(x.aval.shape, bool) if known is None else known, False)
        assert inside is not None  # an array was given
        parts = []
        for g in range(groups):
            places_of = inside[:, g].reshape(1, n * n_places, c * n_window)
            parts.append(_summed(run, q[None, g], places_of, n * n_places)[0].T.reshape(n, n_places, o))
        of_kernel = np.stack(parts, 1)
        pairs = None
        if p is not None and run.graph.second:
            size = (n, groups, n_places, o, c * n_window)
            if math.prod(size) <= PRODUCTS:
                each = run.graph.pair(np.broadcast_to(p[:, :, :, None], size), np.broadcast_to(q[None, :, None], size))
                assert each is not None  # both have nodes
                pairs = run.graph.union_over(each, (4,))
            else:
                run.lost["conv_general_dilated: all terms of a sum together"] += 1
                pairs = run.graph.pair(result, of_kernel)
        result = run.graph.union(result, of_kernel, pairs)
    if result is None:
        return None
    out_shape = [eqn.outvars[0].aval.shape[d] for d in numbers.out_spec]  # type: ignore[attr-defined]
    result = result.transpose(0, 1, 3, 2).reshape(out_shape)
    return result.transpose(list(np.argsort(numbers.out_spec)))
