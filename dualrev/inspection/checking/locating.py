"""The operation that is to blame for a wrong derivative: each is checked by itself, on the values that it meets in the program.

An operation that is right is not entered; one that is wrong is, if it holds programs, and is blamed itself if all in it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from dualrev._jax.avals import is_extended
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction
from dualrev.inspection.checking.derivatives import Derivatives, Mismatch, mismatches, second_mismatches
from dualrev.inspection.checking.directions import normal, relative, wide
from dualrev.inspection.checking.limits import limits
from dualrev.inspection.checking.operations import Key, Operation, Walk


@dataclass(frozen=True)
class Culprit:
    """An operation whose derivative is wrong on its operands, and what is wrong; or the error that its derivative raises."""

    operation: Operation
    mismatch: Mismatch | None
    error: Exception | None = None


def precision_of(values: Sequence[jax.Array], otherwise: float) -> float:
    """The machine epsilon of the coarsest dtype of these values, or ``otherwise`` where that is larger."""
    eps = [float(jax.numpy.finfo(x.dtype).eps) for x in values
           if not is_extended(x.dtype) and jax.numpy.issubdtype(x.dtype, np.inexact)]
    return max([otherwise, *eps]) if otherwise < 1e-10 else otherwise


def culprits(jaxpr: ClosedJaxpr, flat: Sequence[jax.Array], along: Mapping[Key, list[jax.Array]], order: int, seed: int,
             precision: float) -> list[Culprit]:
    """The operations that are wrong, in the order of the program, each once; ``along``: how their operands change with the inputs."""
    found: dict[int, Culprit] = {}
    checked = 0
    #: Calls that are wrong as wholes, by the number of culprits before them.
    open_calls: dict[tuple[int, tuple[str, ...]], tuple[Culprit, int]] = {}

    def visit(operation: Operation) -> bool:
        nonlocal checked
        if id(operation.eqn) in found:
            return False
        fun, points = operation.moving()
        if not points:
            return False
        checked += 1
        if checked > limits.get().operations:  # so that the search ends
            return False
        try:
            here = _wrong(fun, points, along.get(operation.key), order, seed, precision_of(points, precision))
            wrong = Culprit(operation, here[0]) if here else None
        except Exception as error:
            wrong = Culprit(operation, None, error)
        if wrong is None:
            return False
        if operation.is_ruled:
            found[id(operation.eqn)] = wrong
            return False
        open_calls[operation.key] = wrong, len(found)
        return True

    def after(operation: Operation, results: list[jax.Array]) -> None:
        call = open_calls.pop(operation.key, None)
        if call is not None and len(found) == call[1]:
            found[id(operation.eqn)] = call[0]

    Walk(visit, after).run(jaxpr, flat)
    if checked > limits.get().operations:
        limits.get().leave_out_operations(checked)
    return list(found.values())


def _wrong(fun: FlatFunction, points: Sequence[jax.Array], along: Sequence[jax.Array] | None, order: int, seed: int,
           precision: float) -> list[Mismatch]:
    """What is wrong with the derivatives of an operation, of order 2 where those of order 1 are right."""
    own = Derivatives(fun, is_compiled=False)
    outs = own.value(*points)
    found = mismatches(own, points, outs, seed, precision, along)
    if not found and order > 1:
        found = second_mismatches(own, points, outs, seed, precision)
    return [m for m in found if not (m.at_kink or m.undecided)]


def first_not_finite(jaxpr: ClosedJaxpr, flat: Sequence[jax.Array]) -> Operation | None:
    """The first operation with a result that is not finite, of operands that are."""
    found: list[Operation] = []

    def after(operation: Operation, results: list[jax.Array]) -> None:
        if not found and all(map(is_finite, operation.operands)) and not all(map(is_finite, results)):
            found.append(operation)

    Walk(lambda operation: not found, after).run(jaxpr, flat)
    return found[0] if found else None


def first_without_slope(jaxpr: ClosedJaxpr, flat: Sequence[jax.Array], seed: int) -> tuple[Operation, str] | None:
    """The first operation whose own derivative is not finite at finite operands, and its mode."""
    found: list[tuple[Operation, str]] = []

    def visit(operation: Operation) -> bool:
        if found:
            return False
        fun, points = operation.moving()
        if not points or not all(map(is_finite, operation.operands)):
            return not found
        from_push = _derivatives(fun, points, seed)
        if from_push is None:
            return False
        enters.append((operation, from_push))
        return True

    enters: list[tuple[Operation, str]] = []

    def after(operation: Operation, results: list[jax.Array]) -> None:
        if not found and enters and enters[-1][0].key == operation.key:
            found.append(enters.pop())

    Walk(visit, after).run(jaxpr, flat)
    return found[0] if found else None


def _derivatives(fun: FlatFunction, points: Sequence[jax.Array], seed: int) -> str | None:
    """The mode in which a derivative is not finite, or None."""
    from_rng = np.random.default_rng(seed)
    own = Derivatives(fun, is_compiled=False)
    outs = own.value(*points)
    if not outs or not all(map(is_finite, outs)):
        return None
    both = own.first(list(points), [relative(from_rng, x) for x in points], [normal(from_rng, x) for x in outs])
    modes = [mode for mode, part in (("forward", both[: len(outs)]), ("reverse", both[len(outs):])) if not all(map(is_finite, part))]
    return " and ".join(modes) or None


def is_finite(x: jax.Array) -> bool:
    if not hasattr(x, "dtype") or is_extended(x.dtype) or not jax.numpy.issubdtype(x.dtype, np.inexact):
        return True
    return bool(np.isfinite(wide(x)).all())
