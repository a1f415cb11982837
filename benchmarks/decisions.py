"""What ``engine="auto"`` chooses, against all that it could: ``python -m benchmarks.decisions``.

For each program of the corpus, its gradient is compiled in each way that there is: reverse mode, forward mode where there are few
inputs, and, of programs with loops, with loops as the compiler makes them (``fuse_loops=False``), with all residuals stored, with the
fewest stored, with the cotangents of constants summed step by step, and with √n states of scans kept.  All give the same gradient.  The
time of ``engine="auto"`` is set against the fastest.  ``--call jacobian`` and ``--call hessian`` do so for those, where they are small.
The last lines say in how many programs it is within 1.2 of the fastest.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pathlib
import re
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

import dualrev
from benchmarks.libraries import use_double
from benchmarks.prediction import DEFAULT_TAGS, on_one_processor, processor_seconds
from benchmarks.scenarios import SCENARIOS
from benchmarks.timing import largest_difference
from dualrev import errors
from dualrev.functional.automatic import MOST_PUSHES
from dualrev.problems.scenario import TAGS, Scenario
from dualrev.programs.partition import eqns_within

#: No more than this over the fastest way is a good choice.
GOOD = 1.2
#: Each way is timed so often; the least time counts.
ROUNDS = 3
AUTO = "auto"
#: Options of a gradient in reverse mode, each of which changes one decision about loops.
OF_LOOPS: Mapping[str, dict[str, Any]] = {
    "compiler's loops": {"fuse_loops": False}, "all stored": {"recompute_residuals": False},
    "fewest stored": {"recompute_residuals": True}, "sums in the loop": {"stack_cotangents": False}, "√n states": {"schedule": "sqrt"}}
CALLS: Mapping[str, Callable[..., Any]] = {"grad": dualrev.grad, "jacobian": dualrev.jacobian, "hessian": dualrev.hessian}


def ways(scenario: Scenario, call: str, arguments: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """The options of each way; the call that chooses comes first, and then its default."""
    found: dict[str, dict[str, Any]] = {AUTO: {"engine": "auto"}, "reverse": {"engine": "reverse"}}
    if call != "grad" or (scenario.inputs or math.inf) <= MOST_PUSHES:
        found["forward"] = {"engine": "forward"}
    if call == "hessian":
        found["forward over reverse"] = {}
    assert scenario.program is not None
    names = {str(eqn.primitive) for eqn in eqns_within(jax.make_jaxpr(scenario.program)(*arguments))}
    if call == "grad" and names & {"scan", "while"}:
        found.update(OF_LOOPS)
    return found


def seconds_of_ways(scenario: Scenario, call: str, budget: float) -> dict[str, float]:
    """The processor's time of each way, after its result was found equal to that of reverse mode."""
    arguments = tuple(jax.tree.map(jnp.asarray, scenario.draw()))
    runs: dict[str, Callable[[], Any]] = {}
    expected = None
    for name, options in reversed(ways(scenario, call, arguments).items()):
        try:
            compiled = jax.jit(CALLS[call](scenario.program, **options)).lower(*arguments).compile()
        except (ValueError, NotImplementedError, errors.DualrevError):  # there is nothing to recompute, say
            continue
        runs[name] = functools.partial(compiled, *arguments)
        result = runs[name]()
        expected = result if expected is None else expected
        if (difference := largest_difference(result, expected)) > 1e-3:
            raise AssertionError(f"{name}: results differ by {difference:.1e}")
    found = [{name: processor_seconds(run, budget) for name, run in runs.items()} for _ in range(ROUNDS)]
    return {name: min([seconds[name] for seconds in found]) for name in runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--call", default="grad", choices=list(CALLS))
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose name has this in it, a regular expression")
    parser.add_argument("--tag", nargs="+", default=list(DEFAULT_TAGS), choices=list(TAGS), metavar="TAG", help="of any of these tags")
    parser.add_argument("--seconds", type=float, default=0.05, help="time for the rounds of each way")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="add the seconds to this file")
    options = parser.parse_args()
    on_one_processor()
    use_double()
    console = Console(width=140, highlight=False)
    ratios: dict[str, list[float]] = {AUTO: [], "reverse": []}
    seconds: dict[str, dict[str, float]] = {}
    for scenario in SCENARIOS:
        if not set(options.tag) & set(scenario.tags) or not re.search(options.only, scenario.name) or scenario.program is None:
            continue
        try:
            found = seconds[scenario.name] = seconds_of_ways(scenario, options.call, options.seconds)
        except Exception as error:  # one program that fails is told of, and the others are measured
            console.print(f"{scenario.name}: {type(error).__name__}: {str(error)[:100]}", style="red", markup=False)
            continue
        best = min(found, key=lambda name: found[name])
        for name, of in ratios.items():
            of.append(found[name] / found[best])
        others = ", ".join(f"{name} {1e6 * found[name]:,.0f}" for name in found if name != AUTO)
        console.print(f"{scenario.name:42.42} auto {1e6 * found[AUTO]:10,.0f} us {ratios[AUTO][-1]:6.2f} of {best}: {others}",
                      style="" if ratios[AUTO][-1] <= GOOD else "red", markup=False)
    if options.json:
        before = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps({**before, **seconds}, indent=1) + "\n")
    for name, of in ratios.items():
        if of:
            console.print(f"{name}: within {GOOD} of the fastest in {sum(x <= GOOD for x in of)} of {len(of)} programs, median "
                          f"{statistics.median(of):.2f}, worst {max(of):.2f}")


if __name__ == "__main__":
    main()
