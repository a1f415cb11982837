"""Ranges of integers whose numbers are not known: a comparison is 0 or 1, a remainder by 4 lies between -3 and 3.

A range is a pair of arrays of the value's shape, the least and the largest number that each entry can have, whatever the inputs are;
an end that is not known is infinite.  Arithmetic that may leave the range of its dtype wraps around, so that nothing is known then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from dualrev._jax.jaxprs import JaxprEqn
from dualrev._jax.primitives import Params
from dualrev.sparse import host
from dualrev.sparse.values import Range, Value

#: Ranges of operands to the range of the result.
Rule: TypeAlias = Callable[..., "tuple[np.ndarray, np.ndarray] | None"]

#: At most so many places are followed for one index, and arrays of at most so many entries are followed at all.
MOST_PLACES, MOST_ENTRIES = 32, 2**20
#: Larger numbers are not exact in double precision.
EXACT = 2.0**53


def range_of(x: Value) -> Range | None:
    """The range of an integer or boolean value; None for others."""
    if x.aval.dtype.kind not in "biu":
        return None
    if x.is_known:
        number = np.asarray(x.known()).astype(np.float64)
        large = np.abs(number) > EXACT
        return np.where(large, -np.inf, number), np.where(large, np.inf, number)
    return x.range if x.range is not None else (np.broadcast_to(-np.inf, x.aval.shape), np.broadcast_to(np.inf, x.aval.shape))


def found_range(eqn: JaxprEqn, operands: Sequence[Value]) -> Range | None:
    """The range of the one result of an operation on integers; None where nothing is known of it."""
    if len(eqn.outvars) != 1:
        return None
    aval = eqn.outvars[0].aval
    shape, dtype = getattr(aval, "shape", None), getattr(aval, "dtype", None)
    if shape is None or dtype is None or getattr(dtype, "kind", "") not in "biu" or aval.size > MOST_ENTRIES:  # type: ignore[attr-defined]
        return None
    name = str(eqn.primitive)
    ranges = [range_of(x) for x in operands]
    with np.errstate(all="ignore"):
        found = _found(name, eqn.params, operands, ranges)
    if dtype.kind == "b":
        low, high = (0.0, 1.0) if found is None else (np.maximum(found[0], 0), np.minimum(found[1], 1))
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)
    if found is None:
        return None
    low, high = (np.broadcast_to(x, shape) for x in found)
    info = np.iinfo(dtype)
    wraps = np.isnan(low) | np.isnan(high) | (np.maximum(np.abs(low), np.abs(high)) > EXACT) & (name in _WRAP)
    if name in _WRAP:
        wraps |= (low < info.min) | (high > info.max)
    if wraps.all():
        return None
    return np.where(wraps, -np.inf, low), np.where(wraps, np.inf, high)


def may_tell(operands: Sequence[Value]) -> bool:
    """Whether a program is worth going into for the range of its results alone: it is about integers that are not all known."""
    return (all(x.nodes is None for x in operands) and not all(x.is_known for x in operands)
            and all(x.aval.dtype.kind in "biu" for x in operands))


def decided(found: Range | None, dtype: np.dtype) -> np.ndarray | None:
    """The number of a value whose range is one number for each entry."""
    if found is None or not found[0].size or not (found[0] == found[1]).all():
        return None
    return found[0].astype(dtype)


def places(low: np.ndarray, high: np.ndarray, limits: Sequence[int], clips: bool) -> tuple[Iterator[np.ndarray], list[int]]:
    """Index arrays that together reach all places of ranges ``(..., components)``, and the components that may be anywhere.

    An index of the latter is 0.  ``limits``: the largest index of each component that is inside.
    """
    most = np.asarray(limits, np.float64)
    margin = 0 if clips else 1
    first = np.clip(low, -margin, most + margin).astype(np.int64)
    last = np.clip(high, -margin, most + margin).astype(np.int64)
    widths = [int((last[..., d] - first[..., d]).max(initial=0)) + 1 for d in range(len(limits))]
    anywhere = [d for d, (w, n) in enumerate(zip(widths, limits, strict=True)) if w > 1 and w > n]
    for d in sorted(range(len(limits)), key=lambda d: -widths[d]):
        if d not in anywhere and np.prod([w for e, w in enumerate(widths) if e not in anywhere]) > MOST_PLACES:
            anywhere.append(d)
    counts = [1 if d in anywhere else w for d, w in enumerate(widths)]
    first[..., anywhere], last[..., anywhere] = 0, 0
    return (np.minimum(first + np.array(k, np.int64), last) for k in itertools.product(*map(range, counts))), sorted(anywhere)


# ---------------------------------------------------------------------------------------------------------------- the rules


def _found(name: str, params: Params, operands: Sequence[Value], ranges: Sequence[Range | None]) -> Range | None:
    if name in ("argmax", "argmin"):
        shape = operands[0].aval.shape
        return np.zeros(()), np.asarray(float(math.prod([shape[axis] for axis in params["axes"]]) - 1))
    n_indices = {"dynamic_slice": 1, "dynamic_update_slice": 2}.get(name, len(operands))
    given = [r for r in ranges[:n_indices] if r is not None]
    if len(given) < n_indices or not given:
        return None
    if name == "select_n" and operands[0].is_known:
        return _each(lambda *ends: host.MOVES[name]({}, operands[0].known(), *ends), given[1:])
    if n_indices < len(operands):
        if not all(x.is_known for x in operands[n_indices:]):
            return None
        return _each(lambda *ends: host.MOVES[name](params, *ends, *[x.known() for x in operands[n_indices:]]), given)
    if name == "convert_element_type" and params["new_dtype"] == np.bool_ and operands[0].aval.dtype != np.bool_:
        return _not(_equal(given[0], (np.zeros(()), np.zeros(()))))  # whether it is 0, which does not rise
    if name in _RISING:
        return _each(lambda *ends: host.COMPUTES[name](params, *ends), given)
    if name in _MOVED:
        return _each(lambda *ends: host.MOVES[name](params, *ends), given)
    if name in ("and", "or") and operands[0].aval.dtype == np.bool_:
        return _each(np.minimum if name == "and" else np.maximum, given)
    rule = _RULES.get(name)
    return None if rule is None else rule(*given)


def _each(function: Callable[..., Any], given: Sequence[Range]) -> Range:
    """An operation that rises with each operand, on the least and on the largest numbers."""
    return np.asarray(function(*[r[0] for r in given])), np.asarray(function(*[r[1] for r in given]))


def _difference(x: Range, y: Range) -> Range:
    return x[0] - y[1], x[1] - y[0]


def _product(x: Range, y: Range) -> Range:
    corners = np.stack(np.broadcast_arrays(*[a * b for a in x for b in y]))
    return corners.min(0), corners.max(0)


def _quotient(x: Range, y: Range) -> Range | None:
    """By a known positive divisor; quotients of numbers below 2^31 are exact."""
    small = all(bool(((np.abs(end) < 2.0**31) | np.isinf(end)).all()) for end in x)
    if not small or not ((y[0] == y[1]) & (y[0] > 0)).all():
        return None
    return np.trunc(x[0] / y[0]), np.trunc(x[1] / y[0])


def _remainder(x: Range, y: Range) -> Range | None:
    if not ((y[0] == y[1]) & (y[0] > 0)).all():
        return None
    n = y[0] - 1
    is_same = (x[0] >= 0) & (x[1] <= n)
    return np.where(is_same, x[0], np.where(x[0] < 0, np.maximum(x[0], -n), 0)), np.where(x[1] > 0, np.minimum(x[1], n), 0)


def _less(x: Range, y: Range) -> Range:
    return (x[1] < y[0]).astype(float), (x[0] < y[1]).astype(float)


def _not_more(x: Range, y: Range) -> Range:
    return (x[1] <= y[0]).astype(float), (x[0] <= y[1]).astype(float)


def _equal(x: Range, y: Range) -> Range:
    return (((x[0] == x[1]) & (y[0] == y[1]) & (x[0] == y[0])).astype(float), ((x[0] <= y[1]) & (y[0] <= x[1])).astype(float))


def _not(x: Range) -> Range | None:
    return 1 - x[1], 1 - x[0]


def _hull(_: Range, *cases: Range) -> Range:
    return np.minimum.reduce([c[0] for c in cases]), np.maximum.reduce([c[1] for c in cases])


#: Operations that rise with each operand.
_RISING = frozenset(("add", "max", "min", "clamp", "sign", "reduce_sum", "reduce_max", "reduce_min", "convert_element_type"))
_MOVED = frozenset(("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "rev", "slice", "concatenate", "tile", "copy",
                    "copy_p", "stop_gradient"))
#: Operations whose results may not fit into their dtype.
_WRAP = frozenset(("add", "sub", "mul", "neg", "abs", "reduce_sum", "convert_element_type"))
_RULES: dict[str, Rule] = {
    "sub": _difference, "mul": _product, "neg": lambda x: (-x[1], -x[0]), "div": _quotient, "rem": _remainder,
    "abs": lambda x: (np.maximum(np.maximum(x[0], -x[1]), 0), np.maximum(np.abs(x[0]), np.abs(x[1]))),
    "lt": _less, "gt": lambda x, y: _less(y, x), "le": _not_more, "ge": lambda x, y: _not_more(y, x),
    "eq": _equal, "ne": lambda x, y: _not(_equal(x, y)), "select_n": _hull,
}
