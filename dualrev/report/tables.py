"""Measurements as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import dualrev
from dualrev.linear.residuals import size
from dualrev.problems import Scenario
from dualrev.report.measure import Measurement, Stored, Sweep
from dualrev.report.modes import HIGHER, Modes

#: Columns of text to write where there is no terminal to ask.
WIDTH = 140

LEGEND = (
    "forward: one push for each input; nothing is stored.  reverse: one pull for each output.  All at once, unless it says how many.",
    "time: the whole Jacobian with the value, compiled and warm, median of up to 9 runs.  tape: what the reverse engine keeps.",
    "differ: the largest entry of a difference over that of the Jacobian, and each engine from jax's same mode.",
    "value: of a scalar; of anything larger the Euclidean norm, |f|.",
)


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for everything where there is none."""
    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = WIDTH
    return found


def heading() -> str:
    x64 = "float64" if jax.config.read("jax_enable_x64") else "float32"
    return f"dualrev {dualrev.__version__} · jax {jax.__version__} · {jax.default_backend()} · {x64}"


# ------------------------------------------------------------------------------------------------------------ the table


def seconds(s: float) -> str:
    for unit, seconds_each in (("s", 1.0), ("ms", 1e-3)):
        if s >= seconds_each:
            return f"{s / seconds_each:.3g} {unit}"
    return f"{s / 1e-6:.0f} µs"


def passes(sweep: Sweep) -> str:
    if sweep.passes < sweep.passes_for_jacobian:
        return f"{sweep.passes:,} of {sweep.passes_for_jacobian:,}"
    if sweep.at_once < sweep.passes:
        return f"{sweep.passes:,} by {sweep.at_once:,}"
    return f"{sweep.passes:,}"


def duration(sweep: Sweep) -> str:
    return seconds(sweep.seconds) + ("" if sweep.compiled else " un-jitted")


def gap(difference: float, tolerance: float) -> Text:
    text = "0" if difference == 0 else f"{difference:.1e}"
    return Text(text, style="green" if difference <= tolerance else "bold red")


def value(measured: Measurement) -> str:
    return f"{measured.value:.6g}" if measured.outputs == 1 else f"|f| {measured.value:.4g}"


Cell = Callable[[Measurement], "str | Text"]

#: Groups of columns: in a wide table each has columns of its own, in a narrow one its values stand in lines.
GROUPS: tuple[tuple[str, tuple[tuple[str, Cell], ...]], ...] = (
    ("", (("problem", lambda r: Text(r.name, style="bold")),)),
    ("", (("inputs", lambda r: f"{r.inputs:,}"), ("outputs", lambda r: f"{r.outputs:,}"))),
    ("tape", (("ops", lambda r: f"{r.tape_ops:,}"), ("stored", lambda r: size(r.tape_bytes)))),
    ("forward", (("passes", lambda r: passes(r.forward)), ("time", lambda r: duration(r.forward)))),
    ("reverse", (("passes", lambda r: passes(r.reverse)), ("time", lambda r: duration(r.reverse)))),
    ("auto", (("chose", lambda r: r.auto),)),
    ("differ", (("engines", lambda r: gap(r.difference_engines, r.tolerance)),
                ("from jax", lambda r: gap(r.difference_jax, r.tolerance)))),
    ("", (("value", value),)),
)


def table(measurements: Sequence[Measurement], is_wide: bool) -> Table:
    """One row for each function; a narrow table needs 80 columns."""
    made = Table(box=SIMPLE_HEAD, title=heading(), title_style="bold", title_justify="left", show_lines=not is_wide,
                 pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    cells: list[list[Cell]] = []
    for group, parts in GROUPS:
        for shown in [[part] for part in parts] if is_wide else [list(parts)]:
            header = "\n".join([group, *(label for label, _ in shown)] if is_wide or group else [label for label, _ in shown])
            made.add_column(header, justify="left" if shown[0][0] == "problem" else "right", overflow="fold",
                            no_wrap=is_wide, vertical="middle" if len(shown) == 1 else "top")
            cells.append([cell for _, cell in shown])
    for measured in measurements:
        made.add_row(*[Text("\n").join([Text.assemble(cell(measured)) for cell in column]) for column in cells])
    return made


def show(out: Console, measurements: Sequence[Measurement], problems: Sequence[Scenario] = ()) -> None:
    """Print the table, and what its words and its problems are."""
    wide = table(measurements, is_wide=True)
    fits = out.measure(wide, options=out.options.update(width=10_000)).maximum <= out.width
    out.print(wide if fits else table(measurements, is_wide=False))
    out.print()
    for line in LEGEND:
        out.print(line, style="dim")
    if problems:
        out.print()
    for problem in problems:
        out.print(Text.assemble((problem.name, "bold"), f": {problem.description}.  ", (f"{problem.citation}.", "dim")))


def show_memory(out: Console, stored: Sequence[Stored]) -> None:
    """Print what the tape of each function keeps."""
    out.print(Text(heading(), style="bold"))
    for found in stored:
        out.print()
        out.print(Text.assemble((found.name, "bold"), ": what the reverse engine keeps"))
        out.print(found.residuals)


def show_modes(out: Console, found: Sequence[Modes]) -> None:
    """Print what each mode reads of the operations of each function."""
    out.print(Text(heading(), style="bold"))
    for each in found:
        made = Table(box=SIMPLE_HEAD, title=each.name, title_style="bold", title_justify="left", pad_edge=False, show_edge=False)
        made.add_column("operation")
        made.add_column("times", justify="right")
        for heading_of in ("kind", *HIGHER):
            made.add_column(heading_of)
        for op in each.operations:
            made.add_row(op.name, f"{op.times:,}", op.kind, *[op.reads[mode] for mode in HIGHER])
        out.print()
        out.print(made)
    out.print()
    out.print("Forward and reverse mode push and pull each operation by its row.  An operation that holds programs is listed, and so "
              "are theirs.", style="dim")


# -------------------------------------------------------------------------------------------------------------- as JSON


def as_json(measurements: Sequence[Measurement], problems: Sequence[Scenario] = ()) -> str:
    """Every number, unrounded; a number that JSON has no word for is null."""
    about = _about(problems)
    return _json([{"name": r.name, **about.get(r.name, {}), **asdict(r), "agrees": r.agrees} for r in measurements])


def memory_as_json(stored: Sequence[Stored], problems: Sequence[Scenario] = ()) -> str:
    """Every array that is stored, in the order of the program."""
    about = _about(problems)
    return _json([{"name": found.name, **about.get(found.name, {}), "tape_bytes": found.residuals.nbytes,
                   "residuals": [asdict(r) for r in found.residuals]} for found in stored])


def modes_as_json(found: Sequence[Modes], problems: Sequence[Scenario] = ()) -> str:
    """What each mode reads of each operation."""
    about = _about(problems)
    return _json([{"name": each.name, **about.get(each.name, {}), "operations": [asdict(op) for op in each.operations]}
                  for each in found])


def _about(problems: Sequence[Scenario]) -> dict[str, dict[str, str]]:
    return {problem.name: {"description": problem.description, "citation": problem.citation} for problem in problems}


def _json(rows: Sequence[Mapping[str, object]]) -> str:
    content = {
        "dualrev": dualrev.__version__,
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "problems": _finite(rows),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def _finite(x: object) -> object:
    if isinstance(x, dict):
        return {key: _finite(entry) for key, entry in x.items()}
    if isinstance(x, list):
        return [_finite(entry) for entry in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
