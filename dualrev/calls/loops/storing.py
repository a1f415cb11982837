"""What a loop stores of each step for its pull, and what the pull computes again: a minimum cut by time.

The residuals of a step are the values that the pull of the body reads.  Storing a value takes a stack over the steps: it is filled,
written by the loop and read by the pull, mostly in memory that the system hands out for this call.  Computing it again takes the
operations that lead to it from what is stored.  The time model (:mod:`dualrev.time_model`) prices both, and a minimum cut
(:mod:`dualrev.programs.minimum_cut`) chooses.  Free are values that are the same at all steps, the slices of a scan's arrays and of
its stacked results, and the carry after a step where the carry before it is stored: the next step stores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualrev import errors
from dualrev._jax.jaxprs import Atom, Var, is_literal
from dualrev._jax.source_lines import line_of
from dualrev.calls.cut_linearization import CutLinearization, residual_atoms
from dualrev.calls.linearization import Linearization
from dualrev.calls.loops.prices import STAY, UNKNOWN_STEPS, Bytes, Prices, Seconds, is_one_kernel
from dualrev.options.settings import current
from dualrev.programs.jaxprs import behind
from dualrev.programs.minimum_cut import minimum_cut
from dualrev.programs.partition import Choice, Graph, graph_of, held_eqns
from dualrev.time_model import margins

#: Operations that other devices or the host take part in.
_NOTICED = frozenset(("io_callback", "debug_callback", "psum", "all_gather", "ppermute", "all_to_all"))


def with_stored(loop: str, original: Linearization, n_consts: int, n_carry: int, length: object) -> Linearization:
    """The linearization of a body whose residuals are those that the loop stores; the others are computed again."""
    asked = current.get().recompute_residuals
    if asked is False or not original.residual_sources:
        return original
    steps = length if isinstance(length, int) else UNKNOWN_STEPS
    key = ("stored", n_consts, n_carry, steps, asked)
    if key not in original.plans:
        step, c = _Step.of(original, n_consts, n_carry), margins()
        saved = step.saved(Bytes() if asked is True else Seconds(c, steps, is_one_kernel(step.graph, c)))
        # Constants of the program need no memory.
        has_all = saved >= step.wanted - {*step.graph.consts}
        if has_all and asked is True:
            _check_possible(loop, step.graph, [v for v in saved if v not in step.free and v not in step.graph.invars])
        original.plans[key] = original if has_all else CutLinearization(original, _choosing(step.graph, saved))
    found: Linearization = original.plans[key]
    return found


def _check_possible(loop: str, graph: Graph, stored: Sequence[Var]) -> None:
    """Raise OptionError where residuals are stored, and none computed again, as operations behind them are never run twice."""
    for eqn in behind(graph.eqns, stored, {*graph.invars, *graph.consts}):
        for held in (*held_eqns(eqn), eqn):
            if held.effects or held.primitive in STAY or str(held.primitive) in _NOTICED:
                line = line_of(held.source_info)
                raise errors.not_honoured(
                    "recompute_residuals=True", loop, f"all residuals of a step depend on '{held.primitive}'{line and f' at {line}'}, "
                    "which is never run twice, and none of them can be computed again",
                    "Leave recompute_residuals 'auto', or move the operation out of the loop.")


@dataclass(frozen=True)
class _Step:
    """The program of a body, the residuals that are ``wanted`` of it, and what the loop stores in any case.

    ``free``: the values that are the same at all steps, and those that have a stack.  ``carry_in``, ``carry_out``: the known carries
    before a step and after it.
    """

    graph: Graph
    wanted: set[Var]
    free: set[Atom]
    carry_in: list[Var]
    carry_out: list[Atom]

    @staticmethod
    def of(original: Linearization, n_consts: int, n_carry: int) -> _Step:
        graph = graph_of(original.program.jaxpr, checkpoints=False)
        n_out = len(graph.outvars) - original.n_new
        first = sum(original.known[:n_consts])
        last = first + sum(original.known[n_consts: n_consts + n_carry])
        carry_in, carry_out = list(graph.invars[first: last]), list(graph.outvars[: sum(original.known_outs[:n_carry])])
        free = _fixed(graph, graph.invars[:first])
        free.update(graph.invars[last:])
        free.update(v for v in graph.outvars[len(carry_out): n_out] if not is_literal(v))
        wanted = {atom for atom in residual_atoms(original, graph) if not is_literal(atom)}
        return _Step(graph, wanted, free, carry_in, carry_out)

    def saved(self, prices: Prices) -> set[Var]:
        """The values to store, from which all residuals are had at the least cost."""
        # What needs no operands is computed where it is read: a constant, or the index of the platform, which then stays one.
        made_of_nothing = {v for eqn in self.graph.eqns if not eqn.invars for v in eqn.outvars}
        given = {*self.graph.invars, *self.graph.consts}
        following: set[Atom] = set()

        def store(v: Var) -> float:
            if v in made_of_nothing:
                return 1e-15
            return 0.0 if v in self.free or v in following else prices.store(v)

        # A carry after a step is free only if the carry before it is stored, which the cut cannot express: it is tried.
        best: tuple[float, set[Var]] | None = None
        while True:
            saved = minimum_cut(self.graph, self.wanted, store, prices.again)
            following = self._stored_by_the_next(saved)
            total = sum(map(store, saved)) + sum(map(prices.again, behind(self.graph.eqns, self.wanted, saved | given)))
            if best is not None and total >= best[0]:
                return best[1]
            best = total, saved

    def _stored_by_the_next(self, saved: set[Var]) -> set[Atom]:
        """The carries after a step that the next step stores, as it receives them."""
        if len(self.carry_in) != len(self.carry_out):
            return set()
        return {y for x, y in zip(self.carry_in, self.carry_out, strict=True) if x in saved}


def _fixed(graph: Graph, consts: Sequence[Var]) -> set[Atom]:
    """The values that are the same at all steps."""
    fixed: set[Atom] = {*graph.consts, *consts}
    for eqn in graph.eqns:
        if not eqn.effects and all(is_literal(atom) or atom in fixed for atom in eqn.invars):
            fixed.update(eqn.outvars)
    return fixed


def _choosing(graph: Graph, saved: set[Var]) -> Choice:
    """The choice of these values, by their places, as each graph of a program has variables of its own."""
    ins = [i for i, v in enumerate(graph.invars) if v in saved]
    outs = [(i, j) for i, eqn in enumerate(graph.eqns) for j, v in enumerate(eqn.outvars) if v in saved]

    def choose(graph: Graph, _: set[Var]) -> set[Var]:
        return {*(graph.invars[i] for i in ins), *(graph.eqns[i].outvars[j] for i, j in outs)}

    return choose
