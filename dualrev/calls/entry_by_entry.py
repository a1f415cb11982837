"""Programs that take the entries of arrays one by one: linearized as programs of arrays, or loops (:mod:`dualrev.programs.entries`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import jax
from jax import lax

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction, JaxprEqn, jaxpr_as_fun, stage
from dualrev._jax.primitives import has_batching_rule
from dualrev._jax.traces import Tracer, current_trace, is_staged_at_last, to_concrete_value
from dualrev.linear.maps import Tape
from dualrev.linear.places import Box
from dualrev.programs.common_subexpressions import merged
from dualrev.programs.entries.alike import MANY, SMALL
from dualrev.programs.entries.rolled import rolled
from dualrev.programs.entries.together import LEAST, computed_together
from dualrev.programs.partition import graph_of, held_eqns
from dualrev.table.operations import OpMap, Site
from dualrev.table.rows import rows
from dualrev.time_model import constants

#: The part of a tape's entries that must take entries of one array, before its function is traced as a program.
SHARE = 0.05


#: Reductions that are not linear.
_REDUCTIONS = frozenset((lax.reduce_prod_p, lax.reduce_max_p, lax.reduce_min_p))


def may_be_together(eqn: JaxprEqn) -> bool:
    """Whether equal operations on other operands may be one operation: it works entry by entry, moves entries, or is linear in them."""
    row = rows.get(eqn.primitive)
    if row is None or row.is_users_own or not has_batching_rule(eqn.primitive):
        return False
    if row.cost not in ("entrywise", "moves") and row.kind not in ("linear", "product") and eqn.primitive not in _REDUCTIONS:
        return False
    names = eqn.params.get("axes", ())
    is_collective = "axis_name" in eqn.params or (isinstance(names, tuple) and any(not isinstance(name, int) for name in names))
    return not is_collective and not any(True for _ in held_eqns(eqn))


def entries_together(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """A closed jaxpr in which operations that are alike are computed together, and chains of equal blocks are loops.

    It is the same object where neither is worth it.  On a GPU each operation of each step of a loop is started anew, and all of a chain
    of small operations at once: there are loops for processors only.
    """
    if len(jaxpr.eqns) < LEAST:
        return jaxpr
    graph = graph_of(jaxpr, checkpoints=False)
    found = computed_together(graph, may_be_together)
    if constants().backend == "cpu" and (with_loops := rolled(found, may_be_together)) is not found:
        found = computed_together(with_loops, may_be_together)  # what takes the entries of stacks
    return jaxpr if found is graph else found.computing(found.outvars)


def takes_entries(tape: Tape) -> bool:
    """Whether much of a program takes small parts of one array, so that tracing it once more is worth it."""
    if len(tape.entries) < LEAST:
        return False
    taken = Counter(ins[0] for linear_map, ins, _ in tape.entries
                    if type(linear_map) is OpMap and linear_map.site.places is not None and _takes_few(linear_map.site))
    return any(n >= MANY and n >= SHARE * len(tape.entries) for n in taken.values())


def may_be_traced(flat: Sequence[jax.Array]) -> bool:
    """Whether a function that ran on these values may run on abstract ones: none tells its value, on which Python may have branched."""
    return is_staged_at_last(current_trace()) and all(
        isinstance(x, Tracer) and type(typeof(x)) is ShapedArray and to_concrete_value(x) is None for x in flat)


def _takes_few(site: Site) -> bool:
    windows = math.prod(site.in_avals[1].shape[:-1]) if len(site.in_avals) > 1 and site.in_avals[1].ndim else 1
    sizes = site.params.get("slice_sizes") or [n for place in site.places or () if isinstance(place, Box) for n in place.shape]
    return windows * math.prod(sizes) <= SMALL


class Together:
    """A flat function as a program with operations that are alike computed together; results that are no arrays are kept beside it."""

    def __init__(self, fun: FlatFunction, flat: Sequence[jax.Array]):
        others: dict[int, object] = {}

        def arrays(*flat: jax.Array) -> list[jax.Array]:
            results = fun(*flat)
            others.update((i, x) for i, x in enumerate(results) if not isinstance(x, (jax.Array, Tracer)))
            return [x for i, x in enumerate(results) if i not in others]

        traced = merged(stage(arrays, [typeof(x) for x in flat]))
        self.others = others
        self.jaxpr = entries_together(traced)
        # An effect of the first trace stays in the program around, and would be there twice.
        self.is_worth_it = self.jaxpr is not traced and not traced.effects

    def __call__(self, *flat: jax.Array) -> list[jax.Array]:
        values = iter(jaxpr_as_fun(self.jaxpr)(*flat))
        n = len(self.jaxpr.out_avals) + len(self.others)
        return [self.others[i] if i in self.others else next(values) for i in range(n)]  # type: ignore[misc]  # as the function does
