"""Invariants of a loop that depend on active constants: computed, and differentiated, once before the loop.

A body that computes the norm of a constant in each step would also pull a cotangent back through that norm in each step.  The loop is
replaced by a program that computes the norm first and hands it to a loop with one constant more: the cotangents of the norm add up over
the steps, and are pulled back once.  What depends on no active constant is left to :mod:`dualrev.calls.loops.invariant`, and so are
values that cheap operations compute, which compilers fuse with their readers.

A copy of a constant to devices (``pvary`` in ``shard_map``) is moved as well: its pull is a sum over devices, which is then taken once,
of the sum over the steps, and not in each step.  So are constants that are gathered or exchanged between devices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dualrev._jax.calls import scan_layout, scan_p, scan_with
from dualrev._jax.checkpoints import has_effects, remat_p
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, Var, is_literal
from dualrev._jax.primitives import primitive
from dualrev.options.settings import Active
from dualrev.programs.jaxprs import behind, nbytes_of
from dualrev.programs.partition import eqns_within, graph_of
from dualrev.table.recomputation import is_cheap

_COPY_TO_DEVICES = primitive("pvary")
#: What moves entries between devices, or does so in its pull.
_SENT = frozenset(map(primitive, ("pvary", "all_gather", "all_gather_invariant", "all_to_all", "ppermute")))


def _stays(eqn: JaxprEqn) -> bool:
    """Whether an equation and its pull are cheap, so that both may run in each step."""
    return eqn.primitive not in _SENT and is_cheap(eqn)


def _with_copies_outside(eqns: Sequence[JaxprEqn]) -> list[JaxprEqn]:
    """Equations, where checkpoints and loops get copies to devices of what they read as further operands, in place of making them."""
    found: list[JaxprEqn] = []
    for eqn in eqns:
        if eqn.primitive is not remat_p and eqn.primitive is not scan_p:
            found.append(eqn)
            continue
        program = eqn.params["jaxpr"]
        graph = graph_of(program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ()), checkpoints=False)
        graph = dataclasses.replace(graph, eqns=_with_copies_outside(graph.eqns))
        n_fixed, n_carry = scan_layout(eqn.params) if eqn.primitive is scan_p else (len(graph.invars), 0)
        outer = dict(zip(graph.invars[:n_fixed], eqn.invars[:n_fixed], strict=True))
        copies = [e for e in graph.eqns if e.primitive is _COPY_TO_DEVICES and not is_literal(e.invars[0]) and e.invars[0] in outer]
        if not copies or graph.consts:
            found.append(eqn)
            continue
        made = [Var(e.outvars[0].aval) for e in copies]
        found += [e.replace(invars=[outer[e.invars[0]]], outvars=[v]) for e, v in zip(copies, made, strict=True)]  # type: ignore[index]
        moved = set(map(id, copies))
        operands = [*graph.invars[:n_fixed], *[e.outvars[0] for e in copies], *graph.invars[n_fixed:]]
        inner = graph.program([e for e in graph.eqns if id(e) not in moved], operands, graph.outvars)
        if eqn.primitive is scan_p:
            params = scan_with(eqn.params, inner, n_fixed + len(made), n_carry)
        else:
            ties = eqn.params["prevent_cse"]
            ties = (*ties, *[True] * len(made)) if isinstance(ties, tuple) else ties
            params = {**eqn.params, "jaxpr": inner.jaxpr, "prevent_cse": ties}
        found.append(eqn.replace(invars=[*eqn.invars[:n_fixed], *made, *eqn.invars[n_fixed:]], params=params))
    return found


def hoisted(body: ClosedJaxpr, on_consts: Sequence[Active]) -> tuple[ClosedJaxpr, ClosedJaxpr] | None:
    """A program of the constants, and a body that takes its results as further constants, behind the others.

    None if nothing is worth it: no operation that is more than moving or mapping entries reads active constants and no others.
    """
    n_consts = len(on_consts)
    if not any(on_consts):
        return None
    is_sending = any(eqn.primitive in _SENT for eqn in eqns_within(body))
    if not is_sending and all(map(is_cheap, body.eqns)):
        return None
    graph = graph_of(body, checkpoints=False)
    if is_sending:
        graph = dataclasses.replace(graph, eqns=_with_copies_outside(graph.eqns))
    consts = graph.invars[:n_consts]
    fixed = {*graph.consts, *consts}
    active = {v for v, on in zip(consts, on_consts, strict=True) if on}
    #: The active invariants behind which stands an operation that is not cheap.
    found: set[Var] = set()
    #: For each of them that cheap operations compute: the values that they start from, with their bytes.
    sources: dict[Var, dict[Var, int]] = {}
    moved: set[int] = set()
    for eqn in graph.eqns:
        if has_effects(eqn) or not all(is_literal(atom) or atom in fixed for atom in eqn.invars):
            continue
        fixed.update(eqn.outvars)
        read = [v for v in eqn.invars if not is_literal(v)]
        if not any(v in active for v in read):
            continue
        active.update(eqn.outvars)
        if not _stays(eqn) or any(v in found for v in read):
            found.update(eqn.outvars)
            if _stays(eqn):
                of_operands = [sources.get(v, {v: nbytes_of(v.aval)}) for v in read]
                sources.update((v, {k: n for part in of_operands for k, n in part.items()}) for v in eqn.outvars)
            if _is_moved(eqn, sources):
                moved.add(id(eqn))
    if not moved:
        return None
    needed = {atom for atom in graph.outvars if not is_literal(atom)}
    wanted: list[Var] = []
    within: list[JaxprEqn] = []
    for eqn in reversed(graph.eqns):
        read = [v for v in eqn.outvars if v in needed]
        if id(eqn) in moved:
            wanted.extend(read)
        elif read or has_effects(eqn):
            within.append(eqn)
            needed.update(atom for atom in eqn.invars if not is_literal(atom))
    if not wanted:
        return None
    before = graph.program(behind(graph.eqns, wanted), consts, wanted)
    return before, graph.program(within[::-1], [*consts, *wanted, *graph.invars[n_consts:]], graph.outvars)


def _is_moved(eqn: JaxprEqn, sources: dict[Var, dict[Var, int]]) -> bool:
    """Whether an equation leaves the loop: not if it is cheap and its result is larger than what it starts from, as a broadcast."""
    v = eqn.outvars[0]
    return v not in sources or sum(sources[v].values()) >= nbytes_of(v.aval)
