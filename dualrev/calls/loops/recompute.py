"""The pull of a loop from a few of its states, or from a record of its steps.

*Recorded*: the residuals of each step are written into buffers of a given length, and read in the opposite order.

*Checkpointed*: a fixed number of states is kept.  Steps are taken in blocks; while the loop runs, the state before a block takes the
place of one that is needed least (:func:`dualrev.options.schedules.discard`), and on the way back the blocks are reached again from the
nearest kept state, places that have become free being used once more (:func:`dualrev.options.schedules.split`).  Each block is
recorded when its turn has come, so that its steps are evaluated with residuals once, and its sums over time are contracted as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params
from dualrev._jax.sharding import stacked_aval
from dualrev.calls.loops.body import Body, Pull, size_of
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.options import schedules
from dualrev.options.settings import current

Go = Callable[[Sequence[Any]], Any]

#: States are kept in as much room as this, unless the user says how many: at least 16 of them, at most 128.
STATE_BYTES = 64 * 2**20
FEWEST, MOST = 16, 128
#: Steps in a block: as many as have residuals in half the room of the states, and no more than these.
LONGEST_BLOCK = 64


def _read(buffers: Sequence[jax.Array], i: Any) -> list[jax.Array]:
    return [lax.dynamic_index_in_dim(buffer, i, keepdims=False) for buffer in buffers]


def _write(buffers: Sequence[jax.Array], values: Sequence[jax.Array], i: Any) -> list[jax.Array]:
    return [lax.dynamic_update_index_in_dim(buffer, x, i, 0) for buffer, x in zip(buffers, values, strict=True)]


def _room(avals: Sequence[ShapedArray], length: int) -> list[jax.Array]:
    return [zeros.filler(stacked_aval(a, length)) for a in avals]


def kept_avals(body: Body) -> list[jax.Array]:
    found = {i: a for a, (kind, i) in zip(body.linearization.residual_avals(), body.where, strict=True) if kind == "kept"}
    return [found[i] for i in range(len(body.kept))]


# ------------------------------------------------------------------------------------------------------------------ recorded


class Slices(NamedTuple):
    """What a scan reads and writes at each step: its arrays, the cotangents of its results, room for those of its arrays.

    A while loop has none of them.  ``order(i)`` is where step i stands in the arrays.
    """

    xs: Sequence[jax.Array] = ()
    ys_ct: Sequence[jax.Array] = ()
    xs_ct: Sequence[jax.Array] = ()
    order: Callable[[Any], Any] = lambda i: i


NOTHING = Slices()


def record(body: Body, consts: Sequence[jax.Array], carry: Sequence[jax.Array], goes_on: Callable[[Any, Any], Any], length: int,
           slices: Slices = NOTHING, first: Any = 0) -> tuple[list[Any], Any, list[Any]]:
    """The carries after the steps for which ``goes_on(carry, i)``, their number, and their residuals in buffers of ``length``."""

    def step(state: Any) -> Any:
        carry, i, buffers = state
        carry, _, residual = body.step(consts, carry, _read(slices.xs, slices.order(first + i)))
        return carry, i + 1, _write(buffers, [residual(source) for source in body.kept], i)

    start = (list(carry), jnp.int32(0), _room(kept_avals(body), length))
    return lax.while_loop(lambda state: goes_on(state[0], state[1]), step, start)


def pull_record(pull: Pull, once: Sequence[jax.Array], buffers: Sequence[jax.Array], last: Sequence[jax.Array], n: Any, length: int,
                carry_ct: Sequence[Tangent], sums: Sequence[jax.Array], slices: Slices = NOTHING,
                first: Any = 0) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """The cotangents of the carries before ``n`` recorded steps, ``sums`` with what they add, and the cotangents of the slices of
    arrays, written into place.

    ``last`` is what the last step finds in the carries after it.
    """
    body, stacks = pull.body, pull.plan.stacks

    def step(state: Any) -> Any:
        i, carry_ct, xs_ct, totals, new, following = state
        i = i - 1
        at = slices.order(first + i)
        kept = _read(buffers, i)
        carry_ct, x_ct, terms, factors = pull.step(carry_ct, _read(slices.ys_ct, at), body.residuals(once, kept, following))
        return i, carry_ct, _write(xs_ct, x_ct, at), pull.add(totals, terms), _write(new, factors, i), body.following(kept)

    # Where nothing is stacked, the steps add to the sums of those that were pulled before them, and need no sums of their own.
    start = (n, list(carry_ct), list(slices.xs_ct), pull.no_totals() if stacks else list(sums),
             _room([v.aval for v in pull.plan.new], length), list(last))
    _, carry_ct, xs_ct, totals, new, _ = lax.while_loop(lambda state: state[0] > 0, step, start)
    if not stacks:
        return carry_ct, totals, xs_ct
    shifted = _write([jnp.roll(x, -1, 0) for x in body.following(buffers)], last, jnp.maximum(n - 1, 0))
    return carry_ct, pull.add(sums, pull.finish(body.residuals(once, buffers, shifted), totals, new)), xs_ct


# -------------------------------------------------------------------------------------------------------------- checkpointed


class Checkpoints(NamedTuple):
    """Kept states: ``slots[places[i]]`` is that before block ``starts[i]``, for i below ``count``.

    ``places`` from ``count`` on are the free slots; the last slot takes what nobody will read.
    """

    slots: list[jax.Array]
    starts: Any
    places: Any
    count: Any

    @staticmethod
    def empty(avals: Sequence[ShapedArray], n: int) -> Checkpoints:
        order = jnp.arange(n, dtype="int32")
        return Checkpoints(_room(avals, n + 1), jnp.zeros_like(order), order, jnp.int32(0))

    @property
    def size(self) -> int:
        return int(self.starts.shape[0])

    def append(self, state: Sequence[jax.Array], start: Any) -> Checkpoints:
        """With one state more, where there is a free slot; otherwise as it was."""
        is_free = self.count < self.size
        i = jnp.minimum(self.count, self.size - 1)
        place = jnp.where(is_free, self.places[i], self.size)
        starts = self.starts.at[i].set(jnp.where(is_free, start, self.starts[i]))
        return Checkpoints(_write(self.slots, state, place), starts, self.places, self.count + is_free.astype(self.count.dtype))

    def replace(self, state: Sequence[jax.Array], start: Any, table: Any) -> Checkpoints:
        """With the state in a free slot or, if there is none, in that of the state that is needed least."""
        is_full = self.count == self.size
        given_up = jnp.where(is_full, schedules.discard(self.starts, start, table), self.count)
        order = jnp.arange(self.size, dtype="int32")
        shifts = is_full & (order >= given_up)
        is_last = order == jnp.where(is_full, jnp.where(given_up < self.size, self.size - 1, -1), self.count)
        place = jnp.where(given_up < self.size, self.places[jnp.minimum(given_up, self.size - 1)], self.size)
        starts = jnp.where(is_last, start, jnp.where(shifts, jnp.roll(self.starts, -1), self.starts))
        places = jnp.where(is_last, place, jnp.where(shifts, jnp.roll(self.places, -1), self.places))
        return Checkpoints(_write(self.slots, state, place), starts, places, jnp.minimum(self.count + 1, self.size))

    def last(self) -> tuple[list[Any], Any]:
        return _read(self.slots, self.places[self.count - 1]), self.starts[self.count - 1]

    def without(self, start: Any) -> Checkpoints:
        """Without the last state, if it is that before block ``start``."""
        return self._replace(count=self.count - (self.starts[self.count - 1] == start).astype(self.count.dtype))


def sizes(body: Body) -> tuple[int, int]:
    """How many states are kept, and how many steps are a block."""
    state = max(1, size_of(known_avals(body)))
    kept = current.get().loop_checkpoints or min(max(STATE_BYTES // state, FEWEST), MOST)
    return kept, min(max(kept * state // (2 * max(1, size_of(kept_avals(body)))), 1), LONGEST_BLOCK)


def known_avals(body: Body) -> list[jax.Array]:
    return [a for a, known in zip(body.carry_avals, body.known_carry, strict=True) if known]


def sweep(body: Body, consts: Sequence[jax.Array], carry: Sequence[jax.Array], go: Go, n_kept: int,
          block: int) -> tuple[list[Any], Any, Any, Checkpoints]:
    """Run the loop: the carries in the end, the numbers of steps and of blocks, and the kept states."""
    table = jnp.asarray(schedules.binomials(n_kept))

    def run_block(state: Any) -> Any:
        carry, steps, blocks, checkpoints = state
        checkpoints = checkpoints.replace(carry, blocks, table)
        carry, ran = lax.while_loop(lambda state: go(state[0]) & (state[1] < block),
                                    lambda state: (body.step(consts, state[0], ())[0], state[1] + 1), (carry, jnp.int32(0)))
        return carry, steps + ran, blocks + 1, checkpoints

    start = (list(carry), jnp.int32(0), jnp.int32(0), Checkpoints.empty(known_avals(body), n_kept))
    return lax.while_loop(lambda state: go(state[0]), run_block, start)


def pull_sweep(pull: Pull, once: Sequence[jax.Array], consts: Sequence[jax.Array], checkpoints: Checkpoints, steps: Any, blocks: Any,
               block: int, carry_ct: Sequence[Tangent], slices: Slices = NOTHING) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """As :func:`pull_record`, from kept states."""
    body, size = pull.body, checkpoints.size
    table = jnp.asarray(schedules.binomials(size))

    def advance(state: Any) -> Any:
        carry, at, end, checkpoints = state
        length, free = end - at, size - checkpoints.count
        ahead = jnp.where(free > 0, schedules.split(length, free + 1, table), length - 1)
        carry = lax.fori_loop(at * block, (at + ahead) * block, lambda i, carry: body.step(
            consts, carry, _read(slices.xs, slices.order(i)))[0], carry)
        return carry, at + ahead, end, checkpoints.append(carry, at + ahead)

    def pull_block(state: Any) -> Any:
        end, checkpoints, carry_ct, sums, xs_ct = state
        carry, at = checkpoints.last()
        carry, _, _, checkpoints = lax.while_loop(lambda state: state[2] - state[1] > 1, advance, (carry, at, end, checkpoints))
        n = jnp.where(end == blocks, steps - block * (blocks - 1), block)
        first = (end - 1) * block
        end_carry, _, buffers = record(body, consts, carry, lambda _, i: i < n, block, slices, first)
        carry_ct, sums, xs_ct = pull_record(pull, once, buffers, body.last(end_carry), n, block, carry_ct, sums,
                                            slices._replace(xs_ct=xs_ct), first)
        return end - 1, checkpoints.without(end - 1), carry_ct, sums, xs_ct

    start = (jnp.int32(blocks), checkpoints, list(carry_ct), pull.no_sums(), list(slices.xs_ct))
    _, _, carry_ct, sums, xs_ct = lax.while_loop(lambda state: state[0] > 0, pull_block, start)
    return carry_ct, pull.sums_to_consts(once, sums), xs_ct


def sweep_scan(body: Body, consts: Sequence[jax.Array], carry: Sequence[jax.Array], xs: Sequence[jax.Array], n_kept: int, block: int,
               settings: Params) -> tuple[list[Any], list[Any], Checkpoints]:
    """Run a scan, whose length is known: the carries in the end, the results, and the states that are best kept."""
    length = settings["length"]
    starts = schedules.positions(-(-length // block), n_kept)
    places = np.full(length, len(starts), np.int32)
    places[np.array(starts) * block] = np.arange(len(starts))
    if settings["reverse"]:
        places = places[::-1]

    def step(state: Any, x: Any) -> Any:
        carry, slots = state
        x, place = x
        slots = _write(slots, carry, place)
        carry, ys, _ = body.step(consts, carry, x)
        return (carry, slots), ys

    empty = Checkpoints.empty(known_avals(body), len(starts))
    (carry, slots), ys = lax.scan(step, (list(carry), empty.slots), (list(xs), places), **settings)
    return carry, ys, empty._replace(slots=slots, starts=jnp.array(starts, "int32"), count=jnp.int32(len(starts)))


def schedule_sizes(body: Body, length: int) -> tuple[int, int] | None:
    """How many states of a scan are kept, and how many steps are a block; None where all residuals are."""
    schedule = current.get().schedule
    if schedule == "all" or length == 0:
        return None
    if not isinstance(length, int):
        raise ValueError(f"schedule={schedule!r} needs the number of steps of a scan, which here is the symbol {length}; "
                         "leave the schedule 'all', or give arrays of known length")
    if schedule == "sqrt":
        root = math.isqrt(length - 1) + 1
        return root, root
    if isinstance(schedule, schedules.Revolve):
        return schedule.slots, 1
    state, residuals = max(1, size_of(known_avals(body))), size_of(kept_avals(body))
    return schedules.fit(length, state, residuals, schedule.bytes)
