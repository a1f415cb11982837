"""Memory that grows with the root of the number of layers, for one more evaluation."""

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
    key="ChenEtAl2016", title="Training deep nets with sublinear memory cost",
    claim="a chain of n layers is differentiated in memory that grows with the square root of n, for about 30 % more time",
    where="Chen et al. 2016, abstract and section 4; with a budget, Kirisame et al. 2021",
    differs="a loop of equal layers on a CPU; the memory is that of the compiled program, and the budget is given in bytes")

WIDTH, BATCH = 64, 64


def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
    """A chain of layers with a residual connection."""
    return jnp.sum(jax.lax.scan(lambda h, w: (h + jnp.tanh(h @ w), None), x, weights)[0] ** 2)


def compiled(n: int, **options: Any) -> Any:
    """The compiled gradient of ``n`` layers by their input, whose weights are not differentiated."""
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(n, WIDTH, WIDTH)) / WIDTH)
    x = jnp.asarray(rng.normal(size=(BATCH, WIDTH)))
    program = jax.jit(lambda x, weights: dr.grad(lambda x: loss(weights, x), **options)(x)).lower(x, weights).compile()
    return lambda: program(x, weights), timing.temporary(program)


def run(quick: bool, progress: Progress) -> Outcome:
    sizes = [64, 256] if quick else [64, 128, 256, 512, 1024]
    ways: dict[str, dict[str, Any]] = {"all kept": {}, "root of n": {"schedule": "sqrt"}}
    memory: dict[str, list[int]] = {name: [] for name in ways}
    for n, name in progress([(n, name) for n in sizes for name in ways], "lengths"):
        memory[name].append(compiled(n, **ways[name])[1])
    slopes = {name: float(np.polyfit(np.log(sizes), np.log(m), 1)[0]) for name, m in memory.items()}
    n = sizes[-1]
    shares = [0.5, 0.1] if quick else [0.8, 0.5, 0.2, 0.1, 0.05]
    most = memory["all kept"][-1]
    runs = [compiled(n), compiled(n, schedule="sqrt"), *(compiled(n, schedule=dr.Bytes(int(s * most))) for s in shares)]
    rounds = timing.interleaved([r for r, _ in progress(runs, "budgets")], 1.0 if quick else 10.0)
    ratios = [statistics.median(row[i] / row[0] for row in rounds) for i in range(len(runs))]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, m in memory.items():
            left.plot(sizes, [b / 1e6 for b in m], marker="o", label=f"{name}: exponent {slopes[name]:.2f}")
        left.set(xscale="log", yscale="log", xlabel="layers", ylabel="MB of the compiled gradient")
        left.legend()
        right.plot([100 * b / runs[0][1] for _, b in runs], ratios, "o")
        right.set(xscale="log", xlabel="memory, % of all kept", ylabel="time over all kept")

    rows = (Row("exponent of memory, all kept", 1, round(slopes["all kept"], 2), slopes["all kept"] > 0.85, 0.05),
            Row("exponent of memory, root of n", 0.5, round(slopes["root of n"], 2), abs(slopes["root of n"] - 0.5) < 0.12, 0.05),
            Row(f"time over all kept, root of n, {n:,} layers", 1.3, ratios[1], ratios[1] < 1.45, 0.3),
            Row(f"time over all kept, half the memory, {n:,} layers", None, ratios[2 + shares.index(0.5)], True, 0.3),
            Row(f"time over all kept, a tenth of the memory, {n:,} layers", None, ratios[2 + shares.index(0.1)], True, 0.3))
    return Outcome(rows, f"Memory grows with exponent {slopes['root of n']:.2f} instead of {slopes['all kept']:.2f}, for "
                         f"{ratios[1]:.2f} times the time.", draw)
