"""Rules of users against the functions that they are for.

The function under a ``jax.custom_jvp``, ``jax.custom_vjp`` or ``dualrev.rule`` is a program too, which can be differentiated itself.  A
rule that gives another derivative is wrong, unless it does so on purpose: where the function is constant or passes its argument on, so
that its own derivative would be useless (straight-through estimators, clipped and reversed gradients), or where that is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from dualrev._jax.avals import ArrayLike, is_differentiable, typeof
from dualrev._jax.jaxprs import jaxpr_as_fun
from dualrev.inspection.checking.derivatives import pull, push
from dualrev.inspection.checking.differences import one_sided
from dualrev.inspection.checking.directions import normal, pair, wide
from dualrev.inspection.checking.operations import Operation, of_some, program_of

#: Relative differences above this are reported; functions that are solved by iterating agree with their rules to fewer digits.
SMALL, LARGE = 1e-5, 1e-2


@dataclass(frozen=True)
class Difference:
    """A rule that differs from the derivative of its function: by how much, in which mode, and whether on purpose."""

    operation: Operation
    mode: str
    relative: float
    why_on_purpose: str


def difference(operation: Operation, ts: Sequence[jax.Array], seed: int, precision: float) -> Difference | None:
    """How a rule differs from the derivative of its function at these operands, along a direction, or None."""
    fun, points = operation.moving()
    program = program_of(operation.eqn)
    if program is None or not points:
        return None
    run = jaxpr_as_fun(program)
    which = [i for i, x in enumerate(operation.operands) if is_differentiable(typeof(x))]
    body = of_some(run, operation.operands, which)
    outs = body(*points)
    if not any(x.size for x in outs):
        return None
    rng = np.random.default_rng(seed)
    cs = [normal(rng, x) for x in outs]
    try:
        expected, expected_pull = push(body, points, ts), pull(body, points, cs)
    except Exception:
        return None  # the function itself can't be differentiated, which is what the rule is for; differences check it
    modes: dict[str, float] = {}
    def paired(cts: Sequence[jax.Array]) -> list[float]:
        return [pair(cts, ts)]

    by_mode: list[tuple[str, Callable[[], Sequence[ArrayLike]], Sequence[ArrayLike]]] = [
        ("forward", lambda: push(fun, points, ts), expected),
        ("reverse", lambda: paired(pull(fun, points, cs)), paired(expected_pull))]
    for mode, derive, own in by_mode:
        if not all(np.isfinite(wide(o)).all() for o in own):
            return None  # the rule may well be there to be finite
        try:
            rule = derive()
        except Exception:
            continue  # a mode that the rule does not have
        for r, o in zip(map(wide, rule), map(wide, own), strict=True):
            scale = max(float(np.max(np.abs(o), initial=0.0)), float(np.max(np.abs(r), initial=0.0)))
            off = float(np.max(np.abs(np.nan_to_num(r - o, nan=np.inf)), initial=0.0))
            if scale and off / scale > max(SMALL, 1e3 * precision):
                modes[mode] = max(off / scale, modes.get(mode, 0.0))
    if not modes or _is_at_kink(body, points, ts, precision):
        return None
    worst = max(modes.values())
    return Difference(operation, " and ".join(modes), worst, _purpose(operation, expected, expected_pull, outs, worst))


def _is_at_kink(body: object, points: Sequence[jax.Array], ts: Sequence[jax.Array], precision: float) -> bool:
    """Whether the function's derivatives on both sides of the point differ, so that a rule may choose."""
    ahead, behind = one_sided(body, points, ts, precision)  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        return any(bool((np.abs(a - b) > 1e-2 * np.maximum(np.abs(a), np.abs(b)) + 1e-6).any())
                   for a, b in zip(ahead, behind, strict=True))


def _purpose(operation: Operation, pushed: Sequence[jax.Array], pulled: Sequence[jax.Array], outs: Sequence[jax.Array],
             worst: float) -> str:
    """Why a rule may differ on purpose, or an empty string."""
    if not any(np.any(wide(t)) for t in (*pushed, *pulled)):
        return "the function is constant around the point"
    operands = [np.asarray(x) for x in operation.operands]
    if all(any(x.shape == np.shape(out) and np.array_equal(wide(x), wide(out)) for x in operands) for out in outs):
        return "the function passes its argument on"
    return "the difference is small, as of a solver's tolerance" if worst < LARGE else ""
