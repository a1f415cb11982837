"""A linearization that stores other values than its residuals, and computes the residuals from them again before each push or pull.

The *held* values cut the program that evaluates a function with its residuals (:mod:`dualrev.programs.partition`).  Pushes and pulls of
the cut linearization are programs of the held values: what recomputes the residuals, then the push or pull of the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from dualrev._jax.jaxprs import Atom, ClosedJaxpr, JaxprEqn, Var, is_literal
from dualrev.calls.derived_programs import Program
from dualrev.calls.linearization import Linearization, Source
from dualrev.linear.maps import Tape
from dualrev.programs.partition import Choice, Graph, graph_of, partition


class CutLinearization(Linearization):
    """``original`` with the values held that ``choose`` chooses; where none is computed again, use ``original`` itself."""

    def __init__(self, original: Linearization, choose: Choice):
        self.original = original
        for name in ("active", "is_linear", "wrapper", "in_avals", "known", "out_avals", "known_outs", "active_outs", "sources",
                     "tape_sources", "treedef", "may_have_poles"):
            setattr(self, name, getattr(original, name))
        self.pulls, self.pushes, self.plans, self._reached = {}, {}, {}, original._reached
        program = original.program
        graph = graph_of(program.jaxpr, checkpoints=False)
        n_out = len(graph.outvars) - original.n_new
        parts = partition(graph, n_out, residual_atoms(original, graph), choose, observers=False)
        #: For each residual of the original, ("held", i) or ("again", j); and the program that computes those again.
        self.where, self.again, self.reads = parts.where, parts.second, parts.reads
        known_ins = [i for i, known in enumerate(self.known) if known]
        known_outs = [j for j, known in enumerate(self.known_outs) if known]
        places: dict[str, Sequence[int]] = {"in": known_ins, "out": known_outs}
        self.residual_sources: list[Source] = [(kind, places[kind][i]) if kind in places else ("new", i) for kind, i in parts.held]
        self.n_new = len(parts.makers)
        self.new_avals = list(parts.first.out_avals[n_out:])
        self.program = Program(parts.first, program.wrapper, program.name, program.in_like,
                               [*program.out_like[:n_out], *[None] * self.n_new])

    def tape(self, residuals: Sequence[jax.Array | None]) -> Tape:
        """The original's tape with the held values that are residuals, and None for those that are computed again."""
        return self.original.tape([residuals[i] if kind == "held" else None for kind, i in self.where])

    def example(self) -> Tape:
        return self.original.example()

    def _applying(self, direction: str, mask: tuple[bool, ...]) -> tuple[Program, tuple[bool, ...]]:
        cache = self.pulls if direction == "pull" else self.pushes
        if mask not in cache:
            applied, which = self.original._applying(direction, mask)
            jaxpr = self._after_recomputing(applied.jaxpr)
            cache[mask] = Program(jaxpr, self.wrapper, applied.name, [None] * len(jaxpr.in_avals), applied.out_like), which
        return cache[mask]

    def _after_recomputing(self, applied: ClosedJaxpr) -> ClosedJaxpr:
        """A program of the held values and vectors, from one of the residuals and vectors."""
        again, then = graph_of(self.again, checkpoints=False), graph_of(applied, checkpoints=False)
        held: list[Var] = [Var(a) for a in self.residual_avals()]
        eqns: list[JaxprEqn] = []
        consts: dict[Var, Any] = {}
        computed = _spliced(again, [held[i] for i in self.reads], eqns, consts)
        pools: dict[str, Sequence[Atom]] = {"held": held, "again": computed}
        residuals = [pools[kind][i] for kind, i in self.where]
        vectors = [Var(v.aval) for v in then.invars[len(residuals):]]
        outs = _spliced(then, [*residuals, *vectors], eqns, consts)
        return Graph([*held, *vectors], outs, eqns, consts, then.debug_info).computing(outs)


def _spliced(graph: Graph, operands: Sequence[Atom], eqns: list[JaxprEqn], consts: dict[Var, Any]) -> list[Atom]:
    """Append a graph's equations, with variables of their own and ``operands`` for its inputs; return its outputs."""
    env: dict[Var, Atom] = dict(zip(graph.invars, operands, strict=True))
    for v, value in graph.consts.items():
        env[v] = held = Var(v.aval)
        consts[held] = value

    def now(atom: Atom) -> Atom:
        return atom if is_literal(atom) else env[atom]

    for eqn in graph.eqns:
        invars = [now(atom) for atom in eqn.invars]
        outvars = [Var(v.aval) for v in eqn.outvars]
        env.update(zip(eqn.outvars, outvars, strict=True))
        eqns.append(eqn.replace(invars=invars, outvars=outvars))
    return [now(atom) for atom in graph.outvars]


def residual_atoms(linearization: Linearization, graph: Graph) -> list[Atom]:
    """The residuals of a linearization in the graph of its program."""
    n_out = len(graph.outvars) - linearization.n_new
    ins = iter(graph.invars)
    outs = iter(graph.outvars[:n_out])
    pools: dict[str, Sequence[Any]] = {
        "in": [next(ins) if known else None for known in linearization.known],
        "out": [next(outs) if known else None for known in linearization.known_outs],
        "new": graph.outvars[n_out:]}
    return [pools[kind][i] for kind, i in linearization.residual_sources]

