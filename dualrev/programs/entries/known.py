"""Places that are known: small integers computed from numbers in a program, and dynamic slices at such places as slices.

``lax.dynamic_index_in_dim(x, 3)`` compares 3 with 0, adds the length of ``x``, and selects: a compiler finds the place, a reader of the
program must too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.jaxprs import Atom, Jaxpr, JaxprEqn, Var, is_literal, stage
from dualrev._jax.primitives import Primitive
from dualrev._jax.traces import Tracer, evaluating
from dualrev.programs.entries.alike import SMALL
from dualrev.programs.partition import Graph

Host = np.ndarray[Any, Any]

#: What these operations compute, of small arrays of integers and of predicates.
_ON_HOST: dict[Primitive, Callable[..., Any]] = {
    lax.lt_p: lambda x, y, **_: np.less(x, y),
    lax.ge_p: lambda x, y, **_: np.greater_equal(x, y),
    lax.add_p: lambda x, y, **_: np.add(x, y),
    lax.sub_p: lambda x, y, **_: np.subtract(x, y),
    lax.mul_p: lambda x, y, **_: np.multiply(x, y),
    lax.min_p: lambda x, y, **_: np.minimum(x, y),
    lax.max_p: lambda x, y, **_: np.maximum(x, y),
    lax.clamp_p: lambda low, x, high, **_: np.minimum(np.maximum(x, low), high),
    lax.select_n_p: lambda which, *cases, **_: np.where(which, cases[1], cases[0]) if which.dtype == bool else None,
    lax.convert_element_type_p: lambda x, *, new_dtype, **_: x.astype(new_dtype),
    lax.broadcast_in_dim_p: lambda x, *, shape, broadcast_dimensions, **_: np.broadcast_to(
        x.reshape([x.shape[broadcast_dimensions.index(d)] if d in broadcast_dimensions else 1 for d in range(len(shape))]), shape),
    lax.reshape_p: lambda x, *, new_sizes, dimensions, **_: x.reshape(new_sizes) if dimensions is None else None,
    lax.squeeze_p: lambda x, *, dimensions, **_: np.squeeze(x, dimensions),
    lax.concatenate_p: lambda *xs, dimension, **_: np.concatenate(xs, dimension),
}


class Known:
    """The small integers and predicates of a program that are known before it runs."""

    def __init__(self, graph: Graph):
        self._values: dict[Var, Host] = {}
        for v, x in graph.consts.items():
            if not isinstance(x, Tracer) and _is_known_type(v):
                self._values[v] = np.asarray(x)

    def of(self, atom: Atom) -> Host | None:
        if is_literal(atom):
            return np.asarray(atom.val, atom.aval.dtype) if _is_known_type(atom) else None  # type: ignore[attr-defined]
        return self._values.get(atom)

    def all_of(self, atoms: Sequence[Atom]) -> list[Host] | None:
        found = [self.of(atom) for atom in atoms]
        return None if any(x is None for x in found) else found  # type: ignore[return-value]  # none is None

    def computes(self, eqn: JaxprEqn) -> bool:
        """Whether the result of an equation is known; it is kept."""
        function = _ON_HOST.get(eqn.primitive)
        if function is None or not _is_known_type(eqn.outvars[0]) or (given := self.all_of(eqn.invars)) is None:
            return False
        with np.errstate(over="ignore"):
            found = function(*given, **eqn.params)
        if found is None:
            return False
        self._values[eqn.outvars[0]] = np.asarray(found, eqn.outvars[0].aval.dtype)  # type: ignore[attr-defined]
        return True


def _is_known_type(atom: Atom) -> bool:
    aval = atom.aval
    dtype, shape = getattr(aval, "dtype", None), getattr(aval, "shape", ())
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iub" or not all(isinstance(n, int) for n in shape):
        return False
    return int(np.prod(shape)) <= SMALL


def with_known_places(graph: Graph) -> Graph:
    """The program in which known integers are constants, and dynamic slices at known places are slices."""
    known = Known(graph)
    eqns: list[JaxprEqn] = []
    made: dict[Var, Host] = {}
    templates: dict[object, Jaxpr] = {}
    for eqn in graph.eqns:
        if known.computes(eqn):
            made[eqn.outvars[0]] = known.of(eqn.outvars[0])  # type: ignore[assignment]  # it is known
        elif eqn.primitive is lax.dynamic_slice_p and (starts := known.all_of(eqn.invars[1:])) is not None:
            eqns.append(_as_slice(eqn, [int(start) for start in starts], templates))
        else:
            eqns.append(eqn)
    read = {atom for eqn in eqns for atom in eqn.invars if not is_literal(atom)} | {v for v in graph.outvars if not is_literal(v)}
    with evaluating():
        consts = {**graph.consts, **{v: jnp.asarray(x) for v, x in made.items() if v in read}}
    return dataclasses.replace(graph, eqns=eqns, consts=consts)


def _as_slice(eqn: JaxprEqn, starts: list[int], templates: dict[object, Jaxpr]) -> JaxprEqn:
    """The dynamic slice at known places as a slice; its starts are clamped as a dynamic slice clamps them."""
    x, sizes = eqn.invars[0], tuple(eqn.params["slice_sizes"])
    lengths = x.aval.shape  # type: ignore[attr-defined]  # an array
    first = tuple([min(max(start, 0), n - size) for start, n, size in zip(starts, lengths, sizes, strict=True)])
    limits = tuple([start + size for start, size in zip(first, sizes, strict=True)])
    params = {"start_indices": first, "limit_indices": limits, "strides": None}
    key = (x.aval, sizes)
    if key not in templates:
        templates[key] = stage(lambda x: [lax.slice_p.bind(x, **params)], [x.aval]).jaxpr  # type: ignore[list-item]  # as above
    (like,) = templates[key].eqns
    made: JaxprEqn = like.replace(invars=[x], outvars=eqn.outvars, params={**like.params, **params}, ctx=eqn.ctx,
                                  source_info=eqn.source_info)
    return made
