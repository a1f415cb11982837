"""Ratios of two times, measured in this process.

A ratio is the median over many interleaved rounds, warm and blocked until ready, after the results were found equal; beside it
stand its quartiles, and the ratio of the fastest rounds, which on a busy machine says more.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

#: Options of the compiler for a program whose memory is to be read: a library that computes several operations at once takes some that
#: the compiled program does not tell.
ALL_TOLD = {"xla_cpu_experimental_ynn_fusion_type": ""}

Run = Callable[[], Any]
Measure = TypeVar("Measure")


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
    goal: float | None

    #: What ``cells`` are, the two times apart: those say whose they are.
    HEADINGS = ("ratio", "quartiles", "fastest", "goal", "rounds")

    def cells(self) -> list[str]:
        """A line of a table."""
        style = "white" if self.goal is None else "green" if self.ratio <= self.goal else "red"
        return [f"{self.ours_us:,.0f}", f"{self.peer_us:,.0f}", f"[{style}]{self.ratio:.2f}",
                f"{self.quartiles[0]:.2f}-{self.quartiles[1]:.2f}", f"{self.fastest:.2f}", "" if self.goal is None else f"{self.goal}",
                f"{self.rounds}"]


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


def rounds(measures: Sequence[Callable[[], Measure]], budget: float, is_collected: bool = False) -> list[list[Measure]]:
    """What each measure gives in each round, for ``budget`` seconds; who goes first changes from round to round.

    The collector waits until the next twentieth round, unless what is measured has it at work as its users do.
    """
    found: list[list[Measure]] = []
    gc.collect()
    if not is_collected:
        gc.disable()
    try:
        end = time.perf_counter() + budget
        while len(found) < 5 or (time.perf_counter() < end and len(found) < 400):
            # Nobody always runs in the other's wake.
            order = range(len(measures)) if len(found) % 2 else reversed(range(len(measures)))
            measured = {i: measures[i]() for i in order}
            found.append([measured[i] for i in range(len(measures))])
            if not is_collected and len(found) % 20 == 0:
                gc.collect()
    finally:
        gc.enable()
    return found


def seconds(run: Run, calls: int, wait: Callable[[Any], Any] = jax.block_until_ready,
            clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of each of so many calls, the last of which is waited for."""
    start = clock()
    for _ in range(calls):
        result = run()
    wait(result)
    return (clock() - start) / calls


def calls_in(a_round: float, run: Run, wait: Callable[[Any], Any] = jax.block_until_ready) -> int:
    """How many calls are long enough for the clock."""
    if seconds(run, 1, wait) > a_round:
        return 1
    return max(1, min(200, int(a_round / max(seconds(run, 3, wait), 1e-7))))


def compare(group: str, name: str, ours: Run, theirs: Run, budget: float, goal: float | None, difference: float, *, warm: int = 2,
            a_round: float = 2e-3, wait: Callable[[Any], Any] = jax.block_until_ready, is_collected: bool = False) -> Figure:
    """Interleaved rounds for ``budget`` seconds; a round runs each of the two as often."""
    for run in (ours, theirs):
        for _ in range(warm):
            wait(run())
    calls = calls_in(a_round, theirs, wait)
    times = rounds([lambda: seconds(ours, calls, wait), lambda: seconds(theirs, calls, wait)], budget, is_collected)
    low, ratio, high = statistics.quantiles([a / b for a, b in times], n=4)
    ours_us, peer_us = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
    fastest = min(a for a, _ in times) / min(b for _, b in times)
    return Figure(group, name, ours_us, peer_us, ratio, (low, high), fastest, len(times), difference, goal)


def interleaved(runs: Sequence[Run], budget: float, clock: Callable[[], float] = time.perf_counter) -> list[list[float]]:
    """Seconds of each run in each round, when each of its results is waited for.

    ``clock=time.process_time`` counts the seconds of all processors, and none in which the machine does something else.
    """

    def measure(run: Run) -> Callable[[], float]:
        def waited() -> Any:
            return jax.block_until_ready(run())

        calls = calls_in(1e-3, waited)
        return lambda: seconds(waited, calls, clock=clock)

    return rounds([measure(run) for run in runs], budget)


def checked(ours: Any, theirs: Any, tolerance: float = 2e-4) -> float:
    difference = largest_difference(ours, theirs)
    if not difference <= tolerance:
        raise AssertionError(f"results differ by {difference:.2e}, more than {tolerance:.0e}: nothing to time")
    return difference


def temporary(program: Any) -> int:
    """Bytes that a compiled program takes for temporary values."""
    return int(program.memory_analysis().temp_size_in_bytes)
