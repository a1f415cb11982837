"""Decisions that flip near the point: where a function has a kink or a jump.

``abs``, ``max``, comparisons, ``sort`` and their like decide by the sign of a *gap*.  The program is evaluated at the point and a
little further along a direction; a gap that vanishes at its present rate within a small distance is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from dualrev._jax.avals import is_extended
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.primitives import Params
from dualrev.inspection.checking.differences import moved
from dualrev.inspection.checking.directions import wide
from dualrev.inspection.checking.operations import Operation, Walk, equations

#: The gaps of a decision, whatever their shape: a decision flips where one is zero.
Gaps: TypeAlias = Callable[[list[np.ndarray], Params], Any]


def _between(x: list[np.ndarray], params: Params) -> Any:
    return x[0] - x[1]


def _own(x: list[np.ndarray], params: Params) -> Any:
    return x[0]


def _to_integer(x: list[np.ndarray], params: Params) -> Any:
    return x[0] - np.round(x[0])


def _to_half(x: list[np.ndarray], params: Params) -> Any:
    return x[0] - np.floor(x[0]) - 0.5


def _clamped(x: list[np.ndarray], params: Params) -> Any:
    low, value, high = np.broadcast_arrays(*x)
    return np.stack([value - low, value - high])


def _remainder(x: list[np.ndarray], params: Params) -> Any:
    return x[0] - x[1] * np.round(x[0] / x[1])


def _largest(sign: float) -> Gaps:
    """Between the largest entry and the next one."""
    def gaps(x: list[np.ndarray], params: Params) -> Any:
        axes = tuple(params["axes"])
        kept = np.moveaxis(sign * x[0], axes, range(len(axes)))
        flat = np.sort(kept.reshape(-1, *kept.shape[len(axes):]), axis=0)
        return flat[-1] - flat[-2] if len(flat) > 1 else np.zeros(0)

    return gaps


def _neighbours(x: list[np.ndarray], params: Params) -> Any:
    """Between neighbours in order."""
    return np.diff(np.sort(x[0], axis=params.get("dimension", -1)), axis=params.get("dimension", -1))


def _cumulative(of: np.ufunc) -> Gaps:
    """Between each entry and the largest, or the smallest, of those before it."""
    def gaps(x: list[np.ndarray], params: Params) -> Any:
        along = np.moveaxis(x[0], params["axis"], 0)
        along = along[::-1] if params["reverse"] else along
        return along[1:] - of.accumulate(along, axis=0)[:-1]

    return gaps


#: The primitives that decide by a gap.
DECIDING: Mapping[str, Gaps] = {
    "abs": _own, "sign": _own, "max": _between, "min": _between, "clamp": _clamped, "rem": _remainder,
    "lt": _between, "le": _between, "gt": _between, "ge": _between, "eq": _between, "ne": _between,
    "floor": _to_integer, "ceil": _to_integer, "round": _to_half,
    "reduce_max": _largest(1.0), "reduce_min": _largest(-1.0), "argmax": _largest(1.0), "argmin": _largest(-1.0),
    "sort": _neighbours, "top_k": _neighbours, "cummax": _cumulative(np.maximum), "cummin": _cumulative(np.minimum),
}


@dataclass(frozen=True)
class Decision:
    """An operation whose decision flips at a distance from the point, in relative changes of the inputs; 0 is at the point."""

    operation: Operation
    distance: float


def _gaps(operation: Operation) -> np.ndarray | None:
    found = DECIDING.get(str(operation.eqn.primitive))
    floats = [hasattr(x, "dtype") and not is_extended(x.dtype) and jax.numpy.issubdtype(x.dtype, np.inexact)
              for x in operation.operands]
    if found is None or not floats or not all(floats):
        return None
    if str(operation.eqn.primitive) == "round" and "rounding_method" not in operation.eqn.params:
        return None
    values = [wide(x) for x in operation.operands]
    if np.iscomplexobj(values[0]):
        return np.abs(values[0]) if str(operation.eqn.primitive) in ("abs", "sign") else None
    with np.errstate(all="ignore"):
        return np.asarray(found(values, operation.eqn.params))


def near(jaxpr: ClosedJaxpr, flat: Sequence[jax.Array], active: Sequence[int], ts: Sequence[jax.Array], precision: float,
         within: float) -> list[Decision]:
    """The decisions that flip within a distance, nearest first, one for each operation."""
    def gaps_at(values: Sequence[jax.Array]) -> dict[tuple[int, tuple[str, ...]], tuple[Operation, np.ndarray]]:
        found: dict[tuple[int, tuple[str, ...]], tuple[Operation, np.ndarray]] = {}

        def visit(operation: Operation) -> bool:
            gaps = _gaps(operation)
            if gaps is not None and gaps.size:
                found[operation.key] = operation, gaps
            return True

        Walk(visit).run(jaxpr, values)
        return found

    if not any(str(eqn.primitive) in DECIDING for eqn in equations(jaxpr)):
        return []
    step = precision ** (1 / 3) / 8
    further = list(flat)
    for i, x in zip(active, moved([flat[i] for i in active], ts, step), strict=True):
        further[i] = x
    here, there = gaps_at(flat), gaps_at(further)
    nearest: dict[int, Decision] = {}
    for key, (operation, gaps) in here.items():
        if key not in there or there[key][1].shape != gaps.shape:
            continue
        with np.errstate(all="ignore"):
            rates = (there[key][1] - gaps) / step
            sizes = np.max([np.max(np.abs(wide(x)), initial=0.0) for x in operation.operands if x.size], initial=0.0)
            moving = np.abs(rates) > 1e3 * precision / step * max(float(sizes), 1e-300)
            distances = np.where(moving & np.isfinite(rates), np.abs(gaps / rates), np.inf)
        distance = float(np.min(distances, initial=np.inf))
        known = nearest.get(id(operation.eqn))
        if distance <= within and (known is None or distance < known.distance):
            nearest[id(operation.eqn)] = Decision(operation, distance)
    return sorted(nearest.values(), key=lambda d: d.distance)
