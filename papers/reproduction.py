"""What every reproduction shares: its rows of numbers, its command, its files, and the comparison with what is committed.

A folder ``papers/<key>/`` has ``run.py`` with ``PAPER``, which says what is claimed, and ``run(quick, progress)``, which finds the
numbers and draws the figure; ``python -m papers.<key>`` runs it.  Results stand beside it in ``result.json`` and ``result-quick.json``,
the figure in ``figure.png`` and ``figure.svg``, and the table of the folder's README is made from the former.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import jax
import jaxlib
from rich.console import Console
from rich.progress import track
from rich.table import Table

T = TypeVar("T")
FOLDER = pathlib.Path(__file__).parent
BEGIN, END = "<!-- table: python -m papers -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Row:
    """One number of the paper beside ours.

    Attributes:
      name: what is measured, with its unit.
      paper: the paper's number as it is printed, or what follows from its formula; None where it states none.
      ours: our number.
      holds: whether the claim holds for our number.
      tolerance: by how much another run may differ, relative to ``ours``; 0 for a count.
    """

    name: str
    paper: float | str | None
    ours: float
    holds: bool
    tolerance: float = 0.0


@dataclass(frozen=True)
class Paper:
    """A claim, and where it is made.

    Attributes:
      key: the folder, and the entry of ``references.bib``; for a result of our own, a name that no entry has.
      title: of the paper.
      claim: one sentence.
      where: section, table or equation of the paper.
      differs: how the set-up here differs from the paper's.
    """

    key: str
    title: str
    claim: str
    where: str
    differs: str


@dataclass(frozen=True)
class Outcome:
    """What a run found: rows, one sentence of verdict, and a figure to be drawn on given axes."""

    rows: tuple[Row, ...]
    sentence: str
    draw: Callable[[Any], None] = field(compare=False, repr=False)

    @property
    def verdict(self) -> str:
        held = sum(row.holds for row in self.rows)
        return "reproduced" if held == len(self.rows) else "not reproduced" if not held else f"in part ({held} of {len(self.rows)})"


class Progress:
    """A progress bar over the parts of a run."""

    def __init__(self, is_shown: bool):
        self.is_shown = is_shown

    def __call__(self, parts: Iterable[T], what: str) -> Iterator[T]:
        found = list(parts)
        yield from track(found, what, console=Console(stderr=True), transient=True) if self.is_shown else found


Run = Callable[[bool, Progress], Outcome]


def differences(rows: Sequence[Row], committed: Sequence[dict[str, Any]]) -> list[str]:
    """Where numbers differ from the committed ones by more than their tolerances."""
    before = {row["name"]: row for row in committed}
    found = [f"{name}: is committed, and was not found now" for name in before.keys() - {row.name for row in rows}]
    for row in rows:
        if row.name not in before:
            found.append(f"{row.name}: {row.ours:.4g}, which is not among the committed ones")
            continue
        other = before[row.name]["ours"]
        if not math.isclose(row.ours, other, rel_tol=max(row.tolerance, 1e-9)):
            found.append(f"{row.name}: {row.ours:.4g}, committed {other:.4g}, tolerance {100 * row.tolerance:.0f} %")
    return sorted(found)


def as_json(paper: Paper, outcome: Outcome, seconds: float) -> dict[str, Any]:
    return {"key": paper.key, "title": paper.title, "claim": paper.claim, "verdict": outcome.verdict, "sentence": outcome.sentence,
            "rows": [asdict(row) for row in outcome.rows], "seconds": round(seconds, 1),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}", "python": platform.python_version(),
            "jax": jax.__version__, "jaxlib": jaxlib.__version__}


def cell(number: float | str | None) -> str:
    if number is None:
        return ""
    return number if isinstance(number, str) else f"{number:,.0f}" if number == int(number) and abs(number) < 1e7 else f"{number:.3g}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of a folder's README."""
    lines = ["| | paper | here | holds |", "|---|---|---|---|"]
    lines += [f"| {row['name']} | {cell(row['paper'])} | {cell(row['ours'])} | {'yes' if row['holds'] else '**no**'} |" for row in rows]
    return "\n".join(lines)


def between(text: str, table: str, what: str) -> str:
    """The text with another table between its markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{what} needs the lines {BEGIN} and {END} once each, to put its table between them")
    return f"{text.partition(BEGIN)[0]}{BEGIN}\n\n{table}\n\n{END}{text.partition(END)[2]}"


def save(paper: Paper, outcome: Outcome, seconds: float, is_quick: bool) -> None:
    folder = FOLDER / paper.key
    found = as_json(paper, outcome, seconds)
    (folder / f"result{'-quick' * is_quick}.json").write_text(json.dumps(found, indent=1) + "\n")
    if is_quick:
        return
    readme = folder / "README.md"
    verdict = f"**Verdict: {found['verdict']}.** {found['sentence']} ({found['seconds']:.0f} s; {found['machine']}; jax {found['jax']})"
    readme.write_text(between(readme.read_text(), f"{markdown(found['rows'])}\n\n{verdict}", f"papers/{paper.key}/README.md"))
    figure(paper, outcome)


def plotting() -> Any:
    """What figures are drawn with; a run that needs it asks before it starts."""
    try:
        return importlib.import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        raise SystemExit("papers: figures need matplotlib; install the extra: pip install 'dualrev[papers]'") from None


def figure(paper: Paper, outcome: Outcome) -> None:
    """Writes ``figure.png`` and ``figure.svg``."""
    pyplot = plotting()
    with pyplot.rc_context({"svg.hashsalt": paper.key, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        drawn = pyplot.figure(figsize=(7.2, 3.2), layout="constrained")
        outcome.draw(drawn)
        for kind in ("png", "svg"):
            without_dates = {"Date": None} if kind == "svg" else {"Software": None}
            drawn.savefig(FOLDER / paper.key / f"figure.{kind}", dpi=144, metadata=without_dates)
        pyplot.close(drawn)


def show(paper: Paper, outcome: Outcome, console: Console) -> None:
    table = Table("", "paper", "here", "holds", title=f"{paper.title}: {paper.claim}", title_justify="left")
    for row in outcome.rows:
        table.add_row(row.name, cell(row.paper), cell(row.ours), "[green]yes" if row.holds else "[red]no")
    console.print(table)
    console.print(f"{outcome.verdict}: {outcome.sentence}", highlight=False)


def main(paper: Paper, run: Run, words: Sequence[str] | None = None) -> int:
    """The command of a folder: run, compare with what is committed, and write where it agrees or is asked to."""
    made = argparse.ArgumentParser(prog=f"python -m papers.{paper.key}", description=f"{paper.title}.  {paper.claim}")
    made.add_argument("--quick", action="store_true", help="smaller sizes: under 20 s")
    made.add_argument("--accept", action="store_true", help="write the results even where they differ from the committed ones")
    made.add_argument("--no-save", action="store_true", help="write nothing")
    options = made.parse_args(words)
    if not (options.quick or options.no_save):
        plotting()
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    outcome = run(options.quick, Progress(sys.stderr.isatty()))
    seconds = time.perf_counter() - began
    show(paper, outcome, Console())
    committed = FOLDER / paper.key / f"result{'-quick' * options.quick}.json"
    changed = differences(outcome.rows, json.loads(committed.read_text())["rows"]) if committed.exists() else []
    if changed:
        print(f"{len(changed)} numbers differ from {committed.relative_to(FOLDER.parent)} by more than their tolerances"
              f"{'' if options.accept else ', which is left as it is (--accept writes it)'}:", *changed, sep="\n  ", file=sys.stderr)
    if not options.no_save and (options.accept or not changed):
        save(paper, outcome, seconds, options.quick)
    return 1 if changed and not options.accept else 0
