"""Operations that hold programs with taps: calls, branches, functions with rules, ``shard_map``.  Loops are in :mod:`loops`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax import lax
from jax.sharding import PartitionSpec

from dualrev._jax.avals import typeof
from dualrev._jax.calls import bind_jit
from dualrev._jax.checkpoints import remat_p
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn, hoisted, stage
from dualrev._jax.shard_maps import bind_shard_map
from dualrev._jax.sharding import AxisName, spmd_axis_names, vary_over
from dualrev.inspection.taps.evaluation import Holder, Tapped, closed, paired, present, rebound, spread
from dualrev.inspection.taps.loops import Scan, While
from dualrev.inspection.taps.places import Found, Perturbations, Place

#: What an operation returns, and what its places give.
Evaluated = tuple[list[jax.Array], list[Found]]


def _program(eqn: JaxprEqn) -> ClosedJaxpr:
    found: ClosedJaxpr | Jaxpr = eqn.params["call_jaxpr" if "call_jaxpr" in eqn.params else "jaxpr"]
    return closed(found)


class Inlined(Holder):
    """A call whose program is evaluated in its place."""

    def places(self, tapped: Tapped, eqn: JaxprEqn) -> list[Place]:
        return tapped.places(_program(eqn))

    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array], perturbations: Perturbations) -> Evaluated:
        return tapped.evaluate(_program(eqn), args, perturbations)


class Call(Inlined):
    """A call that remains one: its program takes the perturbations too, and returns what its places give."""

    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array], perturbations: Perturbations) -> Evaluated:
        program = _program(eqn)
        more, given = present(perturbations)
        run = tapped.flat(program, self.places(tapped, eqn), given)
        new = stage(run, [*program.in_avals, *map(typeof, more)])
        outs = self.bind(eqn, new, [*args, *more], len(more), len(new.out_avals) - len(program.out_avals))
        n_out = len(program.out_avals)
        return outs[:n_out], paired(outs[n_out:])

    def bind(self, eqn: JaxprEqn, program: ClosedJaxpr, args: list[jax.Array], n_more: int, n_found: int) -> list[jax.Array]:
        raise NotImplementedError


class Jit(Call):
    """``jit``."""

    def bind(self, eqn: JaxprEqn, program: ClosedJaxpr, args: list[jax.Array], n_more: int, n_found: int) -> list[jax.Array]:
        return list(bind_jit(eqn.params, program, args, eqn.params["name"], [*range(len(args) - n_more), *[None] * n_more],
                             [*range(len(eqn.outvars)), *[None] * n_found]))


class Remat(Call):
    """``jax.checkpoint``: what its places give is computed in the first evaluation, and not again."""

    def bind(self, eqn: JaxprEqn, program: ClosedJaxpr, args: list[jax.Array], n_more: int, n_found: int) -> list[jax.Array]:
        program, consts = hoisted(program)
        params, barrier = dict(eqn.params, jaxpr=program.jaxpr), eqn.params.get("prevent_cse")
        if isinstance(barrier, tuple):  # one for each operand
            params["prevent_cse"] = (*[True] * len(consts), *barrier, *[True] * n_more)
        return list(remat_p.bind(*consts, *args, **params))


class Branches(Holder):
    """``cond`` and ``switch``: a branch that is not taken gives zeros."""

    def places(self, tapped: Tapped, eqn: JaxprEqn) -> list[Place]:
        return [place for branch in eqn.params["branches"] for place in tapped.places(branch)]

    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array], perturbations: Perturbations) -> Evaluated:
        index, *operands = args
        branches = eqn.params["branches"]
        places = [tapped.places(branch) for branch in branches]
        more, given = present(perturbations)
        starts = [sum(map(len, places[:i])) for i in range(len(places) + 1)]

        def run(i: int, operands: Sequence[jax.Array], more: Sequence[jax.Array]) -> tuple[list[jax.Array], list[Found]]:
            mine = spread(more, given)[starts[i]: starts[i + 1]]
            outs, found = tapped.evaluate(branches[i], operands, mine)
            return outs, [x for k in range(len(places)) for x in (found if k == i else [place.nothing() for place in places[k]])]

        functions = [lambda operands, more, i=i: run(i, operands, more) for i in range(len(branches))]
        outs, found = lax.switch(index, functions, operands, more)
        return outs, found


class Ruled(Holder):
    """A function with a rule: the rule says how tangents and cotangents go through, and none reaches what is inside.

    The values inside are those of the function itself.
    """

    def places(self, tapped: Tapped, eqn: JaxprEqn) -> list[Place]:
        return [place.behind(str(eqn.primitive)) for place in tapped.places(_program(eqn))]

    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array], perturbations: Perturbations) -> Evaluated:
        program = _program(eqn)
        _, found = tapped.evaluate(program, [lax.stop_gradient(x) for x in args], [None] * len(perturbations))
        return rebound(eqn, args), found


class ShardMap(Holder):
    """``shard_map``: what a place gives on each device, along a new axis in front.

    That axis has an entry for each device over which the value varies; for each device where types do not say so (``check_vma=False``).
    """

    def _axes(self, eqn: JaxprEqn, place: Place) -> tuple[AxisName, ...]:
        """The mesh axes over which what a place gives is stacked."""
        new, taken, is_typed = eqn.params["newly_manual_axes"], spmd_axis_names(), eqn.params["check_vma"]
        return tuple([name for name in eqn.params["mesh"].axis_names
                      if name in new and name not in taken and (not is_typed or name in place.varies)])

    def places(self, tapped: Tapped, eqn: JaxprEqn) -> list[Place]:
        mesh = eqn.params["mesh"]
        return [dataclasses.replace(place.stacked(math.prod(mesh.shape[name] for name in self._axes(eqn, place))),
                                    varies=place.varies - eqn.params["newly_manual_axes"])
                for place in tapped.places(_program(eqn))]

    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array], perturbations: Perturbations) -> Evaluated:
        program, n, n_out = _program(eqn), len(args), len(eqn.outvars)
        axes = [self._axes(eqn, place) for place in tapped.places(program)]
        specs = [PartitionSpec(names or None) for names in axes]
        more, given = present(perturbations)

        def on_shard(*shards: jax.Array) -> tuple[list[jax.Array], list[PartitionSpec]]:
            mine = spread([lax.squeeze(x, (0,)) for x in shards[n:]], given)
            outs, found = tapped.evaluate(program, shards[:n], mine)
            stacked = [lax.expand_dims(vary_over(x, frozenset(names)) if eqn.params["check_vma"] else x, (0,))
                       for names, each in zip(axes, found, strict=True) for x in each]
            return [*outs, *stacked], [*eqn.params["out_specs"], *[spec for spec in specs for _ in range(2)]]

        in_specs = [*eqn.params["in_specs"], *[spec for spec, flag in zip(specs, given, strict=True) if flag]]
        outs = bind_shard_map(on_shard, [*args, *more], in_specs, eqn.params)
        return outs[:n_out], paired(outs[n_out:])


HOLDERS: dict[str, Holder] = {
    **dict.fromkeys(("closed_call", "core_call", "call", "eval_jaxpr", "one_kernel"), Inlined()),
    **dict.fromkeys(("jit", "pjit"), Jit()),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"), Ruled()),
    **dict.fromkeys(("checkpoint", "remat2", "remat"), Remat()),
    "cond": Branches(),
    "scan": Scan(),
    "while": While(),
    "shard_map": ShardMap(),
}
