"""What comes before the first result: time to trace, lower and compile a gradient, its equations, and what a tape keeps."""

from __future__ import annotations

from typing import Any

import jax

import dualrev
from benchmarks.counts import equations, tape_bytes
from benchmarks.libraries import COMPILING
from benchmarks.programs import PROGRAMS
from benchmarks.suite.common import grid, named


class Stages:
    """A new function each time, so that no library finds a whole trace in a cache."""

    params = grid(named(PROGRAMS), COMPILING)
    param_names = ("program", "library")
    number, repeat, rounds, warmup_time = 1, (3, 10, 10.0), 1, 0.0

    def setup(self, program: str, library: str) -> None:
        adapter, found = COMPILING[library], named(PROGRAMS)[program]
        self.arguments: Any = adapter.call_arguments(found, "gradient")
        self.gradient = adapter.function(found, "gradient")
        # What tracing any gradient for the first time sets up is not this program's.
        self.traced = self.trace()
        self.lowered = self.traced.lower()

    def trace(self) -> Any:
        return jax.jit(lambda *arguments: self.gradient(*arguments)).trace(*self.arguments)

    def time_trace(self, *_: object) -> None:
        self.trace()

    def time_lower(self, *_: object) -> None:
        self.traced.lower()

    def time_compile(self, *_: object) -> None:
        self.lowered.compile()

    def time_first_call(self, *_: object) -> None:
        jax.block_until_ready(jax.jit(lambda *arguments: self.gradient(*arguments))(*self.arguments))

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
