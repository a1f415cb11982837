"""Checkpoint schedules: which states of a chain of steps are kept while the chain is reversed.

A chain of ``l`` steps is pulled back from its end.  States that are not kept are computed again from the nearest kept one before
them.  With ``s`` states kept at a time, the start among them, a chain of

    β(s, r) = (s + r choose s)

steps can be reversed with no step evaluated more than ``r`` times, and the fewest evaluations, the pulls themselves not counted, are

    t(l, s) = r·l - β(s + 1, r - 1),    r the least with β(s, r) ≥ l

[Griewank, Walther 2000: "Algorithm 799: revolve", eqs. 1-3].  They are reached by advancing to :func:`split`, keeping that state,
reversing what lies behind it with one state less, and then what lies before it.

Where the length is not known beforehand, :func:`discard` says after each step which kept state the new one should replace: the one
without which the chain, if it ended here, would cost least.  What [Stumm, Walther 2010] and [Wang, Moin, Iaccarino 2009] do by levels,
this does by the cost itself.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Revolve:
    """A schedule that keeps ``slots`` states of a scan, the first among them, and evaluates the fewest steps.

    A scan of ``l`` steps takes ``t(l, slots)`` evaluations beyond those of its pull [Griewank, Walther 2000].
    Raises ValueError if there is no slot.

    >>> import jax, dualrev as dr
    >>> def f(x):
    ...     return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=100)[0]
    >>> float(dr.grad(f, schedule=dr.Revolve(4))(1.0)) == float(dr.grad(f)(1.0))
    True
    """

    slots: int

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"Revolve keeps the first state at least: slots must be 1 or more; got {self.slots}")


@dataclass(frozen=True)
class Bytes:
    """A schedule that keeps as much of a scan as fits into so many bytes, and recomputes the rest with the fewest evaluations.

    States, and the residuals of one block of steps, are what has to fit.  Raises ValueError, where the scan is met, if not even two
    states and the residuals of one step do: the first, and the one at hand.

    >>> import jax, dualrev as dr
    >>> def f(x):
    ...     return jnp.sum(jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=100)[0])
    >>> J = dr.linearize(f, jnp.ones(50), schedule=dr.Bytes(5000))[1]
    >>> J.residual_bytes <= 5000
    True
    """

    bytes: int


Schedule = Literal["all", "sqrt"] | Revolve | Bytes

#: Whole numbers: of a chain whose length is known beforehand, or traced ones.
Integers: TypeAlias = jax.Array | np.ndarray


def check_schedule(call: str, schedule: object) -> None:
    if schedule not in ("all", "sqrt") and not isinstance(schedule, (Revolve, Bytes)):
        raise ValueError(f"{call}: schedule must be 'all', 'sqrt', Revolve(slots) or Bytes(n); got {schedule!r}")


#: A step is taken to be repeated no more often than this; beyond, schedules are valid but not the best.
MOST_REPETITIONS = 64


@functools.lru_cache(maxsize=64)
def binomials(slots: int) -> np.ndarray:
    """``β(s, r)`` for s up to ``slots + 1``, as 32-bit integers, the largest of which stands for all that are larger."""
    largest = np.iinfo(np.int32).max
    columns = [np.ones(slots + 2, np.int64)]
    for _ in range(1, MOST_REPETITIONS):  # β(s, r) = β(s - 1, r) + β(s, r - 1)
        columns.append(np.minimum(np.cumsum(columns[-1]), largest))
    return np.stack(columns, axis=1).astype(np.int32)


def repetitions(steps: Integers, slots: Integers | int, table: Integers) -> Integers:
    """The least r with ``β(slots, r) ≥ steps``."""
    return (table[slots] < steps[..., None]).sum(-1).clip(0, MOST_REPETITIONS - 1)


def cost(steps: Integers, slots: Integers | int, table: Integers) -> Integers:
    """``t(steps, slots)``, in single precision: costs are compared, not counted."""
    r = repetitions(steps, slots, table)
    saved = table[slots + 1, (r - 1).clip(0)].astype("float32")
    return (r > 0).astype("float32") * (r.astype("float32") * steps.astype("float32") - saved)


def split(steps: Integers, slots: Integers | int, table: Integers) -> Integers:
    """How far to advance before the next state is kept, for at least two steps and at least two slots."""
    r = repetitions(steps, slots, table)
    reached = (r > 1).astype(table.dtype) * table[slots, (r - 2).clip(0)]
    return (steps - table[slots - 1, r]).clip(reached).clip(1, steps - 1)


def discard(starts: jax.Array, step: jax.Array, table: Integers) -> jax.Array:
    """Which of the kept states to give up for that at ``step``: its place in ``starts``, or ``len(starts)`` to keep them all.

    Between the state given up and its neighbours two segments become one, and each later segment gains a slot.
    """
    kept = starts.shape[0]
    points = jnp.concatenate([starts, jnp.stack([step, step + 1])])
    lengths = points[1:] - points[:-1]  # of the segments that begin at each kept state, and at the new one
    slots = kept - np.arange(kept)
    before = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.cumsum(cost(lengths[:-1], slots, table))])  # of the first i segments
    gained = cost(lengths[1:], slots, table)
    behind = jnp.concatenate([jnp.cumsum(gained[::-1])[::-1], jnp.zeros(1, jnp.float32)])  # of segments i + 1 and later
    merged = cost(lengths[:-1] + lengths[1:], slots, table)  # of segments i and i + 1 as one
    totals = before[:-1] + merged + behind[1:]  # for giving up point i + 1
    return 1 + jnp.argmin(totals).astype(starts.dtype)


def positions(steps: int, slots: int) -> list[int]:
    """The states that are kept when the first sweep through a chain of known length ends, the start among them."""
    if slots >= steps:
        return list(range(steps))
    table, found, left = binomials(slots), [0], slots
    while left > 1 and steps - found[-1] > 1:
        found.append(found[-1] + int(split(np.array(steps - found[-1]), left, table)))
        left -= 1
    return found


def fit(steps: int, state: int, residuals: int, room: int) -> tuple[int, int] | None:
    """``(states, steps in a block)`` with the fewest evaluations in so many bytes; None where the residuals of all steps fit.

    ``state`` and ``residuals`` are the bytes of a state and of the residuals of a step.  Besides the kept states there is the one that
    states which are not kept are written to, and with each its place and its number.
    """
    per_slot = state + 2 * np.dtype(np.int32).itemsize
    if steps * residuals <= room:
        return None
    best: tuple[int, int, int] | None = None
    for block in sorted({1 << k for k in range(steps.bit_length())} | {steps}):
        slots = min((room - block * residuals) // per_slot - 1, -(-steps // block))
        if slots >= 1:
            blocks = -(-steps // block)
            found = block * (evaluations(positions(blocks, slots), blocks, slots)), slots, block
            best = found if best is None else min(best, found)
    if best is None:
        raise ValueError(f"A schedule for a scan needs room for two states and the residuals of one step: "
                         f"{2 * per_slot + residuals} bytes at least; got {room}")
    return best[1:]


def evaluations(starts: Sequence[int], steps: int, slots: int) -> int:
    """Step evaluations of the pull of a chain whose first sweep left these states, the pulls themselves not counted."""
    ends = [*starts[1:], steps]
    table = binomials(slots)
    total = 0
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        length, s = end - start, slots - i
        r = int(np.searchsorted(table[s], length))
        total += r * length - int(table[s + 1, r - 1]) if r else 0
    return total
