"""Loop-invariant code motion: values that a body computes from its constants alone are computed once, before the loop.

A compiler hoists only some of them, and none out of a call that also reads other values: calls are inlined first.  A cheap value that
is larger than its sources, such as a broadcast, stays in the loop, where the compiler fuses it with the operation that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax

from dualrev._jax.checkpoints import has_effects
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, Var, is_literal
from dualrev.calls.derived_programs import Program
from dualrev.calls.linearization import Linearization
from dualrev.programs.jaxprs import behind, nbytes_of
from dualrev.programs.partition import graph_of
from dualrev.table.recomputation import is_cheap


class Invariant:
    """The evaluation of a body in two parts: before the loop, and at each step.

    The first ``n_fixed`` known inputs of the body are constants.  ``given``: the new residuals that are the same at all steps.
    """

    def __init__(self, linearization: Linearization, n_fixed: int):
        program, n_new = linearization.program, linearization.n_new
        graph = graph_of(program.jaxpr, checkpoints=False)
        outs, residuals = graph.outvars[: len(graph.outvars) - n_new], graph.outvars[len(graph.outvars) - n_new:]
        fixed = {*graph.consts, *graph.invars[:n_fixed]}
        #: For each value that cheap operations compute from the constants: the values that they start from, with their bytes.
        sources: dict[Var, dict[Var, int]] = {}
        before = set()
        for eqn in graph.eqns:
            if not has_effects(eqn) and all(is_literal(atom) or atom in fixed for atom in eqn.invars):
                fixed.update(eqn.outvars)
                before.add(id(eqn))
                if is_cheap(eqn):
                    of_operands = [sources.get(v, {v: nbytes_of(v.aval)}) for v in eqn.invars if not is_literal(v)]
                    sources.update((v, {k: n for part in of_operands for k, n in part.items()}) for v in eqn.outvars)

        def stays(eqn: JaxprEqn) -> bool:
            """Whether an equation stays in the loop."""
            v = eqn.outvars[0]
            return id(eqn) not in before or (v in sources and sum(sources[v].values()) < nbytes_of(v.aval))

        self.given = tuple([i for i, v in enumerate(residuals) if is_literal(v) or v in fixed])
        self.changing = [i for i in range(n_new) if i not in set(self.given)]
        results = [*outs, *(residuals[i] for i in self.changing)]
        needed = {atom for atom in results if not is_literal(atom)}
        hoisted: list[Var] = []
        within: list[JaxprEqn] = []
        for eqn in reversed(graph.eqns):
            read = [v for v in eqn.outvars if v in needed]
            if has_effects(eqn) or (read and stays(eqn)):
                within.append(eqn)
                needed.update(atom for atom in eqn.invars if not is_literal(atom))
            else:
                hoisted.extend(read)
        self.n_fixed, self.n_outs = n_fixed, len(outs)
        wanted = [*(residuals[i] for i in self.given), *hoisted]
        consts = graph.invars[:n_fixed]
        self._before = _program(graph.program(behind(graph.eqns, wanted), consts, wanted), program, "before_loop")
        inputs = [*consts, *hoisted, *graph.invars[n_fixed:]]
        self._within = _program(graph.program(within[::-1], inputs, results), program, program.name)

    def before(self, consts: Sequence[jax.Array]) -> tuple[dict[int, jax.Array], list[jax.Array]]:
        """The new residuals that are the same at all steps, and the operands that :meth:`within` takes in place of the constants."""
        values = self._before(consts) if self._before.jaxpr.out_avals else []
        n = len(self.given)
        return dict(zip(self.given, values[:n], strict=True)), [*consts, *values[n:]]

    def within(self, consts: Sequence[jax.Array], rest: Sequence[jax.Array]) -> tuple[list[jax.Array], dict[int, jax.Array]]:
        """The known outputs of a step, and its new residuals that change from step to step."""
        results = self._within([*consts, *rest])
        return results[: self.n_outs], dict(zip(self.changing, results[self.n_outs:], strict=True))


def _program(jaxpr: ClosedJaxpr, like: Program, name: str) -> Program:
    return Program(jaxpr, like.wrapper, name, [None] * len(jaxpr.in_avals), [None] * len(jaxpr.out_avals))


def invariant_of(linearization: Linearization, n_fixed: int) -> Invariant:
    """The :class:`Invariant` of a body, one object for all loops over it."""
    key = ("invariant", n_fixed)
    if key not in linearization.plans:
        linearization.plans[key] = Invariant(linearization, n_fixed)
    found: Invariant = linearization.plans[key]
    return found
