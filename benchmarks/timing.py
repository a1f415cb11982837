"""Ratios of two times, measured in this process.

A ratio is the median over many interleaved rounds, warm and blocked until ready, after the results were found equal; beside it
stand its quartiles, and the ratio of the fastest rounds, which on a busy machine says more.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Run = Callable[[], Any]


@dataclass(frozen=True)
class Figure:
    """One measured ratio of dualrev's time to a peer's."""

    group: str
    name: str
    ours_us: float
    peer_us: float
    ratio: float
    quartiles: tuple[float, float]
    fastest: float
    rounds: int
    difference: float
    #: The largest ratio that counts as reached.
    goal: float


def largest_difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two pytrees of arrays, relative to the largest entry of each array."""
    structures = str(jax.tree.structure(ours)), str(jax.tree.structure(theirs))
    if structures[0] != structures[1]:
        raise AssertionError(f"results differ in structure: {structures[0]} and {structures[1]}")
    worst = 0.0
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape or x.dtype != y.dtype:
            raise AssertionError(f"results differ: {x.dtype}{x.shape} and {y.dtype}{y.shape}")
        if x.size:
            worst = max(worst, float(np.max(np.abs(x - y)) / max(float(np.max(np.abs(y))), 1e-6)))
    return worst


def _seconds(run: Run, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = run()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def compare(group: str, name: str, ours: Run, theirs: Run, budget: float, goal: float, difference: float) -> Figure:
    """Interleaved rounds for ``budget`` seconds; a round runs each of the two long enough for the clock."""
    for run in (ours, theirs):
        jax.block_until_ready(run())
        jax.block_until_ready(run())
    calls = max(1, min(200, int(2e-3 / max(_seconds(theirs, 3), 1e-7))))
    times: list[tuple[float, float]] = []
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + budget
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 400):
            # Alternate who goes first, so that neither always runs in the other's wake.
            if len(times) % 2:
                a, b = _seconds(ours, calls), _seconds(theirs, calls)
            else:
                b, a = _seconds(theirs, calls), _seconds(ours, calls)
            times.append((a, b))
            if len(times) % 20 == 0:
                gc.collect()
    finally:
        gc.enable()
    ratios = [a / b for a, b in times]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    ours_us, peer_us = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
    fastest = min(a for a, _ in times) / min(b for _, b in times)
    return Figure(group, name, ours_us, peer_us, ratio, (low, high), fastest, len(times), difference, goal)


def _waited(run: Run, calls: int) -> float:
    """Seconds of each call when its result is waited for."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - start) / calls


def interleaved(runs: list[Run], budget: float) -> list[list[float]]:
    """Seconds of each run in each round; who goes first changes from round to round."""
    calls = [max(1, min(200, int(1e-3 / max(_waited(run, 3), 1e-7)))) for run in runs]
    rounds: list[list[float]] = []
    gc.collect()
    gc.disable()
    end = time.perf_counter() + budget
    while len(rounds) < 5 or time.perf_counter() < end:
        order = range(len(runs)) if len(rounds) % 2 else reversed(range(len(runs)))
        found = {i: _waited(runs[i], calls[i]) for i in order}
        rounds.append([found[i] for i in range(len(runs))])
    gc.enable()
    return rounds


def checked(ours: Any, theirs: Any, tolerance: float = 2e-4) -> float:
    difference = largest_difference(ours, theirs)
    if not difference <= tolerance:
        raise AssertionError(f"results differ by {difference:.2e}, more than {tolerance:.0e}: nothing to time")
    return difference


def temporary(program: Any) -> int:
    """Bytes that a compiled program takes for temporary values."""
    return int(program.memory_analysis().temp_size_in_bytes)
