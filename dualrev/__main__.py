"""``python -m dualrev``: differentiate real problems, or a function of your own, with every engine and compare."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax

import dualrev
from dualrev.installed import running
from dualrev.problems import PROBLEMS
from dualrev.report import calibration, tables
from dualrev.report.commands import doctor, draw, explain, memory, nan
from dualrev.report.commands.arguments import Parser, like
from dualrev.report.measure import Flat, flatten, measure, stored
from dualrev.report.modes import modes
from dualrev.report.targets import InputError, study

T = TypeVar("T")

#: What a first word of the command line runs, with the words after it, and what it does; the exit status comes back.
COMMANDS: Mapping[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "explain": (explain.run, "what a derivative costs in each way, and which way to take"),
    "draw": (draw.run, "the operations of a function as a picture"),
    "memory": (memory.run, "live bytes over forward and pull, by checkpoint policy"),
    "nan": (nan.run, "what made the first NaN in a function or its gradient"),
    "run": (running.run, "a script with dualrev's transforms in place of jax's"),
    "calibrate": (calibration.run, "measure the constants of dualrev.time_model on this machine"),
    "doctor": (doctor.run, "versions, devices, flags that matter, and a self test"),
}

EPILOG = f"""\
commands, each with --help:
{chr(10).join(f"  {word:10} {what}" for word, (_, what) in COMMANDS.items())}

examples:
  python -m dualrev                                              the problems that come with the package
  python -m dualrev file.py:loss --args "init(), jnp.eye(4)"     jnp, np, jax and the file's names may stand in --args
  python -m dualrev --memory mymodel:loss --args "jnp.ones(3)"   what reverse mode stores: bytes, operation, line
  python -m dualrev explain mymodel:loss --args "jnp.ones(3)"    a command

Inputs are all floats in the arguments, however nested; other values are held fixed.
All commands but explain and nan run in float64.
exit status: 0; 1 if the engines or jax disagree; 2 if what was typed does not fit.
"""


def parser() -> Parser:
    made = Parser(prog="python -m dualrev", description=__doc__.split(":", 1)[1].strip().capitalize(), epilog=EPILOG,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("function", nargs="?", metavar="module:function",
                      help="a JAX function: module:function or path/to/file.py:function (default: the problems that come with "
                           "the package)")
    made.add_argument("--args", metavar="EXPRESSIONS",
                      help="its arguments, as Python expressions: \"jnp.ones(3), 2.0, scale=1.5\"")
    made.add_argument("--memory", action="store_true", help="list every array that the reverse engine stores, and the line it is from")
    made.add_argument("--modes", action="store_true", help="list what Laplacians, Taylor series and patterns read of each operation")
    made.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    made.add_argument("--version", action="version", version=f"dualrev {dualrev.__version__}")
    return made


# ------------------------------------------------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        try:
            return COMMANDS[words[0]][0](words[1:])
        except (running.UsageError, InputError) as error:
            print(f"dualrev: error: {error}", file=sys.stderr)
            return 2
    err = tables.console(stderr=True)
    try:
        options = parser().parse_args(words)
        if options.function is not None and ":" not in options.function:
            meant = like(options.function, COMMANDS)
            raise InputError(f"'{options.function}' names no function; type module:function or path/to/file.py:function, or a command: "
                             f"{', '.join(COMMANDS)}{meant}")
        if options.function is None and options.args is not None:
            raise InputError("--args belongs to a function; type module:function before it")
        if options.memory and options.modes:
            raise InputError("--memory and --modes are two tables; type one of them")
        jax.config.update("jax_enable_x64", True)
        problems = PROBLEMS if options.function is None else ()
        # What a user's function prints must not stand between the lines of JSON.
        with err.status("differentiating") as status, contextlib.redirect_stdout(sys.stderr):
            def every(by: Callable[[str, Flat], T]) -> list[T]:
                found = [] if options.function is None else [study(options.function, options.args, by)]
                for problem in problems:
                    status.update(f"differentiating: {problem.name}")
                    found.append(by(problem.name, flatten(problem.function, (problem.make_inputs(),), {})))
                return found

            memory = every(stored) if options.memory else []
            found_modes = every(modes) if options.modes else []
            measurements = [] if options.memory or options.modes else every(measure)
    except InputError as error:
        print(f"dualrev: error: {error}", file=sys.stderr)
        return 2
    if options.memory:
        if options.json:
            print(tables.memory_as_json(memory, problems))
        else:
            tables.show_memory(tables.console(), memory)
    elif options.modes:
        if options.json:
            print(tables.modes_as_json(found_modes, problems))
        else:
            tables.show_modes(tables.console(), found_modes)
    elif options.json:
        print(tables.as_json(measurements, problems))
    else:
        tables.show(tables.console(), measurements, problems)
    disagreeing = [measured.name for measured in measurements if not measured.agrees]
    if disagreeing:
        print(f"dualrev: the derivatives of {', '.join(disagreeing)} differ by more than rounding", file=sys.stderr)
    return 1 if disagreeing else 0


if __name__ == "__main__":
    sys.exit(main())
