"""``python -m tests.fuzz --seconds N``: random programs over the whole table, until the time is up.

Each program's derivatives, to order 2 and by both engines, are compared with jax's.  What fails is printed with the seed that draws
it again, and at the end how many programs were tried, how many could be compared, and how many failed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import conftest  # noqa: F401  (the settings of the suite)
import jax
from agreement import check, promoting
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from scenarios_random import scenarios

from dualrev.problems.scenario import Scenario

#: Programs between two looks at the clock, after which compiled programs are dropped.
CHUNK = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="where to begin (default: 0)")
    arguments = parser.parse_args()
    console = Console()
    tried = compared = 0
    failures: list[str] = []
    start, number = time.monotonic(), arguments.seed

    @settings(max_examples=CHUNK, deadline=None, database=None, phases=[Phase.generate], report_multiple_bugs=False,
              suppress_health_check=list(HealthCheck))
    @given(scenarios(), st.integers(0, 1000), st.permutations(("forward", "reverse")))
    def chunk(scenario: Scenario, which: int, engines: list[str]) -> None:
        nonlocal tried, compared
        tried += 1
        try:
            compared += check(scenario, which, tuple(engines))
        except Exception as error:  # whatever goes wrong in one program is reported, and the others still run
            failures.append(f"seed {number}, {engines}, {scenario}\n{type(error).__name__}: {error}")
            console.print(failures[-1], markup=False, highlight=False)

    while time.monotonic() - start < arguments.seconds:
        with promoting():
            seed(number)(chunk)()
        jax.clear_caches()
        number += 1
    console.print(f"{tried:,} programs, {compared:,} compared, {len(failures):,} failures in {time.monotonic() - start:.0f} s "
                  f"(seeds {arguments.seed} to {number - 1})", highlight=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
