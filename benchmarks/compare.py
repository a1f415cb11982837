"""All programs, calls and libraries once, in one process: ``python -m benchmarks.compare`` writes ``benchmarks/results``, and from that
``benchmarks/RESULTS.md`` and its plots.  What is not measured stays as it was.

Rounds of all libraries are interleaved, after their results were found equal; what stands in the tables are medians over rounds, and
their quartiles.  The control, work in NumPy with no differentiation in it, runs in the same rounds: its spread is the machine's.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
from rich.console import Console

from benchmarks import corpus, records, report
from benchmarks.libraries import LIBRARIES, UNJITTED, DisagreementError, checked, control, reference, use_double
from benchmarks.programs import HESSIANS, JACOBIANS, PROGRAMS, SIZES, growing
from benchmarks.records import FOLDER, Corpus, Derivative, Growth, LeftOut, Stages, Written
from benchmarks.stages import first_call
from benchmarks.timing import Run, interleaved
from dualrev.problems.scenario import Scenario

SCALARS = tuple(program for program in PROGRAMS if program.derivative is None)
CALLS: dict[str, Sequence[Scenario]] = {
    "gradient": PROGRAMS, "jvp": SCALARS, "hvp": SCALARS, "hessian": HESSIANS, "jacobian": JACOBIANS, "jacfwd": JACOBIANS}


@dataclass(frozen=True)
class Row:
    """Seconds of a program's derivative in each library, of its function in jax ("function") and of the control ("control").

    A group's libraries were measured in the same rounds.  Compiled programs are a group of their own: after one that ran operation by
    operation for a tenth of a second, the next finds its data in no cache and its threads asleep.
    """

    program: str
    groups: tuple[dict[str, list[float]], ...]
    #: What was left out: of which library, and why.
    notes: tuple[tuple[str, str], ...]

    def seconds(self, name: str) -> list[float]:
        return next((group[name] for group in self.groups if name in group), [])

    def ratio(self, name: str, to: str) -> tuple[float, float, float] | None:
        """The lower quartile, median and upper quartile of the ratio in each round; None where one of the two was not measured."""
        for group in self.groups:
            if name in group and to in group:
                low, middle, high = statistics.quantiles([a / b for a, b in zip(group[name], group[to], strict=True)], n=4)
                return low, middle, high
        return None


def row(program: Scenario, call: str, libraries: Iterable[str], to: str, budget: float) -> Row:
    expected = reference(program, call)
    runs: dict[str, Run] = {}
    notes = []
    for library in libraries:
        try:
            runs[library] = checked(library, program, call, expected)
        except (NotImplementedError, DisagreementError) as why:
            notes.append((library, str(why)))
    try:
        runs["function"] = checked("jax", program, "value", reference(program, "value"))
    except NotImplementedError as why:
        notes.append(("the function alone", str(why)))
    runs["control"] = control(1 << 16)
    groups = []
    for names in ([name for name in runs if name not in UNJITTED], [name for name in runs if name in (*UNJITTED, to)]):
        columns = zip(*interleaved([runs[name] for name in names], budget), strict=True)
        groups.append(dict(zip(names, map(list, columns), strict=True)))
    return Row(program.name, tuple(groups), tuple(notes))


# ------------------------------------------------------------------------------------------------------------- records


def derivatives(call: str, r: Row, libraries: Iterable[str], to: str = "jax") -> list[Derivative]:
    """A line of ``results/derivatives.csv`` for each library that was measured."""

    def of(name: str) -> Derivative:
        low, middle, high = (1e3 * q for q in statistics.quantiles(r.seconds(name), n=4))
        over = r.ratio(name, "function")
        over_jax = r.ratio(name, to) if name not in ("function", "control") else None
        return Derivative(call, r.program, name, (low, middle, high), over_jax, over[1] if over and name in libraries else None)

    return [of(name) for name in ("function", *libraries, "control") if r.seconds(name)]


def stages(programs: Iterable[Scenario], budget: float) -> list[Stages]:
    found = []
    for program in programs:
        try:
            found.append(first_call(program, budget).record())
        except NotImplementedError:
            continue
    return found


def growth(libraries: Iterable[str], sizes: Iterable[int], budget: float) -> list[Growth]:
    """Of each library, the gradient over its own function and over jax's gradient."""
    found = []
    for library in libraries:
        for n in sizes:
            program = growing(n)
            try:
                runs = [checked(name, program, call, reference(program, call))
                        for name, call in ((library, "gradient"), (library, "value"), ("jax", "gradient"))]
            except (NotImplementedError, DisagreementError):
                continue
            times = interleaved(runs, budget)
            over_function, over_jax = (statistics.median(line[0] / line[k] for line in times) for k in (1, 2))
            found.append(Growth(library, n, over_function, over_jax))
    return found


def corpus_records(files: Iterable[pathlib.Path]) -> list[Corpus]:
    """What ``python -m benchmarks.corpus --json`` measured, of one or several releases of jax."""
    ours, theirs = corpus.OURS, corpus.JAX
    return [Corpus(f.jax, f.name, f.over_jax, f.over_function[1], f.jax_over_function[1], f.memory,
                   f.compiling[ours] / f.compiling[theirs], f.tracing[ours] / f.tracing[theirs])
            for path in files for f in corpus.read(path).values()]


# -------------------------------------------------------------------------------------------------------------- report


def processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine() -> str:
    """The machine, how busy it was, and the versions."""
    versions = []
    for name in ("dualrev", "jax", "jaxlib", "torch", "autograd", "numpy"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} from its folder" if name == "dualrev" else f"no {name}")
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    used = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}. {processor()}, run on {used} of {os.cpu_count()} cores{load}; "
            f"{platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}, {', '.join(versions)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", help="programs whose name starts so (default: all)")
    parser.add_argument("--calls", nargs="+", choices=[*CALLS, "stages", "growth"], default=[*CALLS, "stages", "growth"])
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES), metavar="LIBRARY")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for the compiled libraries of a row, and for the others")
    parser.add_argument("--corpus", nargs="+", type=pathlib.Path, default=[], metavar="FILE",
                        help="files of `python -m benchmarks.corpus --json`, one for each release of jax, for a table of their own")
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER, help="folder of RESULTS.md, its plots and results/")
    options = parser.parse_args()
    use_double()
    jax.config.update("jax_platforms", "cpu")
    # As PyTorch does, and the imperative face where it is imported first: for all that share this process, in whichever order.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    console = Console(stderr=True)
    folder = options.out
    command = f"Measured by `python -m benchmarks.compare --seconds {options.seconds:g}`. {machine()}"

    def chosen(programs: Iterable[Scenario]) -> list[Scenario]:
        return [p for p in programs if not options.programs or p.name.startswith(tuple(options.programs))]

    def write(part: str, how: str = command) -> None:
        """Part by part, so that a run that is stopped has not been in vain."""
        records.add("runs", [Written(part, how)], folder)
        report.write([part], folder)

    folder.mkdir(parents=True, exist_ok=True)
    for call, programs in CALLS.items():
        if call not in options.calls or not chosen(programs):
            continue
        for program in chosen(programs):
            console.print(f"{call}: {program.name}")
            found = row(program, call, options.libraries, "jax", options.seconds)
            records.add("derivatives", derivatives(call, found, options.libraries), folder)
            records.add("left_out", [LeftOut(call, program.name, name, why) for name, why in found.notes], folder)
        write(call)
    if options.corpus:
        records.add("corpus", corpus_records(options.corpus), folder)
        write("corpus", f"Measured by `python -m benchmarks.corpus`. {machine()}")
    if "stages" in options.calls:
        console.print("stages")
        records.add("stages", stages(chosen(PROGRAMS), options.seconds / 3), folder)
        write("stages")
    if "growth" in options.calls:
        console.print("growth")
        records.add("growth", growth(options.libraries, SIZES, options.seconds / 3), folder)
        write("growth")
    console.print(f"written: {folder / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
