"""All programs, calls and libraries once, in one process: ``python -m benchmarks.compare`` writes ``benchmarks/RESULTS.md`` and plots.

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
import numpy as np
from rich.console import Console

from benchmarks import corpus
from benchmarks.libraries import LIBRARIES, UNJITTED, DisagreementError, checked, control, reference, use_double
from benchmarks.programs import HESSIANS, JACOBIANS, PROGRAMS, SIZES, growing
from benchmarks.stages import HEADINGS, first_call
from benchmarks.timing import Run, interleaved
from dualrev.problems.scenario import Scenario

SCALARS = tuple(program for program in PROGRAMS if program.derivative is None)
CALLS: dict[str, Sequence[Scenario]] = {
    "gradient": PROGRAMS, "jvp": SCALARS, "hvp": SCALARS, "hessian": HESSIANS, "jacobian": JACOBIANS, "jacfwd": JACOBIANS}
FOLDER = pathlib.Path(__file__).parent


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


# -------------------------------------------------------------------------------------------------------------- tables


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] + ["--:"] * (len(headings) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def times_table(rows: Sequence[Row], libraries: Sequence[str]) -> str:
    """Milliseconds, with quartiles."""

    def cell(seconds: list[float]) -> str:
        if not seconds:
            return ""
        low, middle, high = (1e3 * q for q in statistics.quantiles(seconds, n=4))
        return f"{middle:.3g} ({low:.3g}-{high:.3g})"

    return markdown(["milliseconds", "function in jax", *libraries, "control"],
                    ([r.program, *[cell(r.seconds(name)) for name in ("function", *libraries, "control")]] for r in rows))


def ratios_table(rows: Sequence[Row], libraries: Sequence[str], to: str) -> str:
    def cell(r: Row, library: str) -> str:
        found = r.ratio(library, to)
        return f"{found[1]:.2f} ({found[0]:.2f}-{found[2]:.2f})" if found else ""

    def over_function(r: Row) -> str:
        found = r.ratio("dualrev", "function")
        return f"{found[1]:.1f}" if found else ""

    others = [name for name in libraries if name != to]
    cells = [[r.program, *[cell(r, name) for name in others], over_function(r)] for r in rows]
    return markdown([f"time over {to}'s", *others, "dualrev over function"], [line for line in cells if any(line[1:])])


def stages_table(programs: Iterable[Scenario], budget: float) -> str:
    lines = []
    for program in programs:
        try:
            lines.append(first_call(program, budget).cells())
        except NotImplementedError:
            continue
    return markdown(HEADINGS, lines)


def growth_table(libraries: Iterable[str], sizes: Iterable[int], budget: float) -> str:
    """Of each library, the gradient over its own function, and in brackets over jax's gradient."""
    sizes = list(sizes)
    lines = []
    for library in libraries:
        cells = []
        for n in sizes:
            program = growing(n)
            try:
                runs = [checked(name, program, call, reference(program, call))
                        for name, call in ((library, "gradient"), (library, "value"), ("jax", "gradient"))]
                times = interleaved(runs, budget)
                over_function, over_jax = (statistics.median(line[0] / line[k] for line in times) for k in (1, 2))
                cells.append(f"{over_function:.1f} ({over_jax:.2f})")
            except (NotImplementedError, DisagreementError):
                cells.append("")
        lines.append([library, *cells])
    return markdown(["gradient over function (over jax's), n =", *[f"{n:,}" for n in sizes]], lines)


def corpus_table(files: Iterable[pathlib.Path]) -> str:
    """What ``python -m benchmarks.corpus --json`` measured, of one or several releases of jax, side by side."""
    releases = [corpus.read(path) for path in files]
    headings = ["program"]
    for found in releases:
        version = next(iter(found.values())).jax
        headings += [f"{version}: over jax", "over function", "jax over function", "memory over jax", "compiling over jax",
                     "tracing over jax"]

    def cells(f: corpus.Figures | None) -> list[str]:
        if f is None:
            return [""] * 6
        low, middle, high = f.over_jax
        ours, theirs = corpus.OURS, corpus.JAX
        return [f"{middle:.2f} ({low:.2f}-{high:.2f})", f"{f.over_function[1]:.1f}", f"{f.jax_over_function[1]:.1f}",
                "" if f.memory is None else f"{f.memory:.2f}", f"{f.compiling[ours] / f.compiling[theirs]:.2f}",
                f"{f.tracing[ours] / f.tracing[theirs]:.2f}"]

    names = dict.fromkeys(name for found in releases for name in found)
    return markdown(headings, ([name, *[cell for found in releases for cell in cells(found.get(name))]] for name in names))


# ---------------------------------------------------------------------------------------------------------------- plot


def plot(rows: Sequence[Row], libraries: Sequence[str], to: str, title: str, path: pathlib.Path) -> None:
    """Libraries that run operation by operation have an axis of their own: they are up to a thousand times as slow."""
    import matplotlib
    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    rows = [r for r in rows if any(r.ratio(name, to) for name in libraries)]
    others = [name for name in libraries if name != to]
    panels = {"compiled": [name for name in others if name not in UNJITTED],
              "operation by operation": [name for name in others if name in UNJITTED]}
    shown = [panel for panel, names in panels.items() if names] or ["compiled"]
    figure, drawn = pyplot.subplots(1, len(shown), sharey=True, squeeze=False, figsize=(3 + 5 * len(shown), 2 + 0.5 * len(rows)),
                                    layout="constrained")
    for axes, panel in zip(drawn[0], shown, strict=True):
        names = panels[panel]
        for place in range(0, len(rows), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="black", alpha=0.05, linewidth=0)
        for k, library in enumerate(names):
            # One above the other, or those that take as long would hide each other.
            offset = 0.8 * ((k + 0.5) / len(names) - 0.5)
            measured = [(place + offset, *found) for place, r in enumerate(rows) if (found := r.ratio(library, to))]
            if measured:
                at, low, middle, high = np.array(measured).T
                axes.errorbar(middle, at, xerr=(middle - low, high - middle), color=f"C{others.index(library)}",
                              fmt="os^vD<"[k % 6], label=library, markersize=5)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set(xscale="log", yticks=range(len(rows)), yticklabels=[r.program for r in rows], xlabel=f"time over {to}'s", title=panel)
        least, most = axes.get_xlim()
        axes.set_xlim(min(least, 0.45), max(most, 2.2))
        axes.xaxis.set_minor_locator(ticker.LogLocator(subs=(2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}" if most < 100 * least else "")
        axes.grid(axis="x", which="both", alpha=0.2)
    drawn[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(f"{title}: medians and quartiles")
    figure.legend(loc="outside lower center", ncols=3 * len(shown), frameon=False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


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
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER, help="folder of RESULTS.md and its plots")
    options = parser.parse_args()
    use_double()
    jax.config.update("jax_platforms", "cpu")
    # As PyTorch does, and the imperative face where it is imported first: for all that share this process, in whichever order.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    console = Console(stderr=True)
    text = ["# Results\n", f"Written by `python -m benchmarks.compare`. {machine()}\n", "Medians over interleaved rounds, quartiles in "
            "brackets; a control that spreads widely tells of a busy machine. Each program says its own precision: networks and the "
            "ODE single, the rest double. \"dualrev\" and \"jax\" are compiled by `jax.jit`. Operations run "
            "where they are called, jax's too, and every result is waited for. A place is empty where a library cannot do it; the "
            "notes say why.\n"]

    def chosen(programs: Iterable[Scenario]) -> list[Scenario]:
        return [p for p in programs if not options.programs or p.name.startswith(tuple(options.programs))]

    def write(*lines: str) -> None:
        """What is found by and by, so that a run that is stopped has not been in vain."""
        text.extend(lines)
        (options.out / "RESULTS.md").write_text("\n".join(text), encoding="utf-8")

    options.out.mkdir(parents=True, exist_ok=True)
    for call, programs in CALLS.items():
        if call not in options.calls or not chosen(programs):
            continue
        rows = []
        for program in chosen(programs):
            console.print(f"{call}: {program.name}")
            rows.append(row(program, call, options.libraries, "jax", options.seconds))
        picture = f"RESULTS-{call}.png"
        plot(rows, options.libraries, "jax", call, options.out / picture)
        notes = [f"- {name}: {why} ({', '.join(r.program for r in rows if (name, why) in r.notes)})"
                 for name, why in sorted({note for r in rows for note in r.notes})]
        write(f"## {call}\n", ratios_table(rows, options.libraries, "jax"), f"![{call}]({picture})\n",
              times_table(rows, options.libraries), *notes, "")
    if options.corpus:
        write("## Programs as users write them\n", "Written by `python -m benchmarks.corpus`: compiled gradients over jax's and over "
              "their own function, of the release of jax in front.\n", corpus_table(options.corpus))
    if "stages" in options.calls:
        console.print("stages")
        write("## Before the first result\n", "Each stage of a new program, which no cache has seen: medians of the ratio of dualrev's "
              "gradient to jax's, and dualrev's time and jax's. The function has to be traced by both; that alone is the least that a "
              "ratio of tracing can be.\n", stages_table(chosen(PROGRAMS), options.seconds / 3))
    if "growth" in options.calls:
        console.print("growth")
        write("## Growth\n", growth_table(options.libraries, SIZES, options.seconds / 3))
    console.print(f"written: {options.out / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
