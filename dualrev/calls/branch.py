"""``cond`` and ``switch``: the derivative of the branch that runs.

Branches share the memory of their residuals: a residual of one branch and a residual of another that has the same type take the same
slot.  So memory is that of the largest branch, not the sum over branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax import lax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.calls import cond_p
from dualrev._jax.primitives import Params
from dualrev._jax.sharding import is_placed_alike, varying
from dualrev.calls.call_rows import ArraysRow, call, splice
from dualrev.calls.evaluation import Pushforward, common_parts, pushforward_of
from dualrev.calls.linearization import Linearization, StagedMap, linearization_of, refuse_splitting
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, widened
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Operand, Taped, Unknown, aval_of


def _index(index: jax.Array) -> jax.Array:
    return lax.convert_element_type(index, "int32")


#: For each branch of a ``platform_dependent`` call, the platforms that it is for, or None for all others.
Platforms: TypeAlias = tuple[tuple[str, ...] | None, ...]


def _switch(index: jax.Array | None, platforms: Platforms | None, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """The results of one of the branches: by the index, or by the platform, which is known when the program is compiled."""
    if platforms is None:
        assert index is not None
        return lax.switch(_index(index), branches, *operands)
    default = next((branch for branch, names in zip(branches, platforms, strict=True) if names is None), None)
    return lax.platform_dependent(*operands, default=default, **{
        name: branch for branch, names in zip(branches, platforms, strict=True) for name in names or ()})


def _evaluate(mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts],
              params: Params) -> Carried:
    index, operands, operand_parts = primals[0], list(primals[1:]), list(parts[1:])
    structure = mode.flatten(operand_parts)[1]
    pushes = [pushforward_of(branch, structure, splice("cond"), mode) for branch in params["branches"]]
    several = zip(*[push.parts_out() for push in pushes], strict=True)
    likes = [common_parts(mode, found, aval) for found, aval in zip(several, params["branches"][0].out_avals, strict=True)]

    def branch_of(push: Pushforward) -> Callable[..., Carried]:
        def branch(operands: Sequence[jax.Array], parts: Sequence[Parts]) -> Carried:
            outs, found = push(operands, parts)
            return outs, [None if like is None else mode.fill(p, aval_of(x), like)
                          for p, x, like in zip(found, outs, likes, strict=True)]

        return branch

    return _switch(index, params.get("branches_platforms"), [branch_of(push) for push in pushes], operands, operand_parts)


#: Operands, outputs and slots; None for those that no branch reads.
Pools: TypeAlias = tuple[Sequence[Operand | None], Sequence[Operand | None], Sequence[jax.Array]]


class CondMap(LinearMap):
    """The derivative of the branch that ran: its index, and residuals in slots that all branches share.

    ``platforms``: where the platform decides, those of each branch; the index is then None.
    """

    __slots__ = ("index", "linearizations", "places", "platforms", "pools")

    name = "cond"

    def __init__(self, index: jax.Array | None, pools: Pools, linearizations: tuple[Linearization, ...],
                 places: tuple[tuple[int, ...], ...], platforms: Platforms | None):
        self.index = index
        self.pools = pools
        self.linearizations = linearizations
        self.places = places
        self.platforms = platforms

    def inner_maps(self) -> list[LinearMap]:
        return [linearization.example() for linearization in self.linearizations]

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return [any(flags) for flags in zip(*[lin.reached(cotangents) for lin in self.linearizations], strict=True)]

    def _apply(self, direction: str, vectors: Tangents) -> Tangents:
        """A push of tangents or a pull of cotangents."""
        mask = tuple([t is not None for t in vectors])
        given = [t for t in vectors if t is not None]

        def wanted(linearization: Linearization) -> tuple[bool, ...]:
            known = linearization.active_outs if direction == "pull" else (True,) * len(mask)
            return tuple([m and k for m, k in zip(mask, known, strict=True)])

        which = [any(flags) for flags in zip(*[linearization.results_of(direction, wanted(linearization))
                                               for linearization in self.linearizations], strict=True)]

        def branch_of(linearization: Linearization, places: tuple[int, ...]) -> Callable[[Pools, Sequence[jax.Array]], list[jax.Array]]:
            if direction == "pull":
                targets = [widened(a, flag) for a, flag in zip(linearization.in_avals, linearization.active, strict=True) if flag]
            else:
                targets = list(linearization.out_avals)

            def branch(pools: Pools, given: Sequence[jax.Array]) -> list[jax.Array]:
                operands, outs, slots = pools
                found: dict[str, Sequence[Any]] = {"in": operands, "out": outs, "new": [slots[place] for place in places]}
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
        results = iter(_switch(self.index, self.platforms, branches, self.pools, given))
        return tuple([next(results) if w else None for w in which])

    def _check_devices(self, to_operands: Sequence[bool], from_outs: Sequence[bool]) -> None:
        """Refuse a cotangent that is typed as equal on devices that take different branches.

        The pull would sum it over the devices, inside a branch that some of them do not take.
        """
        axes = varying(typeof(self.index)) if self.index is not None else frozenset()
        for lin in self.linearizations if axes else ():
            operands = [a for a, flag in zip(lin.in_avals, lin.active, strict=True) if flag]
            for what, avals, nonzero in (("operand", operands, to_operands), ("result", lin.out_avals, from_outs)):
                for aval, is_nonzero in zip(avals, nonzero, strict=True):
                    if is_nonzero and axes - varying(aval):
                        raise errors.devices_differ(what, aval, sorted(axes - varying(aval), key=str))

    def push(self, *tangents: Tangent) -> Tangents:
        return self._apply("push", tangents)

    def pull(self, *cotangents: Tangent) -> Tangents:
        return self._apply("pull", cotangents)


jax.tree_util.register_pytree_node(
    CondMap,
    lambda m: ((m.index, m.pools), (m.linearizations, m.places, m.platforms)),
    lambda aux, children: CondMap(*children, *aux),
)


def _share_slots(linearizations: Sequence[Linearization]) -> tuple[list[ShapedArray], tuple[tuple[int, ...], ...]]:
    """Slots for the new residuals of all branches, and the slots that each branch fills."""
    slots: list[ShapedArray] = []
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


def _reverse(primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
             is_linear: bool) -> Taped:
    index, operands = primals[0], list(primals[1:])
    platforms = params.get("branches_platforms")
    linearizations = tuple([linearization_of(b, active[1:], is_linear, splice("cond")) for b in params["branches"]])
    for linearization in linearizations:
        refuse_splitting(linearization, "cond or switch")
    active_outs = [any(flags) for flags in zip(*[lin.active_outs for lin in linearizations], strict=True)]
    known_outs = [all(flags) for flags in zip(*[lin.known_outs for lin in linearizations], strict=True)]
    slots, places = _share_slots(linearizations)

    def branch_of(linearization: Linearization, chosen: tuple[int, ...]) -> Callable[..., tuple[list[jax.Array], list[jax.Array]]]:
        def branch(known: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
            known_results, new = linearization.evaluate(known)
            filled = dict(zip(chosen, new, strict=True))
            outs = linearization.all_outs(known_results)
            return ([x for x, k in zip(outs, known_outs, strict=True) if k],  # type: ignore[misc]
                    [filled[i] if i in filled else zeros.filler(slot) for i, slot in enumerate(slots)])

        return branch

    known = [x for x in operands if type(x) is not Unknown]
    branches = [branch_of(lin, chosen) for lin, chosen in zip(linearizations, places, strict=True)]
    found, new = _switch(index, platforms, branches, known)  # type: ignore[arg-type]  # the index has no derivative
    values = iter(found)
    avals = linearizations[0].out_avals
    outs = [next(values) if k else Unknown(a) for k, a in zip(known_outs, avals, strict=True)]
    used = {source for lin in linearizations for source in lin.residual_sources}
    pools: Pools = ([x if ("in", i) in used else None for i, x in enumerate(operands)],
             [x if ("out", j) in used else None for j, x in enumerate(outs)], list(new))
    kept = _index(index) if platforms is None else None  # type: ignore[arg-type]
    return outs, CondMap(kept, pools, linearizations, places, platforms), active_outs


call(cond_p, ("branches",), _evaluate, _reverse, selects=frozenset((0,)), row=ArraysRow)

