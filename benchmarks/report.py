"""``python -m benchmarks.report`` writes ``benchmarks/RESULTS.md`` and its plots from the files in ``benchmarks/results``.

Nothing is measured.  Each part of the page stands between two comments that name it, and only what is between them is written: the text
around them is the authors', and a part that is measured again leaves the others as they are.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import re
import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks import records
from benchmarks.plots import plot
from benchmarks.records import FOLDER, Corpus, Derivative, Growth, Stages

#: What each derivative's part answers: its heading, and the subject of its sentence.
QUESTIONS = {
    "gradient": ("Is a compiled gradient as fast as jax's?", "Compiled gradients take"),
    "jvp": ("Is a push as fast as jax's?", "Compiled pushes take"),
    "hvp": ("Is the product of a Hessian and a vector as fast as jax's?", "Compiled products of Hessians and vectors take"),
    "hessian": ("Is a dense Hessian as fast as jax's?", "Compiled dense Hessians take"),
    "jacobian": ("Is a Jacobian whose mode dualrev chooses as fast as jax.jacrev?", "Compiled Jacobians take"),
    "jacfwd": ("Is a Jacobian by forward mode as fast as jax's?", "Compiled Jacobians by pushes take"),
}
#: Neither dualrev nor jax.
OTHERS = ("PyTorch", "autograd")
#: In the folded table, in this order.
LIBRARIES = ("dualrev", "dualrev forward", "dualrev reverse", "dualrev auto", "dualrev un-jitted", "eager", "eager.jit",
             "jax un-jitted", "PyTorch", "autograd")
#: A loss is a median that is above jax's by more than this.
LOSS = 1.02


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] + ["--:"] * (len(headings) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text.strip()}\n\n</details>\n"


def enumerated(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def found_for(call: str, lines: Sequence[Derivative]) -> dict[str, dict[str, Derivative]]:
    """By program and library."""
    found: dict[str, dict[str, Derivative]] = {}
    for line in lines:
        if line.call == call:
            found.setdefault(line.program, {})[line.library] = line
    return found


def medians(found: dict[str, dict[str, Derivative]]) -> dict[str, float]:
    """dualrev's time over jax's, of each program that both differentiate."""
    ours = {program: libraries.get("dualrev") for program, libraries in found.items()}
    return {program: line.over_jax[1] for program, line in ours.items() if line and line.over_jax}


def spread(subject: str, ratios: Iterable[float]) -> str:
    ratios = list(ratios)
    return f"{subject} {min(ratios):.2f} to {max(ratios):.2f} of jax's time, {statistics.median(ratios):.2f} at the median"


def losses(ratios: dict[str, float], most: int = 8) -> str:
    """Where jax is faster, the worst first."""
    lost = sorted((r, program) for program, r in ratios.items() if r > LOSS)[::-1]
    if not lost:
        return "jax is faster by more than 2 % on none."
    more = f" and {len(lost) - most} more" if len(lost) > most else ""
    return f"jax is faster by more than 2 % on {len(lost)}: {', '.join(f'{program} ({r:.2f})' for r, program in lost[:most])}{more}."


def answer(call: str, found: dict[str, dict[str, Derivative]]) -> str:
    ratios = medians(found)
    if not ratios:
        return "Nothing was measured by both dualrev and jax."
    programs = f"{len(ratios)} program{'s' if len(ratios) > 1 else ''}"
    return f"{spread(QUESTIONS[call][1], ratios.values())}, over {programs}. {losses(ratios)}"


def short_table(found: dict[str, dict[str, Derivative]]) -> str:
    """A line for each program: dualrev, jax, and the fastest other library."""
    rows = []
    for program, by in found.items():
        ours, theirs = by.get("dualrev"), by.get("jax")
        if ours is None:
            continue
        others = [(by[name].over_jax, name) for name in OTHERS if name in by and by[name].over_jax]
        best = min(((ratio[1], name) for ratio, name in others if ratio), default=None)
        rows.append([
            program, f"**{ours.over_jax[1]:.2f}**" if ours.over_jax else f"{ours.milliseconds[1]:.3g} ms",
            f"1 ({theirs.milliseconds[1]:.3g} ms)" if theirs else "none", f"{best[0]:.2f} {best[1]}" if best else "none",
            f"{ours.over_function:.1f}" if ours.over_function else ""])
    return markdown(["time over jax's", "dualrev", "jax", "best other", "dualrev over the function"], rows)


def long_table(found: dict[str, dict[str, Derivative]]) -> str:
    """All libraries, with quartiles."""

    def cell(line: Derivative | None) -> str:
        if line is None or line.over_jax is None:
            return ""
        low, middle, high = line.over_jax
        return f"{middle:.2f} ({low:.2f}-{high:.2f})"

    shown = [name for name in LIBRARIES if any(name in by for by in found.values())]
    rows = [[program, *[cell(by.get(name)) for name in shown]] for program, by in found.items()]
    return markdown(["time over jax's", *shown], [row for row in rows if any(row[1:])])


def notes(call: str, folder: pathlib.Path) -> str:
    """What was left out, one sentence for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for line in records.read("left_out", folder):
        if line.call == call:
            reasons.setdefault((line.why, line.library), []).append(line.program)
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (why, library), of in reasons.items():
        merged.setdefault((why, tuple(of)), []).append(library)
    programs = {line.program for line in records.read("derivatives", folder) if line.call == call}

    def sentence(why: str, of: tuple[str, ...], libraries: list[str]) -> str:
        which = "any program" if set(of) >= programs else enumerated(of)
        return f"- {enumerated(libraries)} {'have' if len(libraries) > 1 else 'has'} no figure for {which}: {why}."

    return "\n".join(sentence(why, of, libraries) for (why, of), libraries in merged.items())


def derivative_part(call: str, folder: pathlib.Path) -> str:
    found = found_for(call, records.read("derivatives", folder))
    ratios = medians(found)
    picture = f"RESULTS-{call}.png"
    title = f"{spread(QUESTIONS[call][1], ratios.values())}" if ratios else call
    plot(found, title, folder / picture)
    more = [folded("All libraries, with quartiles", long_table(found)),
            "Milliseconds are in [derivatives.csv](results/derivatives.csv).\n"]
    if left := notes(call, folder):
        more.append(folded("What has no figure, and why", left))
    return "\n".join([answer(call, found) + "\n", short_table(found), f"![{title}]({picture})\n", *more])


def corpus_part(folder: pathlib.Path) -> str:
    lines: list[Corpus] = records.read("corpus", folder)
    releases = list(dict.fromkeys(line.release for line in lines))
    by = {(line.release, line.program): line for line in lines}
    programs = list(dict.fromkeys(line.program for line in lines))
    measures: dict[str, Callable[[Corpus], float | None]] = {
        "time over jax's": lambda line: line.over_jax[1], "time over the function": lambda line: line.over_function,
        "jax's time over the function": lambda line: line.jax_over_function, "memory over jax's": lambda line: line.memory_over_jax,
        "time to compile over jax's": lambda line: line.compiling_over_jax,
        "time to trace over jax's": lambda line: line.tracing_over_jax}

    def summary(release: str, measure: Callable[[Corpus], float | None]) -> list[str]:
        values = [(x, line.program) for line in lines if line.release == release and (x := measure(line)) is not None]
        worst, program = max(values)
        return [f"{statistics.median(x for x, _ in values):.2f}", f"{min(values)[0]:.2f}", f"{worst:.2f} ({program})"]

    short = markdown(
        ["compiled gradient", *[f"{release}: {what}" for release in releases for what in ("median", "least", "most")]],
        [[name, *[cell for release in releases for cell in summary(release, measure)]] for name, measure in measures.items()])
    said = [f"On jax {release}: {spread('gradients take', ratios.values())}, over {len(ratios)} programs. {losses(ratios)}\n"
            for release in releases if (ratios := {x.program: x.over_jax[1] for x in lines if x.release == release})]

    def cells(line: Corpus | None) -> list[str]:
        if line is None:
            return [""] * 3
        low, middle, high = line.over_jax
        memory = "" if line.memory_over_jax is None else f"{line.memory_over_jax:.2f}"
        return [f"{middle:.2f} ({low:.2f}-{high:.2f})", f"{line.over_function:.1f}", memory]

    long = markdown(["program", *[f"{release}: {what}" for release in releases
                                  for what in ("over jax", "over the function", "memory over jax")]],
                    [[p, *[cell for release in releases for cell in cells(by.get((release, p)))]] for p in programs])
    return "\n".join([*said, short, folded(f"All {len(programs)} programs", long),
                      "Times to compile and to trace of each program are in [corpus.csv](results/corpus.csv)."])


def stages_part(folder: pathlib.Path) -> str:
    lines: list[Stages] = records.read("stages", folder)

    def cells(x: Stages) -> list[str]:
        return [x.program, *[f"{ratio:.2f}" for ratio in (x.tracing, x.lowering, x.compiling)], f"**{x.first_call:.2f}**",
                f"{x.first_call_ms[1]:,.0f} ms", f"{x.share:.0%}"]

    firsts = {x.program: x.first_call for x in lines}
    return "\n".join([f"{spread('First calls take', firsts.values())}, over {len(firsts)} programs. {losses(firsts)}\n",
                      markdown(["dualrev over jax", "tracing", "lowering", "compiling", "first call", "jax's first call",
                                "compiling in dualrev's"], [cells(x) for x in lines]),
                      "Equations, temporary bytes and milliseconds are in [stages.csv](results/stages.csv)."])


def growth_part(folder: pathlib.Path) -> str:
    lines: list[Growth] = records.read("growth", folder)
    by = {(x.library, x.size): x for x in lines}
    sizes = sorted({x.size for x in lines})

    def cell(x: Growth | None) -> str:
        return "" if x is None else f"{x.over_function:.1f}" + (f" ({x.over_jax:.2f})" if x.over_jax is not None else "")

    return markdown(["gradient over its function, n =", *[f"{n:,}" for n in sizes]],
                    [[library, *[cell(by.get((library, n))) for n in sizes]] for library in dict.fromkeys(x.library for x in lines)])


def summary_part(folder: pathlib.Path) -> str:
    """The first table of the page: one line for each question."""
    lines = records.read("derivatives", folder)
    asked: dict[str, dict[str, float]] = {heading: medians(found_for(call, lines)) for call, (heading, _) in QUESTIONS.items()}
    for line in records.read("corpus", folder):
        asked.setdefault(f"Gradients of programs as users write them, jax {line.release}", {})[line.program] = line.over_jax[1]
    asked["The first call, with tracing and compiling"] = {x.program: x.first_call for x in records.read("stages", folder)}
    rows = [[heading, str(len(r)), f"{statistics.median(r.values()):.2f}", f"{min(r.values()):.2f}", f"{max(r.values()):.2f}",
             str(sum(x > LOSS for x in r.values()))] for heading, r in asked.items() if r]
    return markdown(["dualrev's time over jax's", "programs", "median", "best", "worst", "jax faster by more than 2 % on"], rows)


PARTS: dict[str, Callable[[pathlib.Path], str]] = {
    "summary": summary_part, **{call: functools.partial(derivative_part, call) for call in QUESTIONS},
    "corpus": corpus_part, "stages": stages_part, "growth": growth_part}
HEADINGS = {"summary": "In one table", "corpus": "How fast are gradients of programs as users write them?",
            "stages": "How long does the first call take?", "growth": "Does the time of a gradient grow as that of its function?",
            **{call: heading for call, (heading, _) in QUESTIONS.items()}}


def filled(page: str, part: str, text: str) -> str:
    """The page with a new text of one part, at its end where it has none yet."""
    first, last = f"<!-- begin {part}, written by python -m benchmarks.report -->", f"<!-- end {part} -->"
    block = f"{first}\n\n{text.strip()}\n\n{last}"
    if first in page:
        return re.sub(f"{re.escape(first)}.*?{re.escape(last)}", lambda _: block, page, flags=re.DOTALL)
    return f"{page.rstrip()}\n\n## {HEADINGS[part]}\n\n{block}\n"


def write(parts: Iterable[str], folder: pathlib.Path = FOLDER) -> None:
    """Those of the parts of which something was measured, and the summary."""
    path = folder / "RESULTS.md"
    page = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    how = {line.part: line.how for line in records.read("runs", folder)}
    measured = {*[line.call for line in records.read("derivatives", folder)], *[n for n in ("corpus", "stages", "growth")
                                                                               if records.read(n, folder)]}
    for part in ("summary", *parts):
        if part == "summary" or part in measured:
            said = f"{how[part]}\n\n" if part in how else ""
            page = filled(page, part, said + PARTS[part](folder))
    path.write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of the page: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER, help="folder of RESULTS.md, its plots and results/")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    write(options.parts or [part for part in PARTS if part != "summary"], options.out)


if __name__ == "__main__":
    main()
