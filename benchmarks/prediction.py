"""Predicted against measured time, of functions and of their gradients: ``python -m benchmarks.prediction``.

For each program of the corpus: its function, jax's gradient and dualrev's are traced, predicted, compiled and timed.  The last lines
give the share of predictions within 25 %, 50 % and a factor of two of what was measured, and the median error.  ``--json`` keeps what
was measured; ``--measured`` takes it from there and predicts again, as when constants are fitted.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import pathlib
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import dualrev
from benchmarks.libraries import use_double
from benchmarks.scenarios import SCENARIOS
from dualrev import time_model
from dualrev.problems.scenario import TAGS, Scenario
from dualrev.time_model.calibrate import seconds_of

#: What is predicted of each program.
KINDS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "function": lambda program: lambda *args: program(*args), "jax.grad": jax.grad, "dualrev.grad": dualrev.grad}
DEFAULT_TAGS = ("tuning", "Runge-Kutta", "guards", "compiled", "loops", "libraries")


@dataclass(frozen=True)
class Pair:
    """One prediction, and what it took."""

    name: str
    kind: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How many times too long (above 1) or too short the prediction is."""
        return self.predicted / self.measured


def processor_seconds(run: Callable[[], Any], budget: float) -> float:
    """The lower decile of the processor's time of rounds of at least a millisecond, for so many seconds of it."""
    jax.block_until_ready(run())
    start = time.process_time()
    jax.block_until_ready(run())
    calls = max(1, int(1e-3 / max(time.process_time() - start, 1e-6)))
    rounds: list[float] = []
    end = time.process_time() + budget
    while len(rounds) < 4 or time.process_time() < end:
        start = time.process_time()
        for _ in range(calls):
            result = run()
        jax.block_until_ready(result)
        rounds.append((time.process_time() - start) / calls)
    return sorted(rounds)[len(rounds) // 10]


def on_one_processor() -> None:
    """From now on; before jax starts its threads."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def pairs(scenario: Scenario, clock: Callable[[Callable[[], Any]], float], known: dict[str, float],
          constants: time_model.Constants) -> Iterator[Pair]:
    assert scenario.program is not None
    arguments = tuple(jax.tree.map(jnp.asarray, scenario.draw()))
    for kind, derive in KINDS.items():
        traced = jax.jit(derive(scenario.program)).trace(*arguments)
        predicted = time_model.time_of(traced.jaxpr, constants)
        key = f"{scenario.name}: {kind}"
        if key not in known:
            compiled = traced.lower().compile()
            known[key] = clock(lambda run=compiled: run(*arguments))  # type: ignore[misc]
        yield Pair(scenario.name, kind, predicted, known[key])


def summary(found: Sequence[Pair], constants: time_model.Constants) -> Table:
    title = f"{constants.name}, jax {jax.__version__}"
    table = Table("", "programs", "within 25 %", "within 50 %", "within 2x", "median error", title=title)
    groups = {"all": list(found), **{kind: [p for p in found if p.kind == kind] for kind in KINDS}}
    for name, members in groups.items():
        if members:
            off = [abs(math.log(p.error)) for p in members]
            shares = [f"{sum(x <= math.log(limit) for x in off) / len(off):.0%}" for limit in (1.25, 1.5, 2.0)]
            table.add_row(name, str(len(members)), *shares, f"{math.exp(statistics.median(off)) - 1:.0%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose name has this in it, a regular expression")
    parser.add_argument("--tag", nargs="+", default=list(DEFAULT_TAGS), choices=list(TAGS), metavar="TAG", help="of any of these tags")
    parser.add_argument("--seconds", type=float, default=0.1, help="time for the rounds of each program")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="add the measured seconds to this file")
    parser.add_argument("--measured", type=pathlib.Path, metavar="FILE", help="predict what this file has the seconds of")
    parser.add_argument("--shipped", action="store_true", help="with the shipped constants, even where this machine was calibrated")
    parser.add_argument("--one-thread", action="store_true", help="processor time of runs on one processor")
    options = parser.parse_args()
    if options.one_thread:
        on_one_processor()
    use_double()
    console = Console(width=110, highlight=False)
    constants = time_model.shipped("cpu") if options.shipped else time_model.constants()
    if options.one_thread:
        constants = constants.replace(threads=1.0)
    clock = functools.partial(processor_seconds if options.one_thread else seconds_of, budget=options.seconds)
    known: dict[str, float] = json.loads(options.measured.read_text()) if options.measured else {}
    found: list[Pair] = []
    for scenario in SCENARIOS:
        wanted = set(options.tag) & set(scenario.tags) and re.search(options.only, scenario.name) and scenario.program is not None
        if not wanted or (options.measured and f"{scenario.name}: function" not in known):
            continue
        try:
            for pair in pairs(scenario, clock, known, constants):
                found.append(pair)
                console.print(f"{pair.name:42.42} {pair.kind:13} {1e6 * pair.predicted:12,.1f} {1e6 * pair.measured:12,.1f} us "
                              f"{pair.error:6.2f}", style="" if 0.8 <= pair.error <= 1.25 else "red", markup=False)
        except Exception as error:  # one program that fails is told of, and the others are predicted
            console.print(f"{scenario.name}: {type(error).__name__}: {error}", style="red", markup=False)
    if options.json:
        before = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps({**before, **known}, indent=1) + "\n")
    console.print(summary(found, constants))


if __name__ == "__main__":
    main()
