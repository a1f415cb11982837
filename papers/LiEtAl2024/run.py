"""The Laplacian of a network of independent blocks: one direction after another, all of them forward, and each within its block."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import dualrev as dr
from benchmarks import timing
from benchmarks.higher_order import per_particle
from papers.modes.counting import cost
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="LiEtAl2024", title="A computational framework for neural network-based variational Monte Carlo with forward Laplacian",
    claim="one forward evaluation with all first derivatives and the Laplacian is several times faster than a loop over second "
          "derivatives, and again an order of magnitude faster where derivatives are kept within independent blocks",
    where="Li et al. 2024; the numbers are those that the page of folx, which implements it, prints for a network of its own",
    differs="2 samples in a batch instead of 20, on a CPU, so that ratios are compared; the loop and the dense evaluation are ours too")

Function = Callable[[jax.Array], jax.Array]


def by_loop(f: Function) -> Function:
    """Second derivatives one after another: the gradient is linearized once, and pushed along each unit vector."""
    def total(x: jax.Array) -> jax.Array:
        _, push = dr.linearize(dr.grad(f), x)

        def second(i: jax.Array) -> jax.Array:
            unit = jnp.zeros(x.size, x.dtype).at[i].set(1).reshape(x.shape)
            return jnp.sum(unit * push(unit))

        return lax.fori_loop(0, x.size, lambda i, found: found + second(i), jnp.zeros((), x.dtype))

    return total


def dense(f: Function) -> Function:
    """All directions at once, each through the whole network: what one does who knows of no blocks."""
    return lambda x: dr.weighted_laplacian(f, np.ones(x.size))(x)[1]


def in_blocks(f: Function) -> Function:
    """The default: a derivative is kept for the block that it belongs to."""
    return lambda x: dr.laplacian(f)(x)[1]


WAYS: dict[str, Callable[[Function], Function]] = {"loop": by_loop, "forward": dense, "forward, in blocks": in_blocks}


def times(f: Function, xs: jax.Array, ways: list[str], budget: float) -> dict[str, list[float]]:
    """Seconds of the processor of each way, in rounds, after the results were found equal."""
    programs = {name: jax.jit(jax.vmap(WAYS[name](f))).lower(xs).compile() for name in ways}
    expected = np.asarray(programs["forward, in blocks"](xs))
    for name, program in programs.items():
        if not np.allclose(program(xs), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()):
            raise AssertionError(f"the Laplacians by {name} are {program(xs)}, in blocks {expected}")
    rounds = timing.interleaved([functools.partial(p, xs) for p in programs.values()], budget, time.process_time)
    return dict(zip(ways, map(list, zip(*rounds, strict=True)), strict=True))


def vectors(name: str, f: Function, x: jax.Array) -> float:
    """Flops of a Laplacian over those of its function: how many vectors go through the network."""
    return cost(jax.make_jaxpr(WAYS[name](f))(x)).flops / cost(jax.make_jaxpr(f)(x)).flops


def exponent(sizes: list[int], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def run(quick: bool, progress: Progress) -> Outcome:
    n, d, width, depth, batch = (16, 4, 32, 3, 2) if quick else (100, 4, 100, 10, 2)
    budget = 0.4 if quick else 4.0
    f = per_particle(jax.nn.silu, d, width, depth)

    def points(n: int) -> jax.Array:
        return jax.random.normal(jax.random.key(n), (batch, n, d), "float32")

    found = times(f, points(n), list(WAYS), budget)
    counted = {name: vectors(name, f, points(n)[0]) for name in WAYS}
    sizes = [8, 16, 32] if quick else [10, 20, 50, 100]
    curves = {size: times(f, points(size), list(WAYS)[1:], budget / 2) for size in progress(sizes, "numbers of blocks")}

    def gain(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(found[slow], found[fast], strict=True))

    growth = {name: exponent(sizes, [statistics.median(curves[size][name]) for size in sizes]) for name in list(WAYS)[1:]}
    loop, blocks, both = gain("loop", "forward"), gain("forward", "forward, in blocks"), gain("loop", "forward, in blocks")

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        seconds = {name: statistics.median(found[name]) for name in WAYS}
        left.bar(np.arange(3) - 0.2, [1, 48.7 / 224, 2.59 / 224], 0.38, label="folx's page")
        left.bar(np.arange(3) + 0.2, [seconds[name] / seconds["loop"] for name in WAYS], 0.38, label="here")
        left.set_xticks(range(3), [name.replace(", ", ",\n") for name in WAYS])
        left.set(yscale="log", ylabel="time over that of the loop")
        left.legend()
        for name in growth:
            right.plot(sizes, [1e3 * statistics.median(curves[size][name]) for size in sizes], marker="o", label=name)
        right.set(xscale="log", yscale="log", xlabel=f"independent blocks of {d} inputs", ylabel="ms of the processor")
        right.legend()

    rows = (
        Row(f"vectors through the network, loop, D = {n * d}", 2 * n * d, round(counted["loop"], 1),
            abs(counted["loop"] / (2 * n * d) - 1) < 0.2, 0.03),
        Row(f"vectors through the network, forward, D = {n * d}", n * d + 2, round(counted["forward"], 1),
            abs(counted["forward"] / (n * d + 2) - 1) < 0.1, 0.03),
        Row(f"vectors through the network, in blocks of {d}", d + 2, round(counted["forward, in blocks"], 1),
            abs(counted["forward, in blocks"] / (d + 2) - 1) < 0.35, 0.1),
        Row("time of a loop over forward", "4.6 (224 / 48.7 ms)", loop, loop > 2, 0.6),
        Row("time of forward over forward in blocks", "19 (48.7 / 2.59 ms)", blocks, blocks > (3 if quick else 10), 0.6),
        Row("time of a loop over forward in blocks", "86 (224 / 2.59 ms)", both, both > (6 if quick else 40), 0.6),
        Row("time against blocks, forward: exponent", "2", growth["forward"], growth["forward"] > 1.5, 0.3),
        Row("time against blocks, in blocks: exponent", "1", growth["forward, in blocks"], growth["forward, in blocks"] < 1.5, 0.4))
    return Outcome(rows, f"Forward is {loop:.1f} times as fast as the loop, and {blocks:.0f} times faster again in blocks, which take "
                         f"{counted['forward, in blocks']:.1f} vectors through the network instead of {counted['forward']:.0f}; the "
                         f"time grows with exponent {growth['forward, in blocks']:.2f} instead of {growth['forward']:.2f} of the "
                         "number of blocks.", draw)
