"""What loops have in common: the derivative of a body that goes round, and where the residuals of its steps are kept.

Operands and results of a body stand in groups: constants, carries, and for a scan the slices of its arrays and its stacked results.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev.calls.loops.invariant import Invariant, invariant_of
from dualrev.calls.loops.packing import SMALL
from dualrev.calls.loops.sums_over_steps import Plan
from dualrev.calls.staging import Linearization
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import current
from dualrev.programs.jaxprs import nbytes_of
from dualrev.table.rows import Unknown

Flags = tuple[Any, ...]


def only(values: Sequence[jax.Array], flags: Sequence[Any]) -> list[jax.Array]:
    return [x for x, flag in zip(values, flags, strict=True) if flag]


def spread(values: Sequence[jax.Array], flags: Sequence[Any]) -> list[jax.Array]:
    """Undo :func:`only`, with None in the gaps."""
    found = iter(values)
    return [next(found) if flag else None for flag in flags]


def size_of(values: Sequence[jax.Array]) -> int:
    """Bytes of arrays, or of abstract ones."""
    return sum(map(nbytes_of, values))


def moving_carry(derive: Callable[[Any, tuple[bool, ...]], Any], jaxpr: ClosedJaxpr, carry: Sequence[jax.Array]) -> tuple[Any, list[bool]]:
    """The fixed point of carry activity: the derivative of a loop body, and which carries depend on the inputs at some step."""
    active = [bool(a) for a in carry]  # what goes round keeps its dtype
    while True:
        derivative = derive(jaxpr, tuple(active))
        found = [a or goes for a, goes in zip(active, derivative.active_outs[: len(active)], strict=True)]
        if found == active:
            return derivative, active
        active = found


@dataclasses.dataclass(frozen=True)
class Body:
    """The linearization of a loop body, and where each of its residuals is found.

    ``on_*`` say which constants, initial carries, slices and carries move.  A residual is ``("once", i)``, the same at all steps;
    ``("kept", i)``, one for each step: ``kept[i]`` is its source, an input, an output or new; or ``("next", j)``: a carry as a step
    leaves it is the carry that the next step finds, and that is ``kept[next_of[j]]`` there.
    """

    linearization: Linearization
    invariant: Invariant
    on_consts: Flags
    on_init: Flags
    on_xs: Flags
    on_carry: Flags
    kept: tuple[tuple[str, int], ...]
    where: tuple[tuple[str, int], ...]
    next_of: tuple[int, ...]

    @staticmethod
    def of(linearization: Linearization, consts: Sequence[jax.Array], groups: Sequence[Flags],
           on_carry: Flags) -> tuple[Body, list[Any], list[Any]]:
        """The body, the values of the residuals that are the same at all steps, and what every step reads in place of the constants."""
        n_consts = len(consts)
        known_consts = [x for x in consts if type(x) is not Unknown]
        invariant = invariant_of(linearization, len(known_consts))
        hoisted, step_consts = invariant.before(known_consts)
        once: list[jax.Array] = []
        kept: list[tuple[str, int]] = []
        next_of: list[int] = []
        # Inputs first: what is an output may then be found to be one of them, a step later.
        places: dict[tuple[str, int], tuple[str, int]] = {}
        for kind, i in sorted(linearization.residual_sources, key=lambda source: source[0] != "in"):
            if (kind == "in" and i < n_consts) or (kind == "new" and i in hoisted):
                places[kind, i] = "once", len(once)
                once.append(consts[i] if kind == "in" else hoisted[i])
            elif kind == "out" and i < len(on_carry) and ("in", n_consts + i) in places:
                places[kind, i] = "next", len(next_of)
                next_of.append(places["in", n_consts + i][1])
            else:
                places[kind, i] = "kept", len(kept)
                kept.append((kind, i))
        where = [places[source] for source in linearization.residual_sources]
        on_consts, on_init, on_xs = groups
        body = Body(linearization, invariant, on_consts, on_init, on_xs, on_carry, tuple(kept), tuple(where), tuple(next_of))
        return body, once, step_consts

    @property
    def n_consts(self) -> int:
        return len(self.on_consts)

    @property
    def n_carry(self) -> int:
        return len(self.on_carry)

    @functools.cached_property
    def known_carry(self) -> list[bool]:
        """Which carries are known: in a linear program, those that do not move."""
        return [not (self.linearization.is_linear and moves) for moves in self.on_carry]

    @functools.cached_property
    def known_xs(self) -> list[bool]:
        return [not (self.linearization.is_linear and moves) for moves in self.on_xs]

    @functools.cached_property
    def stacked_carries(self) -> dict[tuple[str, int], tuple[int, bool]]:
        """Carries that are residuals as a step finds them, and results as well: which output has the stack, and is it a step behind.

        A result that is the carry as the step leaves it has the same stack but for its ends: putting that right takes longer than
        stacking the carry once more, unless it is small.
        """
        jaxpr, linearization = self.linearization.program.jaxpr.jaxpr, self.linearization
        n_in = self.n_consts + self.n_carry
        ins: list[Any] = spread(jaxpr.invars[: sum(linearization.known)], linearization.known)
        outs: list[jax.Array] = spread(jaxpr.outvars[: sum(linearization.known_outs)], linearization.known_outs)
        found: dict[tuple[str, int], tuple[int, bool]] = {}
        for kind, i in self.kept:
            if kind != "in" or not self.n_consts <= i < n_in:
                continue
            for j in range(len(outs) - 1, self.n_carry - 1, -1):
                if outs[j] is ins[i]:
                    found[kind, i] = j, False
                    break
                if outs[j] is not None and outs[j] is outs[i - self.n_consts] and nbytes_of(outs[j].aval) <= SMALL:
                    found[kind, i] = j, True
        return found

    @property
    def carry_avals(self) -> Sequence[Any]:
        return self.linearization.in_avals[self.n_consts: self.n_consts + self.n_carry]

    def step_consts(self, consts: Sequence[jax.Array]) -> list[jax.Array]:
        """What every step reads in place of the known constants."""
        return self.invariant.before(consts)[1]

    def step(self, consts: Sequence[jax.Array], carry: Sequence[jax.Array], x: Sequence[jax.Array]) -> tuple[list[Any], list[Any], Callable[..., Any]]:
        """One step on known values: the carries, the other results, and a function that looks up a residual by its source.

        ``consts`` are those of :meth:`step_consts`.
        """
        known_outs, fresh = self.invariant.within(consts, [*carry, *x])
        outs = self.linearization.all_outs(known_outs)
        carry_in = spread(carry, self.known_carry)
        n_consts, n_carry = self.n_consts, self.n_carry
        slices = spread(x, self.known_xs)

        def residual(source: tuple[str, int]) -> Any:
            kind, i = source
            if kind == "in":
                return carry_in[i - n_consts] if i < n_consts + n_carry else slices[i - n_consts - n_carry]
            return outs[i] if kind == "out" else fresh[i]

        return only(outs[:n_carry], self.known_carry), [out for out in outs[n_carry:] if type(out) is not Unknown], residual

    def residuals(self, once: Sequence[jax.Array], kept: Sequence[jax.Array], following: Sequence[jax.Array]) -> list[jax.Array]:
        """The residuals of a step, of which ``following`` are found at the next, or of all steps."""
        pools = {"once": once, "kept": kept, "next": following}
        return [pools[kind][i] for kind, i in self.where]

    def following(self, kept: Sequence[jax.Array]) -> list[jax.Array]:
        """What the step before finds here."""
        return [kept[i] for i in self.next_of]

    def last(self, carry: Sequence[jax.Array]) -> list[jax.Array]:
        """What the last step finds in the carries that the loop ends with, of which those that are known are given."""
        values = spread(carry, self.known_carry)
        return [values[self.kept[i][1] - self.n_consts] for i in self.next_of]

    def tape(self, once: Sequence[jax.Array], kept: Sequence[jax.Array]) -> Any:
        """The body's tape with the residuals of all steps in place of those of one, to look at."""
        return self.linearization.tape(self.residuals(once, kept, [None] * len(self.next_of)))

    def moving_back(self, carry: Sequence[bool], ys: Sequence[bool]) -> tuple[bool, ...]:
        """Which carries have a cotangent at some step, where those in ``carry`` have one in the end, and results in ``ys`` have one.

        Many programs carry all of a state of which the next step reads a part: the rest has no cotangent but in the end.
        """
        first = sum(map(bool, self.on_consts))
        moving = tuple([m and bool(on) for m, on in zip(carry, self.on_carry, strict=True)])
        while True:
            results = self.linearization.reached((*self.into_body(moving), *ys))[first: first + sum(self.on_carry)]
            found = tuple([m or bool(r) for m, r in zip(moving, spread(results, self.on_carry), strict=True)])
            if found == moving:
                return moving
            moving = found

    def into_body(self, moving: Sequence[bool]) -> list[bool]:
        """The carries that hand a cotangent on to the step before: not those whose body output never moves."""
        return [m and active for m, active in zip(moving, self.linearization.active_outs[: self.n_carry], strict=True)]

    def reached(self, cotangents: Sequence[bool]) -> list[bool]:
        """Which results of the loop's pull may differ from zero: constants, initial carries, slices."""
        carry, ys = cotangents[: self.n_carry], cotangents[self.n_carry:]
        moving = self.moving_back(carry, ys)
        n_consts, n_moving = sum(map(bool, self.on_consts)), sum(self.on_carry)
        results = self.linearization.reached((*self.into_body(moving), *ys))
        return [*results[:n_consts], *only(moving, self.on_init), *results[n_consts + n_moving:]]

    def start_tangents(self, tangents: Sequence[Tangent]) -> list[jax.Array]:
        """Tangents or cotangents of the carries that move, as arrays; ``tangents`` has one for each carry, None where it is zero."""
        return [zeros.instantiate(t, a) for t, a, moves in zip(tangents, self.carry_avals, self.on_carry, strict=True) if moves]


class Pull:
    """One step of the pull of a loop, for given nonzero cotangents of its carries in the end and of its stacked results.

    ``on_carry`` says which carries have a cotangent at some step: the loop carries no others.  Cotangents of constants are sums over
    the steps: ``plan`` says what of them is added up in the loop, and what is stacked and contracted after it.  ``length`` is how many
    steps are contracted at a time, ``room`` the bytes that their residuals take; ``stacks`` says that the cotangents of results are at
    hand as stacks of such a length.
    """

    def __init__(self, body: Body, carry_ct: Sequence[Tangent], on_ys: Sequence[bool], length: int, room: int, stacks: bool = True):
        self.body = body
        n_consts, n_moving = sum(map(bool, body.on_consts)), sum(body.on_carry)
        self.on_carry = body.moving_back([ct is not None for ct in carry_ct], on_ys)
        while True:
            mask = [*body.into_body(self.on_carry), *on_ys]
            which = body.linearization.results_of("pull", mask)
            arrives = spread(which[n_consts: n_consts + n_moving], body.on_carry)
            if all(on or not ct for on, ct in zip(self.on_carry, arrives, strict=True)):
                break
            self.on_carry = tuple([on or bool(ct) for on, ct in zip(self.on_carry, arrives, strict=True)])
        self.start = self._instantiated(carry_ct)
        self.to_consts = which[:n_consts]
        self.to_rest = which[n_consts:]
        self.to_xs = which[n_consts + n_moving:]
        self.slice_avals = body.linearization.program_of("pull", mask).jaxpr.out_avals[sum(which[: n_consts + n_moving]):]
        self.n_moving = n_moving
        self.n_carry_ct = sum(mask[: body.n_carry])
        policy = current.get().stack_cotangents
        plans = body.linearization.plans
        key = (body.where, body.kept, tuple(mask), length, policy, stacks)
        if key not in plans:
            is_fixed = [kind == "once" for kind, _ in body.where]
            n_ys = sum(on_ys)

            def weigh(new: int, carry: int) -> bool:
                return policy is True or (policy == "auto" and new <= carry and new * length <= max(room, carry))

            plans[key] = Plan(body.linearization.program_of("pull", mask).jaxpr, range(sum(self.to_consts)),
                              [*is_fixed, *[False] * (self.n_carry_ct + n_ys)],
                              [*(not fixed for fixed in is_fixed), *[False] * self.n_carry_ct, *[stacks] * n_ys], weigh)
        self.plan: Plan = plans[key]

    def step(self, carry_ct: Sequence[Tangent], y_ct: Sequence[jax.Array], residuals: Sequence[jax.Array]) -> tuple[list[Any], ...]:
        """Cotangents of the carries before the step, of the slices, what is to be added up, and what is to be stacked."""
        given = [ct for ct, goes in zip(carry_ct, only(self.body.into_body(self.on_carry), self.on_carry), strict=True) if goes]
        rest, terms, new = self.plan.split(self.plan.step(*residuals, *given, *y_ct))
        cts = spread(rest, self.to_rest)
        carry_ct = self._instantiated(spread(cts[: self.n_moving], self.body.on_carry))
        return carry_ct, only(cts[self.n_moving:], self.to_xs), terms, new

    def _instantiated(self, cts: Sequence[Tangent]) -> list[jax.Array]:
        """Of a cotangent or None for each carry, those that the loop carries, as arrays."""
        return [zeros.instantiate(ct, a) for ct, a, on in zip(cts, self.body.carry_avals, self.on_carry, strict=True) if on]

    def to_init(self, carry_ct: Sequence[Tangent]) -> list[jax.Array]:
        """Cotangents of the initial carries that move, None where they are zero, from those that the loop ends with."""
        return only(spread(carry_ct, self.on_carry), self.body.on_init)

    def no_totals(self) -> list[jax.Array]:
        return [zeros.zeros_of(a) for a in self.plan.total_avals]

    def no_sums(self) -> list[jax.Array]:
        """Sums over the steps of several records, of none yet: of what is added up, where nothing is stacked."""
        return [zeros.zeros_of(a) for a in self.plan.sum_avals] if self.plan.stacks else self.no_totals()

    def sums_to_consts(self, once: Sequence[jax.Array], sums: Sequence[jax.Array]) -> list[jax.Array]:
        """The cotangents of the constants from the sums over all records."""
        if self.plan.stacks:
            return list(sums)
        return self.finish(self.body.residuals(once, [None] * len(self.body.kept), [None] * len(self.body.next_of)), sums, [])

    def add(self, totals: Sequence[jax.Array], terms: Sequence[jax.Array]) -> list[jax.Array]:
        return [zeros.add(total, term) for total, term in zip(totals, terms, strict=True)]

    def finish(self, residuals: Sequence[jax.Array], totals: Sequence[jax.Array], new: Sequence[jax.Array], ys_ct: Sequence[jax.Array] = ()) -> list[jax.Array]:
        """The cotangents of the constants, from stacks of residuals, what was added up and stacked, and stacks of cotangents."""
        stacks = [*residuals, *[None] * self.n_carry_ct, *ys_ct]
        return self.plan.finish([*stacks, *[None] * (len(self.plan.inputs) - len(stacks))], totals, new)
