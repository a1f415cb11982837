"""Evaluation of a function under a mode that goes forward: each value carries its parts along (see :mod:`dualrev.table.mode`).

The forward engine is such a mode (:mod:`dualrev.engines.forward`); so is any other that maps parts from operands to results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from dualrev._jax.avals import typeof
from dualrev._jax.traces import Trace, Tracer, contents, ensure_no_leaks, set_current_trace, take_current_trace, to_concrete_value
from dualrev.engines import references
from dualrev.engines.base import EngineTrace, many
from dualrev.options.settings import current, under
from dualrev.table.mode import Mode, Parts
from dualrev.table.rows import Expansion, Row


class Dual(Tracer):
    """A primal value and its parts."""

    __slots__ = ("parts", "primal")

    def __init__(self, trace: PartsTrace, primal: Any, parts: Parts):
        super().__init__(trace, typeof(primal))
        self.primal = primal
        self.parts = parts

    @property
    def tangent(self) -> Parts:
        """The parts, as libraries ask for them that know jax's dual numbers."""
        return self.parts

    def to_concrete_value(self) -> Any:
        return to_concrete_value(self.primal)

    def get_referent(self) -> Any:
        return self.primal.get_referent() if isinstance(self.primal, Tracer) else self

    def _contents(self) -> list[tuple[str, Any]]:
        return contents(self.aval, primal=self.primal, tangent=self.parts)

    def _short_repr(self) -> str:
        return f"Dual({self.primal}, tangent={self.parts})"


class PartsTrace(EngineTrace):
    """Maps values and parts through each operation as it happens."""

    def __init__(self, parent: Trace, mode: Mode):
        super().__init__(parent)
        self.mode = mode
        self.mode_name = mode.name

    def dual(self, primal: Any, parts: Parts) -> Any:
        return primal if parts is None else Dual(self, primal, parts)

    def split(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], bool]:
        primals, all_parts, moves = [], [], False
        for x in values:
            if isinstance(x, Dual) and x._trace is self:
                primals.append(x.primal)
                all_parts.append(x.parts)
                moves = True
            else:
                primals.append(x)
                all_parts.append(None)
        return primals, all_parts, moves

    def operate(self, row: Row, tracers: Sequence[Any], primals: Sequence[Any], marks: Sequence[Any],
                params: dict[str, Any]) -> Sequence[Any]:
        if row.chooses:
            row = row.choose(primals, [p is not None for p in marks], params)
        apply = row.jvp if self.mode.pushes else functools.partial(row.through, self.mode)
        with set_current_trace(self.parent):
            is_current = current.get() is self.settings
            result = apply(primals, marks, params) if is_current else under(self.settings, apply, primals, marks, params)
        if isinstance(result, Expansion):
            with set_current_trace(self):
                return many(result.run(*tracers))
        outs, parts_out = result
        return [self.dual(x, parts) for x, parts in zip(outs, parts_out, strict=True)]


def evaluate(mode: Mode, fun: Callable[..., Sequence[Any]], primals: Sequence[Any],
             parts: Sequence[Parts]) -> tuple[list[Any], list[Parts]]:
    """``(outs, parts out)`` of a flat function."""
    with take_current_trace() as parent:
        trace = PartsTrace(parent, mode)
        with ensure_no_leaks(trace):
            try:
                with set_current_trace(trace):
                    results = list(fun(*[trace.dual(x, p) for x, p in zip(primals, parts, strict=True)]))
                references.check_results(trace, results)
                outs, parts_out, _ = trace.split(results)
            finally:
                trace.invalidate()
            del trace, results
    return outs, [p if p is not None and mode.has_parts(typeof(x)) else None for x, p in zip(outs, parts_out, strict=True)]
