"""Loops.  A loop is analysed step by step where that is cheap, so that counters and the entries that they address are known at each
step; a longer one of known length by the pattern of one step (:mod:`dualrev.sparse.steps`); otherwise all steps are analysed together,
once, by nodes for the state that refer to themselves (:mod:`dualrev.sparse.graph`).

Together, every step may read what any step before it left: this is sound for any number of steps, and exact where all steps alike are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from dualrev._jax.avals import ShapedArray, is_differentiable, is_extended
from dualrev._jax.calls import scan_layout
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, jaxpr_as_fun, stage
from dualrev.programs.jaxprs import behind, work
from dualrev.sparse.graph import Nodes
from dualrev.sparse.steps import Step
from dualrev.sparse.values import Value, is_same_number

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

#: The most equations that steps of loops may evaluate one by one, in all loops together, and the most entries of results in one loop.
EQUATIONS, ENTRIES = 20_000, 20_000_000


def steps_affordable(run: Propagation, program: ClosedJaxpr) -> int:
    """For how many steps a body may be evaluated one by one."""
    equations, entries = work(program)
    return int(min(run.remaining / max(equations, 1), ENTRIES / max(entries, 1)))


# ------------------------------------------------------------------------------------------------------------------------ scan


def scan(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
    body: ClosedJaxpr = eqn.params["jaxpr"]
    n_consts, n_carry = scan_layout(eqn.params)
    length, reverse = eqn.params["length"], eqn.params["reverse"]
    consts, carry, xs = operands[:n_consts], list(operands[n_consts: n_consts + n_carry]), operands[n_consts + n_carry:]
    y_avals = [v.aval for v in eqn.outvars[n_carry:]]
    if n_carry == 0 and length:
        return run.run(_mapped(body, n_consts, [x.aval for x in operands]), operands)
    if length > steps_affordable(run, body):
        found = _scan_by_steps(run, eqn, body, consts, carry, xs)
        return _scan_together(run, eqn, body, consts, carry, xs) if found is None else found
    ys: list[list[Value]] = []
    for i in reversed(range(length)) if reverse else range(length):
        run.remaining -= len(body.eqns)
        outs = run.run(body, [*consts, *carry, *[_slice(x, i, a) for x, a in zip(xs, body.in_avals[n_consts + n_carry:], strict=True)]])
        carry = outs[:n_carry]
        ys.append(outs[n_carry:])
    if reverse:
        ys.reverse()
    return [*carry, *[_stack([y[k] for y in ys], a) for k, a in enumerate(y_avals)]]  # type: ignore[arg-type]  # all are arrays


def _mapped(body: ClosedJaxpr, n_consts: int, avals: Sequence[ShapedArray]) -> ClosedJaxpr:
    """A scan without a carry: the body for all slices at once."""
    axes = [None] * n_consts + [0] * (len(avals) - n_consts)
    return stage(lambda *args: jax.vmap(jaxpr_as_fun(body), in_axes=axes)(*args), avals)


def _slice(x: Value, i: int, aval: ShapedArray) -> Value:
    """One step's part of an array."""
    number = None
    if x.is_known:
        known = x.known()
        number = known[i] if is_extended(aval.dtype) else np.asarray(known[i], aval.dtype)
    return Value(aval, None if x.nodes is None else x.nodes[i], number)


def _stack(steps: Sequence[Value], aval: ShapedArray) -> Value:
    """The results of all steps."""
    out = Value(aval)
    if any(y.nodes is not None for y in steps):
        out.nodes = np.stack([y.nodes_or_empty() for y in steps])
    elif steps and all(y.is_known for y in steps) and not is_extended(aval.dtype):
        out.number = np.stack([np.asarray(y.known()) for y in steps])
    return out


def _scan_by_steps(run: Propagation, eqn: JaxprEqn, body: ClosedJaxpr, consts: Sequence[Value], carry: Sequence[Value],
                   xs: Sequence[Value]) -> list[Nodes | Value | None] | None:
    """By the pattern of one step; None where that takes too much."""
    length, reverse = eqn.params["length"], eqn.params["reverse"]
    in_avals = body.in_avals[len(consts) + len(carry):]
    step = Step(run, lambda own, values: own.run(body, values), consts, carry,
                [Value(a, x.nodes[0] if x.nodes is not None and is_differentiable(a) else None, x.number)
                 for x, a in zip(xs, in_avals, strict=True)])
    if not step.prepared():
        return None
    y_avals = [v.aval for v in eqn.outvars[len(carry):]]
    is_state_only = not any(step.active[len(consts) + len(carry):]) and all(y is None for y in step.outs[len(carry):])
    state = None
    if is_state_only and not run.graph.second:
        state = step.power(length, run.graph, [*consts, *carry], len(consts), len(carry))
    found: list[Nodes | Value | None]
    if state is not None:
        found = [*[Value(x.aval, nodes) for x, nodes in zip(carry, state, strict=True)], *[None] * len(y_avals)]
    elif not step.is_applicable(length, run.graph.n_inputs):
        return None
    else:
        ys: list[list[Value]] = []
        for i in reversed(range(length)) if reverse else range(length):
            outs = step.applied(run.graph, [*consts, *carry, *[_slice(x, i, a) for x, a in zip(xs, in_avals, strict=True)]])
            carry = [Value(x.aval, nodes) for x, nodes in zip(carry, outs, strict=False)]
            ys.append([Value(a, nodes) for a, nodes in zip(body.out_avals[len(carry):], outs[len(carry):], strict=True)])
        if reverse:
            ys.reverse()
        found = [*carry, *[_stack([y[k] for y in ys], a) for k, a in enumerate(y_avals)]]  # type: ignore[arg-type]  # all are arrays
    if step.forgets & _read(body, len(consts), len(carry)):
        run.lost["scan: numbers that change from step to step are unknown"] += 1
    return found


def _read(body: ClosedJaxpr, n_consts: int, n_carry: int) -> set[int]:
    """Which operands of the body a differentiable result of some step depends on."""
    program = body.jaxpr
    wanted = {i for i, v in enumerate(program.outvars) if is_differentiable(v.aval)}
    while True:
        outs = [program.outvars[i] for i in wanted]
        used = {id(x) for eqn in behind(program.eqns, outs) for x in eqn.invars} | set(map(id, outs))
        read = {i for i, v in enumerate(program.invars) if id(v) in used}
        more = wanted | {i - n_consts for i in read if n_consts <= i < n_consts + n_carry}
        if more == wanted:
            return read
        wanted = more


def _scan_together(run: Propagation, eqn: JaxprEqn, body: ClosedJaxpr, consts: Sequence[Value], carry: Sequence[Value],
                   xs: Sequence[Value]) -> Sequence[Nodes | Value | None]:
    run.lost["scan: all steps together"] += 1
    anywhere = [Value(a, None if x.nodes is None or not is_differentiable(a) else run.graph.union_over(x.nodes, (0,)))
                for x, a in zip(xs, body.in_avals[len(consts) + len(carry):], strict=True)]

    def step(state: Sequence[Value]) -> list[Value]:
        return run.run(body, [*consts, *state, *anywhere])

    outs, state = together(run, step, carry)
    ys: list[Nodes | Value | None] = []
    for y, var in zip(outs[len(carry):], eqn.outvars[len(carry):], strict=True):
        shape = var.aval.shape  # type: ignore[attr-defined]
        ys.append(None if y.nodes is None else np.broadcast_to(y.nodes, shape))
    return [*state, *ys]


# ----------------------------------------------------------------------------------------------------------------------- while


def while_loop(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
    params = eqn.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    cond, body = params["cond_jaxpr"], params["body_jaxpr"]
    in_cond, in_body, carry = operands[:n_cond], operands[n_cond: n_cond + n_body], list(operands[n_cond + n_body:])
    for _ in range(steps_affordable(run, body)):
        (goes_on,) = run.run(cond, [*in_cond, *[Value(x.aval, None, x.number) for x in carry]])
        if not goes_on.is_known or goes_on.aval.shape:
            break
        if not goes_on.known():
            return carry
        run.remaining -= len(body.eqns)
        carry = run.run(body, [*in_body, *carry])
    run.lost["while: all steps together"] += 1
    _, state = together(run, lambda state: run.run(body, [*in_body, *state]), carry)
    return state


# -------------------------------------------------------------------------------------------------------------------- together


def together(run: Propagation, step: Callable[[Sequence[Value]], list[Value]],
             carry: Sequence[Value]) -> tuple[list[Value], list[Value]]:
    """``(results of any step, final state)`` of a loop of any number of steps, that of zero steps included.

    A number of the state is known if each step leaves it as it was.  Those that are assumed known only become fewer, so this takes at
    most one round more than the state has values; the nodes take one.
    """
    known = [x.is_known for x in carry]
    while True:
        state = [Value(x.aval, run.graph.state(x.aval.shape) if is_differentiable(x.aval) else None, x.number if k else None)
                 for x, k in zip(carry, known, strict=True)]
        outs = step(state)
        kept = [k and is_same_number(x, y) for k, x, y in zip(known, carry, outs, strict=False)]
        if kept == known:
            break
        known = kept
    for x, before, after in zip(state, carry, outs, strict=False):
        if x.nodes is not None:
            run.graph.tie(x.nodes, before.nodes, after.nodes)
    return outs, state
