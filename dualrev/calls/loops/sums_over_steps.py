"""Sums over the steps of a loop, taken after the loop.

The cotangent of a loop constant is a sum of one term for each step.  Where the term is a contraction, such as ``hₜᵀ·δₜ`` for the
weights of a recurrent network, adding it to a weight-sized carry reads and writes the whole carry at each step.  Stacking the small
operands and contracting them once, over the steps as well,

    Σₜ aₜᵀ·bₜ = [a₁; a₂; ...]ᵀ·[b₁; b₂; ...],

is one large product instead of many small ones (:mod:`dualrev.calls.loops.contractions`).  Of the operands, the loop stacks those from
which the others follow (:mod:`dualrev.calls.loops.stacking`).  Operations that are linear, by their rows, are applied once, to the sum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, JaxprEqn, Var, is_literal
from dualrev.calls.loops.contractions import SUMS, stack_sum
from dualrev.calls.loops.prices import Seconds
from dualrev.calls.loops.stacking import Factors, with_products_apart
from dualrev.programs.common_subexpressions import merged_graph
from dualrev.programs.jaxprs import behind, nbytes_of, runner
from dualrev.programs.partition import Graph, graph_of
from dualrev.table.linear_sums import factored
from dualrev.table.recomputation import is_cheap
from dualrev.table.rows import Unknown, rows
from dualrev.time_model import accumulate_cost, margins, recompute_cost
from dualrev.time_model.pricing import is_one_kernel_step


def _is_as_precise(summed: Any, result: Any) -> bool:
    """Whether a sum in the dtype of operands has the precision and range of a sum in the dtype of results."""
    if not all(jnp.issubdtype(aval.dtype, jnp.inexact) for aval in (summed, result)):
        return False
    operand, of_result = jnp.finfo(summed.dtype), jnp.finfo(result.dtype)
    return operand.nmant >= of_result.nmant and operand.maxexp >= of_result.maxexp


# ---------------------------------------------------------------------------------------------------- what is summed where


class InLoop(NamedTuple):
    """A value that is added up in the loop."""

    var: Atom


class Stacked(NamedTuple):
    """A value of which there is a stack over the steps."""

    var: Var


class Fixed(NamedTuple):
    """A value that is the same at all steps."""

    atom: Atom


class Later(NamedTuple):
    """A value whose sum is computed after the loop."""

    var: Var


#: An operand of the computation of a sum.
Term: TypeAlias = InLoop | Stacked | Fixed | Later


class AfterLoop(NamedTuple):
    """The computation of a sum after the loop."""

    of: Callable[..., jax.Array]
    operands: tuple[Term, ...]


class Inputs(NamedTuple):
    """For each input of a step, whether it is the same at all steps, and how often memory is gone through to read its stack.

    ``reads`` is zero for an input without a stack.
    """

    is_fixed: Sequence[bool]
    reads: Sequence[float]


def plan_of(jaxpr: ClosedJaxpr, sums: Sequence[int], inputs: Inputs, weigh: Callable[[int, int], bool], steps: int,
            is_whole: bool) -> Plan:
    """The :class:`Plan` of a step; contractions of concatenations are taken apart where that takes less time."""
    graph = factored(merged_graph(graph_of(jaxpr, checkpoints=False)))
    steps = max(steps, 1)  # what a loop of no steps pays for each of them does not matter
    plan = Plan(graph, sums, inputs, weigh, steps, is_whole)
    apart = with_products_apart(graph, plan.products, plan.fixed)
    other = plan if apart is graph else Plan(apart, sums, inputs, weigh, steps, is_whole)
    return other if other.seconds < plan.seconds else plan


class Plan:
    """The computation of the sums over the steps of the outputs ``sums`` of one step's program.

    ``weigh(new, carry)``: whether to stack ``new`` more bytes per step in place of a carry of ``carry`` bytes.  ``steps``: the number
    of steps; ``is_whole``, whether it is the length of all stacks.
    """

    def __init__(self, body: Graph, sums: Sequence[int], inputs: Inputs, weigh: Callable[[int, int], bool], steps: int, is_whole: bool):
        self.inputs = body.invars
        self.constants = body.consts
        self.producer = {var: eqn for eqn in body.eqns for var in eqn.outvars}
        self.fixed = {*body.consts, *(v for v, fixed in zip(body.invars, inputs.is_fixed, strict=True) if fixed)}
        for eqn in body.eqns:
            if not eqn.effects and all(self._is_fixed(x) for x in eqn.invars):
                self.fixed.update(eqn.outvars)
        self.has_stack = {v: reads for v, reads in zip(body.invars, inputs.reads, strict=True) if reads}
        self.weigh = weigh
        self.prices = c = margins()
        self.is_one_kernel = is_one_kernel_step(body.computing(body.outvars), c)
        self.summands: dict[int, Sequence[Atom]] = {}  # of each equation, by its identity
        self.factors: dict[Var, None] = {}  # of the contractions after the loop, those without a stack, in order
        self.products: set[int] = set()  # the contractions, by the identities of their equations
        #: The sums that are computed after the loop, in topological order, so that no recursion is needed.
        self.later: dict[Var, AfterLoop] = {}
        outs = [body.outvars[i] for i in sums]
        summed = behind(body.eqns, outs, operands=self._summands)
        least = self._least_carries(summed)
        for eqn in summed:
            if not self._summands(eqn):
                self._contraction(eqn, least)
        for eqn in summed:
            if self._summands(eqn):
                self._place(eqn, least)
        self.terms = [self._term(var, least) for var in outs]
        self.sum_avals: list[ShapedArray] = [var.aval for var in outs]  # type: ignore[misc]
        #: How the factors without a stack are had after the loop.
        together = float(steps * sum(nbytes_of(v.aval) for v in (*self.has_stack, *self.factors)))
        prices = Seconds(c, steps, self.is_one_kernel, together)
        self.after = Factors(body, self.factors, self.fixed, self.has_stack, prices, is_whole)
        #: The values that the loop has to stack.
        self.new = self.after.new
        #: Seconds for each step that factors and contractions take, by the time model.
        self.seconds = self.after.seconds + len(self.products) * (c.dot_s + c.kernel_s) / steps
        operands = [*self.terms, *(operand for node in self.later.values() for operand in node.operands)]
        #: Whether any sum needs stacks; if none does, all sums are linear functions of the terms that are added up in the loop.
        self.stacks = any(isinstance(x, Stacked) for x in operands)
        # By identity, since equal literals may be different terms.
        self.in_loop = {id(x.var): x.var for x in operands if isinstance(x, InLoop)}
        self.fixed_eqns = behind(body.eqns, [*(x.atom for x in operands if isinstance(x, Fixed)), *self.after.fixed])
        chosen = set(sums)
        rest = [v for i, v in enumerate(body.outvars) if i not in chosen]
        self.n_rest = len(rest)
        step = body.computing([*rest, *self.in_loop.values(), *self.new])
        self.step = runner(step, "pull_scan")
        #: Whether packing small carries into one array is faster: if all operations of a step are cheap, and the compiler makes more
        #: than one kernel of it.
        self.packs_carries = all(map(is_cheap, step.jaxpr.eqns)) and not is_one_kernel_step(step, self.prices)

    def split(self, results: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
        """The outputs of a step: those that are not summed, terms to add up, factors to stack."""
        i, j = self.n_rest, self.n_rest + len(self.in_loop)
        return list(results[:i]), list(results[i:j]), list(results[j:])

    @property
    def total_avals(self) -> list[ShapedArray]:
        """The abstract values of the terms that are added up."""
        return [var.aval for var in self.in_loop.values()]  # type: ignore[misc]

    def finish(self, inputs: Sequence[jax.Array], totals: Sequence[jax.Array], stacks: Sequence[jax.Array]) -> list[jax.Array]:
        """The sums, from the inputs of the steps (stacks for inputs that have one), the totals and the new stacks."""
        known = {**self.constants, **dict(zip(self.inputs, inputs, strict=True)), **dict(zip(self.new, stacks, strict=True))}
        added = dict(zip(self.in_loop, totals, strict=True))
        sums: dict[Var, jax.Array] = {}

        def value(node: Term) -> Any:
            if isinstance(node, InLoop):
                return added[id(node.var)]
            if isinstance(node, Later):
                return sums[node.var]
            atom = node.atom if isinstance(node, Fixed) else node.var
            return atom.val if is_literal(atom) else known[atom]

        for eqn in self.fixed_eqns:
            outs = eqn.primitive.bind(*[value(Fixed(x)) for x in eqn.invars], **eqn.params)
            known.update(zip(eqn.outvars, outs if eqn.primitive.multiple_results else [outs], strict=True))
        known.update(self.after.after_loop(known))
        for var, node in self.later.items():
            sums[var] = node.of(*map(value, node.operands))
        return [value(term) for term in self.terms]

    def _is_fixed(self, atom: Atom) -> bool:
        return is_literal(atom) or atom in self.fixed

    def _is_zero(self, atom: Atom) -> bool:
        eqn = None if is_literal(atom) else self.producer.get(atom)
        if eqn is not None and eqn.primitive is lax.broadcast_in_dim_p:
            atom = eqn.invars[0]
        return is_literal(atom) and not jnp.ndim(atom.val) and bool(atom.val == 0)

    def _term(self, atom: Atom, least: dict[Var, int]) -> InLoop | Later:
        """The sum of a value over the steps: the sum of its stack if it has one, unless the loop can add up something smaller."""
        if is_literal(atom):
            return InLoop(atom)
        nbytes = nbytes_of(atom.aval)
        has_stack = atom in self.factors or atom in self.has_stack
        if has_stack and atom not in self.later and nbytes <= least.get(atom, nbytes) and self.weigh(0, nbytes):
            self.later[atom] = AfterLoop(stack_sum, (Stacked(atom),))
        return Later(atom) if atom in self.later else InLoop(atom)

    def _least_carries(self, eqns: Sequence[JaxprEqn]) -> dict[Var, int]:
        """For each value, the bytes of the smallest carry that could hold its sum, or a sum computed from its sum."""
        least: dict[Var, int] = {}
        for eqn in reversed(eqns):
            for x in self._summands(eqn):
                if not is_literal(x):
                    (var,) = eqn.outvars
                    least[x] = min(least.get(x, nbytes_of(x.aval)), least.get(var, nbytes_of(var.aval)))
        return least

    def _summands(self, eqn: JaxprEqn) -> Sequence[Atom]:
        """The operands of an equation whose sums determine the sum of its result."""
        if id(eqn) not in self.summands:
            self.summands[id(eqn)] = self._linear_operands(eqn)
        return self.summands[id(eqn)]

    def _linear_operands(self, eqn: JaxprEqn) -> Sequence[Atom]:
        """The operands in which an equation is linear; none if an operand changes from step to step in which it is not linear.

        An operation that is jointly linear must have zero for each operand that does not change, unless it is a sum, whose operands
        the loop can add up; a product must have one factor that does not change.
        """
        row, changes = rows.get(eqn.primitive), [not self._is_fixed(x) for x in eqn.invars]
        if row is None or len(eqn.outvars) != 1 or eqn.effects:
            return []
        row = row.choose([Unknown(x.aval) for x in eqn.invars], changes, eqn.params)  # type: ignore[arg-type]
        if any(changed and i not in row.linear_in for i, changed in enumerate(changes)) or (row.kind == "product" and sum(changes) > 1):
            return []
        is_sum = row.kind == "linear" and row.is_diagonal
        others = [x for i, x in enumerate(eqn.invars) if i in row.linear_in and not changes[i]]
        if row.kind != "product" and not is_sum and not all(map(self._is_zero, others)):
            return []
        summands = [x for i, x in enumerate(eqn.invars) if changes[i] or (is_sum and i in row.linear_in)]
        return summands if all(_is_as_precise(x.aval, eqn.outvars[0].aval) for x in summands) else []

    def _place(self, eqn: JaxprEqn, least: dict[Var, int]) -> None:
        """Apply a linear equation once, to the sums of its operands, after the loop, if that saves memory traffic."""
        summands = self._summands(eqn)
        terms = [self._term(x, least) for x in summands]
        if self._is_cheaper_after(eqn, summands) or any(isinstance(term, Later) for term in terms):
            operands = tuple([self._term(x, least) if x in summands else Fixed(x) for x in eqn.invars])
            self.later[eqn.outvars[0]] = AfterLoop(functools.partial(eqn.primitive.bind, **eqn.params), operands)

    def _is_cheaper_after(self, eqn: JaxprEqn, summands: Sequence[Atom]) -> bool:
        """Whether the loop adds up the operands of a linear equation clearly faster than it computes and adds up its result.

        For a few numbers neither takes time, and fewer carries are fewer arrays to copy.
        """
        c = self.prices
        before = sum(accumulate_cost(x.aval, c) for x in summands)
        within = recompute_cost(eqn, c) + accumulate_cost(eqn.outvars[0].aval, c)
        if self.is_one_kernel and str(eqn.primitive).startswith("reduce"):
            within -= c.loop_kernel_s
        return before + c.one_kernel_step_s < within

    def _contraction(self, eqn: JaxprEqn, least: dict[Var, int]) -> None:
        """Stack the operands of a contraction and contract them after the loop, if that saves memory."""
        rule = SUMS.get(eqn.primitive)
        if rule is None or not rule.fits(eqn.params) or (rule.zero is not None and not self._is_zero(eqn.invars[rule.zero])):
            return
        if any(self._is_fixed(eqn.invars[i]) for i in rule.stacked):
            return
        changing = [x for x in eqn.invars if not is_literal(x) and x not in self.fixed]
        new = dict.fromkeys(x for x in changing if x not in self.has_stack and x not in self.factors)
        (var,) = eqn.outvars
        if self.weigh(sum(nbytes_of(v.aval) for v in new), least.get(var, nbytes_of(var.aval))):
            self.factors.update(new)
            self.products.add(id(eqn))
            operands = tuple([Fixed(x) if is_literal(x) or x in self.fixed else Stacked(x) for x in eqn.invars])
            self.later[var] = AfterLoop(functools.partial(rule.of, eqn.params), operands)
