"""A window that is read or written at known places, as a slice or an update of a slice.

``x.at[1:-1].set(y)`` is a scatter whose indices are constants.  A compiler makes an update of a slice of it, but not so of the gather
that its pull is, where the indices have become operands of a loop: it then asks of each entry whether it lies within bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax

from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn
from dualrev._jax.sharding import explicit_sharding
from dualrev.programs.entries.known import Host, Known
from dualrev.programs.entries.writing import Writer
from dualrev.programs.partition import Graph


def with_slices(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """The program with slices and updates of slices in place of gathers and scatters of one window at places that are known.

    The same object where there are none.  What then nothing reads is left out.
    """
    body = jaxpr.jaxpr
    if not any(eqn.primitive in (lax.gather_p, lax.scatter_p) for eqn in body.eqns):
        return jaxpr
    graph = Graph(list(body.invars), list(body.outvars), list(body.eqns), dict(zip(body.constvars, jaxpr.consts, strict=True)),
                  body.debug_info)
    known, writer = Known(graph), Writer(graph.consts)
    is_changed = False
    for eqn in graph.eqns:
        known.computes(eqn)
        starts = _starts(eqn, known)
        if starts is None:
            writer.eqns.append(eqn)
        elif eqn.primitive is lax.gather_p:
            _write_slice(writer, eqn, starts)
        else:
            _write_update(writer, eqn, starts)
        is_changed = is_changed or starts is not None
    if not is_changed:
        return jaxpr
    return Graph(graph.invars, graph.outvars, writer.eqns, writer.consts, graph.debug_info).computing(graph.outvars)


def _starts(eqn: JaxprEqn, known: Known) -> list[int] | None:
    """Where the one window of a gather or a scatter begins, if that is known and the window lies within the array."""
    if eqn.primitive not in (lax.gather_p, lax.scatter_p) or eqn.params.get("update_jaxpr") is not None:
        return None
    indices: Host | None = known.of(eqn.invars[1])
    numbers = eqn.params["dimension_numbers"]
    if indices is None or indices.ndim != 1 or numbers.operand_batching_dims or explicit_sharding(eqn.invars[0].aval):  # type: ignore[arg-type]  # an array
        return None
    is_gather = eqn.primitive is lax.gather_p
    shape: Sequence[int] = eqn.invars[0].aval.shape  # type: ignore[attr-defined]  # an array
    starts = [0] * len(shape)
    for axis, start in zip(numbers.start_index_map if is_gather else numbers.scatter_dims_to_operand_dims, indices, strict=True):
        starts[axis] = int(start)
    is_within = all(start >= 0 and start + n <= whole for start, n, whole in zip(starts, _sizes(eqn), shape, strict=True))
    return starts if is_within else None


def _sizes(eqn: JaxprEqn) -> list[int]:
    """The shape of the window, with an entry for each axis of the array."""
    if eqn.primitive is lax.gather_p:
        return list(eqn.params["slice_sizes"])
    window = iter(eqn.invars[2].aval.shape)  # type: ignore[attr-defined]  # an array
    inserted = eqn.params["dimension_numbers"].inserted_window_dims
    return [1 if axis in inserted else next(window) for axis in range(len(eqn.invars[0].aval.shape))]  # type: ignore[attr-defined]


def _write_slice(writer: Writer, eqn: JaxprEqn, starts: Sequence[int]) -> None:
    (out,) = eqn.outvars
    limits = [start + n for start, n in zip(starts, _sizes(eqn), strict=True)]
    writer.emit(lambda x: lax.reshape(lax.slice(x, starts, limits), out.aval.shape), [eqn.invars[0]], eqn, out)  # type: ignore[attr-defined]


def _write_update(writer: Writer, eqn: JaxprEqn, starts: Sequence[int]) -> None:
    sizes = _sizes(eqn)

    def update(x: jax.Array, y: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice(x, lax.reshape(y, sizes), [np.int32(start) for start in starts])

    writer.emit(update, [eqn.invars[0], eqn.invars[2]], eqn, eqn.outvars[0])
