"""Inputs of the sizes that GradBench's problems are compared at: drawn, so that no data has to be shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gradbench import ba, det, gmm, ht, kmeans, lstm, ode, sums
from benchmarks.gradbench.problem import Problem

Draw = np.random.Generator


@dataclass(frozen=True)
class Workload:
    """A problem at a point: the names of a function and of its derivative, and their arguments."""

    name: str
    problem: Problem
    function: str
    derivative: str
    draw: Callable[[Draw], tuple[Any, ...]]
    #: Milliseconds of the function and of its derivative, hand-written in C++, on one core of one machine.
    by_hand: tuple[float, float | None]

    def arguments(self) -> tuple[Any, ...]:
        return self.draw(np.random.default_rng(0))


def mixture(d: int, k: int, n: int = 1000) -> Callable[[Draw], tuple[Any, ...]]:
    def draw(rng: Draw) -> tuple[Any, ...]:
        shapes = {"alpha": (k,), "mu": (k, d), "q": (k, d), "l": (k, d * (d - 1) // 2)}
        return {name: rng.normal(size=shape) for name, shape in shapes.items()}, rng.normal(size=(n, d)), 1.0, 0

    return draw


def bundle(n: int, m: int, p: int) -> Callable[[Draw], tuple[Any, ...]]:
    def draw(rng: Draw) -> tuple[Any, ...]:
        cameras = np.concatenate([rng.normal(size=(3, n)), rng.normal(size=(2, n)), np.full((1, n), -20.0), rng.uniform(size=(5, n))])
        seen = np.stack([np.arange(p) % n, np.arange(p) % m]).astype(np.int32)
        return cameras, rng.normal(size=(3, m)), rng.uniform(size=p), rng.normal(size=(2, p)), seen

    return draw


def hand(vertices: int, points: int) -> Callable[[Draw], tuple[Any, ...]]:
    parents = tuple([-1] + [0 if i % 4 == 1 else i - 1 for i in range(1, ht.BONES - 1)] + [0])

    def draw(rng: Draw) -> tuple[Any, ...]:
        def bones() -> np.ndarray:
            upper = np.eye(3) + 0.1 * rng.normal(size=(ht.BONES, 3, 3)), rng.normal(size=(ht.BONES, 3, 1))
            return np.concatenate([np.concatenate(upper, axis=2), np.tile([[[0.0, 0.0, 0.0, 1.0]]], (ht.BONES, 1, 1))], axis=1)

        positions = np.concatenate([rng.normal(size=(vertices, 3)), np.ones((vertices, 1))], axis=1)
        model = ht.Hand(bones(), bones(), positions, rng.dirichlet(np.ones(ht.BONES), vertices),
                        rng.integers(0, vertices, (2 * vertices, 3)).astype(np.int32), np.asarray(1.0))
        return (0.3 * rng.normal(size=ht.ANGLES), np.zeros((0, 2)), rng.normal(size=(points, 3)),
                rng.integers(0, vertices, points).astype(np.int32), model, parents)

    return draw


def sequence(layers: int, characters: int) -> Callable[[Draw], tuple[Any, ...]]:
    b = lstm.UNITS
    return lambda rng: (rng.normal(size=(2 * layers, 4 * b)), rng.normal(size=(3, b)), rng.normal(size=(2 * layers, b)),
                        rng.uniform(size=(characters, b)))


WORKLOADS = (
    *(Workload(f"gmm d{d} k{k}", gmm.PROBLEM, "objective", "jacobian", mixture(d, k), by_hand)
      for d, k, by_hand in ((2, 5, (0.076, 0.116)), (10, 25, (1.44, 2.62)), (32, 25, (4.7, 12.2)))),
    Workload("lse 10k", sums.LSE, "primal", "gradient", lambda rng: (rng.normal(size=10_000),), (0.056, 0.038)),
    Workload("llsq n1024", sums.LLSQ, "primal", "gradient", lambda rng: (rng.normal(size=128), 1024), (0.11, 0.22)),
    Workload("ode n1000 s100", ode.PROBLEM, "primal", "gradient", lambda rng: (rng.uniform(size=1000), 100), (0.083, None)),
    Workload("kmeans k100 n10k d8", kmeans.PROBLEM, "cost", "dir",
             lambda rng: (rng.uniform(size=(100, 8)), rng.uniform(size=(10_000, 8))), (1.9, 2.3)),
    Workload("lstm l2 c1024", lstm.PROBLEM, "objective", "jacobian", sequence(2, 1024), (1.28, 8.0)),
    Workload("lstm l4 c1024", lstm.PROBLEM, "objective", "jacobian", sequence(4, 1024), (2.5, 26.7)),
    Workload("ba p31843", ba.PROBLEM, "objective", "jacobian", bundle(49, 7776, 31843), (0.73, 4.29)),
    Workload("ht big hand", ht.PROBLEM, "objective", "jacobian", hand(10_000, 100), (1.74, 8.1)),
    Workload("ht small hand", ht.PROBLEM, "objective", "jacobian", hand(544, 100), (0.079, 0.38)),
    Workload("det 8", det.PROBLEM, "primal", "gradient", lambda rng: (rng.normal(size=64), 8), (0.24, 1.98)),
)
