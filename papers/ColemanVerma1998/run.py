"""A dense row and a dense column: one-sided colouring needs n passes, two-sided three."""

from __future__ import annotations

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from benchmarks import timing
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="ColemanVerma1998", title="The efficient computation of sparse Jacobian matrices using automatic differentiation",
    claim="pushes and pulls together find a matrix with a dense row and a dense column in 3 passes, either alone in n",
    where="Coleman & Verma 1998, section 1; times of the same matrix with n = 100 by DifferentiationInterface.jl, pull request 684",
    differs="colours are found by our own heuristics, and the time is that of a jitted function in float64")


def arrow(x: jax.Array) -> jax.Array:
    """A dense first row, a dense first column, and a diagonal."""
    return (x * x + x * x[0]).at[0].set(jnp.sum(x * x))


def run(quick: bool, progress: Progress) -> Outcome:
    sizes = [100, 300] if quick else [100, 300, 1000, 3000]
    colours: dict[str, list[int]] = {"pushes": [], "pulls": [], "both": []}
    times: dict[str, list[float]] = {name: [] for name in colours}
    engines = {"pushes": "forward", "pulls": "reverse", "both": "auto"}
    for n in progress(sizes, "sizes"):
        x = jnp.linspace(1.0, 2.0, n)
        runs, results = [], []
        for name, engine in engines.items():
            plan = dr.sparse.plan(arrow, x, engine=engine)
            colours[name].append(plan.forward_colours + plan.reverse_colours)
            compiled = jax.jit(dr.jacobian(arrow, sparse=plan)).lower(x).compile()
            results.append(np.asarray(compiled(x).todense()))
            runs.append(lambda compiled=compiled, x=x: compiled(x).data)
        if not all(np.allclose(found, results[0]) for found in results):
            raise AssertionError(f"the three ways do not agree at n = {n}")
        rounds = timing.interleaved(runs, 0.5 if quick else 4.0)
        for name, column in zip(colours, zip(*rounds, strict=True), strict=True):
            times[name].append(statistics.median(column))
    three = colours["both"] == [3] * len(sizes)
    one_sided = colours["pushes"] == sizes and colours["pulls"] == sizes
    gain = [min(a, b) / c for a, b, c in zip(times["pushes"], times["pulls"], times["both"], strict=True)]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name in colours:
            left.plot(sizes, colours[name], marker="o", label=name)
            right.plot(sizes, [1e3 * t for t in times[name]], marker="o", label=name)
        left.set(xscale="log", yscale="log", xlabel="n", ylabel="passes")
        right.set(xscale="log", yscale="log", xlabel="n", ylabel="ms of one Jacobian")
        left.legend()

    rows = (Row("passes of pushes and pulls together", 3, max(colours["both"]), three),
            Row(f"passes of the better single mode, n = {sizes[-1]:,}", "n", min(colours["pushes"][-1], colours["pulls"][-1]),
                one_sided),
            Row("time of the better single mode over both together, n = 100", "76 (7.22 / .0955 ms)", gain[0], gain[0] > 1, 0.9),
            Row(f"time of the better single mode over both together, n = {sizes[-1]:,}", None, gain[-1], gain[-1] > gain[0], 0.9))
    return Outcome(rows, f"Three passes at every size; at n = {sizes[-1]:,} two-sided is {gain[-1]:,.0f} times faster than the better "
                         "single mode.", draw)
