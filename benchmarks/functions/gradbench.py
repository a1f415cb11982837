"""GradBench's problems as programs: written in jax, at the sizes of its comparisons, and differentiated as its rules ask.

Of ``ba`` that is a sparse Jacobian, of ``ht`` one of few columns, of ``kmeans`` a gradient over a diagonal Hessian; ``particle`` and
``saddle`` are minimized by derivatives in themselves, here in reverse mode twice.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.functions import Program
from benchmarks.gradbench import descent, sums
from benchmarks.gradbench.problem import Problem
from benchmarks.gradbench.workloads import WORKLOADS


def program(name: str, problem: Problem, function: str | None, derivative: str, draw: Callable[[], tuple[Any, ...]],
            otherwise: str | None = None) -> Program:
    @functools.cache
    def fixed() -> dict[int, Any]:
        return {i: x for i, x in enumerate(draw()) if i in problem.static} if problem.static else {}

    def filled(call: Callable[..., Any]) -> Callable[..., Any]:
        """The call of arrays, with the numbers that shape the program put where they belong."""

        def on_arrays(*arrays: Any) -> Any:
            rest, numbers = iter(arrays), fixed()
            return call(*[numbers[i] if i in numbers else next(rest) for i in range(len(arrays) + len(numbers))])

        return on_arrays

    def unavailable(*_: Any) -> Any:
        raise NotImplementedError(f"{name} is differentiated inside")

    return Program(name, unavailable if function is None else filled(problem.functions[function](None)),
                   lambda: tuple([x for i, x in enumerate(draw()) if i not in problem.static]),
                   derivative=lambda ad: filled(problem.functions[derivative](ad)),
                   otherwise=None if otherwise is None else lambda: problem.compiled(otherwise, jax)(*draw()))


def problems(*workloads: str) -> tuple[Program, ...]:
    """All twelve, of those with several sizes the named ones."""
    found = [program(w.name, w.problem, w.function, w.derivative, w.arguments) for w in WORKLOADS if w.name in workloads]
    return (
        program("hello", sums.HELLO, "square", "double", lambda: (np.asarray(3.0),)),
        *found,
        program("particle rr", descent.PARTICLE, None, "rr", lambda: (np.asarray(0.5),), "ff"),
        program("saddle rr", descent.SADDLE, None, "rr", lambda: (np.ones(2),), "ff"),
    )


def hand_distances() -> Program:
    """Where a small hand's points are off, by its 26 angles alone: no derivative of GradBench's, but the function itself."""
    return dataclasses.replace(problems("ht small hand")[1], name="hand's distances, 26 angles", derivative=None)
