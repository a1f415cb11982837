"""Compiled gradients of the corpus over jax's and over their own function: ``python -m benchmarks.corpus``.

For each program, in this process: dualrev's gradient is found equal to jax's; the function and both gradients are compiled; rounds of
the three are interleaved.  Its line is printed as soon as it is known: ratios of time with quartiles, temporary memory, seconds to
compile, milliseconds to trace.  A summary follows.

``--json`` adds the figures to a file, where figures of the same name are replaced, so that a corpus can be measured in parts;
``--against`` shows what was measured before in front of what is measured now; ``--show`` prints a file's figures and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import dualrev
from benchmarks.libraries import use_double
from benchmarks.scenarios import SCENARIOS
from benchmarks.stages import trace
from benchmarks.timing import checked, interleaved, rounds, temporary
from dualrev.problems.scenario import TAGS, Scenario

#: In the order of every pair and triple below.
OURS, JAX, FUNCTION = range(3)
DERIVATIVES: tuple[Any, ...] = (dualrev.grad, jax.grad, None)
#: Temporary memory below this is no matter.
LITTLE = 4_000_000

Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class Figures:
    """Of one program's gradient, by dualrev and by jax, and of its function: triples in that order, pairs without the function."""

    name: str
    #: The release.
    jax: str
    milliseconds: tuple[float, float, float]
    #: Lower quartile, median and upper quartile over rounds.
    over_jax: Quartiles
    over_function: Quartiles
    jax_over_function: Quartiles
    temporary_bytes: tuple[int, int, int]
    #: Seconds of XLA, of one compilation.
    compiling: tuple[float, float, float]
    #: Seconds of a function that no cache has seen.
    tracing: tuple[float, float]
    rounds: int
    difference: float

    @property
    def memory(self) -> float | None:
        """dualrev's temporary bytes over jax's, where jax takes any."""
        ours, theirs, _ = self.temporary_bytes
        return ours / theirs if theirs else None


def fresh(derivative: Callable[..., Any] | None, program: Any) -> Callable[..., Any]:
    """The derivative of the program as new function objects: nothing that was traced of it before is found again."""
    def function(*arguments: Any) -> Any:
        return program(*arguments)

    return function if derivative is None else derivative(function)


def tolerance(tree: Any) -> float:
    """What two ways to sum may differ by: single precision anywhere, or double throughout."""
    return 1e-7 if all(x.dtype == "float64" for x in jax.tree.leaves(tree)) else 5e-4


def ratio(times: Sequence[Sequence[float]], a: int, b: int) -> Quartiles:
    low, middle, high = statistics.quantiles([line[a] / line[b] for line in times], n=4)
    return low, middle, high


@dataclass(frozen=True)
class Compiled:
    """dualrev's gradient, jax's, and the function, compiled, with their arguments; the gradients were found equal."""

    arguments: tuple[Any, ...]
    programs: tuple[Any, Any, Any]
    seconds: tuple[float, float, float]
    difference: float

    def times(self, budget: float) -> list[list[float]]:
        """Seconds of each of the three in each round."""
        return interleaved([partial(run, *self.arguments) for run in self.programs], budget)

    def temporary_bytes(self) -> tuple[int, int, int]:
        ours, theirs, function = map(temporary, self.programs)
        return ours, theirs, function


def arguments(scenario: Scenario) -> tuple[Any, ...]:
    """The inputs and the data: the data are no constants of the compiled programs."""
    return tuple(jax.tree.map(jnp.asarray, scenario.draw()))


def compiled(scenario: Scenario) -> Compiled:
    if scenario.program is None:
        raise NotImplementedError(f"{scenario.name} is differentiated inside")
    at = arguments(scenario)

    def one(derivative: Callable[..., Any] | None) -> tuple[Any, float]:
        lowered = jax.jit(fresh(derivative, scenario.program)).lower(*at)
        start = time.perf_counter()
        return lowered.compile(), time.perf_counter() - start

    (ours, a), (theirs, b), (function, c) = map(one, DERIVATIVES)
    expected = theirs(*at)
    return Compiled(at, (ours, theirs, function), (a, b, c), checked(ours(*at), expected, tolerance(expected)))


def tracing(scenario: Scenario, at: tuple[Any, ...], budget: float) -> tuple[float, float]:
    """Seconds to trace either gradient, of new functions each time: medians."""

    def seconds(derivative: Any) -> float:
        function = fresh(derivative, scenario.program)
        start = time.perf_counter()
        trace(function, at)
        return time.perf_counter() - start

    found = rounds([partial(seconds, derivative) for derivative in DERIVATIVES[:FUNCTION]], budget)
    return statistics.median(x[OURS] for x in found), statistics.median(x[JAX] for x in found)


def measured(scenario: Scenario, budget: float) -> Figures:
    """``budget`` seconds of rounds, after the results were found equal, and a tenth of it, or five rounds, for tracing."""
    built = compiled(scenario)
    times = built.times(budget)
    ours, theirs, function = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return Figures(scenario.name, jax.__version__, (ours, theirs, function), ratio(times, OURS, JAX), ratio(times, OURS, FUNCTION),
                   ratio(times, JAX, FUNCTION), built.temporary_bytes(), built.seconds,
                   tracing(scenario, built.arguments, budget / 10), len(times), built.difference)


# -------------------------------------------------------------------------------------------------------------- tables

HEADINGS = {"program": 44, "over jax": 23, "over function": 13, "jax's": 6, "function, ms": 12, "memory, kB": 20, "compiling, s": 17,
            "tracing, ms": 15}
WIDTH = sum(HEADINGS.values()) + 2 * len(HEADINGS)


def line(cells: Iterable[str]) -> str:
    """Cells in columns of a width known beforehand, so that each line can be printed before the next is measured."""
    return "  ".join(cell.ljust(width) if k == 0 else cell.rjust(width)
                     for k, (cell, width) in enumerate(zip(cells, HEADINGS.values(), strict=True)))


def quantity(x: float) -> str:
    """Two digits below ten, none above."""
    return f"{x:.2f}" if x < 10 else f"{x:,.0f}"


def cells(found: Figures, before: Figures | None) -> list[str]:
    def was(of: Callable[[Figures], float], form: str) -> str:
        return f"{of(before):{form}} -> " if before else ""

    low, middle, high = found.over_jax
    kilobytes = [f"{b / 1e3:,.0f}" for b in found.temporary_bytes]
    return [
        found.name, f"{was(lambda f: f.over_jax[1], '.2f')}{middle:.2f} ({low:.2f}-{high:.2f})",
        f"{was(lambda f: f.over_function[1], '.1f')}{found.over_function[1]:.1f}", f"{found.jax_over_function[1]:.1f}",
        f"{found.milliseconds[FUNCTION]:.3g}", f"{kilobytes[OURS]} / {kilobytes[JAX]}",
        " / ".join(quantity(s) for s in found.compiling), " / ".join(quantity(1e3 * s) for s in found.tracing)]


def middle(values: Iterable[float], with_mean: bool = True) -> str:
    values = list(values)
    if not values:
        return "-"
    mean = f"mean {statistics.mean(values):.2f}, " if with_mean else ""
    return f"{mean}median {statistics.median(values):.2f}, max {max(values):.2f}"


def summary(found: Sequence[Figures]) -> Table:
    """Over all programs; a mean over programs of very unlike sizes is one of ratios."""
    table = Table(title=f"{len(found)} programs, jax {found[0].jax}", show_header=False)
    memory = [(f.memory, max(f.temporary_bytes[:FUNCTION])) for f in found]
    table.add_row("over jax", middle(f.over_jax[1] for f in found))
    table.add_row("over function", middle((f.over_function[1] for f in found), with_mean=False))
    table.add_row("jax over function", middle((f.jax_over_function[1] for f in found), with_mean=False))
    table.add_row("memory over jax", middle(ratio for ratio, _ in memory if ratio is not None))
    table.add_row(f"the same above {LITTLE / 1e6:.0f} MB", middle(r for r, most in memory if r is not None and most > LITTLE))
    table.add_row("compiling over jax", middle(f.compiling[OURS] / f.compiling[JAX] for f in found))
    table.add_row("compiling over function", middle((f.compiling[OURS] / f.compiling[FUNCTION] for f in found), with_mean=False))
    table.add_row("tracing over jax", middle(f.tracing[OURS] / f.tracing[JAX] for f in found))
    return table


# --------------------------------------------------------------------------------------------------------------- files


def read(path: pathlib.Path) -> dict[str, Figures]:
    """The figures in a file, by program."""
    found = {}
    for about in json.loads(path.read_text(encoding="utf-8")):
        fields: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in about.items()}
        found[fields["name"]] = Figures(**fields)
    return found


def write(path: pathlib.Path, figures: Iterable[Figures]) -> None:
    """Figures are added to those of other programs that the file has."""
    kept = read(path) if path.exists() else {}
    kept.update({f.name: f for f in figures})
    path.write_text(json.dumps([asdict(f) for f in kept.values()], indent=1) + "\n", encoding="utf-8")


def chosen(tags: Iterable[str], pattern: str) -> list[Scenario]:
    """Those with any of the tags whose names have the pattern in them."""
    tags = set(tags)
    return [s for s in SCENARIOS if tags & set(s.tags) and re.search(pattern, s.name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose name has this in it, a regular expression")
    parser.add_argument("--tag", nargs="+", default=["tuning"], choices=list(TAGS), metavar="TAG",
                        help="programs with any of these tags (default: tuning)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for the rounds of a program")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="add the figures to this file")
    parser.add_argument("--against", type=pathlib.Path, metavar="FILE", help="figures from before")
    parser.add_argument("--show", type=pathlib.Path, metavar="FILE", help="print this file's figures, and measure nothing")
    options = parser.parse_args()
    use_double()
    console = Console(width=WIDTH, highlight=False)
    before = read(options.against) if options.against else {}
    programs = chosen(options.tag, options.only)
    if not programs:
        parser.error(f"no program has a tag of {', '.join(options.tag)} and {options.only!r} in its name")
    shown = read(options.show) if options.show else None
    if shown is None:
        # What the compiler sets up once is not the first program's.
        jax.block_until_ready(jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(x) ** 2)))(jnp.ones(3)))
    console.print(line(HEADINGS), style="bold")
    found, failed = [], []
    for scenario in programs:
        try:
            figures = measured(scenario, options.seconds) if shown is None else shown[scenario.name]
        except Exception as error:  # one that fails is told of, and the others are measured
            failed.append(f"not measured: {scenario.name}: {type(error).__name__}: {error}")
            console.print(failed[-1], style="red", markup=False)
            continue
        found.append(figures)
        console.print(line(cells(figures, before.get(figures.name))), style="red" if figures.over_jax[1] > 1.02 else "", markup=False)
        if options.json:
            write(options.json, [figures])
    if found:
        console.print(summary(found))
    if common := [before[f.name] for f in found if f.name in before]:
        console.print("before:", summary(common))
    for why in failed:  # once more, where they are seen
        console.print(why, style="red", markup=False)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
