"""Whole programs of the imperative face against PyTorch, cold and warm: ``python -m benchmarks.eager_programs``.

Each program of ``tests/eager/programs`` runs in a process of its own, once for each library.  The cold time is that of the whole
process, from its start to its end, with imports and whatever is compiled; the warm one that of the program again in a process where
it has run before.  Beside them stands how many programs XLA compiled in the cold run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
MODULES = ("networks", "sequences", "science")
LIBRARIES = ("dualrev", "torch")
#: What jax says when XLA has compiled a program.
_COMPILED = "/jax/core/compile/backend_compile_duration"

# ------------------------------------------------------------------------------------------------------ in a process of its own


def programs() -> dict[str, Callable[[Any], Any]]:
    """The programs by name, ``module.function``; this imports neither library."""
    sys.path.insert(0, str(ROOT / "tests" / "eager"))
    modules = [importlib.import_module(f"programs.{name}") for name in MODULES]
    return {f"{name}.{key}": fun for name, module in zip(MODULES, modules, strict=True) for key, fun in vars(module).items()
            if getattr(fun, "__module__", "") == module.__name__ and callable(fun)}


def run(name: str, library: str, again: float) -> None:
    """Run a program, and print as JSON how many programs were compiled, and the seconds of each further run."""
    program = programs()[name]
    compilations: list[float] = []
    if library == "torch":
        import torch as face
    else:
        from dualrev import eager as face  # type: ignore[no-redef]
        if again:
            import jax.monitoring

            def listen(event: str, duration_secs: float, **_: str | int) -> None:
                if event == _COMPILED:
                    compilations.append(duration_secs)

            jax.monitoring.register_event_duration_secs_listener(listen)
    program(face)
    if not again:
        return
    n_compiled, in_compiler = len(compilations), sum(compilations)
    times: list[float] = []
    end = time.perf_counter() + again
    while len(times) < 12 or (len(times) < 1000 and time.perf_counter() < end):
        start = time.perf_counter()
        program(face)
        times.append(time.perf_counter() - start)
    # The first runs may compile what comes again.
    print(json.dumps({"times": times[len(times) // 2:], "compilations": n_compiled, "in_compiler": in_compiler}))


# ---------------------------------------------------------------------------------------------------------------- measuring

@dataclass(frozen=True)
class Whole:
    """A program's figures, of ours and of PyTorch: seconds of whole processes, of processors in them, and of warm runs."""

    name: str
    cold: tuple[float, float]
    work: tuple[float, float]
    warm: tuple[float, float]
    compilations: int
    in_compiler: float


def _process(name: str, library: str, again: float = 0.0) -> tuple[float, float, str]:
    """Run a program in a process: seconds, those of processors, and what it printed."""
    command = [sys.executable, "-m", "benchmarks.eager_programs", "--run", name, library, "--again", str(again)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    before, start = os.times(), time.perf_counter()
    found = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    seconds, after = time.perf_counter() - start, os.times()
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system, found.stdout


def measured(name: str, rounds: int, again: float) -> Whole:
    """The fastest cold run of some rounds, which take turns, and the median of warm ones."""
    cold: dict[str, list[tuple[float, float]]] = {library: [] for library in LIBRARIES}
    for library in LIBRARIES:
        _process(name, library)  # reads the files, and writes their bytecode
    for k in range(rounds):
        for library in LIBRARIES if k % 2 else LIBRARIES[::-1]:
            seconds, work, _ = _process(name, library)
            cold[library].append((seconds, work))
    warm = [json.loads(_process(name, library, again)[2].splitlines()[-1]) for library in LIBRARIES]
    ours, theirs = ([min(x) for x in zip(*cold[library], strict=True)] for library in LIBRARIES)
    return Whole(name, (ours[0], theirs[0]), (ours[1], theirs[1]),
                 (statistics.median(warm[0]["times"]), statistics.median(warm[1]["times"])), warm[0]["compilations"],
                 warm[0]["in_compiler"])


def _lines(found: list[Whole]) -> list[str]:
    lines = ["| program | cold, s | PyTorch | ratio | of processors | compiled | s | warm, ms | PyTorch | ratio |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for w in found:
        (a, b), (p, q), (x, y) = w.cold, w.work, w.warm
        lines.append(f"| {w.name} | {a:.2f} | {b:.2f} | {a / b:.2f} | {p / q:.2f} | {w.compilations} | {w.in_compiler:.2f} "
                     f"| {1e3 * x:.1f} | {1e3 * y:.1f} | {x / y:.2f} |")
    for word, of in (("median", statistics.median), ("largest", max)):
        cold, work, warm = (of([pair[0] / pair[1] for pair in pairs]) for pairs in (
            [w.cold for w in found], [w.work for w in found], [w.warm for w in found]))
        lines.append(f"| {word} | | | {cold:.2f} | {work:.2f} | | | | | {warm:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="programs, or parts of their names; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="cold runs of each")
    parser.add_argument("--again", type=float, default=0.5, help="seconds of warm runs")
    parser.add_argument("--run", nargs=2, metavar=("NAME", "LIBRARY"), help="run one program in this process")
    options = parser.parse_args()
    if options.run:
        name, library = options.run
        run(name, library, options.again)
        return
    chosen = [name for name in programs() if not options.names or any(part in name for part in options.names)]
    found: list[Whole] = []
    for name in chosen:
        found.append(measured(name, options.rounds, options.again))
        print(_lines(found)[-3], flush=True)
    print("\n".join(["", *_lines(found)]))


if __name__ == "__main__":
    main()
