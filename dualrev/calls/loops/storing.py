"""What a loop stores of each step for its pull, and what the pull computes again: a minimum cut by time."""

from __future__ import annotations

import os
from dualrev._jax.jaxprs import JaxprEqn, Var, is_literal
from dualrev.calls.cut_linearization import CutLinearization, residual_atoms
from dualrev.calls.linearization import Linearization
from dualrev.programs.jaxprs import nbytes_of
from dualrev.programs.minimum_cut import minimum_cut
from dualrev.programs.partition import Graph, graph_of, held_eqns
from dualrev.table.recomputation import cost_of, is_cheap

INF = float('inf')
HEAVY = {"exp", "log", "sin", "cos", "tan", "tanh", "logistic", "pow", "exp2", "log1p", "expm1", "erf", "atan2", "sinh", "cosh", "cbrt"}
MEDIUM = {"div", "sqrt", "rsqrt", "rem"}

def recompute_cost(eqn: JaxprEqn) -> float:
    if eqn.effects: return INF
    if not is_cheap(eqn): return INF
    def one(e):
        n = max(nbytes_of(v.aval) for v in e.outvars) / 8
        name = str(e.primitive)
        c = cost_of(e.primitive)
        if c == "moves": return .05 * n
        if name in HEAVY: return 12 + 3.5 * n
        if name in MEDIUM: return 1.0 * n
        return .2 * n
    return .1 + one(eqn) + sum(map(one, held_eqns(eqn)))

def cut(original: Linearization, n_consts: int, n_carry: int, length) -> Linearization:
    key = ("cut", n_consts, n_carry)
    if key not in original.plans:
        original.plans[key] = _cut(original, n_consts, n_carry)
    return original.plans[key]

def _cut(original, n_consts, n_carry):
    if os.environ.get("NOCUT"): return original
    graph = graph_of(original.program.jaxpr, checkpoints=False)
    n_out = len(graph.outvars) - original.n_new
    ins = list(graph.invars)
    known = original.known
    n_known_consts = sum(known[:n_consts]); n_known_carry = sum(known[n_consts:n_consts+n_carry])
    fixed = {*graph.consts, *ins[:n_known_consts]}
    for e in graph.eqns:
        if not e.effects and all(is_literal(a) or a in fixed for a in e.invars): fixed.update(e.outvars)
    carry_in = ins[n_known_consts:n_known_consts+n_known_carry]; xs = ins[n_known_consts+n_known_carry:]
    outs = graph.outvars[:n_out]
    known_outs = original.known_outs
    n_co = sum(known_outs[:n_carry])
    carry_out, ys = outs[:n_co], outs[n_co:]
    free = {*fixed, *xs, *(v for v in ys if not is_literal(v))}
    wanted = {a for a in residual_atoms(original, graph) if not is_literal(a)}
    def store(v, next_free=()):
        if v in free: return 0.
        if v in next_free: return 0.
        n = nbytes_of(v.aval) / 8
        return float(os.environ.get('STORE0','4')) + 1.5 * n
    best = None
    following: set = set()
    for _ in range(3):
        saved = minimum_cut(graph, wanted, lambda v: store(v, following), recompute_cost)
        outs_in = {a: b for a, b in zip(carry_in, carry_out)} if len(carry_in)==len(carry_out) else {}
        following = {b for a, b in outs_in.items() if a in saved and not is_literal(b)}
        true = sum(store(v, following) for v in saved) 
        again = _behind_cost(graph, wanted, saved)
        total = true + again
        if best is None or total < best[0]: best = (total, saved)
        else: break
    saved = best[1]
    if os.environ.get("SHOWCUT"):
        print("cut:", len(wanted), "->", [(str(v.aval), "free" if v in free else "") for v in saved], best[0])
    if saved >= wanted: return original
    return CutLinearization(original, lambda graph_, wanted_: _translate(graph, graph_, saved))

def _behind_cost(graph, wanted, saved):
    from dualrev.programs.jaxprs import behind
    return sum(recompute_cost(e) for e in behind(graph.eqns, wanted, {*saved, *graph.invars, *graph.consts}))

def _translate(old, new, saved):
    at = {v: i for i, v in enumerate(old.invars)}
    where = {}
    for k, e in enumerate(old.eqns):
        for j, v in enumerate(e.outvars): where[v] = (k, j)
    return {new.invars[at[v]] if v in at else new.eqns[where[v][0]].outvars[where[v][1]] for v in saved}
