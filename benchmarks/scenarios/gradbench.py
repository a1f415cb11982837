"""GradBench's problems as scenarios: written in jax, at the sizes of its comparisons, and differentiated as its rules ask.

Of ``ba`` that is a sparse Jacobian, of ``ht`` one of few columns, of ``kmeans`` a gradient over a diagonal Hessian; ``particle`` and
``saddle`` are minimized by derivatives in themselves, here in reverse mode twice.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from benchmarks.gradbench import descent, sums
from benchmarks.gradbench.problem import Problem
from benchmarks.gradbench.workloads import WORKLOADS
from dualrev.problems.scenario import Scenario


def scenario(name: str, problem: Problem, function: str | None, derivative: str, draw: Callable[[], tuple[Any, ...]],
             otherwise: str | None = None, tags: Iterable[str] = ("gradbench", "libraries")) -> Scenario:
    @functools.cache
    def fixed() -> dict[int, Any]:
        return {i: x for i, x in enumerate(draw()) if i in problem.static} if problem.static else {}

    def filled(call: Callable[..., Any]) -> Callable[..., Any]:
        """The call of arrays, with the numbers that shape the program put where they belong."""

        def on_arrays(*arrays: Any) -> Any:
            rest, numbers = iter(arrays), fixed()
            return call(*[numbers[i] if i in numbers else next(rest) for i in range(len(arrays) + len(numbers))])

        return on_arrays

    return Scenario(name, None if function is None else filled(problem.functions[function](None)),
                    lambda: tuple([x for i, x in enumerate(draw()) if i not in problem.static]), tags=tags,
                    derivative=lambda ad: filled(problem.functions[derivative](ad)),
                    otherwise=None if otherwise is None else lambda: problem.compiled(otherwise, jax)(*draw()))


#: Of the problems that have several sizes, those that are timed in every library.
CHOSEN = {"gmm d10 k25", "ba p31843", "ht small hand", "lstm l2 c1024", "kmeans k100 n10k d8", "lse 10k", "llsq n1024",
          "ode n1000 s100", "det 8"}
BY_NAME = {w.name: scenario(w.name, w.problem, w.function, w.derivative, w.arguments,
                            tags=("gradbench", "libraries") if w.name in CHOSEN else ("gradbench",)) for w in WORKLOADS}

SCENARIOS = [
    scenario("hello", sums.HELLO, "square", "double", lambda: (np.asarray(3.0),)),
    *BY_NAME.values(),
    scenario("particle rr", descent.PARTICLE, None, "rr", lambda: (np.asarray(0.5),), "ff"),
    scenario("saddle rr", descent.SADDLE, None, "rr", lambda: (np.ones(2),), "ff"),
    # Where a small hand's points are off, by its 26 angles alone: no derivative of GradBench's, but the function itself.
    dataclasses.replace(BY_NAME["ht small hand"], name="hand's distances, 26 angles", derivative=None, inputs=26, outputs=300,
                        tags=("jacobian",)),
]
