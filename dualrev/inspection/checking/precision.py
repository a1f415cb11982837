"""Digits that single precision loses: the function and its derivative in their own dtypes against double precision.

Inputs are the same numbers in both, so what rounding explains is the rounding of intermediate results.  Where a relative change of
the inputs by a machine epsilon would change the result as much, the function is ill-conditioned and no formula is better; cancellation
loses more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from dualrev._jax.avals import is_extended
from dualrev.inspection.checking.derivatives import Derivatives, compiled, push
from dualrev.inspection.checking.differences import moved
from dualrev.inspection.checking.directions import relative, wide
from dualrev.inspection.checking.operations import Operation, Walk
from dualrev.inspection.checking.subject import Program

#: The step of differences that say how a derivative changes with its inputs.
STEP = 1e-6


@dataclass(frozen=True)
class Loss:
    """The output, or the derivative, that has lost digits; the relative error; and the operation that lost them, if found."""

    what: str
    output: int
    error: float
    got: float
    expected: float
    operation: Operation | None


def loss(own: Program, double: Program, derivatives: Derivatives, seed: int) -> Loss | None:
    """What differs from double precision in half of its digits or more, or None; ``derivatives`` are those in double precision."""
    allowed = float(np.sqrt(own.precision))
    rng = np.random.default_rng(seed)
    with own.settings():
        ts = [relative(rng, x) for x in own.points]

        def both(xs: Sequence[jax.Array], us: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
            return own.of_points(*xs), push(own.of_points, xs, us)

        outs, pushed = (both if own.jaxpr is None else compiled(both))(own.points, ts)
    with double.settings():
        points = double.points
        wide_ts = [jax.numpy.asarray(wide(t), x.dtype) for t, x in zip(ts, points, strict=True)]
        further = moved(points, [relative(rng, x) for x in points], STEP)
        there, changed = derivatives.value(*points), derivatives.value(*further)
        zeros = [jax.numpy.zeros_like(x) for x in there]
        pushed_there, pushed_changed = (derivatives.first(xs, wide_ts, zeros)[: len(zeros)] for xs in (points, further))
    for what, narrow, exact, beside in (("value", outs, there, changed), ("derivative", pushed, pushed_there, pushed_changed)):
        for j, (n, e, c) in enumerate(zip(map(wide, narrow), map(wide, exact), map(wide, beside), strict=True)):
            if n.shape != e.shape or not e.size or not np.isfinite(e).all():
                continue
            with np.errstate(all="ignore"):
                conditioning = float(np.max(np.abs(np.nan_to_num(c - e)))) / STEP
                scale = float(np.max(np.abs(e))) + conditioning
                off = np.nan_to_num(np.abs(n - e), nan=np.inf)
            at = np.unravel_index(int(np.argmax(off)), off.shape)
            if scale and off[at] > allowed * scale:
                with np.errstate(all="ignore"):
                    error = float(off[at] / max(np.abs(e[at]), 1e-300))
                return Loss(what, j, error, float(np.real(n[at])), float(np.real(e[at])), _operation(own, double, allowed))
    return None


def recorded(program: Program) -> list[tuple[Operation, list[jax.Array]]]:
    """Each operation of a program and its results, but for conversions and calls."""
    found: list[tuple[Operation, list[jax.Array]]] = []
    if program.jaxpr is None:
        return found
    def after(operation: Operation, results: list[jax.Array]) -> None:
        holds = any(name in operation.eqn.params for name in ("jaxpr", "call_jaxpr", "branches", "body_jaxpr"))
        if not holds and str(operation.eqn.primitive) != "convert_element_type":
            found.append((operation, results))

    with program.settings():
        Walk(after=after).run(program.jaxpr, program.flat)
    return found


def _operation(own: Program, double: Program, allowed: float) -> Operation | None:
    """The first operation whose result has lost the digits, where both programs have the same operations."""
    narrow, exact = recorded(own), recorded(double)
    if [op.name for op, _ in narrow] != [op.name for op, _ in exact]:
        return None
    for (operation, results), (_, wanted) in zip(narrow, exact, strict=True):
        for n, e in zip(results, wanted, strict=True):
            if is_extended(n.dtype) or not jax.numpy.issubdtype(n.dtype, np.inexact) or not n.size:
                continue
            a, b = wide(n), wide(e)
            with np.errstate(all="ignore"):
                if a.shape != b.shape or not np.isfinite(b).all():
                    continue
                if not float(np.max(np.abs(a - b))) <= allowed * float(np.max(np.abs(b))):
                    return operation
    return None
