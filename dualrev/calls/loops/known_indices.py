"""Integers of a loop that are known before it runs: counters, and what a body computes from counters alone.

A ``fori_loop`` reads ``x[i]`` and writes ``out.at[i].set(...)`` at places that follow from its counter.  Where the counter begins with
a known number, its values at all steps are known, and so are the places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from dualrev._jax.avals import AbstractValue
from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev._jax.primitives import Params, Primitive

#: The most known numbers for one value of a body, at all steps together.
MOST = 1_000_000


def _convert(x: np.ndarray, params: Params) -> np.ndarray:
    return x.astype(params["new_dtype"])


def _broadcast(x: np.ndarray, params: Params) -> np.ndarray:
    shape, where = params["shape"], params["broadcast_dimensions"]
    lengths = [1] * len(shape)
    for i, d in enumerate(where):
        lengths[d] = x.shape[1 + i]
    return np.broadcast_to(x.reshape(x.shape[0], *lengths), (x.shape[0], *shape))


def _concatenate(*xs: Any) -> np.ndarray:
    *arrays, params = xs
    return np.concatenate(arrays, 1 + params["dimension"])


def _select(which: np.ndarray, *rest: Any) -> np.ndarray:
    *cases, _ = rest
    lengths = (*which.shape, *[1] * (cases[0].ndim - which.ndim))
    return np.choose(np.broadcast_to(which.reshape(lengths).astype(int), cases[0].shape), cases)


def _elementwise(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda *xs: function(*xs[:-1])


#: Operations on integers and booleans, of arrays that have the steps as a first axis, and of parameters.
_OPERATIONS: Mapping[Primitive, Callable[..., np.ndarray]] = {
    lax.add_p: _elementwise(np.add), lax.sub_p: _elementwise(np.subtract), lax.mul_p: _elementwise(np.multiply),
    lax.neg_p: _elementwise(np.negative), lax.max_p: _elementwise(np.maximum), lax.min_p: _elementwise(np.minimum),
    lax.lt_p: _elementwise(np.less), lax.le_p: _elementwise(np.less_equal), lax.gt_p: _elementwise(np.greater),
    lax.ge_p: _elementwise(np.greater_equal), lax.eq_p: _elementwise(np.equal), lax.ne_p: _elementwise(np.not_equal),
    lax.and_p: _elementwise(np.bitwise_and), lax.or_p: _elementwise(np.bitwise_or), lax.select_n_p: _select,
    lax.convert_element_type_p: _convert, lax.broadcast_in_dim_p: _broadcast, lax.concatenate_p: _concatenate,
    lax.reshape_p: lambda x, params: x.reshape(x.shape[0], *params["new_sizes"]),
    lax.squeeze_p: lambda x, params: x.reshape(x.shape[0], *_without(x.shape[1:], params["dimensions"])),
}


def _without(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    return [n for i, n in enumerate(shape) if i not in axes]


def is_integer(aval: AbstractValue) -> bool:
    dtype = getattr(aval, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "iub"


def counter(carry: Var, after: Atom, made_by: Mapping[Var, JaxprEqn], start: np.ndarray, length: int) -> np.ndarray | None:
    """The values of a carry at all steps, in the order in which they run, if each step adds the same number to it."""
    if is_literal(after):
        return None
    if after is carry:
        return np.full(length, start)
    eqn = made_by.get(after)
    if eqn is None or eqn.primitive not in (lax.add_p, lax.sub_p):
        return None
    literals = [atom.val for atom in eqn.invars if is_literal(atom)]
    is_difference = eqn.primitive is lax.sub_p
    if len(literals) != 1 or carry not in eqn.invars or (is_difference and eqn.invars[0] is not carry):
        return None
    found = start.astype(object) + np.arange(length, dtype=object) * (-int(literals[0]) if is_difference else int(literals[0]))
    bounds = np.iinfo(start.dtype)
    return found.astype(start.dtype) if length and bounds.min <= min(found) and max(found) <= bounds.max else None


def known_values(eqns: Sequence[JaxprEqn], start: Mapping[Var, np.ndarray], length: int) -> dict[Var, np.ndarray]:
    """What the equations compute from these values alone: for each value, an array that has the steps as a first axis."""
    known = dict(start)
    for eqn in eqns:
        operation = _OPERATIONS.get(eqn.primitive)
        if operation is None or eqn.effects or not all(is_literal(atom) or atom in known for atom in eqn.invars):
            continue
        out = eqn.outvars[0]
        if not is_integer(out.aval) or length * math.prod(out.aval.shape) > MOST:  # type: ignore[attr-defined]  # it has integers
            continue
        operands = [np.broadcast_to(np.asarray(atom.val, atom.aval.dtype), (length, *atom.aval.shape)) if is_literal(atom)  # type: ignore[attr-defined]
                    else known[atom] for atom in eqn.invars]
        known[out] = operation(*operands, eqn.params).astype(out.aval.dtype)  # type: ignore[attr-defined]
    return known
