"""Checkpoint schedules: which states of a chain of steps are kept while the chain is reversed.

A chain of ``l`` steps is pulled back from its end.  States that are not kept are recomputed from the nearest kept state before
them.  With ``s`` states kept at a time, the start among them, a chain of

    β(s, r) = (s + r choose s)

steps can be reversed with no step evaluated more than ``r`` times, and the fewest evaluations, the pulls themselves not counted, are

    t(l, s) = r·l - β(s + 1, r - 1),    r the least with β(s, r) ≥ l

[GriewankWalther2000, eqs. 1-3].  The schedule that reaches this number advances to :func:`split`, keeps
that state, reverses the steps behind it with one slot less, and then the steps before it.

If the length is not known beforehand, :func:`discard` finds after each step the kept state to replace by the new one: the state
without which the chain, if it ended here, would cost least.  [StummWalther2010] and [WangEtAl2009] choose it by
levels instead of costs.
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
    r"""A schedule that keeps ``slots`` states of a scan, the first among them, and evaluates the fewest steps.

    A scan of :math:`l` steps takes :math:`t(l, s) = r\,l - \beta(s + 1, r - 1)` evaluations beyond those of its pull, with
    :math:`\beta(s, r) = \binom{s + r}{s}` and the least :math:`r` for which :math:`\beta(s, r) \ge l`.

    Args:
      slots: the number of states :math:`s`, at least 1.

    Raises:
      ValueError: there is no slot.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def f(x):
    ...     return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=100)[0]
    >>> float(dr.grad(f, schedule=dr.Revolve(4))(1.0)) == float(dr.grad(f)(1.0))
    True

    Source: [GriewankWalther2000, eqs. 1-3].
    """

    slots: int

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"Revolve keeps the first state at least: slots must be 1 or more; got {self.slots}")


@dataclass(frozen=True)
class Bytes:
    r"""A schedule that keeps as much of a scan as fits into ``bytes``, and recomputes the rest with the fewest evaluations.

    Of :math:`n` bytes, one block of steps takes its residuals, and :math:`s` states, as many as fit, take the rest; they are kept as by
    :class:`Revolve`.

    Args:
      bytes: the number of bytes :math:`n` for states and for the residuals of one block.

    Raises:
      ValueError: when the scan is differentiated, if two states (the first and the current one) and the residuals of one step do not
        fit.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def f(x):
    ...     return jnp.sum(jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=100)[0])
    >>> J = dr.linearize(f, jnp.ones(50), schedule=dr.Bytes(5000))[1]
    >>> J.residual_bytes <= 5000
    True

    Source: [GriewankWalther2000] for the states.
    """

    bytes: int


Schedule = Literal["all", "sqrt"] | Revolve | Bytes

#: Whole numbers: of a chain whose length is known beforehand, or traced ones.
Integers: TypeAlias = jax.Array | np.ndarray


def check_schedule(call: str, schedule: object) -> None:
    if schedule not in ("all", "sqrt") and not isinstance(schedule, (Revolve, Bytes)):
        raise ValueError(f"{call}: schedule must be 'all', 'sqrt', Revolve(slots) or Bytes(n); got {schedule!r}")


#: The largest number of repetitions of a step that schedules are optimal for; beyond, they are valid but not optimal.
MOST_REPETITIONS = 64


@functools.lru_cache(maxsize=64)
def binomials(slots: int) -> np.ndarray:
    """``β(s, r)`` for s up to ``slots + 1``, as 32-bit integers; larger numbers are clipped to the largest of these."""
    largest = np.iinfo(np.int32).max
    columns = [np.ones(slots + 2, np.int64)]
    for _ in range(1, MOST_REPETITIONS):  # β(s, r) = β(s - 1, r) + β(s, r - 1)
        columns.append(np.minimum(np.cumsum(columns[-1]), largest))
    return np.stack(columns, axis=1).astype(np.int32)


def repetitions(steps: Integers, slots: Integers | int, table: Integers) -> Integers:
    """The least r with ``β(slots, r) ≥ steps``."""
    return (table[slots] < steps[..., None]).sum(-1).clip(0, MOST_REPETITIONS - 1)


def cost(steps: Integers, slots: Integers | int, table: Integers) -> Integers:
    """``t(steps, slots)``, in single precision, which suffices to compare costs."""
    r = repetitions(steps, slots, table)
    saved = table[slots + 1, (r - 1).clip(0)].astype("float32")
    return (r > 0).astype("float32") * (r.astype("float32") * steps.astype("float32") - saved)


def split(steps: Integers, slots: Integers | int, table: Integers) -> Integers:
    """The number of steps to advance before the next state is kept, for at least two steps and two slots."""
    r = repetitions(steps, slots, table)
    reached = (r > 1).astype(table.dtype) * table[slots, (r - 2).clip(0)]
    return (steps - table[slots - 1, r]).clip(reached).clip(1, steps - 1)


def discard(starts: jax.Array, step: jax.Array, table: Integers) -> jax.Array:
    """The kept state to drop for the one at ``step``: its position in ``starts``, or ``len(starts)`` to keep them all.

    The two segments beside the dropped state become one, and each later segment gains a slot.
    """
    kept = starts.shape[0]
    points = jnp.concatenate([starts, jnp.stack([step, step + 1])])
    lengths = points[1:] - points[:-1]  # of the segments that begin at each kept state, and at the new one
    slots = kept - np.arange(kept)
    before = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.cumsum(cost(lengths[:-1], slots, table))])  # of the first i segments
    gained = cost(lengths[1:], slots, table)
    behind = jnp.concatenate([jnp.cumsum(gained[::-1])[::-1], jnp.zeros(1, jnp.float32)])  # of segments i + 1 and later
    merged = cost(lengths[:-1] + lengths[1:], slots, table)  # of segments i and i + 1 as one
    totals = before[:-1] + merged + behind[1:]  # if point i + 1 is dropped
    return 1 + jnp.argmin(totals).astype(starts.dtype)


def positions(steps: int, slots: int) -> list[int]:
    """The states kept at the end of the first sweep through a chain of known length, the start among them."""
    if slots >= steps:
        return list(range(steps))
    table, found, left = binomials(slots), [0], slots
    while left > 1 and steps - found[-1] > 1:
        found.append(found[-1] + int(split(np.array(steps - found[-1]), left, table)))
        left -= 1
    return found


def fit(steps: int, state: int, residuals: int, room: int) -> tuple[int, int] | None:
    """``(states, steps in a block)`` with the fewest evaluations within ``room`` bytes; None if the residuals of all steps fit.

    ``state`` and ``residuals`` are the bytes of a state and of the residuals of a step.  One slot more holds the state that is not
    kept; each slot also stores the position and the number of its state.
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
        raise ValueError(f"it needs room for two states and the residuals of one step, {2 * per_slot + residuals} bytes at least")
    return best[1:]


def evaluations(starts: Sequence[int], steps: int, slots: int) -> int:
    """Step evaluations in the pull of a chain whose first sweep kept these states, the pulls themselves not counted."""
    ends = [*starts[1:], steps]
    table = binomials(slots)
    total = 0
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        length, s = end - start, slots - i
        r = int(np.searchsorted(table[s], length))
        total += r * length - int(table[s + 1, r - 1]) if r else 0
    return total
