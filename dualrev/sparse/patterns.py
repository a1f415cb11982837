"""Sparsity patterns as boolean matrices: where a Jacobian, or a Hessian, may be nonzero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import jax
import numpy as np
import scipy.sparse as sp

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction, stage
from dualrev.sparse.closure import Closure
from dualrev.sparse.graph import Graph, Nodes
from dualrev.sparse.propagation import Propagation
from dualrev.sparse.values import Value, as_number


def jacobian_csr(fun: FlatFunction | ClosedJaxpr, avals: Sequence[ShapedArray], at: Sequence[jax.Array | None] | None = None,
                 wrt: Sequence[int] | None = None, lost: Counter[str] | None = None, most: int | None = None) -> sp.csr_array:
    """The pattern of the Jacobian of a flat function: a boolean CSR array, outputs by inputs, all flattened and concatenated.

    Without ``at`` it holds for all inputs of these types; with it, at these inputs.  ``wrt``: the inputs that are differentiated, in
    the order of the columns; by default all.  ``lost`` is filled with the operations at which exactness was lost, and how often.
    ``most``: a pattern with more entries is not formed (:class:`~dualrev.sparse.closure.TooManyError`).
    """
    graph, nodes = _propagated(fun, avals, at, wrt, lost, second=False)
    found: sp.csr_array = Closure(graph, nodes, most).of(nodes)
    found.sort_indices()
    return found


def hessian_csr(fun: FlatFunction | ClosedJaxpr, avals: Sequence[ShapedArray], at: Sequence[jax.Array | None] | None = None,
                wrt: Sequence[int] | None = None, lost: Counter[str] | None = None, most: int | None = None) -> sp.csr_array:
    """The pattern of the Hessians of all outputs together, as :func:`jacobian_csr`: symmetric, inputs by inputs."""
    graph, nodes = _propagated(fun, avals, at, wrt, lost, second=True)
    closure = Closure(graph, nodes, most)
    a, b = closure.interacting()
    closure.check_products(a, b)
    sets = closure.sets.view()
    half = sets[a].T.tocsr() @ sets[b]
    found: sp.csr_array = (half + half.T).tocsr()
    found.sort_indices()
    return found


def _propagated(fun: FlatFunction | ClosedJaxpr, avals: Sequence[ShapedArray], at: Sequence[jax.Array | None] | None,
                wrt: Sequence[int] | None, lost: Counter[str] | None, second: bool) -> tuple[Graph, Nodes]:
    """The graph, and the nodes of all outputs."""
    program = fun if isinstance(fun, ClosedJaxpr) else stage(fun, avals)
    n, starts = 0, {}
    for i in range(len(avals)) if wrt is None else wrt:
        starts[i] = n + 1
        n += avals[i].size
    graph = Graph(n, second)
    args = []
    for i, aval in enumerate(avals):
        value = Value(aval, None, None if at is None or at[i] is None else as_number(at[i]))
        if i in starts:
            value.nodes = np.arange(starts[i], starts[i] + aval.size).reshape(aval.shape)
        args.append(value)
    run = Propagation(graph, is_local=at is not None)
    outs = run.run(program, args)
    if lost is not None:
        lost.update(run.lost)
    return graph, np.concatenate([x.nodes_or_empty().ravel() for x in outs] or [np.zeros(0, np.int64)])
