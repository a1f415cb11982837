"""Loops, step by step: the state before any step, and the last step before which a part of the state was finite.

Both run the loop again, compiled, and keep one state at a time: a loop of any length takes no more memory than it does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.calls import scan_layout, scan_p, while_p
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, jaxpr_as_fun, stage
from dualrev.inspection.finiteness.entries import Entry, Kind

State = list[jax.Array]


class Loop:
    """A ``scan`` or a ``while`` at its operands.  Steps are numbered in the order in which they run.

    ``body`` takes constants, the state, and slices of arrays; it returns the state and slices of stacked results.
    """

    def __init__(self, eqn: JaxprEqn, operands: Sequence[jax.Array]):
        params = eqn.params
        self.body: ClosedJaxpr
        if eqn.primitive is scan_p:
            self.body = params["jaxpr"]
            n_consts, n_state = scan_layout(params)
            self.first_const, self.first_state = 0, n_consts
            self.is_reverse, self.length = bool(params["reverse"]), int(params["length"])
            self.going: ClosedJaxpr | None = None
        else:
            assert eqn.primitive is while_p
            self.body, self.going = params["body_jaxpr"], params["cond_jaxpr"]
            n_test, n_consts = params["cond_nconsts"], params["body_nconsts"]
            self.test_consts = list(operands[:n_test])
            self.first_const, self.first_state = n_test, n_test + n_consts
            n_state = len(operands) - self.first_state
            self.is_reverse = False
            if self.going.out_avals[0].shape:
                self.first_const, self.test_consts = 0, list(operands[:n_test])
                self.body, self.going = _of_batch(self.body, self.going, n_test, n_consts)
        self.n_state = n_state
        self.consts = list(operands[self.first_const: self.first_state])
        self.start: State = list(operands[self.first_state: self.first_state + n_state])
        self.arrays = list(operands[self.first_state + n_state:])
        self.compiled = jax.jit(jaxpr_as_fun(self.body))
        if self.going is not None:
            self.length = int(self._count())

    # ------------------------------------------------------------------------------------------------------- one step

    def run(self, inputs: Sequence[jax.Array]) -> Sequence[jax.Array]:
        outs: Sequence[jax.Array] = self.compiled(*inputs)
        return outs

    def number(self, step: int) -> int:
        """The number of a step as a user counts: the position in the arrays that a scan goes through."""
        return self.length - 1 - step if self.is_reverse else step

    def inputs(self, step: int, state: State) -> list[jax.Array]:
        return [*self.consts, *state, *[x[self.number(step)] for x in self.arrays]]

    def operand(self, i: int, entry: Entry, step: int) -> tuple[int, Entry]:
        """The operand of the loop, and its entry, that an input of a step is (not of the state)."""
        n_consts = len(self.consts)
        if i < n_consts:
            return self.first_const + i, entry
        return self.first_const + i, (self.number(step), *entry)

    # ------------------------------------------------------------------------------------------------------- many steps

    def _advance(self, fixed: tuple[State, State, State], step: jax.Array, state: State) -> State:
        consts, arrays, _ = fixed
        at = jnp.int32(self.length - 1) - step if self.is_reverse else step
        slices = [lax.dynamic_index_in_dim(x, at, keepdims=False) for x in arrays]
        return list(jaxpr_as_fun(self.body)(*consts, *state, *slices)[: self.n_state])

    def _fixed(self) -> tuple[State, State, State]:
        return self.consts, self.arrays, getattr(self, "test_consts", [])

    def _count(self) -> jax.Array:
        going = self.going
        assert going is not None

        @jax.jit
        def count(fixed: tuple[State, State, State], start: State) -> jax.Array:
            def step(carried: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
                n, state = carried
                return n + 1, list(jaxpr_as_fun(self.body)(*fixed[0], *state))

            goes_on = jaxpr_as_fun(going)
            found: tuple[jax.Array, State] = lax.while_loop(lambda carried: goes_on(*fixed[2], *carried[1])[0], step,
                                                            (jnp.int32(0), start))
            return found[0]

        counted: jax.Array = count(self._fixed(), self.start)
        return counted

    @functools.cached_property
    def _state_before(self) -> Callable[..., State]:
        return jax.jit(lambda fixed, start, step: lax.fori_loop(
            jnp.int32(0), step, lambda s, state: self._advance(fixed, s, state), start))

    def state_before(self, step: int) -> State:
        """The state before a step."""
        return list(self._state_before(self._fixed(), self.start, jnp.int32(step)))

    def last_good(self, i: int, kind: Kind, until: int) -> int:
        """The last step, up to ``until``, before which part ``i`` of the state has no bad entry; -1 if there is none."""
        bad = jnp.isnan if kind == "nan" else jnp.isinf

        @jax.jit
        def run(fixed: tuple[State, State, State], start: State, until: jax.Array) -> jax.Array:
            def look(step: jax.Array, state: State, last: jax.Array) -> jax.Array:
                return jnp.where(jnp.any(bad(state[i])), last, step)

            def body(step: jax.Array, carried: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
                state, last = carried
                return self._advance(fixed, step, state), look(step, state, last)

            state, last = lax.fori_loop(jnp.int32(0), until, body, (start, jnp.int32(-1)))
            return look(until, state, last)

        return int(run(self._fixed(), self.start, jnp.int32(until)))


def _of_batch(body: ClosedJaxpr, going: ClosedJaxpr, n_test: int, n_consts: int) -> tuple[ClosedJaxpr, ClosedJaxpr]:
    """The body and the test of a ``while`` under ``vmap`` whose examples take different numbers of steps.

    jax says only when it lowers the loop that it goes on for as long as one example does, and that the others keep their state.  The
    constants of the new body are those of the test and those of the body.
    """
    test_avals, const_avals = going.in_avals[:n_test], body.in_avals[:n_consts]
    state_avals = body.in_avals[n_consts:]

    def step(*inputs: jax.Array) -> list[jax.Array]:
        consts, state = inputs[:n_test + n_consts], inputs[n_test + n_consts:]
        (goes_on,) = jaxpr_as_fun(going)(*consts[:n_test], *state)
        after = jaxpr_as_fun(body)(*consts[n_test:], *state)
        return [lax.select(lax.broadcast_in_dim(goes_on, x.shape, range(goes_on.ndim)), x, before)
                for x, before in zip(after, state, strict=True)]

    return (stage(step, [*test_avals, *const_avals, *state_avals]),
            stage(lambda *inputs: [jnp.any(jaxpr_as_fun(going)(*inputs)[0])], [*test_avals, *state_avals]))
