"""Sparse Hessians through loops that run until they have converged: is the pattern sound and tight, and what does it save?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import dualrev as dr
from dualrev.problems import loops_to_convergence as loops
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="SparseThroughLoops", title="Sparse Hessians through loops of unknown length",
    claim="the pattern of a Hessian can be read through while loops, sound for any number of steps and tight, and is worth 20 times "
          "the time of a dense Hessian at 1,000 unknowns",
    where="a result of our own; the numbers that it is to reach were set before it was measured",
    differs="no paper: the criteria stand in the paper's column")

Function = Callable[[jax.Array], jax.Array]

#: Those whose pattern need not grow with the number of steps, and one whose pattern does.
TIGHT = (loops.orbits, loops.pipes, loops.cells, loops.springs, loops.rings, loops.walls, loops.pendulums, loops.branches,
         loops.marching)
WIDENING = loops.spreading


def patterns(f: Function, n: int, inputs: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The pattern that is read of the program, where jax's pushes through pushes are nonzero at some of many inputs, and how far the
    sparse Hessian is from theirs at the first."""
    read = np.asarray(dr.sparse.hessian_pattern(f)(jax.ShapeDtypeStruct((n,), float)).todense())
    points = jnp.stack([loops.draw(n, seed) for seed in range(inputs)])
    found = np.asarray(jax.jit(lambda points: lax.map(jax.jacfwd(jax.jacfwd(f)), points))(points))
    ours = np.asarray(dr.sparse.hessian(f)(points[0]).todense())
    return read, np.any(found != 0, 0), float(np.abs(ours - found[0]).max() / np.abs(found[0]).max())


def lengths(f: Function, n: int, inputs: int) -> tuple[int, int]:
    """The fewest and the most steps of the function's loop at some inputs."""
    counts: list[int] = []
    real = lax.while_loop

    def counted(goes_on: Callable[[Any], Any], step: Callable[[Any], Any], start: Any) -> Any:
        steps, out = real(lambda s: goes_on(s[1]), lambda s: (s[0] + 1, step(s[1])), (jnp.zeros((), int), start))
        jax.debug.callback(lambda k: counts.append(int(k)), steps)
        return out

    with mock.patch.object(lax, "while_loop", counted):
        evaluate = jax.jit(lambda x: f(x))
        for seed in range(inputs):
            evaluate(loops.draw(n, seed)).block_until_ready()
    jax.effects_barrier()
    return min(counts), max(counts)


def processor_time(compiled: Callable[[jax.Array], Any], x: jax.Array) -> float:
    """Seconds of one call, all threads together, after a first one."""
    jax.block_until_ready(compiled(x))
    began, calls = time.process_time(), 0
    while calls < 1 or (time.process_time() - began < 0.2 and calls < 200):
        jax.block_until_ready(compiled(x))
        calls += 1
    return (time.process_time() - began) / calls


def cost(f: Function, n: int) -> tuple[int, float, float, float]:
    """Passes of the sparse Hessian, processor times of the dense and the sparse one, and seconds for pattern and colours."""
    x, began = loops.draw(n), time.process_time()
    plan = dr.sparse.plan(f, jax.ShapeDtypeStruct((n,), float), derivative="hessian")
    planned = time.process_time() - began
    sparse = jax.jit(dr.hessian(f, sparse=plan)).lower(x).compile()
    dense = jax.jit(dr.hessian(f)).lower(x).compile()
    return plan.forward_colours + plan.reverse_colours, processor_time(dense, x), processor_time(sparse, x), planned


def run(quick: bool, progress: Progress) -> Outcome:
    inputs, n = (20, 60) if quick else (1000, 1000)
    chosen = (loops.rings,) if quick else TIGHT
    found = {f: patterns(f, 24, inputs) for f in progress((*chosen, WIDENING), "patterns")}
    steps = {f: lengths(f, 24, 20) for f in progress((*chosen, WIDENING), "lengths of loops")}
    sizes = {f: 400 if f is loops.marching else n for f in chosen}
    costs = {f: cost(f, sizes[f]) for f in progress(chosen, "times")}
    missed = {f: int((union & ~read).sum()) for f, (read, union, _) in found.items()}
    precision = {f: float((union & read).sum() / read.sum()) for f, (read, union, _) in found.items()}
    gain = {f: dense / sparse for f, (_, dense, sparse, _) in costs.items()}

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[2, 3])
        read, union, _ = found[loops.rings]
        left.imshow(read.astype(int) + union, cmap="Greys", vmax=2)
        left.set(title=f"rings: read, and found in {inputs:,} inputs", xticks=[], yticks=[])
        left.title.set_fontsize(8)
        names = [f.__name__ for f in chosen]
        right.barh(names, [gain[f] for f in chosen], color="0.6")
        for i, f in enumerate(chosen):
            right.text(gain[f], i, f" {costs[f][0]} passes", va="center", fontsize=7)
        right.axvline(20, color="black", linewidth=0.8, linestyle="--")
        right.set(xscale="log", xlabel="time of a dense Hessian over a sparse one's")

    rows = [Row(f"entries missed of the union over {inputs:,} inputs, all {len(found)} functions", "0", sum(missed.values()),
                not any(missed.values()))]
    rows += [Row(f"precision, {f.__name__}, loops of {low:,} to {high:,} steps", "at least 0.9", precision[f], precision[f] >= 0.9,
                 0.02) for f, (low, high) in steps.items()]
    worst = max(error for _, _, error in found.values())
    rows.append(Row("largest difference from jax's pushes, in units of 1e-12 of the largest entry", "below 1", worst * 1e12,
                    worst < 1e-12, 10.0))
    rows += [Row(f"time of a dense Hessian over a sparse one's, {f.__name__}, n = {sizes[f]:,}", "at least 20", gain[f], gain[f] >= 20,
                 0.9) for f in chosen]
    planned = max(seconds for *_, seconds in costs.values())
    return Outcome(tuple(rows), f"No entry is missed, and {sum(p >= 0.9 for p in precision.values())} of {len(precision)} patterns are "
                   f"as tight as asked; the sparse Hessian is {min(gain.values()):,.0f} to {max(gain.values()):,.0f} times faster, "
                   f"after at most {planned:.0f} s for pattern and colours. Where each step reaches further, the pattern is that of "
                   "any number of steps, and full.", draw)
