"""``python -m dualrev memory module:function``: live bytes over forward and pull under checkpoint policies, as text or as a plot."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence

import jax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dualrev.inspection.timeline.api import timeline
from dualrev.inspection.timeline.tracing import POLICIES
from dualrev.report import tables
from dualrev.report.commands.arguments import parser, write
from dualrev.report.targets import find


def run(words: Sequence[str]) -> int:
    """The command; 0 where it was traced."""
    made = parser("memory", __doc__)
    made.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    options = made.parse_args(words)
    jax.config.update("jax_enable_x64", True)
    found = find(options.function, options.args)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=tables.console(stderr=True), transient=True)
    with bar, contextlib.redirect_stdout(sys.stderr), found.failures_in_words():
        task = bar.add_task("tracing", total=len(POLICIES))

        def progress(policy: str) -> None:
            bar.update(task, description=f"tracing: {policy}", advance=1)

        made_timeline = timeline(found.function, *found.args, progress=progress, **found.kwargs)
    if options.json:
        print(json.dumps(made_timeline.to_dict(), indent=2))
    else:
        tables.console().print(made_timeline)
    return write(made_timeline.save, options.output)
