"""``python -m dualrev explain module:function --args "..."``: what a derivative costs in each way, and which way to take."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dualrev.inspection import explanation
from dualrev.inspection.explanation import Explanation
from dualrev.report import tables, targets
from dualrev.report.commands.arguments import Parser
from dualrev.time_model import calibrate, machine


def _numbers(text: str) -> int | tuple[int, ...]:
    """``1`` or ``0,2``."""
    found = tuple([int(part) for part in text.split(",")])
    return found[0] if len(found) == 1 else found


def parser() -> Parser:
    made = Parser(
        prog="python -m dualrev explain", description="What the derivative of a function costs in each way, and which way to take.",
        epilog="Numbers have jax's precision: JAX_ENABLE_X64=1 for double.  The first call on a device measures the constants of the "
               "time model, in about 2 s, and keeps them as python -m dualrev calibrate does.")
    made.add_argument("function", metavar="module:function", help="module:function or path/to/file.py:function")
    made.add_argument("--args", metavar="EXPRESSIONS", help="its arguments, as Python expressions: \"jnp.ones(3), 2.0, scale=1.5\"")
    made.add_argument("--derivative", choices=["grad", "jacobian", "hessian"], help="by default grad for a scalar, else jacobian")
    made.add_argument("--argnums", type=_numbers, metavar="N[,N]",
                      help="which arguments to differentiate by (default: the first one with floats)")
    made.add_argument("--has-aux", action="store_true", help="the function returns (value, aux)")
    made.add_argument("--measure", action="store_true", help="compile the variants and time them")
    made.add_argument("--no-calibration", action="store_true", help="predict with the constants in use, and measure none")
    made.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    return made


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=tables.console(stderr=True), transient=True) as bar:
        yield bar


def calibrated(bar: Progress) -> None:
    """Measure the constants of this device, unless that was done before."""
    try:
        path = machine.cache_file()
        if path.exists():
            return
        task = bar.add_task("measuring the constants of this device, once", total=len(calibrate.PROGRAMS))
        machine.write(calibrate.measured(told=lambda done: bar.update(task, completed=done)), path)
        machine.forget()
        bar.remove_task(task)
    except (OSError, RuntimeError) as error:  # no home, or one that can't be written: the shipped constants serve
        print(f"dualrev: the constants of this device can't be kept ({error}); the shipped ones are used", file=sys.stderr)


def run(words: Sequence[str]) -> int:
    """The command; 0, or 2 where the function or its arguments do not fit."""
    options = parser().parse_args(words)
    # What the user's function prints must not stand between the lines of JSON.
    with _progress() as bar, contextlib.redirect_stdout(sys.stderr):
        if not options.no_calibration:
            calibrated(bar)
        target = targets.find(options.function, options.args)
        task = bar.add_task("tracing", total=1)

        def told(step: str, done: int, steps: int) -> None:
            bar.update(task, description=step, completed=done, total=steps)

        with target.failures_in_words():
            found: Explanation = explanation.explained(target.function, target.args, target.kwargs, options.derivative, options.argnums,
                                                       options.has_aux, options.measure, told)
    if options.json:
        print(json.dumps(found.to_dict()))
    else:
        tables.console().print(found)
    return 0
