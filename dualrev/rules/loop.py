"""``scan`` and ``while``: loops.

A scan's pull is a scan the other way.  Its residuals are stacked over the steps only where they change from step to step: what
is an input, an output or computed from loop constants alone is kept once, and not copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from dualrev import errors, zeros
from dualrev._jax import (
    is_differentiable,
    jaxpr_as_fun,
    scan_layout,
    scan_p,
    stacked_aval,
    typeof,
    while_p,
)
from dualrev.engines.staging import Linearization, Pushforward, StagedMap, cached, linearization_of, pushforward_of
from dualrev.jaxprs import split_invariant
from dualrev.linear_maps import LinearMap, Tangents
from dualrev.rules.control import call, own_copy, splice
from dualrev.rules.over_time import Plan
from dualrev.rules.table import Unknown
from dualrev.settings import current


def _or(xs: Sequence[bool], ys: Sequence[bool]) -> list[bool]:
    return [x or y for x, y in zip(xs, ys, strict=True)]


def _moving_carry(derive: Any, jaxpr: Any, consts: Sequence[bool], carry: Sequence[bool],
                  xs: Sequence[bool]) -> tuple[Any, list[bool]]:
    """The derivative of a loop body, and which carries move once what moves has gone round until nothing more does."""
    moving = [bool(m) for m in carry]  # what goes round keeps its dtype
    while True:
        derivative = derive(jaxpr, (*consts, *moving, *xs))
        found = _or(moving, derivative.active_outs[: len(moving)])
        if found == moving:
            return derivative, moving
        moving = found


class Layout:
    """How the operands and results of a scan are grouped."""

    def __init__(self, params: dict[str, Any]):
        self.jaxpr = params["jaxpr"]
        self.n_consts, self.n_carry = scan_layout(params)
        self.settings = {name: params[name] for name in ("length", "reverse", "unroll")}

    def groups(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        i, j = self.n_consts, self.n_consts + self.n_carry
        return list(values[:i]), list(values[i:j]), list(values[j:])


def _only(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [x for x, flag in zip(values, flags, strict=True) if flag]


def _spread(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """Undo :func:`_only`, with None in the gaps."""
    found = iter(values)
    return [next(found) if flag else None for flag in flags]


def _scan_forward(primals: Sequence[Any], tangents: Sequence[Any],
                  params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
    layout = Layout(params)
    consts, init, xs = layout.groups(primals)
    consts_t, init_t, xs_t = layout.groups(tangents)
    on_consts, on_xs = [t is not None for t in consts_t], [t is not None for t in xs_t]
    push, on_carry = _moving_carry(lambda jaxpr, active: pushforward_of(jaxpr, active, splice("scan")),
                                   layout.jaxpr, on_consts, [t is not None for t in init_t], on_xs)
    avals = layout.jaxpr.in_avals[layout.n_consts: layout.n_consts + layout.n_carry]
    on_ys = list(push.active_outs[layout.n_carry:])

    def body(carry: Any, x: Any) -> Any:
        (c, c_t), (x, x_t) = carry, x
        outs, ts = push([*consts, *c, *x], [*consts_t, *_spread(c_t, on_carry), *_spread(x_t, on_xs)])
        c_t = [zeros.instantiate(t, a) for t, a, moves in zip(ts[: layout.n_carry], avals, on_carry, strict=True) if moves]
        return (outs[: layout.n_carry], c_t), (outs[layout.n_carry:], _only(ts[layout.n_carry:], on_ys))

    init_t = [zeros.instantiate(t, a) for t, a, moves in zip(init_t, avals, on_carry, strict=True) if moves]
    (carry, carry_t), (ys, ys_t) = lax.scan(body, (init, init_t), (xs, _only(xs_t, on_xs)), **layout.settings)
    return [*carry, *ys], [*_spread(carry_t, on_carry), *_spread(ys_t, on_ys)]


class ScanMap(LinearMap):
    """The derivative of a scan: the body's linearization, with residuals kept once or stacked over the steps."""

    __slots__ = ("layout", "linearization", "once", "stacked", "where")

    name = "scan"

    def __init__(self, once: Sequence[Any], stacked: Sequence[Any], linearization: Linearization, where: tuple[Any, ...],
                 layout: Any):
        self.once = once
        self.stacked = stacked
        self.linearization = linearization
        self.where = where  # for each residual of the body, ("once", i) or ("stacked", i)
        self.layout = layout  # (active consts, carries, xs; moving carries; number of carries; settings)

    def inner_maps(self) -> list[LinearMap]:
        return [self.linearization.example()]

    def residuals(self, stacked: Sequence[Any]) -> list[Any]:
        pools = {"once": self.once, "stacked": stacked}
        return [pools[kind][i] for kind, i in self.where]

    def push(self, *tangents: Any) -> Tangents:
        on_consts, on_init, on_xs, on_carry, settings = self.layout
        values = iter(tangents)
        consts_t = [next(values) for moves in on_consts if moves]
        init_t = _spread([next(values) for moves in on_init if moves], on_init)
        xs_t = [next(values) for moves in on_xs if moves]
        n_consts, n_carry = len(on_consts), len(on_carry)
        avals = self.linearization.in_avals[n_consts: n_consts + n_carry]
        present = [t is not None for t in xs_t]
        on_ys = self.linearization.results_of(
            "push", [*(t is not None for t in consts_t), *(True for moves in on_carry if moves), *present])[n_carry:]

        def body(carry: Any, x: Any) -> Any:
            x_t, stacked = x
            outs = StagedMap(self.linearization, self.residuals(stacked)).push(*consts_t, *carry, *_spread(x_t, present))
            carry = [zeros.instantiate(t, a) for t, a, m in zip(outs[:n_carry], avals, on_carry, strict=True) if m]
            return carry, _only(outs[n_carry:], on_ys)

        init = [zeros.instantiate(t, a) for t, a, m in zip(init_t, avals, on_carry, strict=True) if m]
        carry, ys = lax.scan(body, init, (_only(xs_t, present), list(self.stacked)), **dict(settings))
        return (*_spread(carry, on_carry), *_spread(ys, on_ys))

    def pull(self, *cotangents: Any) -> Tangents:
        on_consts, on_init, _, on_carry, settings = self.layout
        n_consts, n_carry = len(on_consts), len(on_carry)
        carry_ct, ys_ct = cotangents[:n_carry], cotangents[n_carry:]
        avals = self.linearization.in_avals
        carry_avals = avals[n_consts: n_consts + n_carry]
        on_ys = [ct is not None for ct in ys_ct]
        # A carry whose body output never moves takes no cotangent from the next step.
        from_body = self.linearization.active_outs[:n_carry]
        mask = [*(m and f for m, f in zip(on_carry, from_body, strict=True)), *on_ys]
        which = self.linearization.results_of("pull", mask)
        n_moving_consts, n_moving = sum(map(bool, on_consts)), sum(on_carry)
        to_consts = which[:n_moving_consts]
        to_xs = which[n_moving_consts + n_moving:]
        plan = self.plan(mask, sum(to_consts))

        def body(carry: Any, x: Any) -> Any:
            carry, totals = carry
            y_ct, stacked = x
            given = [ct for ct, f in zip(_spread(carry, on_carry), from_body, strict=True) if f and ct is not None]
            outs, terms, new = plan.split(plan.step(*self.residuals(stacked), *given, *y_ct))
            cts = _spread(outs, which[n_moving_consts:])
            totals = [zeros.add(total, ct) for total, ct in zip(totals, terms, strict=True)]
            carry = [zeros.instantiate(ct, a) for ct, a in zip(cts[:n_moving], _only(carry_avals, on_carry), strict=True)]
            return (carry, totals), (_only(cts[n_moving:], to_xs), new)

        init = [zeros.instantiate(ct, a) for ct, a, m in zip(carry_ct, carry_avals, on_carry, strict=True) if m]
        totals = [zeros.zeros_of(a) for a in plan.total_avals]
        settings = dict(settings, reverse=not dict(settings)["reverse"])
        ys_ct = _only(ys_ct, on_ys)
        (carry, totals), (xs_ct, new) = lax.scan(body, (init, totals), (ys_ct, list(self.stacked)), **settings)
        not_stacked = [None] * (sum(mask) - len(ys_ct))
        consts_ct = plan.finish([*self.residuals(self.stacked), *not_stacked, *ys_ct], totals, new)
        init_ct = _only(_spread(carry, on_carry), on_init)
        return (*_spread(consts_ct, to_consts), *init_ct, *_spread(xs_ct, to_xs))

    def plan(self, mask: Sequence[bool], n_sums: int) -> Plan:
        """How the cotangents of the constants, the first results of the body's pull, are summed over the steps."""
        policy = current.get().stack_cotangents
        key = (tuple(mask), self.where, self.layout, policy)
        plans = self.linearization.plans
        if key not in plans:
            n_carry, length = len(self.layout[3]), dict(self.layout[4])["length"]
            n_carry_ct, n_ys = sum(mask[:n_carry]), sum(mask[n_carry:])
            is_fixed = [kind == "once" for kind, _ in self.where]
            has_stack = [not fixed for fixed in is_fixed]
            room = sum(math.prod(typeof(x).shape) * typeof(x).dtype.itemsize for x in (*self.once, *self.stacked))

            def weigh(new: int, carry: int) -> bool:
                return policy is True or (policy == "auto" and new <= carry and new * length <= max(room, carry))

            plans[key] = Plan(self.linearization.program_of("pull", mask).jaxpr, range(n_sums),
                              [*is_fixed, *[False] * (n_carry_ct + n_ys)], [*has_stack, *[False] * n_carry_ct, *[True] * n_ys], weigh)
        return plans[key]


jax.tree_util.register_pytree_node(
    ScanMap,
    lambda m: ((m.once, m.stacked), (m.linearization, m.where, m.layout)),
    lambda aux, children: ScanMap(*children, *aux),
)


def _scan_reverse(primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
    layout = Layout(params)
    n_consts, n_carry = layout.n_consts, layout.n_carry
    consts, init, xs = layout.groups(primals)
    on_consts, on_init, on_xs = layout.groups(active)
    body, on_carry = _moving_carry(lambda jaxpr, moves: linearization_of(jaxpr, moves, is_linear, splice("scan")),
                                   layout.jaxpr, on_consts, on_init, on_xs)
    known_carry = [not (is_linear and moves) for moves in on_carry]
    known_consts = [x for x in consts if type(x) is not Unknown]
    known_xs = [x for x in xs if type(x) is not Unknown]
    n_known_carry = sum(known_carry)

    n_known_ys = sum(body.known_outs[n_carry:])
    n_known_in = len(known_consts)
    first_new = n_known_carry + n_known_ys
    invariant, compute = cached(layout.jaxpr, ("invariant", body.active, is_linear), lambda: split_invariant(
        body.program.jaxpr, n_known_in, range(first_new, first_new + body.n_new)))
    hoisted = dict(zip([i - first_new for i in invariant], jaxpr_as_fun(compute)(*known_consts), strict=True)) if invariant else {}

    # Where each residual of the body is found, and what has to be stacked for it.
    once: list[Any] = []
    kept: list[tuple[str, int]] = []
    where: list[tuple[str, Any]] = []
    for kind, i in body.residual_sources:
        if kind == "in" and i < n_consts:
            where.append(("once", len(once)))
            once.append(consts[i])
        elif kind == "new" and i in hoisted:
            where.append(("once", len(once)))
            once.append(hoisted[i])
        else:
            where.append(("stacked", len(kept)))
            kept.append((kind, i))
    in_carry = [i - n_consts for kind, i in kept if kind == "in" and i < n_consts + n_carry]
    out_carry = [i for kind, i in kept if kind == "out" and i < n_carry]
    new = [i for kind, i in kept if kind == "new"]

    def step(carry: Any, x: Any) -> Any:
        known_outs, fresh = body.evaluate([*known_consts, *carry, *x])
        carry_in = _spread(carry, known_carry)
        outs = body.spread_outs(known_outs)
        carry_out = [out for out, k in zip(outs[:n_carry], known_carry, strict=True) if k]
        ys = [out for out in outs[n_carry:] if type(out) is not Unknown]
        return carry_out, (ys, [carry_in[i] for i in in_carry], [outs[i] for i in out_carry], [fresh[i] for i in new])

    known_init = [x for x, k in zip(init, known_carry, strict=True) if k]
    carry, (ys, ins, outs_kept, fresh) = lax.scan(step, known_init, known_xs, **layout.settings)
    carry_all = _spread(carry, known_carry)
    all_ys = _spread(ys, body.known_outs[n_carry:])
    out_avals = [*layout.jaxpr.out_avals[:n_carry], *_stacked_avals(layout)]
    outs = [Unknown(a) if x is None else x for x, a in zip([*carry_all, *all_ys], out_avals, strict=True)]

    found = {("in", n_consts + i): x for i, x in zip(in_carry, ins, strict=True)}
    found |= {("out", i): x for i, x in zip(out_carry, outs_kept, strict=True)}
    found |= {("new", i): x for i, x in zip(new, fresh, strict=True)}
    found |= {("in", n_consts + n_carry + i): x for i, x in enumerate(xs)}
    found |= {("out", n_carry + i): x for i, x in enumerate(all_ys)}
    stacked = [found[source] for source in kept]

    grouping = (tuple(on_consts), tuple(on_init), tuple(on_xs), tuple(on_carry), tuple(layout.settings.items()))
    on_ys = list(body.active_outs[n_carry:])
    return outs, ScanMap(once, stacked, body, tuple(where), grouping), [*on_carry, *on_ys]


def _stacked_avals(layout: Layout) -> list[Any]:
    return [stacked_aval(a, layout.settings["length"]) for a in layout.jaxpr.out_avals[layout.n_carry:]]


call(scan_p, ("jaxpr",), _scan_forward, _scan_reverse)


# ---------------------------------------------------------------------------------------------------------------- while_loop


def _while_parts(values: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    i = params["cond_nconsts"]
    j = i + params["body_nconsts"]
    return list(values[:i]), list(values[i:j]), list(values[j:])


def _while_push(params: dict[str, Any], on_consts: Sequence[bool], on_init: Sequence[bool]) -> tuple[Pushforward, list[bool]]:
    return _moving_carry(lambda jaxpr, active: pushforward_of(jaxpr, active, splice("while")), params["body_jaxpr"], on_consts,
                         on_init, ())


def _while_forward(primals: Sequence[Any], tangents: Sequence[Any],
                   params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
    cond_consts, body_consts, init = _while_parts(primals, params)
    _, consts_t, init_t = _while_parts(tangents, params)
    push, on_carry = _while_push(params, [t is not None for t in consts_t], [t is not None for t in init_t])
    cond = jaxpr_as_fun(params["cond_jaxpr"])
    avals = params["body_jaxpr"].in_avals[len(body_consts):]

    def condition(carry: Any) -> Any:
        return cond(*cond_consts, *carry[0])[0]

    def body(carry: Any) -> Any:
        c, c_t = carry
        outs, ts = push([*body_consts, *c], [*consts_t, *_spread(c_t, on_carry)])
        return outs, [zeros.instantiate(t, a) for t, a, m in zip(ts, avals, on_carry, strict=True) if m]

    moving = [zeros.instantiate(t, a) for t, a, m in zip(init_t, avals, on_carry, strict=True) if m]
    carry, carry_t = lax.while_loop(condition, body, (init, moving))
    return carry, _spread(carry_t, on_carry)


class WhileMap(LinearMap):
    """The derivative of a while loop, forward only: the loop runs again with tangents."""

    __slots__ = ("active", "params", "primals")

    name = "while"

    def __init__(self, primals: Sequence[Any], active: tuple[bool, ...], params: tuple[tuple[str, Any], ...]):
        self.primals = primals
        self.active = active
        self.params = params

    def push(self, *tangents: Any) -> Tangents:
        _, moved = _while_forward(self.primals, _spread(tangents, self.active), dict(self.params))
        return tuple(moved)

    def pull(self, *cotangents: Any) -> Tangents:
        raise errors.unbounded_loop()


jax.tree_util.register_pytree_node(
    WhileMap, lambda m: ((m.primals,), (m.active, m.params)), lambda aux, children: WhileMap(children[0], *aux)
)


def _while_reverse(primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                   is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
    if is_linear:
        raise errors.unbounded_loop()
    held = {name: own_copy(value) if name.endswith("_jaxpr") else value for name, value in params.items()}
    outs = list(while_p.bind(*primals, **held))
    _, on_consts, on_init = _while_parts(active, params)
    _, on_carry = _while_push(params, on_consts, on_init)
    moves = [m and is_differentiable(a) for m, a in zip(on_carry, params["body_jaxpr"].out_avals, strict=True)]
    return outs, WhileMap(list(primals), active, tuple(held.items())), moves


call(while_p, ("body_jaxpr", "cond_jaxpr"), _while_forward, _while_reverse)
