"""Entries that are zero whatever the inputs are, of values that depend on inputs: a matrix that the function fills in places.

They are read as the zeros of a constant are: a product with such an entry depends on nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dualrev._jax.jaxprs import JaxprEqn
from dualrev._jax.primitives import Params
from dualrev.sparse import host
from dualrev.sparse.values import Value

#: Operations that can make such entries from operands that have none: they put values into constants, or multiply by constants.
_MAKERS = frozenset(("pad", "select_n", "concatenate", "dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "mul"))
#: A result is zero where all operands are.
_WHERE_ALL_ARE = frozenset(("add", "add_any", "sub", "neg", "abs", "sin", "tan", "tanh", "sqrt", "square", "convert_element_type",
                            "copy", "reduce_precision", "max", "min", "tap"))
#: Moving operations of which all operands are entries that are moved, but for those at the end that are indices.
_MOVED = {"broadcast_in_dim": 1, "reshape": 1, "squeeze": 1, "expand_dims": 1, "transpose": 1, "rev": 1, "slice": 1, "pad": 2,
          "dynamic_slice": 1, "dynamic_update_slice": 2, "tile": 1}


def zero_entries(eqn: JaxprEqn, operands: Sequence[Value]) -> np.ndarray | None:
    """The entries of the one result of an operation that are zero for all inputs; None if none is known to be."""
    name = str(eqn.primitive)
    if len(eqn.outvars) != 1 or not (name in _MAKERS or any(x.zero is not None for x in operands)):
        return None
    shape: tuple[int, ...] = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]  # an array
    found = _found(name, eqn, operands, shape)
    return found if found is not None and found.any() else None


def powers_of_zero(name: str, params: Params, operands: Sequence[Value]) -> np.ndarray | None:
    """Where a power does not depend on its base, as the exponent is 0 for all inputs; None if that is not known."""
    if name == "integer_pow":
        return np.array(params["y"] == 0)
    if name == "pow" and operands[1].nodes is None and operands[1].is_known:
        return np.asarray(operands[1].known() == 0)
    return None


def zeros_of(x: Value) -> np.ndarray:
    """The entries of an operand that are zero for all inputs."""
    if x.zero is not None:
        return x.zero
    if x.nodes is None and x.is_known:
        number = x.known()
        if isinstance(number, np.ndarray):
            return np.asarray(number == 0)
    return np.zeros(x.aval.shape, bool)


def _found(name: str, eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...]) -> np.ndarray | None:
    if name == "mul":
        x, y = [np.broadcast_to(zeros_of(x), shape) for x in operands]
        return np.asarray(x | y)
    if name in _WHERE_ALL_ARE:
        return np.asarray(np.logical_and.reduce([np.broadcast_to(zeros_of(x), shape) for x in operands]))
    if name == "div" or name == "integer_pow":
        is_power = name == "integer_pow"
        return None if is_power and eqn.params["y"] <= 0 else np.broadcast_to(zeros_of(operands[0]), shape)
    if name == "reduce_sum":
        return np.asarray(zeros_of(operands[0]).all(tuple(eqn.params["axes"])))
    if name == "select_n":
        which, *cases = operands
        if which.is_known:
            return np.asarray(host.MOVES[name]({}, which.known(), *[zeros_of(x) for x in cases]))
        return np.asarray(np.logical_and.reduce([zeros_of(x) for x in cases]))
    if name == "concatenate":
        return np.concatenate([zeros_of(x) for x in operands], eqn.params["dimension"])
    if name in _MOVED:
        n = _MOVED[name]
        indices = operands[n:]
        if all(x.is_known for x in indices):
            return np.asarray(host.MOVES[name](eqn.params, *[zeros_of(x) for x in operands[:n]], *[x.known() for x in indices]))
        return None
    if name == "gather" and operands[1].is_known:
        places = host.gather_places(operands[0].aval.shape, np.asarray(operands[1].known()), eqn.params, shape)
        return (places >= 0) & zeros_of(operands[0]).ravel()[places] if operands[0].aval.size else None
    if name in ("scatter", "scatter-add", "scatter_add") and operands[1].is_known and eqn.params.get("update_jaxpr") is None:
        return _scattered(name == "scatter", eqn, operands)
    return None


def _scattered(replaces: bool, eqn: JaxprEqn, operands: Sequence[Value]) -> np.ndarray:
    """Of several updates of a place, all must be zero; an update that replaces hides the entry."""
    x, indices, updates = operands
    old, new = zeros_of(x).ravel(), zeros_of(updates).ravel()
    places = host.scatter_places(x.aval.shape, np.asarray(indices.known()), eqn.params, updates.aval.shape).ravel()
    inside = places >= 0
    result = old.copy()
    if replaces:
        result[places[inside]] = True
    result[places[inside & ~new]] = False
    return np.asarray(result.reshape(x.aval.shape))
