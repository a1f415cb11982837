"""What comes before the first result: time to trace, lower and compile a gradient, its equations, and what a tape keeps."""

from __future__ import annotations

import functools
from typing import Any

import dualrev
from benchmarks import stages
from benchmarks.counts import equations, tape_bytes
from benchmarks.libraries import COMPILING
from benchmarks.programs import PROGRAMS
from benchmarks.suite.common import grid, named


@functools.cache
def gradient(program: str, library: str) -> tuple[Any, Any]:
    """The gradient and its arguments, after a first one: what that sets up is not this program's."""
    adapter, found = COMPILING[library], named(PROGRAMS)[program]
    parts = adapter.function(found, "gradient"), adapter.call_arguments(found, "gradient")
    stages.seconds(*parts)
    return parts


class Stages:
    """Each of a new function, which is in no cache: asv sets up before every sample what comes before the stage."""

    params = grid(named(PROGRAMS), COMPILING)
    param_names = ("program", "library")
    number, repeat, rounds, warmup_time = 1, (3, 10, 10.0), 1, 0.0

    def setup(self, program: str, library: str) -> None:
        self.gradient = gradient(program, library)
        self.traced = stages.trace(*self.gradient)
        self.lowered = stages.trace(*self.gradient).lower()

    def time_trace(self, *_: object) -> None:
        stages.trace(*self.gradient)

    def time_lower(self, *_: object) -> None:
        self.traced.lower()

    def time_compile(self, *_: object) -> None:
        self.lowered.compile()

    def time_first_call(self, *_: object) -> None:
        stages.seconds(*self.gradient)

    def track_equations(self, *_: object) -> int:
        return equations(self.traced.jaxpr.jaxpr)


class Tape:
    """Bytes that reverse mode stores: of dualrev, as it is and with the automatic policy."""

    params = (list(named(PROGRAMS)), ["everything", "auto"])
    param_names = ("program", "policy")
    unit = "bytes"

    def track_tape_bytes(self, program: str, policy: str) -> int:
        return tape_bytes(named(PROGRAMS)[program], (lambda f: f) if policy == "everything" else
                          (lambda f: dualrev.checkpoint(f, policy="auto")))
