"""Taps in the bodies of loops.

A ``scan`` reads the perturbations of its steps from stacks, and stacks what its places give.

A ``while`` loop takes a number of steps that is known when it ends.  Either the last step alone is looked at: the loop carries the
state before its latest step, and that step is taken once more after the loop, with perturbations; its results are those of the loop.
Or a number of steps is recorded: each step reads the perturbations of its number, and writes what its places give into arrays that the
loop carries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dualrev import errors
from dualrev._jax.calls import scan_layout
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, jaxpr_as_fun
from dualrev.inspection.taps.evaluation import Holder, Tapped, present, spread
from dualrev.inspection.taps.places import Found, Perturbations, Place, taps_in

#: What an operation returns, and what its places give.
Evaluated: TypeAlias = tuple[list[jax.Array], list[Found]]

#: The carries of a loop.
State: TypeAlias = list[jax.Array]


class Scan(Holder):
    """``scan``, and what becomes one: ``map``, and ``fori_loop`` with a known number of steps."""

    def places(self, tapped: Tapped, eqn: JaxprEqn) -> list[Place]:
        return [place.stacked(eqn.params["length"]) for place in tapped.places(eqn.params["jaxpr"])]

    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array], perturbations: Perturbations) -> Evaluated:
        params = eqn.params
        n_consts, n_carry = scan_layout(params)
        consts, init, xs = args[:n_consts], args[n_consts: n_consts + n_carry], args[n_consts + n_carry:]
        more, given = present(perturbations)

        def step(carry: State, slices: tuple[list[jax.Array], list[jax.Array]]) -> tuple[State, Evaluated]:
            x, mine = slices
            outs, found = tapped.evaluate(params["jaxpr"], [*consts, *carry, *x], spread(mine, given))
            return outs[:n_carry], (outs[n_carry:], found)

        carry, (ys, found) = lax.scan(step, init, (xs, more), params["length"], params["reverse"], params["unroll"])
        return [*carry, *ys], found


class While(Holder):
    """``while_loop``, and ``fori_loop`` with a number of steps that is computed."""

    def places(self, tapped: Tapped, eqn: JaxprEqn) -> list[Place]:
        for tap in taps_in(eqn.params["cond_jaxpr"]):
            if tapped.is_wanted(tap.params["name"]):
                raise errors.TapError(f"{errors.CALL}: the tap {tap.params['name']!r} stands in the condition of a while_loop, which "
                                      "decides and has no derivative. Tap the value in the body of the loop.")
        found = tapped.places(eqn.params["body_jaxpr"])
        leading = () if tapped.record is None else (tapped.record,)
        return [_with_flags(place.stacked(*leading), leading, _members(eqn)) for place in found]

    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array], perturbations: Perturbations) -> Evaluated:
        loop = Loop(tapped, eqn, args)
        return loop.last(perturbations) if tapped.record is None else loop.recorded(perturbations, tapped.record)


class Loop:
    """One evaluation of a ``while`` loop."""

    def __init__(self, tapped: Tapped, eqn: JaxprEqn, args: Sequence[jax.Array]):
        params = eqn.params
        self.tapped = tapped
        self.body: ClosedJaxpr = params["body_jaxpr"]
        i, j = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        test, consts = jaxpr_as_fun(params["cond_jaxpr"]), args[:i]
        self.runs: Callable[[State], jax.Array] = lambda state: test(*consts, *state)[0]
        self.consts, self.init = list(args[i:j]), list(args[j:])
        self.members = _members(eqn)
        self.places = tapped.places(self.body)

    def goes_on(self, state: State) -> jax.Array:
        """Whether the loop goes on: of a batch, whether any member does."""
        return jnp.any(self.runs(state)) if self.members else self.runs(state)

    def step(self, state: State, perturbations: Perturbations) -> Evaluated:
        return self.tapped.evaluate(self.body, [*self.consts, *state], perturbations)

    def last(self, perturbations: Perturbations) -> Evaluated:
        """The loop, and what the places of its last step give."""
        plain = jaxpr_as_fun(self.body)
        more, given = present(perturbations)

        def body(carry: tuple[State, State, jax.Array]) -> tuple[State, State, jax.Array]:
            before, now, is_taken = carry
            new = list(plain(*self.consts, *now))
            if not self.members:
                return now, new, jnp.ones_like(is_taken)
            runs = self.runs(now)
            return _selected(runs, now, before), _selected(runs, new, now), is_taken | runs

        start = (self.init, self.init, jnp.zeros(self.members, bool))
        before, end, is_taken = lax.while_loop(lambda carry: self.goes_on(carry[1]), body, start)

        def taken(before: State, end: State, more: list[jax.Array]) -> Evaluated:
            return self.step(before, spread(more, given))

        def not_taken(before: State, end: State, more: list[jax.Array]) -> Evaluated:
            return end, [place.nothing() for place in self.places]

        if not self.members:
            outs, found = lax.cond(is_taken, taken, not_taken, before, end, more)
            return outs, found
        outs, found = taken(before, end, more)
        return _selected(is_taken, outs, end), [self._of_members(each, is_taken) for each in found]

    def recorded(self, perturbations: Perturbations, record: int) -> Evaluated:
        """The loop, and what the places of its first ``record`` steps give."""
        more, given = present(perturbations)
        flags = [_with_flags(place.stacked(record), (record,), self.members) for place in self.places]

        def body(carry: tuple[State, list[Found], jax.Array]) -> tuple[State, list[Found], jax.Array]:
            now, stacks, i = carry
            outs, found = self.step(now, spread([x.at[i].get(mode="fill", fill_value=0) for x in more], given))
            if self.members:
                runs = self.runs(now)
                outs, found = _selected(runs, outs, now), [self._of_members(each, runs) for each in found]
            new = [Found(stack.value.at[i].set(each.value, mode="drop"), stack.reached.at[i].set(each.reached, mode="drop"))
                   for stack, each in zip(stacks, found, strict=True)]
            return outs, new, i + 1

        start = (self.init, [place.nothing() for place in flags], jnp.zeros((), "int32"))
        outs, found, _ = lax.while_loop(lambda carry: self.goes_on(carry[0]), body, start)
        return outs, found

    def _of_members(self, found: Found, runs: jax.Array) -> Found:
        """What a place gives, with a flag for each member of the batch.

        The value of a member that does not run stays as it is: nothing says which axis of it, if any, is that of the members.
        """
        shape = (*runs.shape, *found.reached.shape)
        return Found(found.value, lax.broadcast(found.reached, runs.shape) & lax.broadcast_in_dim(runs, shape, range(runs.ndim)))


def _members(eqn: JaxprEqn) -> tuple[int, ...]:
    """The shape of a batch whose members finish at different steps: ``vmap`` gives such a loop a condition that is an array."""
    return tuple(eqn.params["cond_jaxpr"].out_avals[0].shape)


def _with_flags(place: Place, leading: tuple[int, ...], members: tuple[int, ...]) -> Place:
    """A place with a flag for each member of a batch, behind the axis of recorded steps."""
    rest = place.reached_shape[len(leading):]
    return Place(**{**vars(place), "reached_shape": (*leading, *members, *rest)})


def _selected(runs: jax.Array, new: State, old: State) -> State:
    """For each member of a batch, the new state where it runs, and else the old one."""
    return [lax.select(lax.broadcast_in_dim(runs, y.shape, range(runs.ndim)), y, x) for x, y in zip(old, new, strict=True)]
