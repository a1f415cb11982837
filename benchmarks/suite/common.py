"""What the measurements share: results that libraries have to agree with, and a library as a parameter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.libraries import LIBRARIES, checked, reference, use_double
from benchmarks.timing import Run
from dualrev.problems.scenario import Scenario

# Processors only: what is compared runs there in every library.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
use_double()

Expected = dict[str, list[np.ndarray]]


def named(programs: Iterable[Scenario]) -> dict[str, Scenario]:
    return {program.name: program for program in programs}


def expected(call: str, programs: Iterable[Scenario]) -> Expected:
    """What jax finds, once for all processes; a program that is differentiated inside has no value."""
    found = {}
    for program in programs:
        try:
            found[program.name] = reference(program, call)
        except NotImplementedError:
            continue
    return found


class Warm:
    """What is made ready once in a process: asv sets up before every sample, and would compile again each time.

    One round, since a process of its own for each measurement takes longer to begin than most of them to run.
    """

    number, rounds, repeat = 1, 1, (5, 200, 2.0)
    run: Run
    _is_ready_for: object = None

    def ready(self, key: object, make: Callable[[], Run]) -> None:
        if self._is_ready_for != key:
            self.run, self._is_ready_for = make(), key


class Derivative(Warm):
    """A call of each program by each library, which in set-up is checked against jax's result, and warm."""

    call = "gradient"
    programs: Mapping[str, Scenario] = MappingProxyType({})
    param_names = ("program", "library")

    def setup(self, found: Expected, program: str, library: str) -> None:
        if program not in found:
            raise NotImplementedError(f"{program} has no {self.call}")
        self.ready((program, library), lambda: checked(library, self.programs[program], self.call, found[program]))


def grid(programs: Mapping[str, Scenario], libraries: Iterable[str] = LIBRARIES) -> list[Any]:
    return [list(programs), list(libraries)]
