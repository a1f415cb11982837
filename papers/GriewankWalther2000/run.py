"""Checkpoints of a loop: evaluations of its step against the optimum, and the memory of the compiled gradient."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from dualrev.options.schedules import binomials, discard, evaluations, positions
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="GriewankWalther2000", title="Revolve: an implementation of checkpointing for the reverse or adjoint mode",
    claim="with s checkpoints a chain of n steps is reversed in t(n, s) = r n - C(s + r, r - 1) evaluations, and not in fewer",
    where="Griewank & Walther 2000, eqs. 1-3; for unknown n, Wang, Moin & Iaccarino 2009",
    differs="evaluations in the pulls themselves are not counted; the start is one of the s states")


def schedule(n: int, s: int) -> int:
    """Evaluations of the schedule: the advance to the state that is kept last, and those of the pull."""
    starts = positions(n, s)
    return starts[-1] + evaluations(starts, n, s)


def formula(n: int, s: int) -> int:
    r = next(r for r in range(n + 1) if math.comb(s + r, s) >= n)
    return r * n - math.comb(s + r, r - 1)


@functools.cache
def optimum(n: int, s: int) -> int:
    """By dynamic programming: advance j steps, keep that state, reverse what is behind with one slot less, then what is before."""
    if n == 1:
        return 0
    if s == 1:
        return n * (n - 1) // 2
    return min(j + optimum(n - j, s - 1) + optimum(j, s) for j in range(1, n))


def unknown_length(longest: int, s: int) -> list[float]:
    """Evaluations over those for a known length, for each length at which the chain may end; both with the sweep for the value."""
    table, starts, ratios = binomials(s), [0], []
    for step in range(1, longest):
        if len(starts) == s:
            drop = int(discard(jnp.asarray(starts, jnp.int32), jnp.asarray(step, jnp.int32), table))
            if drop < s:
                del starts[drop]
        if len(starts) < s:
            starts.append(step)
        n = step + 1
        if n > s:
            ratios.append((n + evaluations(starts, n, s)) / (n + evaluations(positions(n, s), n, s)))
    return ratios


def temporary_bytes(n: int, slots: int | None) -> int:
    """Of the compiled gradient of ``n`` steps with a state of 1,000 numbers."""
    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.scan(lambda c, _: (jnp.sin(c) * jnp.cos(jnp.roll(c, 1)), None), x, None, length=n)[0])

    gradient = dr.grad(f) if slots is None else dr.grad(f, schedule=dr.Revolve(slots))
    return int(jax.jit(gradient).lower(jnp.ones(1000)).compile().memory_analysis().temp_size_in_bytes)


def run(quick: bool, progress: Progress) -> Outcome:
    printed = {(10, 3): 15, (56, 3): 210, (100, 5): 316, (100, 10): 222, (1000, 5): 6284, (1000, 10): 3636, (1000, 20): 2747}
    rows = []
    for (n, s), expected in progress(printed.items(), "schedules"):
        ours = schedule(n, s)
        rows.append(Row(f"evaluations, n = {n:,}, s = {s}", expected, ours, ours == expected))
    small = [(n, s) for n in range(2, 31 if quick else 65) for s in range(1, 7)]
    agree = sum(schedule(n, s) == optimum(n, s) == formula(n, s) for n, s in small)
    rows.append(Row(f"pairs of n and s as dynamic programming, of {len(small)}", len(small), agree, agree == len(small)))
    ratios = {s: unknown_length(60 if quick else 400, s) for s in progress((5, 10), "unknown lengths")}
    rows += [Row(f"unknown length, s = {s}: most evaluations over the optimum", "close to 1", round(max(found), 3), max(found) < 1.35)
             for s, found in ratios.items()]
    slots = [4, 16] if quick else [4, 8, 16, 32]
    n = 256 if quick else 1024
    everything = temporary_bytes(n, None)
    memory = {s: temporary_bytes(n, s) for s in progress(slots, "compiled loops")}
    share = memory[16] / everything
    rows.append(Row(f"bytes of the compiled gradient of {n:,} steps, s = 16, over keeping everything", "about 16 / n", round(share, 4),
                    share <= 6 * 16 / n, 0.25))

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        lengths = np.unique(np.geomspace(4, 1000, 40).astype(int))
        for s in (3, 5, 10, 20):
            left.plot(lengths, [schedule(int(k), s) / k for k in lengths], label=f"{s} states")
        left.set(xscale="log", xlabel="steps", ylabel="evaluations for each step")
        left.legend()
        right.plot(slots, [memory[s] / 1e3 for s in slots], marker="o")
        right.axhline(everything / 1e3, color="black", linewidth=0.8, linestyle="--", label="everything kept")
        right.set(xscale="log", yscale="log", xlabel="states kept", ylabel=f"kB of the compiled gradient, {n:,} steps")
        right.legend()

    return Outcome(tuple(rows), "The schedule takes the formula's evaluations, which dynamic programming finds too; a loop whose "
                   f"length is not known beforehand takes at most {max(map(max, ratios.values())):.2f} times as many steps.", draw)
