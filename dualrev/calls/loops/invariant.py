"""What a loop's body computes from its constants alone: it is computed once, before the loop.

A compiler does not move all of it there, and what a call computes from constants beside something else it would compute at every step:
calls are spliced in first.  What is repeated or shaped from less than it takes stays in the loop, where it is part of what reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev._jax.jaxprs import is_literal
from dualrev.calls.staging import Linearization, Program
from dualrev.programs.jaxprs import behind, nbytes_of
from dualrev.programs.partition import graph_of
from dualrev.table.recomputation import is_cheap


class Invariant:
    """A body's linearization, whose first ``n_fixed`` known inputs are constants, in two parts: before the loop, and in it.

    ``given`` are the new residuals that are the same at all steps.
    """

    def __init__(self, linearization: Linearization, n_fixed: int):
        program, n_new = linearization.program, linearization.n_new
        graph = graph_of(program.jaxpr, checkpoints=False)
        outs, residuals = graph.outvars[: len(graph.outvars) - n_new], graph.outvars[len(graph.outvars) - n_new:]
        fixed = {*graph.consts, *graph.invars[:n_fixed]}
        #: What each value is computed from by operations that cost no more than to read their results, and its bytes.
        sources: dict[Any, dict[Any, int]] = {}
        before = set()
        for eqn in graph.eqns:
            if not eqn.effects and all(is_literal(atom) or atom in fixed for atom in eqn.invars):
                fixed.update(eqn.outvars)
                before.add(id(eqn))
                if is_cheap(eqn):
                    read = [sources.get(v, {v: nbytes_of(v.aval)}) for v in eqn.invars if not is_literal(v)]
                    sources.update((v, {k: n for part in read for k, n in part.items()}) for v in eqn.outvars)

        def stays(eqn: Any) -> bool:
            v = eqn.outvars[0]
            return id(eqn) not in before or (v in sources and sum(sources[v].values()) < nbytes_of(v.aval))

        self.given = tuple([i for i, v in enumerate(residuals) if is_literal(v) or v in fixed])
        self.changing = [i for i in range(n_new) if i not in set(self.given)]
        results = [*outs, *(residuals[i] for i in self.changing)]
        needed = {atom for atom in results if not is_literal(atom)}
        moved: list[Any] = []
        within = []
        for eqn in reversed(graph.eqns):
            read = [v for v in eqn.outvars if v in needed]  # type: ignore[misc]
            if eqn.effects or (read and stays(eqn)):
                within.append(eqn)
                needed.update(atom for atom in eqn.invars if not is_literal(atom))
            else:
                moved.extend(read)
        self.n_fixed, self.n_outs = n_fixed, len(outs)
        wanted = [*(residuals[i] for i in self.given), *moved]
        consts = graph.invars[:n_fixed]
        self._before = _program(graph.program(behind(graph.eqns, wanted), consts, wanted), program, "before_loop")
        self._within = _program(graph.program(within[::-1], [*consts, *moved, *graph.invars[n_fixed:]], results), program, program.name)

    def before(self, consts: Sequence[Any]) -> tuple[dict[int, Any], list[Any]]:
        """The new residuals that are the same at all steps, and what :meth:`within` takes for the constants."""
        values = self._before(consts) if self._before.jaxpr.out_avals else []
        n = len(self.given)
        return dict(zip(self.given, values[:n], strict=True)), [*consts, *values[n:]]

    def within(self, consts: Sequence[Any], rest: Sequence[Any]) -> tuple[list[Any], dict[int, Any]]:
        """The known outputs of a step, and its new residuals that change."""
        results = self._within([*consts, *rest])
        return results[: self.n_outs], dict(zip(self.changing, results[self.n_outs:], strict=True))


def _program(jaxpr: Any, like: Program, name: str) -> Program:
    return Program(jaxpr, like.wrapper, name, [None] * len(jaxpr.in_avals), [None] * len(jaxpr.out_avals))


def invariant_of(linearization: Linearization, n_fixed: int) -> Invariant:
    """The same for every loop over the body, which is told apart by it."""
    key = ("invariant", n_fixed)
    if key not in linearization.plans:
        linearization.plans[key] = Invariant(linearization, n_fixed)
    found: Invariant = linearization.plans[key]
    return found
