"""The pull of a loop from a few of its states, or from a record of its steps.

*Recorded*: the residuals of each step are written into buffers of a given length; the pull reads them from the last to the first.

*Checkpointed*: a fixed number of states is stored, and steps are grouped into blocks.  While the loop runs, the state before a block
replaces the one that is needed least (:func:`dualrev.options.schedules.discard`).  The pull visits blocks from the last to the first.
It recomputes the state before a block from the nearest stored state, and stores states on the way in free slots
(:func:`dualrev.options.schedules.split`).  Then it records the block: residuals of a step are computed once, and sums over the steps of
a block are contracted at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev import errors
from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params
from dualrev._jax.sharding import stacked_aval
from dualrev._jax.source_lines import within
from dualrev._jax.trees import PyTree
from dualrev.calls.loops.body import Body, Pull, size_of
from dualrev.linear import zeros
from dualrev.options import schedules
from dualrev.options.settings import current

#: The condition of a loop on its carries.
Go: TypeAlias = Callable[[Sequence[jax.Array]], jax.Array]

#: The number of a step or a block: of a scan, an int.
Number: TypeAlias = jax.Array | int

#: The memory for stored states, unless the user gives their number; at least 16 states and at most 128.
STATE_BYTES = 64 * 2**20
FEWEST, MOST = 16, 128
#: The longest block.  The residuals of a block take at most half of the memory of the states.
LONGEST_BLOCK = 64


def _read(buffers: Sequence[jax.Array], i: Number) -> list[jax.Array]:
    return [lax.dynamic_index_in_dim(buffer, i, keepdims=False) for buffer in buffers]


def _write(buffers: Sequence[jax.Array], values: Sequence[jax.Array | None], i: Number) -> list[jax.Array]:
    return [lax.dynamic_update_index_in_dim(buffer, x, i, 0) for buffer, x in zip(buffers, values, strict=True)]


def _room(avals: Sequence[ShapedArray], length: int) -> list[jax.Array]:
    return [zeros.filler(stacked_aval(a, length)) for a in avals]


def kept_avals(body: Body) -> list[ShapedArray]:
    """The abstract values of the residuals that are stored for each step."""
    found = {i: a for a, (kind, i) in zip(body.linearization.residual_avals(), body.where, strict=True) if kind == "kept"}
    return [found[i] for i in range(len(body.kept))]


# ------------------------------------------------------------------------------------------------------------------ recorded


class Slices(NamedTuple):
    """The stacks that a scan reads and writes: its arrays, the cotangents of its results, buffers for the cotangents of its arrays.

    A while loop has none of them.  ``order(i)`` is the position of step ``i`` in the stacks.
    """

    xs: Sequence[jax.Array] = ()
    ys_ct: Sequence[jax.Array] = ()
    xs_ct: Sequence[jax.Array] = ()
    order: Callable[[Number], Number] = lambda i: i


NOTHING = Slices()


def record(body: Body, consts: Sequence[jax.Array], carry: Sequence[jax.Array],
           goes_on: Callable[[Sequence[jax.Array], jax.Array], jax.Array], length: int, slices: Slices = NOTHING,
           first: Number = 0) -> tuple[list[jax.Array], jax.Array, list[jax.Array]]:
    """Run steps while ``goes_on(carry, i)``: the carries, the number of steps, and residuals in buffers of ``length``."""

    def step(state: PyTree) -> PyTree:
        carry, i, buffers = state
        carry, _, residual = body.step(consts, carry, _read(slices.xs, slices.order(first + i)))
        return carry, i + 1, _write(buffers, [residual(source) for source in body.kept], i)

    start = (list(carry), jnp.int32(0), _room(kept_avals(body), length))
    return lax.while_loop(lambda state: goes_on(state[0], state[1]), step, start)


def pull_record(pull: Pull, once: Sequence[jax.Array], buffers: Sequence[jax.Array], last: Sequence[jax.Array],
                n: Number, length: int, carry_ct: Sequence[jax.Array], sums: Sequence[jax.Array], slices: Slices = NOTHING,
                first: Number = 0) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """The cotangents of the carries before ``n`` recorded steps, ``sums`` plus the terms of these steps, and the cotangents of arrays.

    ``last``: the residuals of the last step among the carries after it.
    """
    body, stacks = pull.body, pull.plan.stacks

    def step(state: PyTree) -> PyTree:
        i, carry_ct, xs_ct, totals, new, following = state
        with within("step"):
            i = i - 1
        at = slices.order(first + i)
        kept = _read(buffers, i)
        carry_ct, x_ct, terms, factors = pull.step(carry_ct, _read(slices.ys_ct, at), body.residuals(once, kept, following))
        return i, carry_ct, _write(xs_ct, x_ct, at), pull.add(totals, terms), _write(new, factors, i), body.following(kept)

    # Where nothing is stacked, the steps add their terms to the sums of the records that were pulled before.
    start = (n, list(carry_ct), list(slices.xs_ct), pull.no_totals() if stacks else list(sums),
             _room([v.aval for v in pull.plan.new], length), list(last))  # type: ignore[misc]
    _, carry_ct, xs_ct, totals, new, _ = lax.while_loop(lambda state: state[0] > 0, step, start)
    if not stacks:
        return carry_ct, totals, xs_ct
    shifted = _write([jnp.roll(x, -1, 0) for x in body.following(buffers)], last, jnp.maximum(n - 1, 0))
    return carry_ct, pull.add(sums, pull.finish(body.residuals(once, buffers, shifted), totals, new)), xs_ct


# -------------------------------------------------------------------------------------------------------------- checkpointed


class Checkpoints(NamedTuple):
    """Stored states: ``slots[places[i]]`` is the state before block ``starts[i]``, for ``i`` below ``count``.

    ``places`` from ``count`` on are the free slots; the last slot is written by operations that store nothing.
    """

    slots: list[jax.Array]
    starts: jax.Array
    places: jax.Array
    count: jax.Array  # type: ignore[assignment]  # as a tuple's own method is called

    @staticmethod
    def empty(avals: Sequence[ShapedArray], n: int) -> Checkpoints:
        order = jnp.arange(n, dtype="int32")
        return Checkpoints(_room(avals, n + 1), jnp.zeros_like(order), order, jnp.int32(0))

    @property
    def size(self) -> int:
        return int(self.starts.shape[0])

    def append(self, state: Sequence[jax.Array], start: Number) -> Checkpoints:
        """With one state more if there is a free slot; else unchanged."""
        is_free = self.count < self.size
        i = jnp.minimum(self.count, self.size - 1)
        place = jnp.where(is_free, self.places[i], self.size)
        starts = self.starts.at[i].set(jnp.where(is_free, start, self.starts[i]))
        return Checkpoints(_write(self.slots, state, place), starts, self.places, self.count + is_free.astype(self.count.dtype))

    def replace(self, state: Sequence[jax.Array], start: jax.Array, table: jax.Array) -> Checkpoints:
        """With the state in a free slot or, if there is none, in the slot of the state that is needed least."""
        is_full = self.count == self.size
        given_up = jnp.where(is_full, schedules.discard(self.starts, start, table), self.count)
        order = jnp.arange(self.size, dtype="int32")
        shifts = is_full & (order >= given_up)
        is_last = order == jnp.where(is_full, jnp.where(given_up < self.size, self.size - 1, -1), self.count)
        place = jnp.where(given_up < self.size, self.places[jnp.minimum(given_up, self.size - 1)], self.size)
        starts = jnp.where(is_last, start, jnp.where(shifts, jnp.roll(self.starts, -1), self.starts))
        places = jnp.where(is_last, place, jnp.where(shifts, jnp.roll(self.places, -1), self.places))
        return Checkpoints(_write(self.slots, state, place), starts, places, jnp.minimum(self.count + 1, self.size))

    def last(self) -> tuple[list[jax.Array], jax.Array]:
        """The last state, and the block that it precedes."""
        return _read(self.slots, self.places[self.count - 1]), self.starts[self.count - 1]

    def without(self, start: Number) -> Checkpoints:
        """Without the last state, if it is the state before block ``start``."""
        return self._replace(count=self.count - (self.starts[self.count - 1] == start).astype(self.count.dtype))


def sizes(body: Body) -> tuple[int, int]:
    """The number of stored states, and the number of steps in a block."""
    state = max(1, size_of(known_avals(body)))
    kept = current.get().loop_checkpoints or min(max(STATE_BYTES // state, FEWEST), MOST)
    return kept, min(max(kept * state // (2 * max(1, size_of(kept_avals(body)))), 1), LONGEST_BLOCK)


def known_avals(body: Body) -> list[ShapedArray]:
    """The abstract values of the known carries."""
    return [a for a, known in zip(body.carry_avals, body.known_carry, strict=True) if known]


def sweep(body: Body, consts: Sequence[jax.Array], carry: Sequence[jax.Array], go: Go, n_kept: int,
          block: int) -> tuple[list[jax.Array], jax.Array, jax.Array, Checkpoints]:
    """Run the loop: the final carries, the numbers of steps and of blocks, and the stored states."""
    table = jnp.asarray(schedules.binomials(n_kept))

    def run_block(state: PyTree) -> PyTree:
        carry, steps, blocks, checkpoints = state
        checkpoints = checkpoints.replace(carry, blocks, table)
        with within("first"):
            blocks * block  # read by nobody but those who ask which step a step in this block is
        carry, ran = lax.while_loop(lambda state: go(state[0]) & (state[1] < block),
                                    lambda state: (body.step(consts, state[0], ())[0], state[1] + 1), (carry, jnp.int32(0)))
        return carry, steps + ran, blocks + 1, checkpoints

    start = (list(carry), jnp.int32(0), jnp.int32(0), Checkpoints.empty(known_avals(body), n_kept))
    return lax.while_loop(lambda state: go(state[0]), run_block, start)


def pull_sweep(pull: Pull, once: Sequence[jax.Array], consts: Sequence[jax.Array], checkpoints: Checkpoints,
               steps: Number, blocks: Number, block: int, carry_ct: Sequence[jax.Array],
               slices: Slices = NOTHING) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """As :func:`pull_record`, from stored states."""
    body, size = pull.body, checkpoints.size
    table = jnp.asarray(schedules.binomials(size))

    def advance(state: PyTree) -> PyTree:
        carry, at, end, checkpoints = state
        length, free = end - at, size - checkpoints.count
        ahead = jnp.where(free > 0, schedules.split(length, free + 1, table), length - 1)
        carry = lax.fori_loop(at * block, (at + ahead) * block, lambda i, carry: body.step(
            consts, carry, _read(slices.xs, slices.order(i)))[0], carry)
        return carry, at + ahead, end, checkpoints.append(carry, at + ahead)

    def pull_block(state: PyTree) -> PyTree:
        end, checkpoints, carry_ct, sums, xs_ct = state
        carry, at = checkpoints.last()
        carry, _, _, checkpoints = lax.while_loop(lambda state: state[2] - state[1] > 1, advance, (carry, at, end, checkpoints))
        n = jnp.where(end == blocks, steps - block * (blocks - 1), block)
        with within("first"):
            first = (end - 1) * block
        end_carry, _, buffers = record(body, consts, carry, lambda _, i: i < n, block, slices, first)
        carry_ct, sums, xs_ct = pull_record(pull, once, buffers, body.last(end_carry), n, block, carry_ct, sums,
                                            slices._replace(xs_ct=xs_ct), first)
        return end - 1, checkpoints.without(end - 1), carry_ct, sums, xs_ct

    start = (jnp.int32(blocks), checkpoints, list(carry_ct), pull.no_sums(), list(slices.xs_ct))
    _, _, carry_ct, sums, xs_ct = lax.while_loop(lambda state: state[0] > 0, pull_block, start)
    return carry_ct, pull.sums_to_consts(once, sums), xs_ct


def sweep_scan(body: Body, consts: Sequence[jax.Array], carry: Sequence[jax.Array], xs: Sequence[jax.Array], n_kept: int, block: int,
               settings: Params) -> tuple[list[jax.Array], list[jax.Array], Checkpoints]:
    """Run a scan, whose length is known: the final carries, the results, and the states at the optimal positions."""
    length = settings["length"]
    starts = schedules.positions(-(-length // block), n_kept)
    places = np.full(length, len(starts), np.int32)
    places[np.array(starts) * block] = np.arange(len(starts))
    if settings["reverse"]:
        places = places[::-1]

    def step(state: PyTree, x: PyTree) -> PyTree:
        carry, slots = state
        x, place = x
        slots = _write(slots, carry, place)
        carry, ys, _ = body.step(consts, carry, x)
        return (carry, slots), ys

    empty = Checkpoints.empty(known_avals(body), len(starts))
    (carry, slots), ys = lax.scan(step, (list(carry), empty.slots), (list(xs), places), **settings)
    return carry, ys, empty._replace(slots=slots, starts=jnp.array(starts, "int32"), count=jnp.int32(len(starts)))


def schedule_sizes(body: Body, length: int) -> tuple[int, int] | None:
    """The number of stored states of a scan and of steps in a block; None where all residuals are stored."""
    schedule = current.get().schedule
    if schedule == "all" or length == 0:
        return None
    if not isinstance(length, int):
        raise errors.not_honoured(f"schedule={schedule!r}", body.loop, f"it needs the number of steps, which is the symbol {length}",
                                  "Leave the schedule 'all', or give arrays of known length.")
    if schedule == "sqrt":
        root = math.isqrt(length - 1) + 1
        return root, root
    if isinstance(schedule, schedules.Revolve):
        return schedule.slots, 1
    state, residuals = max(1, size_of(known_avals(body))), size_of(kept_avals(body))
    try:
        return schedules.fit(length, state, residuals, schedule.bytes)
    except ValueError as error:
        raise errors.not_honoured(f"schedule={schedule!r}", body.loop, str(error), "Give a schedule of more bytes.") from None
