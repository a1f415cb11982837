"""Counts that do not depend on how fast a machine is, beside those that were written down: ``python -m benchmarks.guard``.

For each program: equations, floating-point operations, bytes read and written and bytes for temporary values of its compiled gradient,
and what its tape keeps; for small ones, calls of Python functions during an un-jitted gradient or push.  One that has grown by more
than 2 % is an error.  The counts of a release of jax and of Python are in a file of their own in ``benchmarks/baselines``; ``--write``
makes it anew, where a growth is meant, or a gain is to be kept.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import sys
from collections.abc import Iterable

import jax
from rich.console import Console
from rich.table import Table

import dualrev
from benchmarks.counts import compiled_counts, python_calls, tape_bytes
from benchmarks.libraries import COMPILING, LIBRARIES, use_double
from benchmarks.programs import GUARDED
from benchmarks.scenarios import SCENARIOS
from dualrev.functional import repeated
from dualrev.problems.scenario import Scenario

ALLOWED = 0.02
Counts = dict[str, dict[str, int]]

#: A function of few operations, and one of structured inputs: un-jitted, their time is that of Python.  In this order, for the second
#: finds caches that the first has filled.
SMALL = SCENARIOS["20 sines"], SCENARIOS["network 8-8-3"]


def baseline_path() -> pathlib.Path:
    python = ".".join(platform.python_version_tuple()[:2])
    return pathlib.Path(__file__).parent / "baselines" / f"jax-{jax.__version__}-python-{python}.json"


def of_program(program: Scenario) -> dict[str, int]:
    library = COMPILING["dualrev"]
    counts = compiled_counts(library.function(program, "gradient"), library.call_arguments(program, "gradient"))
    return counts if program.derivative else {**counts, "tape bytes": tape_bytes(program)}


def of_python(program: Scenario) -> dict[str, int]:
    counts = {}
    for call in ("gradient", "jvp"):
        run = LIBRARIES["dualrev un-jitted"].prepare(program, call)
        for _ in range(repeated.SEEN):  # from then on, pulls are compiled as a whole
            run()
        # What happens now and then, such as a weak reference that dies, is in none of the fewest.
        counts[f"Python calls, {call}"] = min(python_calls(run) for _ in range(3))
    return counts


def measured(programs: Iterable[Scenario] = GUARDED, small: Iterable[Scenario] = SMALL) -> Counts:
    found = {program.name: of_program(program) for program in programs}
    for program in small:
        found[f"un-jitted {program.name}"] = of_python(program)
    return found


def grown(found: Counts, before: Counts, allowed: float = ALLOWED) -> list[str]:
    """What is larger than it was, or is no longer counted, one line each."""
    lines = []
    for program, counts in before.items():
        for what, old in counts.items():
            new = found.get(program, {}).get(what)
            if new is None:
                lines.append(f"{program}: {what} are no longer counted")
            elif new > old * (1 + allowed):
                lines.append(f"{program}: {what} grew from {old:,} to {new:,}{f', by {new / old - 1:.1%}' if old else ''}")
    lines += [f"{program}: not in the baseline; write it with --write" for program in found if program not in before]
    return lines


def shown(found: Counts, before: Counts) -> Table:
    """The counts that differ."""
    table = Table(title="counts that are not what they were")
    for heading in ("program", "count", "was", "is", "ratio"):
        table.add_column(heading, justify="left" if heading in ("program", "count") else "right")
    for program, counts in found.items():
        for what, new in counts.items():
            old = before.get(program, {}).get(what, 0)
            if new != old:
                table.add_row(program, what, f"{old:,}", f"{new:,}", f"{new / old:.3f}" if old else "")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the counts down")
    options = parser.parse_args()
    console = Console(width=136)
    path = baseline_path()
    if not options.write and not path.exists():
        console.print(f"no counts were written down for jax {jax.__version__} and this Python: nothing to compare")
        return 0
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")
    # One instruction set: how XLA fuses is a matter of what the processor has.
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_max_isa=AVX2"
    use_double()
    found = measured()
    if options.write:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        console.print(f"{sum(map(len, found.values()))} counts of dualrev {dualrev.__version__} are in {path.name}")
        return 0
    before = json.loads(path.read_text(encoding="utf-8"))
    table = shown(found, before)
    if table.row_count:
        console.print(table)
    lines = grown(found, before)
    for line in lines:
        console.print(f"[red]{line}", highlight=False)
    if not lines:
        console.print(f"{sum(map(len, found.values()))} counts, none of which grew by more than {ALLOWED:.0%}")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
