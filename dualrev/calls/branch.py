"""``cond`` and ``switch``: the derivative of the branch that runs.

The residuals of the branches share room: a slot is as large as the largest array that any branch puts in it, so what is stored
is that of the branch that ran, not the sum over branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from dualrev import errors
from dualrev._jax.avals import typeof
from dualrev._jax.calls import cond_p
from dualrev._jax.primitives import Params
from dualrev._jax.sharding import is_placed_alike, varying
from dualrev.calls.call_rows import call, splice
from dualrev.calls.staging import Linearization, Pushforward, StagedMap, linearization_of, pushforward_of
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, widened
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Taped, Unknown, aval_of


def _index(index: Any) -> Any:
    return lax.convert_element_type(index, "int32")


def _evaluate(mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts],
              params: Params) -> Carried:
    index, operands, moving = primals[0], list(primals[1:]), list(parts[1:])
    structure = mode.flatten(moving)[1]
    pushes = [pushforward_of(branch, structure, splice("cond"), mode) for branch in params["branches"]]
    has_parts = [any(flags) for flags in zip(*[push.active_outs for push in pushes], strict=True)]

    def branch_of(push: Pushforward) -> Any:
        def branch(operands: Sequence[jax.Array], moving: Sequence[Parts]) -> Any:
            outs, found = push(operands, moving)
            return outs, [mode.fill(p, aval_of(x)) if has else None for p, x, has in zip(found, outs, has_parts, strict=True)]

        return branch

    return lax.switch(_index(index), [branch_of(push) for push in pushes], operands, moving)


class CondMap(LinearMap):
    """The derivative of the branch that ran: which one, and residuals in slots that the branches share."""

    __slots__ = ("index", "linearizations", "n_out", "places", "pools")

    name = "cond"

    def __init__(self, index: Any, pools: tuple[Sequence[Any], Sequence[Any], Sequence[Any]],
                 linearizations: tuple[Linearization, ...], places: tuple[tuple[int, ...], ...]):
        self.index = index
        self.pools = pools  # operands, outputs and slots that some branch reads; None for the rest
        self.linearizations = linearizations
        self.places = places

    def inner_maps(self) -> list[LinearMap]:
        return [linearization.example() for linearization in self.linearizations]

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return [any(flags) for flags in zip(*[lin.reached(cotangents) for lin in self.linearizations], strict=True)]

    def _move(self, direction: str, moving: Sequence[Tangent]) -> Tangents:
        mask = tuple([t is not None for t in moving])
        given = [t for t in moving if t is not None]

        def wanted(linearization: Linearization) -> tuple[bool, ...]:
            known = linearization.active_outs if direction == "pull" else (True,) * len(mask)
            return tuple([m and k for m, k in zip(mask, known, strict=True)])

        which = [any(flags) for flags in zip(*[linearization.results_of(direction, wanted(linearization))
                                               for linearization in self.linearizations], strict=True)]

        def branch_of(linearization: Linearization, places: tuple[int, ...]) -> Any:
            if direction == "pull":
                targets = [widened(a, flag) for a, flag in zip(linearization.in_avals, linearization.active, strict=True) if flag]
            else:
                targets = list(linearization.out_avals)

            def branch(pools: Any, given: Sequence[Any]) -> list[jax.Array]:
                operands, outs, slots = pools
                found = {"in": operands, "out": outs, "new": [slots[place] for place in places]}
                residuals = [found[kind][where] for kind, where in linearization.residual_sources]
                values = iter(given)
                args = [next(values) if m else None for m in mask]
                args = [t if w else None for t, w in zip(args, wanted(linearization), strict=True)]
                results = getattr(StagedMap(linearization, residuals), direction)(*args)
                return [zeros.instantiate(t, a) for t, a, w in zip(results, targets, which, strict=True) if w]

            return branch

        if direction == "pull":
            self._check_devices(which, mask)
        branches = [branch_of(lin, places) for lin, places in zip(self.linearizations, self.places, strict=True)]
        results = iter(lax.switch(self.index, branches, self.pools, given))
        return tuple([next(results) if w else None for w in which])

    def _check_devices(self, to_operands: Sequence[bool], from_outs: Sequence[bool]) -> None:
        """Where devices take different branches, what moves must be typed as different: a sum over devices waits for them all."""
        axes = varying(typeof(self.index))
        for lin in self.linearizations if axes else ():
            operands = [a for a, moves in zip(lin.in_avals, lin.active, strict=True) if moves]
            for what, avals, moves in (("operand", operands, to_operands), ("result", lin.out_avals, from_outs)):
                for aval, m in zip(avals, moves, strict=True):
                    if m and axes - varying(aval):
                        raise errors.devices_differ(what, aval, sorted(axes - varying(aval), key=str))

    def push(self, *tangents: Tangent) -> Tangents:
        return self._move("push", tangents)

    def pull(self, *cotangents: Tangent) -> Tangents:
        return self._move("pull", cotangents)


jax.tree_util.register_pytree_node(
    CondMap,
    lambda m: ((m.index, m.pools), (m.linearizations, m.places)),
    lambda aux, children: CondMap(*children, *aux),
)


def _share_slots(linearizations: Sequence[Linearization]) -> tuple[list[Any], tuple[tuple[int, ...], ...]]:
    """Slots for the new residuals of all branches, and the slots that each branch fills."""
    slots: list[jax.Array] = []
    places = []
    for linearization in linearizations:
        taken: set[int] = set()
        chosen = []
        for aval in linearization.new_avals:
            fits = (i for i, slot in enumerate(slots)
                    if i not in taken and slot.shape == aval.shape and slot.dtype == aval.dtype and is_placed_alike(slot, aval))
            place = next(fits, None)
            if place is None:
                place = len(slots)
                slots.append(aval)
            taken.add(place)
            chosen.append(place)
        places.append(tuple(chosen))
    return slots, tuple(places)


def _reverse(primals: Sequence[jax.Array], active: tuple[Active, ...], params: Params,
             is_linear: bool) -> Taped:
    index, operands = _index(primals[0]), list(primals[1:])
    linearizations = tuple([linearization_of(b, active[1:], is_linear, splice("cond")) for b in params["branches"]])
    moves_out = [any(flags) for flags in zip(*[lin.active_outs for lin in linearizations], strict=True)]
    known_outs = [all(flags) for flags in zip(*[lin.known_outs for lin in linearizations], strict=True)]
    slots, places = _share_slots(linearizations)

    def branch_of(linearization: Linearization, chosen: tuple[int, ...]) -> Any:
        def branch(known: Sequence[jax.Array]) -> Any:
            known_results, new = linearization.evaluate(known)
            filled = dict(zip(chosen, new, strict=True))
            outs = linearization.spread_outs(known_results)
            return ([x for x, k in zip(outs, known_outs, strict=True) if k],
                    [filled[i] if i in filled else zeros.filler(slot) for i, slot in enumerate(slots)])

        return branch

    known = [x for x in operands if type(x) is not Unknown]
    branches = [branch_of(lin, chosen) for lin, chosen in zip(linearizations, places, strict=True)]
    found, new = lax.switch(index, branches, known)
    values = iter(found)
    avals = linearizations[0].out_avals
    outs = [next(values) if k else Unknown(a) for k, a in zip(known_outs, avals, strict=True)]
    used = {source for lin in linearizations for source in lin.residual_sources}
    pools = ([x if ("in", i) in used else None for i, x in enumerate(operands)],
             [x if ("out", j) in used else None for j, x in enumerate(outs)], list(new))
    return outs, CondMap(index, pools, linearizations, places), moves_out


call(cond_p, ("branches",), _evaluate, _reverse, selects=frozenset((0,)))

