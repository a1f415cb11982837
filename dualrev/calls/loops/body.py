"""What loops have in common: the derivative of the body, and where the residuals of its steps are stored.

Operands of a body are in groups: constants, carries, and for a scan the slices of its arrays.  Results are carries and, for a scan,
the slices of its stacked results.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import jax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev.calls.linearization import Linearization, Source, refuse_splitting
from dualrev.calls.loops.invariant import Invariant, invariant_of
from dualrev.calls.loops.packing import SMALL
from dualrev.calls.loops.prices import UNKNOWN_STEPS
from dualrev.calls.loops.storing import with_stored
from dualrev.calls.loops.sums_over_steps import Inputs, Plan, plan_of
from dualrev.linear import zeros
from dualrev.linear.maps import Tape
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, current
from dualrev.programs.jaxprs import nbytes_of
from dualrev.table.rows import Operand, Unknown

#: Which operands of a group are active.
Flags: TypeAlias = tuple[Active, ...]

T = TypeVar("T")


def only(values: Sequence[T], flags: Sequence[object]) -> list[T]:
    """The values whose flag is true."""
    return [x for x, flag in zip(values, flags, strict=True) if flag]


def spread(values: Sequence[T], flags: Sequence[object]) -> list[T | None]:
    """Undo :func:`only`, with None where a flag is false."""
    found = iter(values)
    return [next(found) if flag else None for flag in flags]


def size_of(values: Sequence[jax.Array | ShapedArray]) -> int:
    """Bytes of arrays or abstract values."""
    return sum(map(nbytes_of, values))  # type: ignore[arg-type]  # arrays have the attributes of their abstract values


def loop_of(body: ClosedJaxpr, primitive: str) -> str:
    """What the user calls the loop that has this body."""
    return "fori_loop" if body.jaxpr.debug_info.traced_for == "fori_loop" else primitive


class HasActiveOuts(Protocol):
    """The derivative of a loop body: a linearization or a pushforward."""

    active_outs: tuple[bool, ...]


D = TypeVar("D", bound=HasActiveOuts)


def active_carry(derive: Callable[[ClosedJaxpr, tuple[bool, ...]], D], jaxpr: ClosedJaxpr,
                 carry: Sequence[Active]) -> tuple[D, list[bool]]:
    """The fixed point of carry activity: the derivative of a loop body, and which carries depend on the inputs at any step."""
    active = [bool(a) for a in carry]  # carries keep their dtype
    while True:
        derivative = derive(jaxpr, tuple(active))
        found = [a or is_active for a, is_active in zip(active, derivative.active_outs[: len(active)], strict=True)]
        if found == active:
            return derivative, active
        active = found


@dataclasses.dataclass(frozen=True)
class Body:
    """The linearization of a loop body, and where each of its residuals is stored.

    ``on_*``: which constants, initial carries, slices and carries are active.  For each residual, ``where`` is one of

    ``("once", i)``
        the same at all steps, stored once;
    ``("kept", i)``
        stored for each step; its source is ``kept[i]``;
    ``("next", j)``
        a carry that the step returns.  The next step receives it and stores it as ``kept[next_of[j]]``.
    """

    #: What the user calls the loop.
    loop: str
    linearization: Linearization
    invariant: Invariant
    on_consts: Flags
    on_init: Flags
    on_xs: Flags
    on_carry: tuple[bool, ...]
    kept: tuple[Source, ...]
    where: tuple[tuple[str, int], ...]
    next_of: tuple[int, ...]

    @staticmethod
    def of(loop: str, linearization: Linearization, consts: Sequence[Operand], groups: Sequence[Flags],
           on_carry: tuple[bool, ...], length: object) -> tuple[Body, list[jax.Array], list[jax.Array]]:
        """The body, the residuals that are the same at all steps, and what every step reads in place of the constants.

        ``length``: the number of steps that residuals are stored for, where it is known.
        """
        n_consts = len(consts)
        refuse_splitting(linearization, loop)
        linearization = with_stored(loop, linearization, n_consts, len(on_carry), length)
        known_consts = [x for x in consts if not isinstance(x, Unknown)]
        invariant = invariant_of(linearization, len(known_consts))
        hoisted, step_consts = invariant.before(known_consts)
        once: list[Any] = []
        kept: list[tuple[str, int]] = []
        next_of: list[int] = []
        # Inputs first: an output may then turn out to be an input of the next step.
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
        body = Body(loop, linearization, invariant, on_consts, on_init, on_xs, on_carry, tuple(kept), tuple(where), tuple(next_of))
        return body, once, step_consts

    @property
    def n_consts(self) -> int:
        return len(self.on_consts)

    @property
    def n_carry(self) -> int:
        return len(self.on_carry)

    @functools.cached_property
    def known_carry(self) -> list[bool]:
        """Which carries are known: in a linear program, those that are not active."""
        return [not (self.linearization.is_linear and is_active) for is_active in self.on_carry]

    @functools.cached_property
    def known_xs(self) -> list[bool]:
        """Which slices are known."""
        return [not (self.linearization.is_linear and is_active) for is_active in self.on_xs]

    @functools.cached_property
    def stacked_carries(self) -> dict[tuple[str, int], tuple[int, bool]]:
        """The carries that are residuals and stacked results too: for each, the output that has its stack, and whether to shift it.

        A result that is the carry *after* the step has the same stack, shifted by one step.  Shifting takes longer than stacking the
        carry a second time, unless it is small.
        """
        jaxpr, linearization = self.linearization.program.jaxpr.jaxpr, self.linearization
        n_in = self.n_consts + self.n_carry
        ins = spread(jaxpr.invars[: sum(linearization.known)], linearization.known)
        outs = spread(jaxpr.outvars[: sum(linearization.known_outs)], linearization.known_outs)
        found: dict[tuple[str, int], tuple[int, bool]] = {}
        for kind, i in self.kept:
            if kind != "in" or not self.n_consts <= i < n_in:
                continue
            for j in range(len(outs) - 1, self.n_carry - 1, -1):
                if outs[j] is ins[i]:
                    found[kind, i] = j, False
                    break
                out = outs[j]
                if out is not None and nbytes_of(out.aval) <= SMALL and out is outs[i - self.n_consts]:
                    found[kind, i] = j, True
        return found

    @property
    def carry_avals(self) -> Sequence[ShapedArray]:
        return self.linearization.in_avals[self.n_consts: self.n_consts + self.n_carry]

    def step_consts(self, consts: Sequence[jax.Array]) -> list[jax.Array]:
        """What every step reads in place of the known constants."""
        return self.invariant.before(consts)[1]

    def step(self, consts: Sequence[jax.Array], carry: Sequence[jax.Array],
             x: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array], Callable[[Source], jax.Array]]:
        """One step on known values: the carries, the other results, and the function from a source to its residual.

        ``consts`` are those of :meth:`step_consts`.
        """
        known_outs, fresh = self.invariant.within(consts, [*carry, *x])
        outs = self.linearization.all_outs(known_outs)
        carry_in = spread(carry, self.known_carry)
        n_consts, n_carry = self.n_consts, self.n_carry
        slices = spread(x, self.known_xs)

        def residual(source: Source) -> Any:
            kind, i = source
            if kind == "in":
                return carry_in[i - n_consts] if i < n_consts + n_carry else slices[i - n_consts - n_carry]
            return outs[i] if kind == "out" else fresh[i]

        known_carries: list[Any] = only(outs[:n_carry], self.known_carry)
        return known_carries, [out for out in outs[n_carry:] if not isinstance(out, Unknown)], residual

    def residuals(self, once: Sequence[Tangent], kept: Sequence[Tangent], following: Sequence[Tangent]) -> list[Any]:
        """The residuals of a step, of which the next step stores ``following``; or stacks of those of all steps."""
        pools = {"once": once, "kept": kept, "next": following}
        return [pools[kind][i] for kind, i in self.where]

    def following(self, kept: Sequence[jax.Array]) -> list[jax.Array]:
        """The stored values of a step that are residuals of the step before it."""
        return [kept[i] for i in self.next_of]

    def last(self, carry: Sequence[jax.Array]) -> list[jax.Array]:
        """The residuals of the last step among the final carries, of which the known ones are given."""
        values: list[Any] = spread(carry, self.known_carry)
        return [values[self.kept[i][1] - self.n_consts] for i in self.next_of]

    def tape(self, once: Sequence[jax.Array], kept: Sequence[jax.Array]) -> Tape:
        """The body's tape with stacks of residuals in place of residuals, for reports."""
        return self.linearization.tape(self.residuals(once, kept, [None] * len(self.next_of)))

    def nonzero_carry(self, carry: Sequence[bool], ys: Sequence[bool]) -> tuple[bool, ...]:
        """Fixed point: the carries that have a nonzero cotangent at any step, given the final carries and the results that have one.

        Many programs carry a state of which the next step reads a part: the rest has a cotangent at the end only.
        """
        first = sum(map(bool, self.on_consts))
        nonzero = tuple([c and bool(on) for c, on in zip(carry, self.on_carry, strict=True)])
        while True:
            results = self.linearization.reached((*self.into_body(nonzero), *ys))[first: first + sum(self.on_carry)]
            found = tuple([c or bool(r) for c, r in zip(nonzero, spread(results, self.on_carry), strict=True)])
            if found == nonzero:
                return nonzero
            nonzero = found

    def into_body(self, nonzero: Sequence[bool]) -> list[bool]:
        """Of carries with a nonzero cotangent, those whose cotangent the body pulls back: its output must be active."""
        return [c and active for c, active in zip(nonzero, self.linearization.active_outs[: self.n_carry], strict=True)]

    def reached(self, cotangents: Sequence[bool]) -> list[bool]:
        """Which results of the loop's pull may be nonzero: constants, initial carries, slices."""
        carry, ys = cotangents[: self.n_carry], cotangents[self.n_carry:]
        nonzero = self.nonzero_carry(carry, ys)
        n_consts, n_active = sum(map(bool, self.on_consts)), sum(self.on_carry)
        results = self.linearization.reached((*self.into_body(nonzero), *ys))
        return [*results[:n_consts], *only(nonzero, self.on_init), *results[n_consts + n_active:]]

    def start_tangents(self, tangents: Sequence[Tangent]) -> list[jax.Array]:
        """The tangents of the active carries as arrays, from one for each carry."""
        return [zeros.instantiate(t, a) for t, a, on in zip(tangents, self.carry_avals, self.on_carry, strict=True) if on]


class Pull:
    """One step of the pull of a loop, where the cotangents of some final carries and stacked results are nonzero.

    ``on_carry``: the carries with a nonzero cotangent at any step; the pull carries these alone.  The cotangent of a constant is a sum
    over the steps; ``plan`` decides which terms the loop adds up and which factors it stacks, to be contracted after the loop.
    ``length``: the number of steps that are contracted at a time.  ``room``: the bytes of their residuals.  ``is_whole``: whether these
    are all steps, of a scan: then the cotangents of its results are stacks of that length, and all entries of stacks are steps.
    """

    def __init__(self, body: Body, carry_ct: Sequence[Tangent], on_ys: Sequence[bool], length: int, room: int, is_whole: bool = False):
        self.body = body
        n_consts, n_active = sum(map(bool, body.on_consts)), sum(body.on_carry)
        self.on_carry = body.nonzero_carry([ct is not None for ct in carry_ct], on_ys)
        while True:
            mask = [*body.into_body(self.on_carry), *on_ys]
            which = body.linearization.results_of("pull", mask)
            arrives = spread(which[n_consts: n_consts + n_active], body.on_carry)
            if all(on or not ct for on, ct in zip(self.on_carry, arrives, strict=True)):
                break
            self.on_carry = tuple([on or bool(ct) for on, ct in zip(self.on_carry, arrives, strict=True)])
        self.start = self._instantiated(carry_ct)
        self.to_consts = which[:n_consts]
        self.to_rest = which[n_consts:]
        self.to_xs = which[n_consts + n_active:]
        self.slice_avals = body.linearization.program_of("pull", mask).jaxpr.out_avals[sum(which[: n_consts + n_active]):]
        self.n_active = n_active
        self.n_carry_ct = sum(mask[: body.n_carry])
        policy = current.get().stack_cotangents
        plans = body.linearization.plans
        key = (body.where, body.kept, tuple(mask), length, policy, is_whole)
        if key not in plans:
            is_fixed = [kind == "once" for kind, _ in body.where]
            n_ys = sum(on_ys)

            def weigh(new: int, carry: int) -> bool:
                return policy is True or (policy == "auto" and new <= carry and new * length <= max(room, carry))

            # A stack that is shifted by one step is a copy.
            reads = {"once": 0.0, "kept": 1.0, "next": 3.0}
            inputs = Inputs([*is_fixed, *[False] * (self.n_carry_ct + n_ys)],
                            [*(reads[kind] for kind, _ in body.where), *[0.0] * self.n_carry_ct, *[float(is_whole)] * n_ys])
            plans[key] = plan_of(body.linearization.program_of("pull", mask).jaxpr, range(sum(self.to_consts)), inputs, weigh,
                                 length if isinstance(length, int) else UNKNOWN_STEPS, is_whole)
        self.plan: Plan = plans[key]

    def step(self, carry_ct: Sequence[jax.Array], y_ct: Sequence[jax.Array],
             residuals: Sequence[jax.Array]) -> tuple[list[jax.Array], list[Tangent], list[jax.Array], list[jax.Array]]:
        """Cotangents of the carries before the step and of the slices, terms to add up, and factors to stack."""
        given = [ct for ct, goes in zip(carry_ct, only(self.body.into_body(self.on_carry), self.on_carry), strict=True) if goes]
        rest, terms, new = self.plan.split(self.plan.step(*residuals, *given, *y_ct))
        cts = spread(rest, self.to_rest)
        carry_ct = self._instantiated(spread(cts[: self.n_active], self.body.on_carry))
        return carry_ct, only(cts[self.n_active:], self.to_xs), terms, new

    def _instantiated(self, cts: Sequence[Tangent]) -> list[jax.Array]:
        """The cotangents that the pull carries as arrays, from one for each carry."""
        return [zeros.instantiate(ct, a) for ct, a, on in zip(cts, self.body.carry_avals, self.on_carry, strict=True) if on]

    def to_init(self, carry_ct: Sequence[jax.Array]) -> list[Tangent]:
        """The cotangents of active initial carries, from the cotangents that the pull ends with."""
        return only(spread(carry_ct, self.on_carry), self.body.on_init)

    def no_totals(self) -> list[jax.Array]:
        """Zeros to which the loop adds terms."""
        return [zeros.zeros_of(a) for a in self.plan.total_avals]

    def no_sums(self) -> list[jax.Array]:
        """Zeros to which the sums of each record are added; where nothing is stacked, the records add terms."""
        return [zeros.zeros_of(a) for a in self.plan.sum_avals] if self.plan.stacks else self.no_totals()

    def sums_to_consts(self, once: Sequence[jax.Array], sums: Sequence[jax.Array]) -> list[jax.Array]:
        """The cotangents of the constants from the sums over all records."""
        if self.plan.stacks:
            return list(sums)
        return self.finish(self.body.residuals(once, [None] * len(self.body.kept), [None] * len(self.body.next_of)), sums, [])

    def add(self, totals: Sequence[jax.Array], terms: Sequence[jax.Array]) -> list[jax.Array]:
        return [zeros.add(total, term) for total, term in zip(totals, terms, strict=True)]

    def finish(self, residuals: Sequence[Tangent], totals: Sequence[jax.Array], new: Sequence[jax.Array],
               ys_ct: Sequence[jax.Array] = ()) -> list[jax.Array]:
        """The cotangents of the constants, from stacks of residuals, added terms, stacked factors, and stacks of cotangents."""
        stacks: list[Any] = [*residuals, *[None] * self.n_carry_ct, *ys_ct]
        stacks += [None] * (len(self.plan.inputs) - len(stacks))
        return self.plan.finish(stacks, totals, new)
