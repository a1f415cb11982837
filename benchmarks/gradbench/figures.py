"""The workloads of GradBench, dualrev's derivative beside jax's of the same function: ``python -m benchmarks.gradbench.figures``.

Rounds are interleaved in one process, each run blocked until ready, after the results were found equal.  Ratios are medians over
rounds, with their quartiles; ``fastest`` and ``over C++`` compare fastest rounds, which on a busy machine say more.  The milliseconds
of the hand-written C++ are those of another machine when it was idle; ``--scale`` says how much slower this one is then.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import jax
from rich.console import Console
from rich.table import Table

import dualrev
from benchmarks.gradbench.workloads import WORKLOADS, Workload
from benchmarks.timing import Run, interleaved, largest_difference


def measured(workload: Workload, budget: float) -> list[list[float]]:
    """Rounds of the function, dualrev's derivative and jax's."""
    problem = workload.problem
    arguments = problem.on_device(workload.arguments())
    runs: list[Run] = [partial(problem.compiled(name, ad), *arguments) for name, ad in (
        (workload.function, None), (workload.derivative, dualrev), (workload.derivative, jax))]
    difference = largest_difference(runs[1](), runs[2]())
    if not difference < 1e-9:
        raise AssertionError(f"{workload.name}: results differ by {difference:.1e}")
    for run in runs:
        jax.block_until_ready(run())
    return interleaved(runs, budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="workloads whose name starts so (default: all)")
    parser.add_argument("--seconds", type=float, default=4.0, help="time given to each workload")
    parser.add_argument("--scale", type=float, default=1.0, help="this machine's time over that of the C++ figures'")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    table = Table(title=f"jax {jax.__version__}, {jax.devices()[0].platform}, float64: milliseconds, and ratios of them")
    for heading in ("workload", "function", "dualrev", "jax", "C++ function", "C++", "over jax", "quartiles", "fastest", "over C++",
                    "over function"):
        table.add_column(heading, justify="left" if heading == "workload" else "right", no_wrap=True)
    for workload in WORKLOADS:
        if options.names and not workload.name.startswith(tuple(options.names)):
            continue
        rounds = measured(workload, options.seconds)
        function, ours, theirs = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
        low, over_jax, high = statistics.quantiles([b / c for _, b, c in rounds], n=4)
        over_function = statistics.median(b / a for a, b, _ in rounds)
        fastest, fastest_jax = (1e3 * min(column) for column in list(zip(*rounds, strict=True))[1:])
        by_hand = [None if ms is None else ms * options.scale for ms in workload.by_hand]
        table.add_row(workload.name, f"{function:.3f}", f"{ours:.3f}", f"{theirs:.3f}",
                      *("" if ms is None else f"{ms:.3f}" for ms in by_hand), f"{over_jax:.2f}", f"{low:.2f}-{high:.2f}",
                      f"{fastest / fastest_jax:.2f}",
                      "" if by_hand[1] is None else f"{fastest / by_hand[1]:.2f}", f"{over_function:.1f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
