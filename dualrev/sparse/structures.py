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
from dualrev.sparse import contractions, host, windows
from dualrev.sparse.graph import Graph, Nodes
from dualrev.sparse.values import Value

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

Found: TypeAlias = Nodes | list[Nodes | None] | None
Structure: TypeAlias = "Callable[[Propagation, JaxprEqn, Sequence[Value]], Found]"


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
                     "scatter-mul"), windows.scatter),
    "pad": _padded,
    "select_n": _selected,
    "dynamic_slice": windows.dynamic_slice,
    "dynamic_update_slice": windows.dynamic_update_slice,
    "gather": windows.gather,
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
