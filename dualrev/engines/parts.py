"""The engine of all forward modes: each active value carries *parts*, and an operation maps values and parts to values and parts.

What parts are is stated by the mode (:class:`dualrev.table.mode.Mode`).  In the forward mode they are tangents
(:mod:`dualrev.engines.forward`); a mode of second order carries Jacobians and Laplacians, or Taylor coefficients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.primitives import Params
from dualrev._jax.traces import Trace, Tracer, contents, ensure_no_leaks, set_current_trace, take_current_trace, to_concrete_value
from dualrev.engines import references
from dualrev.engines.base import EngineTrace, many
from dualrev.options.settings import current, under
from dualrev.table.mode import Mode, Parts
from dualrev.table.rows import Expansion, Row


class Dual(Tracer):  # type: ignore[type-arg]
    """An active value: its primal and its parts."""

    __slots__ = ("parts", "primal")

    def __init__(self, trace: PartsTrace, primal: jax.Array, parts: Parts):
        super().__init__(trace, typeof(primal))
        self.primal = primal
        self.parts = parts

    @property
    def tangent(self) -> Parts:
        """The parts, under the name that jax's own dual numbers have: some libraries read it."""
        return self.parts

    def to_concrete_value(self) -> np.ndarray | None:
        return to_concrete_value(self.primal)  # type: ignore[no-any-return]

    def get_referent(self) -> object:
        return self.primal.get_referent() if isinstance(self.primal, Tracer) else self

    def _contents(self) -> list[tuple[str, object]]:
        return contents(self.aval, primal=self.primal, tangent=self.parts)

    def _short_repr(self) -> str:
        return f"Dual({self.primal}, tangent={self.parts})"


class PartsTrace(EngineTrace):
    """Evaluates each operation on values and parts at once; nothing is recorded."""

    def __init__(self, parent: Trace, mode: Mode):
        super().__init__(parent)
        self.mode = mode
        self.mode_name = mode.name

    def dual(self, primal: jax.Array, parts: Parts) -> jax.Array:
        """``primal`` with its parts, or alone where it has none."""
        return primal if parts is None else Dual(self, primal, parts)

    def split(self, values: Sequence[jax.Array]) -> tuple[list[jax.Array], list[Parts], bool]:
        primals: list[jax.Array] = []
        all_parts: list[Parts] = []
        is_active = False
        for x in values:
            if isinstance(x, Dual) and x._trace is self:
                primals.append(x.primal)
                all_parts.append(x.parts)
                is_active = True
            else:
                primals.append(x)
                all_parts.append(None)
        return primals, all_parts, is_active

    def operate(self, row: Row, tracers: Sequence[jax.Array], primals: Sequence[jax.Array], marks: Sequence[Parts],
                params: Params) -> Sequence[jax.Array]:
        if row.chooses:
            row = row.choose(primals, [p is not None for p in marks], params)
        if self.mode.pushes:  # the most frequent mode, un-jitted too: no call here that it does not need
            apply = row.jvp
        else:
            if self.mode.keeps_structure(marks) and (run := row.runs(params)) is not None:
                with set_current_trace(self):
                    return many(run(*tracers))
            apply = functools.partial(row.through, self.mode)
            if row.takes_parts != "any":  # it passes them on to programs
                prepared = self.mode.ready if row.takes_parts == "arrays" else self.mode.uniform
                with set_current_trace(self.parent):
                    marks = [prepared(p) for p in marks]
        with set_current_trace(self.parent):
            is_current = current.get() is self.settings
            result = apply(primals, marks, params) if is_current else under(self.settings, apply, primals, marks, params)
        if isinstance(result, Expansion):  # a program in the operation's place, to be evaluated under this trace
            with set_current_trace(self):
                return many(result.run(*tracers))
        outs, parts_out = result
        duals: list[jax.Array] = []
        for x, parts in zip(outs, parts_out, strict=True):
            if parts is not None:
                dual = Dual(self, x, parts)
                # An array without entries depends on nothing: parts of its sum, which are zeros, would be NaN at a pole.
                x = x if 0 in dual.aval.shape else dual  # type: ignore[attr-defined]  # an array
            duals.append(x)
        return duals


def evaluate(mode: Mode, fun: FlatFunction, primals: Sequence[jax.Array], parts: Sequence[Parts],
             trace_of: Callable[[Trace, Mode], PartsTrace] = PartsTrace) -> tuple[list[jax.Array], list[Parts]]:
    """``(outs, parts of outs)`` of a flat function, from primals and their parts."""
    with take_current_trace() as parent:
        trace = trace_of(parent, mode)
        with ensure_no_leaks(trace):
            try:
                with set_current_trace(trace):
                    results = list(fun(*[trace.dual(x, p) for x, p in zip(primals, parts, strict=True)]))
                references.check_results(trace, results)
                outs, parts_out, _ = trace.split(results)
                with set_current_trace(parent):
                    parts_out = [mode.ready(p) for p in parts_out]
            finally:
                trace.invalidate()
            del trace, results
    return outs, [p if p is not None and mode.has_parts(typeof(x)) else None for x, p in zip(outs, parts_out, strict=True)]
