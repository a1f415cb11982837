"""Elimination orders: multiplications by the classical orders, by simulated annealing, and those that reinforcement learning found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dualrev as dr
from dualrev.problems import straight_line
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="LohoffNeftci2024", title="Optimizing automatic differentiation with deep reinforcement learning",
    claim="an order of eliminations with fewer multiplications than the best classical one exists, and reinforcement learning finds it",
    where="Lohoff & Neftci 2024, table 1 and the notebooks of their repository",
    differs="the orders are found by simulated annealing on one core, and the programs are our own statements of the tasks' formulas")

RNG = np.random.default_rng(0)
X = RNG.normal(size=4)
#: The function, arguments, and the multiplications: forward, reverse, Markowitz (as we recall them), and the best that learning found.
TASKS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[int, int, int], int]] = {
    "RoeFlux_1d": (straight_line.roe_flux_1d, (1.0, 0.3, 2.5, 0.8, -0.2, 2.0), (620, 364, 407), 320),
    "RobotArm_6DOF": (straight_line.robot_arm, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (397, 301, 288), 231),
    "HumanHeartDipole": (straight_line.human_heart_dipole, tuple(RNG.normal(size=8)), (240, 172, 194), 148),
    "PropaneCombustion": (straight_line.propane_combustion, tuple(RNG.uniform(0.5, 1, 11)), (151, 90, 111), 88),
    "BlackScholes_Jacobian": (straight_line.black_scholes_greeks, (1.0, 1.1, 0.1, 0.2, 0.5), (545, 572, 350), 312),
    "RoeFlux_3d": (straight_line.roe_flux_3d, (1.0, 0.3, 0.1, 0.2, 2.5, 0.8, -0.2, 0.3, 0.1, 2.0), (1556, 979, 938), 811),
    "MLP": (straight_line.perceptron,
            (X, X, RNG.normal(size=(8, 4)), RNG.normal(size=8), RNG.normal(size=(4, 8)), X, 1.0, 0.1), (0, 0, 0), 389),
}
ORDERS = ("forward", "reverse", "markowitz")


def run(quick: bool, progress: Progress) -> Outcome:
    names = ["HumanHeartDipole", "PropaneCombustion"] if quick else list(TASKS)
    found: dict[str, tuple[list[int], int]] = {}
    for name in progress(names, "tasks"):
        f, args, _, _ = TASKS[name]
        search = dr.Search(seconds=1e6, steps=2000 if quick else 20_000, seed=1)
        plan = dr.eliminate(f, *args, argnums=tuple(range(len(args))), order=search)
        found[name] = [plan.count(order) for order in ORDERS], plan.multiplications

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for k, label in enumerate((*ORDERS, "annealing")):
            counts = [(*found[n][0], found[n][1])[k] / TASKS[n][3] for n in names]
            axes.bar(np.arange(len(names)) + 0.2 * k - 0.3, counts, 0.18, label=label)
        axes.axhline(1, color="black", linewidth=0.8, linestyle="--", label="learning")
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axes.set(ylabel="multiplications over learning's")
        axes.legend(ncols=2)

    rows = []
    for name in names:
        classical, ours = found[name]
        rows.append(Row(f"{name}: annealing, against learning", TASKS[name][3], ours, ours <= TASKS[name][3]))
        if TASKS[name][2][0]:
            best, printed = min(classical), min(TASKS[name][2])
            rows.append(Row(f"{name}: the best classical order", printed, best, ours < best))
    wins = sum(found[n][1] <= TASKS[n][3] for n in names)
    return Outcome(tuple(rows), f"Annealing finds an order with at most learning's multiplications for {wins} of {len(names)} tasks; "
                   "as our statements of the formulas take fewer by the classical orders too, the counts compare with care.", draw)
