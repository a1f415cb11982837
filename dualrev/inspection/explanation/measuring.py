"""Times of variants, compiled: all in rounds one after the other, so that what else the machine does falls on each."""

from __future__ import annotations

import dataclasses
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
from jax.tree_util import tree_leaves

from dualrev._jax.avals import is_array_like
from dualrev._jax.trees import PyTree
from dualrev.inspection.explanation.question import Question
from dualrev.inspection.explanation.variants import Variant

#: A variant that is predicted to take so many times the least is not measured.
HOPELESS = 30.0
#: Seconds for the rounds of each variant, the fewest rounds, the most, and what a round lasts at least.
BUDGET, FEWEST, MOST, ROUND = 0.25, 7, 200, 1e-3
#: What is measured to be faster by this factor is recommended in place of what was predicted to be.
CLEAR = 1.05

#: Told what is done: a step, how many steps are done, and how many there are.
Progress: TypeAlias = Callable[[str, int, int], None]


def measured(asked: Question, variants: Sequence[Variant], derivatives: Mapping[str, Callable[..., PyTree]], recommended: str,
             told: Progress) -> list[Variant]:
    """The variants with their times and the bytes that the compiler reserves."""
    least = min(v.seconds for v in variants)
    chosen = [v for v in variants if v.seconds <= HOPELESS * least or v.name == recommended]
    runs: dict[str, Callable[[], Any]] = {}
    peaks: dict[str, int | None] = {}
    given = [asked.leaves[i] for i in asked.traced]
    for i, variant in enumerate(chosen):
        told(f"compiling: {variant.name}", i, len(chosen) + 1)
        compiled = jax.jit(_on_arrays(asked, derivatives[variant.name])).lower(*given).compile()
        runs[variant.name] = _run(compiled, given)
        jax.block_until_ready(runs[variant.name]())
        peaks[variant.name] = _reserved(compiled)
    told("measuring", len(chosen), len(chosen) + 1)
    rounds = _rounds(list(runs.values()))
    times = dict(zip(runs, zip(*rounds, strict=True), strict=True))
    told("measuring", len(chosen) + 1, len(chosen) + 1)
    return [v if v.name not in times else dataclasses.replace(
        v, measured_seconds=statistics.median(times[v.name]), measured_peak_bytes=peaks[v.name],
        measured_ratio=statistics.median([a / b for a, b in zip(times[v.name], times[recommended], strict=True)])) for v in variants]


def _on_arrays(asked: Question, derivative: Callable[..., PyTree]) -> Callable[..., list[Any]]:
    def on_arrays(*given: jax.Array) -> list[Any]:
        args, kwargs = asked.filled(given, asked.traced)
        return [x for x in tree_leaves(derivative(*args, **kwargs)) if is_array_like(x)]

    return on_arrays


def _run(compiled: Any, given: Sequence[Any]) -> Callable[[], Any]:
    return lambda: compiled(*given)


def _reserved(compiled: Any) -> int | None:
    """Bytes of arguments, results and temporaries, where the compiler tells."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return int(found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes)


def _seconds(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - start) / calls


def _rounds(runs: Sequence[Callable[[], Any]]) -> list[list[float]]:
    """Seconds of each run in each round; the order is drawn anew for each."""
    calls = [max(1, round(ROUND / max(_seconds(run, 1), 1e-7))) for run in runs]
    found: list[list[float]] = []
    draw = random.Random(0)
    end = time.perf_counter() + BUDGET * len(runs)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        while len(found) < FEWEST or (time.perf_counter() < end and len(found) < MOST):
            order = draw.sample(range(len(runs)), len(runs))
            seconds = {i: _seconds(runs[i], calls[i]) for i in order}
            found.append([seconds[i] for i in range(len(runs))])
    finally:
        if was_enabled:
            gc.enable()
    return found


def fastest(variants: Sequence[Variant], recommended: str) -> str:
    """The variant that is measured to be clearly faster than the recommended one, or that."""
    timed = [v for v in variants if v.measured_ratio is not None]
    best = min(timed, key=lambda v: v.measured_ratio or 1.0)
    return best.name if (best.measured_ratio or 1.0) * CLEAR < 1.0 else recommended


