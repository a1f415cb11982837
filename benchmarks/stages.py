"""What comes before the first result: to trace a function, to lower it, to compile it.

jax finds each of the three again by the objects that it has seen: ``lower`` and ``compile`` of the same trace take no time twice.  So
a stage is timed once, and what it starts from is new.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from benchmarks.counts import equations
from benchmarks.libraries import COMPILING
from benchmarks.records import Stages
from benchmarks.timing import rounds, temporary
from dualrev.problems.scenario import Scenario


class Seconds(NamedTuple):
    """Of one new program; their sum is what the first call takes before it runs."""

    tracing: float
    lowering: float
    compiling: float


def trace(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A trace of a function that is in no cache."""
    return jax.jit(lambda *x: function(*x)).trace(*arguments)


def seconds(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Seconds:
    start = time.perf_counter()
    traced = trace(function, arguments)
    is_traced = time.perf_counter()
    lowered = traced.lower()
    is_lowered = time.perf_counter()
    lowered.compile()
    return Seconds(is_traced - start, is_lowered - is_traced, time.perf_counter() - is_lowered)


@dataclass(frozen=True)
class FirstCall:
    """Of a program's gradient, round by round, by dualrev and by jax."""

    program: str
    ours: list[Seconds]
    theirs: list[Seconds]
    #: To trace the function alone, which any gradient has to do.
    function: list[float]
    equations: tuple[int, int]
    temporary_bytes: tuple[int, int]

    def record(self) -> Stages:
        """Medians of ratios and of times over the rounds."""
        tracing, lowering, compiling = zip(zip(*self.ours, strict=True), zip(*self.theirs, strict=True), strict=True)
        whole = [sum(x) for x in self.ours], [sum(x) for x in self.theirs]

        def milliseconds(pair: Sequence[Sequence[float]]) -> tuple[float, float]:
            return 1e3 * statistics.median(pair[0]), 1e3 * statistics.median(pair[1])

        return Stages(self.program, _ratio(*tracing), _ratio(self.function, tracing[1]), _ratio(*lowering), _ratio(*compiling),
                      _ratio(*whole), milliseconds(compiling), milliseconds(whole),
                      statistics.median(x.compiling / sum(x) for x in self.ours), self.equations, self.temporary_bytes)


def _ratio(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def first_call(program: Scenario, budget: float) -> FirstCall:
    """Interleaved rounds of new programs, after one of each: what the first gradient of all sets up is not this one's."""

    def of(library: str, call: str) -> tuple[Any, Any]:
        return COMPILING[library].function(program, call), COMPILING[library].call_arguments(program, call)

    ours, theirs, alone = of("dualrev", "gradient"), of("jax", "gradient"), of("jax", "value")
    traced = trace(*ours), trace(*theirs)
    trace(*alone)

    def tracing() -> Seconds:
        start = time.perf_counter()
        trace(*alone)
        return Seconds(time.perf_counter() - start, 0.0, 0.0)

    room = [temporary(x.lower().compile()) for x in traced]
    columns = zip(*rounds([lambda: seconds(*ours), lambda: seconds(*theirs), tracing], budget), strict=True)
    of_ours, of_theirs, of_function = (list(column) for column in columns)
    return FirstCall(program.name, of_ours, of_theirs, [x.tracing for x in of_function],
                     (equations(traced[0].jaxpr.jaxpr), equations(traced[1].jaxpr.jaxpr)), (room[0], room[1]))
