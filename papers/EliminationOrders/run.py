"""Orders of elimination: does local search find what reinforcement learning found, and do fewer multiplications take less time?"""

from __future__ import annotations

import functools
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

import dualrev as dr
from benchmarks import timing
from dualrev.functional.eliminated import Order
from papers.LohoffNeftci2024.run import TASKS
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="EliminationOrders", title="Local search for elimination orders, and what counts of multiplications say about time",
    claim="simulated annealing finds orders with at most the multiplications that reinforcement learning found, in seconds on one "
          "core; counts of multiplications do not predict the time of compiled Jacobians, and a model of fused kernels does",
    where="a result of our own; learning's counts are those of Lohoff & Neftci 2024, and the numbers to reach were set beforehand",
    differs="no paper: the criteria stand in the paper's column")

CLASSICAL: tuple[Order, ...] = ("forward", "reverse", "markowitz")

#: Tasks of scalars, whose Jacobians by many orders are compiled and timed, for so many inputs at once.
TIMED, BATCH = ("RobotArm_6DOF", "RoeFlux_1d"), 4096


@dataclass(frozen=True)
class Timed:
    """Of each order: multiplications, seconds that the time model predicts, and seconds of the processor."""

    counts: list[int]
    predicted: list[float]
    seconds: list[float]

    def correlation(self, by: list[float] | list[int]) -> float:
        return float(spearmanr(by, self.seconds).statistic)



def searched(name: str, steps: int, seconds: float) -> tuple[int, int, float]:
    """Multiplications of the best classical order and of annealing, and the seconds that annealing took."""
    f, args, _, _ = TASKS[name]
    began = time.perf_counter()
    plan = dr.eliminate(f, *args, argnums=tuple(range(len(args))), order=dr.Search(seconds=seconds, steps=steps, seed=1))
    took = time.perf_counter() - began
    return min(plan.count(order) for order in CLASSICAL), plan.multiplications, took


def orders(name: str, many: int) -> list[tuple[int, ...]]:
    """The classical ones and the annealed one, each with up to half of its vertices moved to other places."""
    f, args, _, _ = TASKS[name]
    argnums, rng = tuple(range(len(args))), random.Random(0)
    starts = [dr.eliminate(f, *args, argnums=argnums, order=order).order for order in (*CLASSICAL, dr.Search(seconds=1e6, steps=2000))]
    found = list(starts)
    while len(found) < many:
        order = list(starts[len(found) % len(starts)])
        for _ in range(rng.randint(1, len(order) // 2)):
            order.insert(rng.randrange(len(order)), order.pop(rng.randrange(len(order))))
        found.append(tuple(order))
    return found[:many]


def timed(name: str, many: int, budget: float) -> Timed:
    """Jacobians of many inputs at once by each order, checked against jax's."""
    f, args, _, _ = TASKS[name]
    argnums = tuple(range(len(args)))
    rng = np.random.default_rng(0)
    xs = [jnp.asarray(x * rng.uniform(0.95, 1.05, BATCH), "float32") for x in args]
    expected = jax.tree.leaves(jax.jit(jax.vmap(jax.jacrev(f, argnums)))(*xs))
    one = [x[0] for x in xs]
    counts, predicted, programs = [], [], []
    for order in orders(name, many):
        counts.append(dr.eliminate(f, *one, argnums=argnums, order=order).multiplications)
        jacobian = jax.vmap(dr.jacobian(f, argnums, engine="elimination", order=order))
        predicted.append(dr.time_model.predict(jacobian, *xs).seconds)
        programs.append(jax.jit(jacobian).lower(*xs).compile())
        for a, b in zip(jax.tree.leaves(programs[-1](*xs)), expected, strict=True):
            if not np.allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()):
                raise AssertionError(f"a Jacobian of {name} by elimination is not that of jax")
    rounds = timing.interleaved([functools.partial(p, *xs) for p in programs], budget, time.process_time)
    return Timed(counts, predicted, [statistics.median(column) for column in zip(*rounds, strict=True)])


def run(quick: bool, progress: Progress) -> Outcome:
    names = ["PropaneCombustion", "HumanHeartDipole"] if quick else list(TASKS)
    chosen, many = (TIMED[:1], 6) if quick else (TIMED, 50)
    found = {name: searched(name, 4000 if quick else 20_000, 300.0) for name in progress(names, "searches")}
    measured = {name: timed(name, many, 0.5 if quick else 10.0) for name in progress(chosen, "orders")}
    by_count = {name: of.correlation(of.counts) for name, of in measured.items()}
    by_model = {name: of.correlation(of.predicted) for name, of in measured.items()}
    compared = [name for name in names if TASKS[name][2][0]]  # those with classical counts of the literature
    wins = sum(found[name][1] <= TASKS[name][3] for name in compared)
    gains = {name: (found[name][1] / found[name][0], TASKS[name][3] / min(TASKS[name][2])) for name in compared}
    as_good = sum(ours <= theirs + 0.005 for ours, theirs in gains.values())
    slowest = max(took for *_, took in found.values())

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, of in measured.items():
            left.plot(of.counts, [1e6 * s for s in of.seconds], "o", markersize=3, label=f"{name}: {by_count[name]:.2f}")
            right.plot([1e6 * s for s in of.predicted], [1e6 * s for s in of.seconds], "o", markersize=3,
                       label=f"{name}: {by_model[name]:.2f}")
        left.set(xscale="log", yscale="log", xlabel="multiplications", ylabel=f"µs of {BATCH:,} Jacobians")
        right.set(xscale="log", yscale="log", xlabel="µs predicted by the time model")
        for axes in (left, right):
            axes.legend(fontsize=7, title="rank correlation", title_fontsize=7)

    goal = 1 if quick else 5
    rows = [Row(f"{name}: multiplications by annealing", f"learning: {TASKS[name][3]}", found[name][1],
                found[name][1] <= TASKS[name][3]) for name in names]
    rows += [Row(f"tasks with at most learning's count, of {len(compared)}", f"goal: {goal}", wins, wins >= goal),
             Row("tasks whose gain over the best classical order of the same program is at least learning's", f"goal: {goal}", as_good,
                 as_good >= goal),
             Row("time of the longest search, s", "goal: 300", slowest, slowest < 300, 5.0)]
    rows += [Row(f"{name}: rank correlation of count and time, {many} orders", "goal: below .5", by_count[name],
                 by_count[name] < 0.5, 0.9) for name in measured]
    rows += [Row(f"{name}: rank correlation of predicted and measured time", "goal: above .8", by_model[name],
                 by_model[name] > 0.8, 0.9) for name in measured]
    rows += [Row(f"{name}: time of the slowest order over the fastest, counts {max(of.counts) / min(of.counts):.1f} apart", None,
                 max(of.seconds) / min(of.seconds), True, 0.9) for name, of in measured.items()]

    def spread(values: dict[str, float]) -> str:
        return f"{min(values.values()):.2f} to {max(values.values()):.2f}"

    return Outcome(tuple(rows), f"Annealing finds at most learning's count for {wins} of {len(compared)} tasks in at most "
                   f"{slowest:.0f} s, but our programs take fewer by the classical orders too: measured by the gain over these, it is "
                   f"as good for {as_good}. Counts and times of {many} orders have rank correlations of {spread(by_count)}, "
                   f"predictions of the time model {spread(by_model)}.", draw)
