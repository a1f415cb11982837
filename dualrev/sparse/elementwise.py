"""Operations that work entry by entry: which operands count at an entry, and which of them interact."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.avals import ShapedArray, is_differentiable
from dualrev._jax.jaxprs import stage
from dualrev._jax.primitives import Params
from dualrev.sparse.closure import Closure
from dualrev.sparse.graph import Graph, Nodes
from dualrev.sparse.structural_zeros import powers_of_zero
from dualrev.sparse.values import Value
from dualrev.table.operations import Reader
from dualrev.table.partials import ElementwiseRow
from dualrev.table.rows import Row

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

#: Pairs of operands whose second derivative is not identically zero.
Interactions = frozenset[tuple[int, int]]

_known: dict[Hashable, Interactions] = {}


def nodes(run: Propagation, row: Row, params: Params, operands: Sequence[Value], shape: tuple[int, ...]) -> Nodes | None:
    """The nodes of the result of an operation that works entry by entry."""
    graph = run.graph
    terms: dict[int, Nodes] = {}
    for i, x in enumerate(operands):
        if x.nodes is None or (isinstance(row, ElementwiseRow) and row.stated[i] is None):
            continue
        term = x.nodes if x.nodes.shape == shape else np.broadcast_to(x.nodes, shape)
        zero = vanishes(run, row, params, operands, i)
        if zero is not None and zero.any():
            term = np.where(np.broadcast_to(zero, shape), 0, term)
        terms[i] = term
    if not terms:
        return None
    if not graph.second or row.kind == "linear":
        return graph.union(*terms.values())
    pairs = interactions(type(run), row, params, [x.aval for x in operands], tuple(terms))
    if len(terms) * (len(terms) + 1) // 2 == len(pairs):
        return graph.clique(graph.union(*terms.values()))
    of_pairs = [graph.clique(terms[i]) if i == j else graph.pair(terms[i], terms[j]) for i, j in sorted(pairs)]
    return graph.union(*terms.values(), *of_pairs)


def vanishes(run: Propagation, row: Row, params: Params, operands: Sequence[Value], i: int) -> np.ndarray | None:
    """Where the partial derivative by operand ``i`` is known to be zero; None if nothing is known.

    For second derivatives it must be zero whatever the inputs are, and not only at this point.
    """
    if not isinstance(row, ElementwiseRow):
        return None
    if i == 0 and (constant := powers_of_zero(str(row.primitive), params, operands)) is not None and constant.any():
        return constant
    partial = row.stated[i]
    if not isinstance(partial, Reader) or row.is_over[i]:
        return None
    read = range(len(operands)) if partial.reads_out else [j for j in range(len(operands)) if partial.reads(j)]
    if row.kind == "product" and len(read) == 1 and (zero := operands[read[0]].zero) is not None:
        return zero
    if not all(operands[j].is_known and (operands[j].nodes is None or not run.graph.second) for j in read):
        return None
    if row.kind == "product" and len(read) == 1:
        return np.asarray(operands[read[0]].known() == 0)
    given = [jnp.asarray(x.known()) if j in read else None for j, x in enumerate(operands)]
    keywords = partial.keywords(params)
    with jax.ensure_compile_time_eval():
        if partial.reads_out:
            (keywords["out"],) = row.bind(given, params)  # type: ignore[arg-type]  # all are read
        return np.asarray(np.asarray(partial.function(*given, **keywords)) == 0)


def interactions(engine: type[Propagation], row: Row, params: Params, avals: Sequence[ShapedArray],
                 active: tuple[int, ...]) -> Interactions:
    """The pairs ``i <= j`` of active operands for which ``∂²f/∂x_i ∂x_j`` is not identically zero.

    It can only be nonzero where the partial by ``x_i`` depends on ``x_j`` and the partial by ``x_j`` on ``x_i``.  Whether one depends
    on the other is found by propagation through the partial itself: that of ``max`` compares, and has no derivative.
    """
    if not isinstance(row, ElementwiseRow):
        return frozenset((i, j) for i in active for j in active if (i < j if row.kind == "product" else i <= j))
    key: Hashable
    try:
        key = (row, tuple(params.items()), tuple([a.dtype for a in avals]), active)
        if key in _known:
            return _known[key]
    except TypeError:  # a parameter that cannot be hashed
        key = None
    by = {i: _dependence(engine, row, params, avals, i) for i in active}
    found = frozenset((i, j) for i in active for j in active if i <= j and j in by[i] and i in by[j])
    if key is not None:
        _known[key] = found
    return found


def _dependence(engine: type[Propagation], row: ElementwiseRow, params: Params, avals: Sequence[ShapedArray], i: int) -> set[int]:
    """The operands that the partial derivative by operand ``i`` depends on."""
    partial = row.stated[i]
    if not isinstance(partial, Reader):
        return set()
    scalars = [ShapedArray((), a.dtype) for a in avals]

    def function(*values: Any) -> list[Any]:
        keywords = partial.keywords(params)
        if partial.reads_out:
            keywords["out"] = values[-1]
        return [partial.function(*values[:-1], **keywords)]

    result = jax.eval_shape(lambda *xs: row.bind(xs, params), *[jax.ShapeDtypeStruct((), a.dtype) for a in avals])[0]
    program = stage(function, [*scalars, ShapedArray((), result.dtype)])
    n = len(avals)
    graph = Graph(n)
    active = [k for k, p in enumerate(row.stated) if p is not None and is_differentiable(avals[k])]
    args = [Value(a, np.full((), k + 1) if k in active else None) for k, a in enumerate(scalars)]
    out = Value(program.in_avals[-1], graph.union_rows(np.array([[k + 1 for k in active]]))[0].reshape(()))
    (found,) = engine(graph).run(program, [*args, out])
    if found.nodes is None:
        return set()
    return set(Closure(graph, found.nodes).of(found.nodes).indices.tolist())
