"""``python -m dualrev calibrate``: measure the constants of the time model here, show them beside the shipped ones, and keep them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from dualrev.report import tables
from dualrev.report.commands.arguments import Parser
from dualrev.time_model import calibrate, machine, time_in_words


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    """The numbers of a constant, each with a name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}[{key}]", inner)
    elif isinstance(value, tuple):
        for i, inner in enumerate(value):
            yield from _flat(f"{name}.{i}", inner)
    else:
        yield name, value


def _shown(name: str, value: object) -> str:
    if not isinstance(value, (int, float)):
        return str(value)
    if "per_s" in name or name.startswith("levels"):
        return f"{value:.3g}"
    is_time = "_s" in name or name.startswith("calls")
    return time_in_words(value) if is_time else f"{value:,.0f}" if abs(value) < 1e15 else str(value)


def table_of(found: machine.Constants, shipped: machine.Constants) -> Table:
    """Measured and shipped constants, a line for each number."""
    table = Table("constant", "measured", "shipped", title=found.name)
    before = {key: value for field in dataclasses.fields(shipped) for key, value in _flat(field.name, getattr(shipped, field.name))}
    for field in dataclasses.fields(found):
        for key, value in _flat(field.name, getattr(found, field.name)):
            own, theirs = _shown(key, value), _shown(key, before[key]) if key in before else ""
            table.add_row(key, own, theirs, style="" if own != theirs else "dim")
    return table


def run(words: Sequence[str]) -> int:
    """The command; 0, or 1 where the file can't be written."""
    parser = Parser(prog="python -m dualrev calibrate", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--dry-run", action="store_true", help="measure and show, but keep nothing")
    options = parser.parse_args(words)
    start = time.perf_counter()
    with tables.console(stderr=True).status("measuring"):
        found = calibrate.measured()
    console = tables.console()
    console.print(table_of(found, machine.shipped(found.backend)))
    console.print(f"measured and compiled in {time.perf_counter() - start:.1f} s")
    if options.dry_run:
        return 0
    try:
        path = machine.cache_file()
        machine.write(found, path)
    except (OSError, RuntimeError) as error:
        print(f"dualrev: error: the constants can't be kept: {error}", file=sys.stderr)
        return 1
    console.print(f"kept in {path}", soft_wrap=True)
    return 0
