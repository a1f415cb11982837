"""Integers of which the possible numbers are known: the place of a maximum, a comparison that is used as an index.

A *choice* is made by an operation whose one integer can have few numbers, whatever the inputs are.  What is computed from it and from
known numbers alone has a number for each of them, and an operation that reads places by it reads those alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dualrev._jax.jaxprs import JaxprEqn
from dualrev.sparse.host import evaluate
from dualrev.sparse.values import Alternatives, Value

#: A choice among more numbers is not followed.
MOST = 32


def chosen(eqn: JaxprEqn) -> Alternatives | None:
    """The numbers of the one result of an operation on unknown numbers, where it is an integer that can have few."""
    (out,) = [v.aval for v in eqn.outvars] if len(eqn.outvars) == 1 else (None,)
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape is None or math.prod(shape) != 1:
        return None
    if dtype == np.bool_:
        return Alternatives(object(), [np.full(shape, b) for b in (False, True)])
    if str(eqn.primitive) in ("argmax", "argmin"):
        lengths = eqn.invars[0].aval.shape  # type: ignore[attr-defined]  # an array
        count = math.prod(lengths[axis] for axis in eqn.params["axes"])
        if count <= MOST:
            return Alternatives(object(), [np.full(shape, i, dtype) for i in range(count)])
    return None


def source_of(operands: Sequence[Value]) -> object | None:
    """The one choice that operands follow from; None where there is none, or more than one."""
    sources = {id(x.alternatives.source): x.alternatives.source for x in operands if x.alternatives is not None and not x.is_known}
    return next(iter(sources.values())) if len(sources) == 1 else None


def fixed(operands: Sequence[Value]) -> list[list[Value]]:
    """The operands for each number of the one choice that some of them follow from: those are known then."""
    count = next(len(x.alternatives.numbers) for x in operands if x.alternatives is not None and not x.is_known)
    return [[x if x.alternatives is None or x.is_known else Value(x.aval, x.nodes, x.alternatives.numbers[k], x.zero) for x in operands]
            for k in range(count)]


def followed(eqn: JaxprEqn, operands: Sequence[Value]) -> list[Alternatives] | None:
    """The numbers of the results for each number of a choice, of operands that follow from one choice and known numbers alone."""
    source = source_of(operands)
    if source is None or eqn.effects or not all(x.is_known or x.alternatives is not None for x in operands):
        return None
    each = [evaluate(eqn, [x.known() for x in case]) for case in fixed(operands)]
    return [Alternatives(source, list(numbers)) for numbers in zip(*each, strict=True)]
