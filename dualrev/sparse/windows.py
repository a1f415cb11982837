"""Windows at places that indices give: slices, gathers and scatters, of which the places are known, lie in a range, or may be any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dualrev._jax.jaxprs import JaxprEqn
from dualrev.sparse import host, ranges
from dualrev.sparse.graph import Graph, Nodes
from dualrev.sparse.values import Value

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

#: Backends on which a scatter writes its updates one after the other; elsewhere any update of a place may be the last.
WRITES_IN_ORDER = ("cpu",)


def anywhere(graph: Graph, nodes: Nodes, axes: Sequence[int]) -> Nodes:
    """Each entry replaced by the union along some axes, which any entry along them may be read from."""
    if not axes:
        return nodes
    united = np.expand_dims(graph.union_over(nodes, axes), tuple(axes))
    return np.broadcast_to(united, nodes.shape)


def _starts(starts: Sequence[Value], shape: Sequence[int], sizes: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Start indices, one list for each place that they may have, and the axes along which the window may be anywhere."""
    found = [ranges.range_of(s) for s in starts]
    low, high = (np.array([float(r[end]) for r in found]) for end in (0, 1))  # type: ignore[index]  # they are integers
    each, unknown = ranges.places(low, high, [n - m for n, m in zip(shape, sizes, strict=True)], clips=True)
    return [at.tolist() for at in each], unknown


def dynamic_slice(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Nodes | None:
    x, *starts = operands
    if x.nodes is None:
        return None
    firsts, unknown = _starts(starts, x.nodes.shape, eqn.params["slice_sizes"])
    run.lost["dynamic_slice: the place is not known"] += bool(unknown or len(firsts) > 1)
    nodes = anywhere(run.graph, x.nodes, unknown)
    return run.graph.union(*[nodes[host.clamped(first, nodes.shape, eqn.params["slice_sizes"])] for first in firsts])


def dynamic_update_slice(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Nodes | None:
    x, update, *starts = operands
    old, new = x.nodes_or_empty(), update.nodes_or_empty()
    if not new.size:
        return old
    firsts, unknown = _starts(starts, old.shape, new.shape)
    if not unknown and len(firsts) == 1:
        return np.asarray(host.MOVES["dynamic_update_slice"]({}, old, new, *firsts[0]))
    run.lost["dynamic_update_slice: the place is not known"] += 1
    united = np.expand_dims(run.graph.union_over(new, unknown), tuple(unknown))
    result: Nodes = old
    for first in firsts:
        window = [slice(None) if d in unknown else s for d, s in enumerate(host.clamped(first, old.shape, new.shape))]
        placed = np.zeros(old.shape, np.int64)
        placed[tuple(window)] = united
        result = run.graph.union(result, placed)  # type: ignore[assignment]  # both are arrays
    return result


def gather(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Nodes | None:
    x, indices = operands
    if x.nodes is None:
        return None
    sizes, axes = eqn.params["slice_sizes"], eqn.params["dimension_numbers"].start_index_map
    if not x.nodes.size:
        return None
    if indices.is_known:
        each, unknown = [np.asarray(indices.known())], []
    else:
        low, high = ranges.range_of(indices)  # type: ignore[misc]  # they are integers
        found, wide = ranges.places(low, high, [x.nodes.shape[d] - sizes[d] for d in axes], clips=host.clips(eqn.params))
        each, unknown = list(found), [axes[i] for i in wide if sizes[axes[i]] != x.nodes.shape[axes[i]]]
        run.lost["gather: the places are not known"] += bool(unknown or len(each) > 1)
    nodes = anywhere(run.graph, x.nodes, unknown)
    shape: tuple[int, ...] = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]  # an array
    several = [host.gather_places(nodes.shape, at, eqn.params, shape) for at in each]
    return run.graph.union(*[np.where(places >= 0, nodes.ravel()[places], 0) for places in several])


def scatter(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Nodes | None:
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
    near = _written_near(run.graph, eqn, old, new, indices)
    if near is not None:
        return run.graph.union(old, near)
    return run.graph.union(old, _scattered_anywhere(run.graph, new, old.shape, eqn.params["dimension_numbers"]))


def _written_near(graph: Graph, eqn: JaxprEqn, old: Nodes, new: Nodes, indices: Value) -> Nodes | None:
    """Updates at all places that their indices may have; None where these are many."""
    low, high = ranges.range_of(indices)  # type: ignore[misc]  # they are integers
    axes, window = eqn.params["dimension_numbers"].scatter_dims_to_operand_dims, host.scatter_window(eqn.params, old.ndim, new.shape)
    each, unknown = ranges.places(low, high, [old.shape[d] - window[d] for d in axes], clips=eqn.params["mode"] is host.CLIP)
    if unknown:
        return None
    places = np.concatenate([host.scatter_places(old.shape, at, eqn.params, new.shape).ravel() for at in each])
    entries = np.tile(new.ravel(), len(places) // new.size)
    return graph.union_groups(places[places >= 0], entries[places >= 0], old.size).reshape(old.shape)


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
