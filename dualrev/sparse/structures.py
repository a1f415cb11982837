"""Where linear operations and products read the entries of their results from.

A structure ``(run, eqn, operands)`` gives the nodes of the result (a list for several results), or None where it does not apply, so
that the row's push is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np

from dualrev._jax.jaxprs import JaxprEqn
from dualrev.sparse import contractions, host
from dualrev.sparse.graph import Graph, Nodes
from dualrev.sparse.values import Value

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

Found: TypeAlias = Nodes | list[Nodes | None] | None
Structure: TypeAlias = "Callable[[Propagation, JaxprEqn, Sequence[Value]], Found]"


#: Backends on which a scatter writes its updates one after the other; elsewhere any update of a place may be the last.
WRITES_IN_ORDER = ("cpu",)


def shape_of(eqn: JaxprEqn, i: int = 0) -> tuple[int, ...]:
    shape: tuple[int, ...] = eqn.outvars[i].aval.shape  # type: ignore[attr-defined]
    return shape


# ---------------------------------------------------------------------------------------------------------- moving entries


def moved(eqn: JaxprEqn, operands: Sequence[Value]) -> list[Nodes | None] | None:
    """The operation itself on nodes in place of entries, for one that only moves entries; None if it reads unknown numbers."""
    given: list[Any] = []
    for x in operands:
        if x.aval.dtype.kind not in "biu" or x.nodes is not None:
            given.append(x.nodes_or_empty())
        elif x.is_known:
            given.append(x.known())
        else:
            return None
    move = host.MOVES.get(str(eqn.primitive))
    if move is not None:
        found = move(eqn.params, *given)
    else:
        with jax.ensure_compile_time_eval():
            found = eqn.primitive.bind(*[np.asarray(x, np.int32) if x.dtype == np.int64 else x for x in given], **eqn.params)
    outs = found if eqn.primitive.multiple_results else [found]
    return [np.asarray(x, np.int64) for x in outs]


def _moves(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    return moved(eqn, operands)


def _padded(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    x, value = operands
    empty = 0 if value.nodes is None else int(value.nodes)
    return np.asarray(host.MOVES["pad"](eqn.params, x.nodes_or_empty(), empty))


def _selected(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    which, *cases = operands
    if which.is_known:
        return np.asarray(host.MOVES["select_n"]({}, which.known(), *[x.nodes_or_empty() for x in cases]))
    return run.graph.union(*[x.nodes for x in cases])


def _same(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    return [x.nodes for x in operands][: len(eqn.outvars)]


# ------------------------------------------------------------------------------------------- windows at unknown places


def anywhere(graph: Graph, nodes: Nodes, axes: Sequence[int]) -> Nodes:
    """Each entry replaced by the union along some axes, which any entry along them may be read from."""
    if not axes:
        return nodes
    united = np.expand_dims(graph.union_over(nodes, axes), tuple(axes))
    return np.broadcast_to(united, nodes.shape)


def _starts(starts: Sequence[Value], shape: Sequence[int], sizes: Sequence[int]) -> tuple[list[Any], list[int]]:
    """Start indices, 0 where they are unknown, and the axes along which the place of the window is not known."""
    unknown = [d for d, (s, n, m) in enumerate(zip(starts, shape, sizes, strict=True)) if not s.is_known and n != m]
    return [s.known() if s.is_known else 0 for s in starts], unknown


def _dynamic_slice(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    x, *starts = operands
    if x.nodes is None:
        return None
    firsts, unknown = _starts(starts, x.nodes.shape, eqn.params["slice_sizes"])
    if unknown:
        run.lost["dynamic_slice: the place is not known"] += 1
    return anywhere(run.graph, x.nodes, unknown)[host.clamped(firsts, x.nodes.shape, eqn.params["slice_sizes"])]


def _dynamic_update_slice(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    x, update, *starts = operands
    old, new = x.nodes_or_empty(), update.nodes_or_empty()
    firsts, unknown = _starts(starts, old.shape, new.shape)
    if not new.size:
        return old
    if not unknown:
        return np.asarray(host.MOVES["dynamic_update_slice"]({}, old, new, *firsts))
    run.lost["dynamic_update_slice: the place is not known"] += 1
    united = np.expand_dims(run.graph.union_over(new, unknown), tuple(unknown))
    window = [slice(None) if d in unknown else s for d, s in enumerate(host.clamped(firsts, old.shape, new.shape))]
    placed = np.zeros(old.shape, np.int64)
    placed[tuple(window)] = united
    return run.graph.union(old, placed)


def _gather(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    x, indices = operands
    if x.nodes is None:
        return None
    nodes = x.nodes
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    if indices.is_known:
        at = np.asarray(indices.known())
    else:
        unknown = [d for d in numbers.start_index_map if sizes[d] != nodes.shape[d]]
        run.lost["gather: the places are not known"] += bool(unknown)
        nodes, at = anywhere(run.graph, nodes, unknown), np.zeros(indices.aval.shape, np.int64)
    places = host.gather_places(nodes.shape, at, eqn.params, shape_of(eqn))
    if not nodes.size:
        return None
    return np.where(places >= 0, nodes.ravel()[places], 0)


def _scatter(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    """Sums of updates, products, extrema, or replaced entries, at known or unknown places."""
    x, indices, updates = operands
    name = str(eqn.primitive)
    if eqn.params.get("update_jaxpr") is not None and name == "scatter":
        return None  # a function applied in place
    if name == "scatter-mul" and run.graph.second:
        return None  # the row's push has its products
    old, new = x.nodes_or_empty(), updates.nodes_or_empty()
    count = old.size
    if not new.size or not count:
        return old
    if indices.is_known:
        places = host.scatter_places(old.shape, np.asarray(indices.known()), eqn.params, new.shape)
        if name == "scatter" and jax.default_backend() in WRITES_IN_ORDER:
            return _last_written(old, new, places, eqn.params["dimension_numbers"].update_window_dims)
        places = places.ravel()
        inside = places >= 0
        written = run.graph.union_groups(places[inside], new.ravel()[inside], count).reshape(old.shape)
        if name != "scatter":
            return run.graph.union(old, written)
        hit = np.zeros(count, bool)
        hit[places[inside]] = True
        return np.where(hit.reshape(old.shape), written, old)
    run.lost[f"{name}: the places are not known"] += 1
    return run.graph.union(old, _scattered_anywhere(run.graph, new, old.shape, eqn.params["dimension_numbers"]))


def _last_written(old: Nodes, new: Nodes, places: np.ndarray, window_dims: Sequence[int]) -> Nodes:
    """Entries with their last update: updates are written in the order of their indices, each with its window."""
    order = [d for d in range(new.ndim) if d not in window_dims] + list(window_dims)
    flat, entries = places.transpose(order).ravel(), new.transpose(order).ravel()
    inside = flat >= 0
    result = old.ravel().copy()
    result[flat[inside]] = entries[inside]  # of several values for one place, numpy keeps the last
    return result.reshape(old.shape)


def _scattered_anywhere(graph: Graph, new: Nodes, shape: Sequence[int], numbers: Any) -> Nodes:
    """Updates that may be written anywhere along the axes that indices address."""
    kept = [d for d in range(len(shape)) if d not in numbers.inserted_window_dims and d not in numbers.operand_batching_dims]
    axis_of = dict(zip(kept, numbers.update_window_dims, strict=True))
    batch = [d for d in range(new.ndim) if d not in numbers.update_window_dims]
    for d, i in zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True):
        axis_of[d] = batch[i]
    aligned = {d: axis for d, axis in axis_of.items()
               if new.shape[axis] == shape[d] and (d not in numbers.scatter_dims_to_operand_dims or new.shape[axis] == shape[d])}
    united = graph.union_over(new, [a for a in range(new.ndim) if a not in aligned.values()])
    order = sorted(aligned, key=lambda d: sorted(aligned.values()).index(aligned[d]))
    united = united.transpose([order.index(d) for d in sorted(aligned)])
    return np.broadcast_to(united.reshape([shape[d] if d in aligned else 1 for d in range(len(shape))]), tuple(shape))


# --------------------------------------------------------------------------------------------------------------- along axes


def _reduce_sum(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    (x,) = operands
    return None if x.nodes is None else run.graph.union_over(x.nodes, eqn.params["axes"])


def prefixes(graph: Graph, nodes: Nodes, axis: int, reverse: bool) -> Nodes:
    """The unions of each entry and all before it along an axis (after it, in reverse), in a logarithmic number of steps."""
    moved = np.moveaxis(np.flip(nodes, axis) if reverse else nodes, axis, 0)
    step = 1
    while step < len(moved):
        moved = np.concatenate([moved[:step], graph.union(moved[step:], moved[:-step])])
        step *= 2
    result = np.moveaxis(moved, 0, axis)
    return np.flip(result, axis) if reverse else result


def _cumsum(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    (x,) = operands
    return None if x.nodes is None else prefixes(run.graph, x.nodes, eqn.params["axis"], eqn.params["reverse"])


def _fft(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    (x,) = operands
    if x.nodes is None:
        return None
    k, shape = len(eqn.params["fft_lengths"]), shape_of(eqn)
    united = run.graph.union_over(x.nodes, range(x.nodes.ndim - k, x.nodes.ndim))
    return np.broadcast_to(united.reshape(*united.shape, *[1] * k), shape)


def _triangular_solve(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    """``x_i`` depends on ``b_j`` for ``j`` on one side of ``i``, and on the whole of ``a``."""
    a, b = operands
    p = eqn.params
    left, transposed = p["left_side"], bool(int(p["transpose_a"]))
    is_lower = p["lower"] != transposed
    nodes = prefixes(run.graph, b.nodes_or_empty(), -2 if left else -1, reverse=is_lower != left)
    if a.nodes is None:
        return nodes
    of_a = run.graph.union_over(a.nodes, (-2, -1))[..., None, None]
    along = np.broadcast_to(run.graph.union_over(nodes, (-2 if left else -1,))[..., None, :] if left
                            else run.graph.union_over(nodes, (-1,))[..., None], nodes.shape)
    return run.graph.clique(run.graph.union(along, np.broadcast_to(of_a, nodes.shape)))


def _tridiagonal_solve(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    *diagonals, b = operands
    united = run.graph.union_over(b.nodes_or_empty(), (-2,))[..., None, :]
    matrix = run.graph.union(*[None if d.nodes is None else run.graph.union_over(d.nodes, (-1,)) for d in diagonals])
    result = np.broadcast_to(united, b.aval.shape)
    if matrix is None:
        return result
    return run.graph.clique(run.graph.union(result, np.broadcast_to(matrix[..., None, None], b.aval.shape)))


def _windowed_sum(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    (x,) = operands
    p = eqn.params
    if x.nodes is None:
        return None
    places = contractions.windows(x.nodes.shape, p["window_dimensions"], p["window_strides"], p["padding"], p["base_dilation"],
                                  p["window_dilation"])
    entries = np.append(x.nodes.ravel(), 0)
    return run.graph.union_rows(entries[places]).reshape(shape_of(eqn))


def _selected_in_windows(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    """One entry of each window, chosen by another array."""
    x, _ = operands
    return None if x.nodes is None else _windowed_sum(run, eqn, [x])


def _put_in_windows(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Found:
    """Each entry is added to one entry of its window, chosen by another array."""
    x, _ = operands
    p, shape = eqn.params, shape_of(eqn)
    if x.nodes is None:
        return None
    ones = (1,) * len(shape)
    places = contractions.windows(shape, p["window_dimensions"], p["window_strides"], p["padding"], ones, ones)
    inside = places < math.prod(shape)
    members = np.broadcast_to(x.nodes.ravel()[:, None], places.shape)[inside]
    return run.graph.union_groups(places[inside], members, math.prod(shape)).reshape(shape)


STRUCTURES: dict[str, Structure] = {
    **dict.fromkeys(("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "rev", "slice", "concatenate", "split",
                     "tile"), _moves),
    **dict.fromkeys(("convert_element_type", "reduce_precision", "copy", "copy_p", "optimization_barrier", "device_put",
                     "sharding_constraint", "layout_constraint", "tap", "real", "imag", "conj"), _same),
    **dict.fromkeys(("scatter", "scatter-add", "scatter-sub", "scatter_add", "scatter_sub", "scatter-min", "scatter-max",
                     "scatter-mul"), _scatter),
    "pad": _padded,
    "select_n": _selected,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "reduce_sum": _reduce_sum,
    "cumsum": _cumsum,
    "reduce_window_sum": _windowed_sum,
    "select_and_gather_add": _selected_in_windows,
    "select_and_scatter_add": _put_in_windows,
    "fft": _fft,
    "triangular_solve": _triangular_solve,
    "tridiagonal_solve": _tridiagonal_solve,
    "dot_general": contractions.dot_general,
    "conv_general_dilated": contractions.convolution,
}
