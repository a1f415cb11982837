"""``python -m papers``: the reproductions, what they found, and how to run them."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track
from rich.table import Table

from papers.reproduction import FOLDER, between, main


def keys() -> list[str]:
    """The folders that reproduce a paper."""
    return sorted(path.parent.name for path in FOLDER.glob("*/run.py"))


def table() -> str:
    """The table of papers/README.md, from the committed results."""
    lines = ["| paper | claim | verdict | time | picture |", "|---|---|---|---|---|"]
    for key in keys():
        found = json.loads((FOLDER / key / "result.json").read_text())
        lines.append(f"| [{found['title']}]({key}/README.md) | {found['claim']} | {found['verdict']}: {found['sentence']} | "
                     f"{found['seconds']:.0f} s | [figure]({key}/figure.png) |")
    return "\n".join(lines)


def write_table() -> None:
    page = FOLDER / "README.md"
    page.write_text(between(page.read_text(), table(), "papers/README.md"))


def command(words: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(prog="python -m papers", description="Lists the reproductions, or runs those that are named.")
    made.add_argument("keys", nargs="*", metavar="key", help="the papers to run: folders of papers/; 'all' for each of them")
    made.add_argument("--quick", action="store_true", help="smaller sizes: under 20 s each")
    options = made.parse_args(words)
    unknown = [key for key in options.keys if key not in keys() and key != "all"]
    if unknown:
        print(f"papers: there is no reproduction {', '.join(unknown)}; there are: {', '.join(keys())}", file=sys.stderr)
        return 2
    if not options.keys:
        shown = Table("key", "claim", "verdict", "time")
        for key in keys():
            found = json.loads((FOLDER / key / "result.json").read_text())
            shown.add_row(key, found["claim"], found["verdict"], f"{found['seconds']:.0f} s")
        Console().print(shown, "python -m papers <key> ... runs some, python -m papers all each of them", highlight=False)
        return 0
    chosen = keys() if "all" in options.keys else options.keys
    status = 0
    for key in track(chosen, "reproducing", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()):
        module = importlib.import_module(f"papers.{key}.run")
        status = max(status, main(module.PAPER, module.run, ["--quick"] if options.quick else []))
    write_table()
    return status


if __name__ == "__main__":
    sys.exit(command())
