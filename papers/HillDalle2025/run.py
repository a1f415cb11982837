"""What it costs to detect, to colour and to evaluate a sparse derivative, and after how many uses that pays."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from benchmarks import timing
from dualrev.problems import brusselator, stationarity
from dualrev.sparse.colouring.positions import Positions
from dualrev.sparse.colouring.search import hessian_colouring, jacobian_colouring
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="HillDalle2025", title="Sparser, better, faster, stronger: sparsity detection for efficient automatic differentiation",
    claim="sparse differentiation is up to three orders of magnitude faster than dense, and often faster for a single use",
    where="Hill & Dalle 2025, abstract",
    differs="compiled JAX functions instead of Julia's, so that a single use includes tracing and compilation, of the dense one too")

Function = Callable[[jax.Array], jax.Array]


def brusselator_rate(n: int) -> tuple[Function, jax.Array, bool]:
    """Two substances on a periodic grid: the Jacobian of the right-hand side."""
    points = math.isqrt(n // 2)

    def rate(y: jax.Array) -> jax.Array:
        found = brusselator.rate({"u": y[0], "v": y[1]})
        return jnp.stack([found["u"], found["v"]])

    return rate, jnp.linspace(0.5, 2.0, 2 * points**2).reshape(2, points, points), False


def area(n: int) -> tuple[Function, jax.Array, bool]:
    """The area of a surface over a grid: a Hessian."""
    points = math.isqrt(n)
    return stationarity.area, jnp.sin(jnp.arange(points**2, dtype=float)).reshape(points, points), True


def rosenbrock(n: int) -> tuple[Function, jax.Array, bool]:
    """A chain: a tridiagonal Hessian."""
    return stationarity.rosenbrock, jnp.linspace(0.5, 1.5, n), True


PROBLEMS = {"Brusselator": brusselator_rate, "minimal surface": area, "Rosenbrock": rosenbrock}


@dataclass(frozen=True)
class Found:
    """Numbers of one problem at one size; seconds of the processor; ``gain`` is the ratio of two times in one round."""

    n: int
    colours: int
    detect: float
    colour: float
    #: The first call, with all that it prepares: sparse and dense.
    first: tuple[float, float]
    evaluate: tuple[float, float]
    gain: float

    @property
    def pays_after(self) -> int:
        """The number of calls from which on sparse ones have taken less time altogether."""
        saved = self.evaluate[1] - self.evaluate[0]
        return 1 + max(0, math.ceil((self.first[0] - self.first[1]) / saved)) if saved > 0 else 10**9


def taken(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a run gives, and how long the processor took."""
    start = time.process_time()
    result = jax.block_until_ready(run())
    return result, time.process_time() - start


def measure(problem: Callable[[int], tuple[Function, jax.Array, bool]], size: int, budget: float) -> Found:
    f, x, is_hessian = problem(size)
    dense, sparse = (jax.hessian, dr.sparse.hessian) if is_hessian else (jax.jacfwd, dr.sparse.jacobian)
    detect = dr.sparse.hessian_pattern if is_hessian else dr.sparse.jacobian_pattern
    jax.clear_caches()
    pattern, detecting = taken(lambda: detect(f)(x))
    n, indices = x.size, np.asarray(pattern.indices).T
    flat = [np.ravel_multi_index(tuple(part), x.shape) for part in np.split(indices, [x.ndim])]
    positions = Positions.of_coordinates((n, n), flat[0], flat[1])
    _, colouring = taken(lambda: (hessian_colouring if is_hessian else jacobian_colouring)(positions))
    jax.clear_caches()
    ours = sparse(lambda x: f(x))
    matrix, first = taken(lambda: ours(x))
    jax.clear_caches()
    theirs = jax.jit(dense(lambda x: f(x)))
    full, first_dense = taken(lambda: theirs(x))
    if not np.allclose(np.asarray(full).reshape(n, n)[flat[0], flat[1]], np.asarray(matrix.data), rtol=1e-6, atol=1e-6):
        raise AssertionError(f"the sparse and the dense derivative do not agree at n = {n}")
    if not np.isclose(np.abs(full).sum(), np.abs(matrix.data).sum(), rtol=1e-9):
        raise AssertionError(f"the pattern misses entries at n = {n}")
    del full
    program = jax.jit(ours).lower(x).compile()
    rounds = timing.interleaved([lambda: program(x).data, lambda: theirs(x)], budget, time.process_time)
    each = tuple(statistics.median(column) for column in zip(*rounds, strict=True))
    plan = dr.sparse.plan(f, x, derivative="hessian" if is_hessian else "jacobian")
    return Found(n, plan.forward_colours + plan.reverse_colours, detecting, colouring, (first, first_dense), (each[0], each[1]),
                 statistics.median(b / a for a, b in rounds))


def run(quick: bool, progress: Progress) -> Outcome:
    sizes = [200] if quick else [200, 600, 1800, 5000]
    budget = 0.3 if quick else 3.0
    found = {name: [measure(problem, n, budget) for n in sizes] for name, problem in progress(PROBLEMS.items(), "problems")}
    last = {name: each[-1] for name, each in found.items()}

    def draw(figure: Any) -> None:
        left, middle, right = figure.subplots(1, 3)
        for k, (name, each) in enumerate(found.items()):
            n = [one.n for one in each]
            left.plot(n, [one.gain for one in each], marker="o", label=name)
            middle.plot(n, [one.first[1] / one.first[0] for one in each], marker="o", label=name)
            low = 0.0
            one = each[-1]
            rest = one.first[0] - one.detect - one.colour
            for label, seconds, colour in (("detect", one.detect, "C4"), ("colour", one.colour, "C5"), ("compile, run", rest, "C7")):
                right.bar(k, seconds, bottom=low, color=colour, label=label if k == 0 else None)
                low += seconds
        for axes in (left, middle):
            axes.set(xscale="log", yscale="log", xlabel="n")
            axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
            axes.minorticks_off()
        left.set(ylabel="dense over sparse: each use")
        left.legend()
        middle.axhline(1, color="black", linewidth=0.8, linestyle="--")
        middle.set(ylabel="dense over sparse: a single use")
        middle.set_yticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
        right.set_xticks(range(len(found)), list(found), rotation=20, ha="right")
        right.set(ylabel=f"s of the first sparse one, n ≈ {sizes[-1]:,}")
        right.set_ylim(0, 1.5 * right.get_ylim()[1])
        right.legend()

    rows = [Row(f"{name}, n = {one.n:,}: passes", None, one.colours, one.colours < 30) for name, one in last.items()]
    best = max(one.gain for one in last.values())
    rows.append(Row(f"time of dense over sparse, the best, n ≈ {sizes[-1]:,}", "up to 1,000s" if not quick else None, best,
                    best > (3 if quick else 1000), 0.9))
    rows += [Row(f"{name}, n = {one.n:,}: time of dense over sparse", None, one.gain, one.gain > 1, 0.9) for name, one in last.items()]
    rows += [Row(f"{name}, n = {one.n:,}: time of dense over sparse, single use", "often > 1", one.first[1] / one.first[0],
                 one.first[1] > one.first[0], 0.9) for name, one in last.items()]
    rows += [Row(f"{name}, n = {one.n:,}: uses after which sparse takes less time", "often 1", one.pays_after,
                 one.pays_after <= 100, 5.0) for name, one in last.items()]
    wins = sum(one.first[1] > one.first[0] for one in last.values())
    least = min(one.gain for one in last.values())
    return Outcome(tuple(rows), f"At n ≈ {sizes[-1]:,} a sparse derivative is {least:,.0f} to {best:,.0f} times"
                   f" faster than the dense one, and for {wins} of {len(last)} problems already the first time, preparation "
                   "and compilation included.", draw)
