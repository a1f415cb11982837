"""What a loop stores of each step for its pull, and what the pull computes again: a minimum cut by time.

The residuals of a step are the values that the pull of the body reads.  Storing a value takes a stack over the steps: it is filled,
written by the loop and read by the pull, mostly in memory that the system hands out for this call.  Computing it again takes the
operations that lead to it from what is stored.  The time model (:mod:`dualrev.time_model`) prices both, and a minimum cut
(:mod:`dualrev.programs.minimum_cut`) chooses.  Free are values that are the same at all steps, the slices of a scan's arrays and of
its stacked results, and the carry after a step where the carry before it is stored: the next step stores it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev._jax.primitives import primitive
from dualrev.calls.cut_linearization import CutLinearization, residual_atoms
from dualrev.calls.linearization import Linearization
from dualrev.options.settings import current
from dualrev.programs.jaxprs import behind, nbytes_of
from dualrev.programs.minimum_cut import minimum_cut
from dualrev.programs.partition import Graph, graph_of
from dualrev.table.recomputation import is_cheap
from dualrev.table.rows import rows
from dualrev.time_model import Constants, margins, recompute_cost, store_cost
from dualrev.time_model.fusion import program
from dualrev.time_model.pricing import APART

#: The number of steps that is assumed where only running the loop tells.
UNKNOWN_STEPS = 100
#: An array of fewer entries than the vector of a processor takes as long as one of this many.
VECTOR = 4
#: Operations that stay where the user or the compiler put them.
_STAY = frozenset(map(primitive, ("device_put", "optimization_barrier", "rng_uniform", "pure_callback", "ffi_call")))


def with_stored(original: Linearization, n_consts: int, n_carry: int, length: object) -> Linearization:
    """The linearization of a body whose residuals are those that the loop stores; the others are computed again."""
    asked = current.get().recompute_residuals
    if asked is False or not original.residual_sources:
        return original
    steps = length if isinstance(length, int) else UNKNOWN_STEPS
    key = ("stored", n_consts, n_carry, steps, asked)
    if key not in original.plans:
        original.plans[key] = _cut(original, n_consts, n_carry, steps, asked is True)
    found: Linearization = original.plans[key]
    return found


def may_run_again(eqn: JaxprEqn) -> bool:
    """Whether computing a value again gives the same value and is noticed by nobody."""
    if eqn.effects or eqn.primitive in _STAY or str(eqn.primitive) in APART:
        return False
    row = rows.get(eqn.primitive)
    return is_cheap(eqn) or (row is not None and row.kind in ("linear", "product", "diagonal"))


def _again(eqn: JaxprEqn, c: Constants) -> float:
    """Seconds to compute an equation again at each step."""
    if not may_run_again(eqn):
        return math.inf
    return recompute_cost(eqn, c) * max(1.0, VECTOR / max(max(map(_size, eqn.outvars), default=1), 1))


def _small_loop(size: int) -> float:
    """What writing a stack and reading it costs within one kernel, over a step of it: two small loops, none for a single number."""
    return min(2.0, .3 + size / 10)


def _size(v: Var) -> int:
    return nbytes_of(v.aval) // max(int(getattr(getattr(v.aval, "dtype", None), "itemsize", 8)), 1)


def _cut(original: Linearization, n_consts: int, n_carry: int, steps: int, by_bytes: bool) -> Linearization:
    c = margins()
    graph = graph_of(original.program.jaxpr, checkpoints=False)
    n_out = len(graph.outvars) - original.n_new
    n_known_consts, n_known_carry = sum(original.known[:n_consts]), sum(original.known[n_consts: n_consts + n_carry])
    carry_in = graph.invars[n_known_consts: n_known_consts + n_known_carry]
    carry_out = _known(graph.outvars, original.known_outs[:n_carry])
    free = _fixed(graph, graph.invars[:n_known_consts])
    free.update(graph.invars[n_known_consts + n_known_carry:])
    free.update(v for v in graph.outvars[len(carry_out): n_out] if not is_literal(v))
    # What needs no operands is computed where it is read: a constant, or the index of the platform, which then stays one.
    made_of_nothing = {v for eqn in graph.eqns if not eqn.invars for v in eqn.outvars}
    wanted = {atom for atom in residual_atoms(original, graph) if not is_literal(atom)}
    in_one_kernel = is_one_kernel(graph, c)

    def price(eqn: JaxprEqn) -> float:
        if not by_bytes:
            return _again(eqn, c)
        return 0.0 if may_run_again(eqn) and is_cheap(eqn) else math.inf

    def store(following: set[Atom]) -> Callable[[Var], float]:
        def cost(v: Var) -> float:
            if v in made_of_nothing:
                return 1e-15
            if v in free or v in following:
                return 0.0
            if by_bytes:
                return float(nbytes_of(v.aval))
            seconds = store_cost(v.aval, c, steps)
            return seconds - c.loop_kernel_s + c.one_kernel_step_s * _small_loop(_size(v)) if in_one_kernel else seconds

        return cost

    # A carry after a step is free only if the carry before it is stored, which the cut cannot express: it is tried.
    best: tuple[float, set[Var]] | None = None
    following: set[Atom] = set()
    while True:
        saved = minimum_cut(graph, wanted, store(following), price)
        after = {y for x, y in zip(carry_in, carry_out, strict=True) if x in saved} if len(carry_in) == len(carry_out) else set()
        total = sum(map(store(after), saved)) + sum(map(price, behind(graph.eqns, wanted, {*saved, *graph.invars, *graph.consts})))
        if best is not None and total >= best[0]:
            break
        best = total, saved
        following = after
    saved = best[1]
    if saved >= wanted - {*graph.consts}:
        return original
    places = {v: ("in", i, 0) for i, v in enumerate(graph.invars)} | {
        v: ("eqn", i, j) for i, eqn in enumerate(graph.eqns) for j, v in enumerate(eqn.outvars)}
    chosen = [places[v] for v in saved]

    def choose(graph: Graph, _: set[Var]) -> set[Var]:
        return {graph.invars[i] if kind == "in" else graph.eqns[i].outvars[j] for kind, i, j in chosen}

    return CutLinearization(original, choose)


def _known(atoms: Sequence[Atom], flags: Sequence[bool]) -> list[Atom]:
    """The known carries among the first outputs of a program."""
    return list(atoms[: sum(flags)])


def _fixed(graph: Graph, consts: Sequence[Var]) -> set[Atom]:
    """The values that are the same at all steps."""
    fixed: set[Atom] = {*graph.consts, *consts}
    for eqn in graph.eqns:
        if not eqn.effects and all(is_literal(atom) or atom in fixed for atom in eqn.invars):
            fixed.update(eqn.outvars)
    return fixed


def is_one_kernel(graph: Graph, c: Constants) -> bool:
    """Whether the compiler makes one kernel of a loop with this body and of its pull, which touches about three times its bytes."""
    if c.one_kernel_bytes == 0 or any(str(eqn.primitive) in APART for eqn in graph.eqns):
        return False
    return math.isinf(c.one_kernel_bytes) or 3 * program(graph.computing(graph.outvars)).nbytes_touched < c.one_kernel_bytes
