"""Laplacians by nesting, by Taylor series, and by series whose highest coefficients are summed on the way: work, time and memory."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from benchmarks import timing
from benchmarks.higher_order import perceptron
from papers.modes.counting import cost
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="DangelEtAl2025", title="Collapsing Taylor mode automatic differentiation",
    claim="a Laplacian takes 2 + D vectors through a network where Taylor series take 1 + 2 D: half of their time and memory",
    where="Dangel et al. 2025, table 1: a tanh network with layers of D, 768, 768, 512, 512 and 1, D = 50; biharmonic operators",
    differs="a CPU instead of a GPU, so that ratios are compared; a biharmonic is a collapsed Laplacian of a collapsed Laplacian, "
            "where the paper collapses series of order 4")

Function = Callable[[jax.Array], jax.Array]


def nested(f: Function) -> Function:
    """The sum of ``e_i · (∇f)'[e_i]``: pushes through a pull."""
    def along(x: jax.Array, v: jax.Array) -> jax.Array:
        return v @ dr.jvp(dr.grad(f), (x,), (v,))[1]

    return lambda x: jnp.sum(jax.vmap(lambda v: along(x, v))(jnp.eye(x.size, dtype=x.dtype)))


def by_series(f: Function) -> Function:
    """A series of order 2 along each input."""
    return lambda x: 2 * jnp.sum(jax.vmap(lambda v: dr.taylor(f, x, v, 2)[2])(jnp.eye(x.size, dtype=x.dtype)))


def biharmonic_by_series(f: Function) -> Function:
    """Series of order 4 along each input, and along the sum and the difference of each two.

    With ``f4[v]`` for a fourth derivative, ``f4[e_i + e_j] + f4[e_i - e_j] = 2 f4[e_i] + 2 f4[e_j] + 12 ∂_i²∂_j² f``.
    """
    def fourth(x: jax.Array) -> jax.Array:
        n, unit = x.size, np.eye(x.size)
        pairs = list(itertools.combinations(range(n), 2))
        directions = [*unit, *(unit[i] + unit[j] for i, j in pairs), *(unit[i] - unit[j] for i, j in pairs)]
        weights = [1 - (n - 1) / 3] * n + [1 / 6] * (2 * len(pairs))
        found = jax.vmap(lambda v: dr.taylor(f, x, v, 4)[4])(jnp.asarray(np.stack(directions), x.dtype))
        return 24 * jnp.asarray(weights, x.dtype) @ found

    return fourth


def collapsed(f: Function) -> Function:
    return lambda x: dr.laplacian(f)(x)[1]


LAPLACIANS: dict[str, Callable[[Function], Function]] = {"nested": nested, "Taylor": by_series, "collapsed": collapsed}
BIHARMONICS: dict[str, Callable[[Function], Function]] = {
    "nested": lambda f: nested(nested(f)), "Taylor": biharmonic_by_series, "collapsed": lambda f: lambda x: dr.biharmonic(f)(x)[1]}


def vectors(operator: Callable[[Function], Function], f: Function, x: jax.Array) -> float:
    """Flops of an operator over those of its function: how many vectors go through the network."""
    return cost(jax.make_jaxpr(operator(f))(x)).flops / cost(jax.make_jaxpr(f)(x)).flops


def measured(ways: dict[str, Callable[[Function], Function]], f: Function, xs: jax.Array,
             budget: float) -> tuple[dict[str, float], dict[str, list[float]], dict[str, int]]:
    """Of each way: milliseconds, times in rounds, and bytes of the compiled program for temporary values."""
    lowered = {name: jax.jit(jax.vmap(way(f))).lower(xs) for name, way in ways.items()}
    programs = {name: program.compile() for name, program in lowered.items()}
    results = {name: np.asarray(program(xs)) for name, program in programs.items()}
    for name, found in results.items():
        if not np.allclose(found, results["nested"], rtol=1e-2, atol=1e-3 * np.abs(results["nested"]).max()):
            raise AssertionError(f"{name} does not agree with nested derivatives: {found} and {results['nested']}")
    rounds = timing.interleaved([lambda p=p: p(xs) for p in programs.values()], budget)
    times = dict(zip(ways, map(list, zip(*rounds, strict=True)), strict=True))
    return ({name: 1e3 * statistics.median(t) for name, t in times.items()}, times,
            {name: timing.temporary(program.compile(timing.ALL_TOLD)) for name, program in lowered.items()})


def ratio(times: dict[str, list[float]], name: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def run(quick: bool, progress: Progress) -> Outcome:
    widths = (256, 256, 256, 1) if quick else (768, 768, 512, 512, 1)
    batches = [4] if quick else [1, 2, 4, 8]
    budget = 0.5 if quick else 6.0
    dims = (50, 5)

    def points(d: int, batch: int) -> jax.Array:
        return jax.random.normal(jax.random.key(batch), (batch, d), "float32")

    f, g = (perceptron(jnp.tanh, d, *widths) for d in dims)
    d = dims[0]
    by_batch = [measured(LAPLACIANS, f, points(d, batch), budget) for batch in progress(batches, "batches")]
    _, times, memory = by_batch[-1]
    milliseconds, fourth, _ = measured(BIHARMONICS, g, points(dims[1], batches[-1]), budget)
    sizes = [20, 50] if quick else [5, 10, 20, 50, 100]
    counted = {name: [vectors(way, perceptron(jnp.tanh, n, *widths), points(n, 1)[0]) for n in sizes]
               for name, way in progress(LAPLACIANS.items(), "vectors")}
    at_d = {name: found[sizes.index(d)] for name, found in counted.items()}

    def draw(figure: Any) -> None:
        left, middle, right = figure.subplots(1, 3)
        for name in LAPLACIANS:
            left.plot(batches, [ms[name] for ms, _, _ in by_batch], marker="o", label=name)
            right.plot(sizes, counted[name], marker="o", label=name)
        left.set(xlabel="batch", ylabel="ms of the Laplacians", ylim=(0, None))
        left.legend()
        middle.bar(list(BIHARMONICS), [milliseconds[name] for name in BIHARMONICS], color=["C0", "C1", "C2"])
        middle.set(ylabel=f"ms of {batches[-1]} biharmonics, D = {dims[1]}")
        right.plot(sizes, [1 + 2 * n for n in sizes], "k:", linewidth=0.8, label="1 + 2 D")
        right.plot(sizes, [2 + n for n in sizes], "k--", linewidth=0.8, label="2 + D")
        right.set(xscale="log", yscale="log", xlabel="D", ylabel="vectors: flops over f's")
        right.legend()

    def near(number: float, expected: float) -> bool:
        return abs(number / expected - 1) < 0.1

    gain, to_nested = ratio(times, "collapsed", "Taylor"), ratio(times, "collapsed", "nested")
    kept = memory["collapsed"] / memory["Taylor"]
    gain4, to_nested4 = ratio(fourth, "collapsed", "Taylor"), ratio(fourth, "collapsed", "nested")
    rows = (Row(f"vectors of Taylor series, D = {d}", 1 + 2 * d, round(at_d["Taylor"], 1), near(at_d["Taylor"], 1 + 2 * d), 0.03),
            Row(f"vectors, collapsed, D = {d}", 2 + d, round(at_d["collapsed"], 1), near(at_d["collapsed"], 2 + d), 0.03),
            Row("Laplacian: time collapsed over Taylor", ".52 (.29 / .56 ms)", gain, gain < 0.65, 0.5),
            Row("Laplacian: time collapsed over nested", ".48 (.29 / .61 ms)", to_nested, to_nested < 0.65, 0.5),
            Row("Laplacian: memory collapsed over Taylor", ".46 (2.1 / 4.6 MiB)", kept, kept < 0.65, 0.2),
            Row("biharmonic: time collapsed over Taylor", ".77 (.69 / .90 ms)", gain4, gain4 < 0.85, 0.5),
            Row("biharmonic: time collapsed over nested", ".58 (.69 / 1.2 ms)", to_nested4, to_nested4 < 0.75, 0.5))
    return Outcome(rows, f"A collapsed Laplacian sends {at_d['collapsed']:.0f} vectors through the network instead of "
                         f"{at_d['Taylor']:.0f}, in {gain:.2f} of the time and {kept:.2f} of the memory: not in half of it, as XLA "
                         "keeps three arrays of D vectors at once here.", draw)
