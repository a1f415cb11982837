"""An invariant inside a loop: does the gradient compute it once, or in every step?"""

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
    key="MosesChuravy2020", title="Instead of rewriting foreign code for machine learning, automatically synthesize fast gradients",
    claim="differentiation after optimization takes O(n) where differentiation before it takes O(n²): a norm inside a loop",
    where="Moses & Churavy 2020, figure 1",
    differs="jax's compiler optimizes after differentiation; what decides here is whether the rules for loops leave the invariant out")


def normalize(x: jax.Array) -> jax.Array:
    """Divides each entry by the norm, which every step computes again."""
    def step(i: jax.Array, out: jax.Array) -> jax.Array:
        return out.at[i].set(x[i] / jnp.sqrt(jnp.sum(x * x)))

    return jnp.sum(jax.lax.fori_loop(0, x.shape[0], step, jnp.zeros_like(x)) ** 3)


def exponent(sizes: list[int], times: list[float]) -> float:
    """The slope of the last sizes in a doubly logarithmic picture."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(times[-3:]), 1)[0])


def run(quick: bool, progress: Progress) -> Outcome:
    sizes = [256, 1024, 4096] if quick else [256, 1024, 4096, 8192, 16384]
    times: dict[str, list[float]] = {"function": [], "dualrev": [], "jax": []}
    for n in progress(sizes, "sizes"):
        x = jnp.linspace(1.0, 2.0, n)
        compiled = [jax.jit(f).lower(x).compile() for f in (normalize, dr.grad(normalize), jax.grad(normalize))]
        timing.checked(compiled[1](x), compiled[2](x), 1e-9)
        rounds = timing.interleaved([lambda c=c, x=x: c(x) for c in compiled], 0.5 if quick else 3.0)
        for name, column in zip(times, zip(*rounds, strict=True), strict=True):
            times[name].append(statistics.median(column))
    found = {name: exponent(sizes, t) for name, t in times.items()}

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, t in times.items():
            axes.plot(sizes, [1e6 * s for s in t], marker="o", label=f"{name}: exponent {found[name]:.2f}")
        axes.set(xscale="log", yscale="log", xlabel="n", ylabel="microseconds")
        axes.legend()

    over = times["dualrev"][-1] / times["function"][-1]
    rows = (Row("exponent of the gradient's time, dualrev", 1, found["dualrev"], found["dualrev"] < 1.3, 0.4),
            Row("exponent of the gradient's time, jax", 2, found["jax"], found["jax"] > 1.6, 0.4),
            Row(f"time of jax's gradient over ours, n = {sizes[-1]:,}", None, times["jax"][-1] / times["dualrev"][-1],
                times["jax"][-1] > times["dualrev"][-1], 0.9),
            Row(f"time of our gradient over the function, n = {sizes[-1]:,}", None, over, True, 0.9))
    return Outcome(rows, f"The gradient's time grows with exponent {found['dualrev']:.2f}, jax's with {found['jax']:.2f}.", draw)
