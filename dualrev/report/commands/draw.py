"""``python -m dualrev draw module:function``: the tape of a function as a picture, or as text in the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import jax

from dualrev.inspection.drawing.api import content_of_call
from dualrev.inspection.drawing.drawings import Drawing
from dualrev.inspection.tracing import Call
from dualrev.report import tables
from dualrev.report.commands.arguments import parser, write
from dualrev.report.targets import InputError, find
from dualrev.time_model import constants


def run(words: Sequence[str]) -> int:
    """The command; 0 where it was drawn."""
    made = parser("draw", __doc__)
    made.add_argument("--by", choices=("time", "flops", "bytes"), default="time",
                      help="what the colours show: predicted time, flops, or bytes stored for the pull (default: time)")
    made.add_argument("--max-boxes", type=int, default=40, metavar="N", help="more boxes than these are folded (default: 40)")
    options = made.parse_args(words)
    if options.max_boxes < 1:
        raise InputError(f"--max-boxes is at least 1; got {options.max_boxes}")
    jax.config.update("jax_enable_x64", True)
    found = find(options.function, options.args)
    with tables.console(stderr=True).status(f"tracing {found.name}"), contextlib.redirect_stdout(sys.stderr), found.failures_in_words():
        content = content_of_call(Call("draw", found.function, found.args, found.kwargs), constants())
        drawing = Drawing(content, options.by, options.max_boxes)
    print(drawing)
    return write(drawing.save, options.output)
