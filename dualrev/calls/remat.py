"""``jax.checkpoint``: a policy decides which residuals of a function are stored; the others are recomputed.

The program that evaluates a function with its residuals is split in two (:mod:`dualrev.programs.partition`): the first part runs at
once and stores what the policy decides; the second part recomputes the other residuals before each push or pull.

Source: [GriewankWalther2008, ch. 12]; [ChenEtAl2016].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax

from dualrev import errors
from dualrev._jax.calls import cond_p, scan_p
from dualrev._jax.checkpoints import Policy, lasting_effects, offloaded_to, policy_saves, remat_p
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, jaxpr_as_fun, jaxpr_out_avals, stage
from dualrev._jax.primitives import Params
from dualrev._jax.sharding import tied
from dualrev._jax.source_lines import line_of
from dualrev._jax.traces import is_eager
from dualrev.calls.call_rows import ArraysRow, call, own_copy, splice
from dualrev.calls.checkpoint_policies import MinCut, Scheduled
from dualrev.calls.derived_programs import Program, cached
from dualrev.calls.evaluation import pushforward_of
from dualrev.calls.linearization import Linearization, linearization_of, refuse_splitting
from dualrev.linear.maps import Kept, LinearMap, Tangents, Tape
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, current, under
from dualrev.programs.partition import Choice, chosen_by, eqns_within, graph_of, held_eqns, partition
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Operand, Taped


def choice_of(policy: Policy | None, n_out: int) -> Choice:
    """The values of a program that a policy stores; without a policy, none."""
    if policy is None or policy is jax.checkpoint_policies.nothing_saveable:
        return lambda graph, wanted: set()
    if isinstance(policy, MinCut):
        return policy.choice(n_out)

    # A loop or a branch is not recomputed if the policy stores any value inside it.
    return chosen_by(lambda eqn: policy_saves(policy, eqn) or stores_within(policy, eqn))


def stores_within(policy: Policy | None, eqn: JaxprEqn) -> bool:
    """Whether an equation is a loop or a branch inside which a policy stores any value."""
    return policy is not None and eqn.primitive in (scan_p, cond_p) and any(policy_saves(policy, e) for e in held_eqns(eqn))


def within(jaxpr: ClosedJaxpr, policy: Policy | None) -> ClosedJaxpr | None:
    """A closed jaxpr whose loop bodies and branches are checkpointed with the policy; None if it stores no value inside them."""
    if not any(stores_within(policy, eqn) for eqn in eqns_within(jaxpr)):
        return None

    def held(value: ClosedJaxpr | tuple[ClosedJaxpr, ...]) -> ClosedJaxpr | tuple[ClosedJaxpr, ...]:
        """The programs of a parameter, checkpointed."""
        if isinstance(value, tuple):
            return tuple([held(inner) for inner in value])  # type: ignore[misc]
        return stage(jax.checkpoint(jaxpr_as_fun(value), policy=policy, prevent_cse=False), value.in_avals)  # type: ignore[arg-type]

    body = jaxpr.jaxpr
    eqns = []
    for eqn in body.eqns:
        if stores_within(policy, eqn):
            name = "jaxpr" if eqn.primitive is scan_p else "branches"
            eqn = eqn.replace(params={**eqn.params, name: held(eqn.params[name])})
        elif "jaxpr" in eqn.params and hasattr(eqn.params["jaxpr"], "consts"):
            inner = within(eqn.params["jaxpr"], policy)
            eqn = eqn if inner is None else eqn.replace(params={**eqn.params, "jaxpr": inner})
        eqns.append(eqn)
    return ClosedJaxpr(body.replace(eqns=eqns), list(jaxpr.consts))


class Plan:
    """How a checkpointed function is evaluated, and how its residuals are recomputed.

    ``prevent_cse``: for each operand, whether recomputation is tied to the tangents or cotangents, so that the compiler can neither
    share it with the first evaluation nor start it earlier.
    """

    def __init__(self, jaxpr: ClosedJaxpr, active: tuple[Active, ...], policy: Policy | None,
                 prevent_cse: bool | tuple[bool, ...]):
        self.linearization: Linearization = linearization_of(jaxpr, active, False, splice("checkpoint"))
        program = self.linearization.program.jaxpr
        graph = graph_of(program)
        self.n_out = n_out = len(self.linearization.out_avals)
        pools = {"in": graph.invars, "out": graph.outvars, "new": graph.outvars[n_out:]}
        later = [pools[kind][i] for kind, i in self.linearization.residual_sources]
        self.parts = parts = partition(graph, n_out, later, choice_of(policy, n_out))
        #: For each stored value the memory that the policy sends it to, None for that of the device, where results are in any case.
        self.away = [offloaded_to(policy, parts.makers[i]) if kind == "saved" else None for kind, i in parts.held]
        #: The same function at each call, so that jax traces it once.
        self.first = jax.checkpoint(jaxpr_as_fun(parts.first), policy=policy, prevent_cse=prevent_cse)  # type: ignore[arg-type]
        self.again = Program(parts.second, splice("checkpoint"), "again", [None] * len(parts.reads),
                             [None] * len(jaxpr_out_avals(parts.second)))
        ties = prevent_cse if isinstance(prevent_cse, tuple) else (prevent_cse,) * len(graph.invars)
        self.tied = [ties[i] if kind == "in" else prevent_cse is not False for kind, i in (parts.held[k] for k in parts.reads)]
        #: Pushes and pulls are checkpointed as well: their derivatives, too, store what the policy decides.
        self.staged = {
            direction: jax.checkpoint(functools.partial(self._apply, direction), policy=policy,  # type: ignore[arg-type]
                                      prevent_cse=any(ties))
            for direction in ("push", "pull")}
        self.compiled: dict[str, Callable[..., Tangents]] = {}

    def evaluate(self, primals: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        """``(outs, stored values)``."""
        results = list(self.first(*primals))
        pools = {"in": primals, "out": results, "saved": results[self.n_out:]}
        held = [pools[kind][i] for kind, i in self.parts.held]
        return results[: self.n_out], [x if to is None else jax.device_put(x, to) for x, to in zip(held, self.away, strict=True)]

    def apply(self, direction: str, held: Sequence[jax.Array], vectors: Tangents) -> Tangents:
        """A push or a pull; on concrete values in one compiled program, which need not keep all recomputed residuals at once."""
        if is_eager([*held, *(t for t in vectors if t is not None)]):
            if direction not in self.compiled:
                self.compiled[direction] = jax.jit(functools.partial(self._apply, direction))
            return self.compiled[direction](list(held), tuple(vectors))
        return self.staged[direction](list(held), tuple(vectors))

    def _apply(self, direction: str, held: Sequence[jax.Array], vectors: Tangents) -> Tangents:
        if any(to is not None for to in self.away):
            # What comes back waits for the tangents or cotangents: earlier it would take up the memory that it was sent away from.
            distant, vectors = tied([x for x, to in zip(held, self.away, strict=True) if to is not None], vectors)
            values = iter(distant)
            held = self._fetched([x if to is None else next(values) for x, to in zip(held, self.away, strict=True)])
        read = [held[i] for i in self.parts.reads]
        if any(self.tied) and self.again.jaxpr.jaxpr.eqns:
            apart, vectors = tied([x for x, t in zip(read, self.tied, strict=True) if t], vectors)
            values = iter(apart)
            read = [next(values) if t else x for x, t in zip(read, self.tied, strict=True)]
        return self.linearization.apply(direction, self._residuals(held, read), tuple(vectors))

    def _fetched(self, held: Sequence[jax.Array]) -> list[jax.Array]:
        """The stored values, all in the memory of the device."""
        return [x if to is None else jax.device_put(x, jax.memory.Space.Device) for x, to in zip(held, self.away, strict=True)]

    def _residuals(self, held: Sequence[jax.Array], read: Sequence[jax.Array]) -> list[jax.Array]:
        pools_of = {"held": held, "again": self.again(read)}
        return [pools_of[kind][i] for kind, i in self.parts.where]

    def residuals(self, held: Sequence[jax.Array]) -> list[jax.Array]:
        """All residuals of the tape, from the stored values."""
        held = self._fetched(held)
        return self._residuals(held, [held[i] for i in self.parts.reads])


class RematMap(LinearMap):
    """The derivative of a checkpointed function: the stored values; the other residuals are recomputed for each push or pull."""

    __slots__ = ("held", "plan")

    name = "checkpoint"

    def __init__(self, held: Sequence[jax.Array], plan: Plan):
        self.held = held
        self.plan = plan

    def inner_maps(self) -> list[LinearMap]:
        return [self.plan.linearization.example()]

    def kept(self) -> list[Kept]:
        """The stored values, each with the operation that computed it and the user's line."""
        makers, found = self.plan.parts.makers, []
        for (kind, i), x in zip(self.plan.parts.held, self.held, strict=True):
            found.append((x, str(makers[i].primitive), line_of(makers[i].source_info)) if kind == "saved" else (x, self.name, ""))
        return found

    def unstaged(self) -> Tape:
        return self.plan.linearization.tape(self.plan.residuals(self.held))

    def push(self, *tangents: Tangent) -> Tangents:
        return self.plan.apply("push", self.held, tangents)

    def pull(self, *cotangents: Tangent) -> Tangents:
        return self.plan.apply("pull", self.held, cotangents)

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return self.plan.linearization.reached(cotangents)


jax.tree_util.register_pytree_node(RematMap, lambda m: ((m.held,), m.plan), lambda plan, held: RematMap(held[0], plan))


def _remat_evaluate(mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts],
                    params: Params) -> Carried:
    push = pushforward_of(own_copy(params["jaxpr"]), mode.flatten(parts)[1], splice("checkpoint"), mode)
    prevent_cse = params["prevent_cse"]
    if isinstance(prevent_cse, tuple):
        prevent_cse = (prevent_cse, True)

    def both(primals: Sequence[jax.Array], parts: Sequence[Parts]) -> tuple[list[jax.Array], list[Parts]]:
        return push(primals, parts)

    again = jax.checkpoint(both, prevent_cse=prevent_cse, policy=params["policy"])
    return again(tuple(primals), tuple(parts))


def _remat_reverse(primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                   is_linear: bool) -> Taped:
    policy, prevent_cse = params["policy"], params["prevent_cse"]
    if isinstance(policy, Scheduled):
        if policy.schedule != "all" and not is_linear and not any(eqn.primitive is scan_p for eqn in eqns_within(params["jaxpr"])):
            raise errors.not_honoured(
                f"schedule={policy.schedule!r}", "function given to checkpoint", "it has no scan, nor a fori_loop of known length, "
                "that a schedule could be for", "Leave schedule= out; for a while_loop, give the derivative loop_checkpoints=.")
        inner = dict(params, policy=policy.policy)
        return under(current.get().replace(schedule=policy.schedule), _remat_reverse, primals, active, inner, is_linear)
    jaxpr = own_copy(params["jaxpr"])
    if is_linear:
        return linearization_of(jaxpr, active, True, splice("checkpoint"))(primals)
    if lasting := lasting_effects(params["jaxpr"]):
        *_, innermost = [eqn for eqn in eqns_within(jaxpr) if lasting_effects(eqn)]
        raise errors.cannot_be_replayed(lasting, innermost.primitive, line_of(innermost.source_info))
    # The staged program is cached as long as the original jaxpr lives, so it runs the copy.
    jaxpr = cached(jaxpr, ("within", policy), lambda: within(jaxpr, policy)) or jaxpr
    plan = cached(jaxpr, ("plan", active, policy, prevent_cse), lambda: Plan(jaxpr, active, policy, prevent_cse))
    refuse_splitting(plan.linearization, "checkpointed function")
    outs, held = plan.evaluate(primals)  # type: ignore[arg-type]
    return outs, RematMap(held, plan), plan.linearization.active_outs


call(remat_p, ("jaxpr",), _remat_evaluate, _remat_reverse, cost="its program", row=ArraysRow)
