r"""Finite differences with an estimate of their error.

Central differences at steps :math:`h, h/4, h/16, \ldots` are extrapolated to :math:`h = 0` [Ridders1982, eq. 6]; for each entry that
extrapolation is taken whose neighbours in the tableau differ from it least, and that difference is the estimate of its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from dualrev._jax.jaxprs import FlatFunction
from dualrev.inspection.checking.directions import wide

#: The largest step, in units of the direction, and by what each is smaller than the one before.
LARGEST, FACTOR = 2.0**-4, 4.0
#: The fewest and the most steps.
FEWEST, MOST = 3, 8


@dataclass(frozen=True)
class Estimate:
    """Directional derivatives of the outputs, and how far off they may be."""

    values: list[np.ndarray]
    errors: list[np.ndarray]


def steps(precision: float) -> list[float]:
    """Steps down to that where rounding would matter more than curvature, for a function evaluated with a machine epsilon."""
    smallest = precision ** (1 / 3) / 4
    count = int(np.clip(1 + np.floor(np.log(LARGEST / smallest) / np.log(FACTOR)), FEWEST, MOST))
    return [LARGEST / FACTOR**k for k in range(count)]


def moved(points: Sequence[jax.Array], ts: Sequence[jax.Array], step: float) -> list[jax.Array]:
    """``x + step · t``, in the dtype of ``x``."""
    return [x + np.asarray(step, x.dtype) * t for x, t in zip(points, ts, strict=True)]


def noise(fun: FlatFunction, points: Sequence[jax.Array], ts: Sequence[jax.Array], precision: float) -> list[float]:
    """How much rounding changes each output: the largest fourth difference over steps at which the function is a parabola.

    Rounding may be a sawtooth, so that several steps are tried.

    Source: [MoreWild2011, sect. 3].
    """
    found: list[float] = []
    for h in (precision**0.4, precision**0.325, precision**0.25):
        rows = zip(*[map(wide, fun(*moved(points, ts, k * h))) for k in range(-4, 5)], strict=True)
        with np.errstate(all="ignore"):
            sizes = [np.max(np.abs(np.diff(np.stack(row), 4, axis=0)), initial=0.0) / 4 for row in rows]
        here = [float(np.nan_to_num(size, nan=np.inf)) for size in sizes]
        found = [max(pair) for pair in zip(found, here, strict=True)] if found else here
    return found


def central(fun: FlatFunction, points: Sequence[jax.Array], ts: Sequence[jax.Array], precision: float,
            noises: Sequence[float] | None = None) -> Estimate:
    """The derivative of ``fun`` along ``ts`` by extrapolated central differences; errors include those by the noise of each output."""
    rows: list[list[np.ndarray]] = []
    best: list[np.ndarray] = []
    errors: list[np.ndarray] = []
    with np.errstate(all="ignore"):
        for h in steps(precision):
            ahead, behind = fun(*moved(points, ts, h)), fun(*moved(points, ts, -h))
            quotients = [(wide(a) - wide(b)) / (2 * h) for a, b in zip(ahead, behind, strict=True)]
            if not best:
                best, errors = list(quotients), [np.full(q.shape, np.inf) for q in quotients]
                rows = [[q] for q in quotients]
                continue
            for j, q in enumerate(quotients):
                previous, row, power = rows[j], [q], 1.0
                for before in previous:
                    power *= FACTOR**2
                    row.append(row[-1] + (row[-1] - before) / (power - 1))
                    error = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - before)) + (0 if noises is None else noises[j] / h)
                    better = error < errors[j]
                    best[j] = np.where(better, row[-1], best[j])
                    errors[j] = np.where(better, error, errors[j])
                rows[j] = row
    return Estimate(best, errors)


def one_sided(fun: FlatFunction, points: Sequence[jax.Array], ts: Sequence[jax.Array],
              precision: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The derivatives ahead of the point and behind it, by differences of first order with one extrapolation."""
    h = max(steps(precision)[-1], precision ** (1 / 3))
    here = [wide(x) for x in fun(*points)]
    sides = []
    with np.errstate(all="ignore"):
        for sign in (1.0, -1.0):
            far, near = fun(*moved(points, ts, sign * 2 * h)), fun(*moved(points, ts, sign * h))
            sides.append([sign * (2 * (wide(n) - x) / h - (wide(f) - x) / (2 * h)) for n, f, x in zip(near, far, here, strict=True)])
    return sides[0], sides[1]
