"""Which values the pull of a loop stacks, so that the factors of its sums can be had after it.

The factors ``aₜ``, ``bₜ`` of a sum that is contracted after the loop change from step to step.  Some have a stack already: residuals
of the loop, its arrays, cotangents of its results.  Of the others, the loop stacks those from which the rest follow by operations that
cost less time than a stack: these run once after the loop, for all steps.  A minimum cut by time (:mod:`dualrev.programs.minimum_cut`)
chooses.  In a gated unit, the cotangents of three gates are products of one cotangent and of residuals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import jax
from jax import lax

from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev._jax.source_lines import within
from dualrev.calls.loops.prices import Seconds
from dualrev.programs.jaxprs import behind, runner
from dualrev.programs.minimum_cut import minimum_cut
from dualrev.programs.partition import Graph
from dualrev.table.rows import rows
from dualrev.time_model.reading import shape_of


class Factors:
    """The factors ``wanted`` of sums: stacked by the loop, or computed after it for all steps.

    ``has_stack``: the values that have a stack, and how often memory is gone through to read it.  ``is_whole``: whether a stack has as
    many entries as the loop makes steps.  Else its last entries are zeros; what is linear in a cotangent is zero there, too, as long as
    all else is finite.
    """

    def __init__(self, graph: Graph, wanted: Collection[Var], fixed: Collection[Atom], has_stack: Mapping[Var, float], prices: Seconds,
                 is_whole: bool):
        def store(v: Var) -> float:
            return 0.0 if v in fixed else prices.passes(v, has_stack[v]) if v in has_stack else prices.store(v)

        def again(eqn: JaxprEqn) -> float:
            if not (is_whole or _is_polynomial(eqn)):
                return math.inf
            written = [v for v in eqn.outvars if v in wanted]
            return prices.after_loop(eqn) + sum(prices.passes(v, 2) + prices.constants.kernel_s / prices.steps for v in written)

        saved = minimum_cut(graph, {*wanted}, store, again) if wanted else set()
        eqns = behind(graph.eqns, wanted, {*saved, *graph.invars, *graph.consts})
        #: The values that the loop stacks.
        self.new = [v for v in _in_order(graph) if v in saved and v not in fixed and v not in has_stack]
        #: Seconds for each step, by the time model.
        self.seconds = sum(map(store, saved)) + sum(map(again, eqns))
        self.computed = [v for v in wanted if v not in saved]
        read = dict.fromkeys(x for eqn in eqns for x in eqn.invars if not is_literal(x) and x not in graph.consts)
        made = {v for eqn in eqns for v in eqn.outvars}
        self.reads = [v for v in read if v not in made]
        #: The values among those read that are the same at all steps.
        self.fixed = [v for v in self.reads if v in fixed]
        self._axes = [None if v in fixed else 0 for v in self.reads]
        self._run = runner(graph.program(eqns, self.reads, self.computed), "after_loop")

    def after_loop(self, known: Mapping[Var, jax.Array]) -> dict[Var, jax.Array]:
        """The stacks of the factors that the loop has not stacked."""
        if not self.computed:
            return {}
        with within("steps"):
            found = jax.vmap(self._run, in_axes=self._axes)(*[known[v] for v in self.reads])
        return dict(zip(self.computed, found, strict=True))


def _in_order(graph: Graph) -> list[Var]:
    return [*graph.invars, *(v for eqn in graph.eqns for v in eqn.outvars)]


def _is_polynomial(eqn: JaxprEqn) -> bool:
    """Whether an operation and its derivatives are finite for all numbers."""
    row = rows.get(eqn.primitive)
    return row is not None and row.kind in ("linear", "product", "zero")


def with_products_apart(graph: Graph, products: Collection[int], fixed: Collection[Atom]) -> Graph:
    """The program with some of its products, given by the identities of their equations, taken of the parts of their operands.

    The product of a concatenation, along an axis that is not contracted, is the concatenation of the products.  A part that is the
    same at all steps would be no factor.
    """
    makers = {eqn.outvars[0]: eqn for eqn in graph.eqns if eqn.primitive is lax.concatenate_p
              and not any(is_literal(x) or x in fixed for x in eqn.invars)}
    eqns: list[JaxprEqn] = []
    for eqn in graph.eqns:
        eqns.extend(_apart(eqn, makers, 0) if id(eqn) in products else [eqn])
    return graph if len(eqns) == len(graph.eqns) else Graph(graph.invars, graph.outvars, eqns, graph.consts, graph.debug_info)


def _apart(eqn: JaxprEqn, makers: Mapping[Var, JaxprEqn], side: int) -> list[JaxprEqn]:
    """A product as products of the parts of its operands, from the operand ``side`` on, and the concatenations of their results."""
    if side == 2:
        return [eqn]
    operand = eqn.invars[side]
    joined = None if is_literal(operand) else makers.get(operand)
    axis = None if joined is None else _free_axis(eqn, side, joined.params["dimension"])
    if joined is None or axis is None:
        return _apart(eqn, makers, side + 1)
    (out,) = eqn.outvars
    eqns: list[JaxprEqn] = []
    results: list[Atom] = []
    for part in joined.invars:
        shape = list(shape_of(out.aval))
        shape[axis] = shape_of(part.aval)[joined.params["dimension"]]
        result = Var(out.aval.update(shape=tuple(shape)))
        results.append(result)
        invars: list[Atom] = [part if i == side else x for i, x in enumerate(eqn.invars)]
        eqns.extend(_apart(eqn.replace(invars=invars, outvars=[result]), makers, side + 1))
    return [*eqns, joined.replace(invars=results, outvars=[out], params={**joined.params, "dimension": axis})]


def _free_axis(eqn: JaxprEqn, side: int, axis: int) -> int | None:
    """The axis of a product's result that an axis of an operand becomes; None if it is contracted or one of a batch."""
    contracted, batch = eqn.params["dimension_numbers"]
    ndims = [len(shape_of(x.aval)) for x in eqn.invars]
    free = [[i for i in range(n) if i not in contracted[k] and i not in batch[k]] for k, n in enumerate(ndims)]
    if axis not in free[side]:
        return None
    return len(batch[0]) + (len(free[0]) if side else 0) + free[side].index(axis)
