"""Taylor series through a function: all derivatives along a curve, in one evaluation.

Each value carries the coefficients ``(c_1, ..., c_K)`` of ``x(t) = x_0 + Σ c_k t^k``; one that is zero is None.  A linear operation
maps each of them; a product is a convolution; every other operation follows a recurrence that is found from its row
(:mod:`dualrev.engines.recurrences`).  Nested pushes, the other way to the same derivatives, double the work with each order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params
from dualrev._jax.traces import set_current_trace, take_current_trace
from dualrev.engines.recurrences import Given, SeriesTrace
from dualrev.linear import zeros
from dualrev.linear.basis import along_each
from dualrev.linear.zeros import Tangent
from dualrev.table.mode import Carried, Mode
from dualrev.table.rows import Row

#: The parts of a value: its coefficients of the orders 1 to K.
Coefficients: TypeAlias = tuple[Tangent, ...]


@dataclass(frozen=True)
class Taylor(Mode):
    """Taylor coefficients to an order."""

    order: int

    name = "Taylor"

    def zero(self, aval: ShapedArray) -> Coefficients:
        return (zeros.zeros_of(aval),) * self.order

    def row(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Coefficients | None], params: Params) -> Carried:
        if row.kind == "linear" or (row.kind == "product" and sum(p is not None for p in parts) == 1):
            outs = row.bind(primals, params)
            return outs, self._gathered(self._moved_together(row, primals, parts, params), len(outs))
        with take_current_trace() as parent:
            trace = SeriesTrace(parent, Taylor)
            try:
                operands = [x if p is None else trace.series(Given(x, p)) for x, p in zip(primals, parts, strict=True)]
                with set_current_trace(parent):
                    operation = trace.applied(row, operands, params)
                    if row.kind != "zero":
                        operation.at(self.order)
                values, *terms = operation.terms
            finally:
                trace.finish()
        return values, self._gathered(terms, len(values))  # type: ignore[return-value]  # order 0 has no None

    def _gathered(self, terms: Sequence[Sequence[Tangent]], n_outs: int) -> list[Coefficients | None]:
        """The coefficients of each result, from those of each order."""
        by_result = [tuple([term[i] for term in terms]) for i in range(n_outs)]
        return [None if all(c is None for c in coefficients) else coefficients for coefficients in by_result]

    def _moved_together(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Coefficients | None],
                        params: Params) -> list[list[Tangent]]:
        """The coefficients of a linear operation: an operation that takes work maps those of all orders at once."""
        def first(tangents: Sequence[Tangent]) -> list[Tangent]:
            return row.first(primals, tangents, params)

        by_order: list[list[Tangent]] = [[None if p is None else p[k] for p in parts] for k in range(self.order)]
        present = [k for k, ts in enumerate(by_order) if any(t is not None for t in ts)]
        found: list[list[Tangent]] = [[] for _ in by_order]
        alike = {tuple([t is not None for t in by_order[k]]) for k in present}
        if row.cost == "work" and len(present) > 1 and len(alike) == 1:
            stacked = [None if t is None else jnp.stack([by_order[k][i] for k in present])  # type: ignore[misc]
                       for i, t in enumerate(by_order[present[0]])]
            moved = along_each(first, stacked)
            for n, k in enumerate(present):
                found[k] = [None if x is None else x[n] for x in moved]
        else:
            for k in present:
                found[k] = first(by_order[k])
        n_outs = max(len(x) for x in found)
        return [x or [None] * n_outs for x in found]
