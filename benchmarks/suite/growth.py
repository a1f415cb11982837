"""How costs grow: of the un-jitted path with the number of operations, of a gradient with the number of inputs."""

from __future__ import annotations

import statistics

from benchmarks.counts import python_calls
from benchmarks.libraries import LIBRARIES, UNJITTED, checked, reference
from benchmarks.programs import OPERATIONS, SIZES, growing
from benchmarks.scenarios import science
from benchmarks.suite.common import Expected, Warm, expected
from benchmarks.timing import interleaved


class Overhead(Warm):
    """The gradient of a chain of operations on a number, where what is computed takes no time."""

    params = (list(OPERATIONS), list(UNJITTED))
    param_names = ("operations", "library")

    def setup_cache(self) -> Expected:
        return expected("gradient", map(science.sines, OPERATIONS))

    def setup(self, found: Expected, operations: int, library: str) -> None:
        program = science.sines(operations)
        # The imperative face compiles what comes again and again.
        self.ready((operations, library), lambda: checked(library, program, "gradient", found[program.name], warm=60, at_most=30.0))

    def time_gradient(self, *_: object) -> None:
        self.run()

    def track_python_calls_per_operation(self, _: Expected, operations: int, __: str) -> float:
        return python_calls(self.run) / operations


class Growth:
    """The time of the gradient over that of the function, for n inputs in powers of two: it must stay flat."""

    params = (list(SIZES), list(LIBRARIES))
    param_names = ("n", "library")
    unit = "times the function"
    timeout = 120

    def track_gradient_over_function(self, n: int, library: str) -> float:
        program = growing(n)
        runs = [checked(library, program, call, reference(program, call)) for call in ("gradient", "value")]
        return statistics.median(a / b for a, b in interleaved(runs, 1.0))
