"""What the commands for a function of the user have in common: its name, its arguments, and the file that a picture goes to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from dualrev.report.targets import InputError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def parser(word: str, described: str | None) -> argparse.ArgumentParser:
    """A parser that knows ``module:function``, ``--args`` and ``-o``."""
    made = _Parser(prog=f"python -m dualrev {word}", description=(described or "").split(": ", 1)[-1])
    made.add_argument("function", metavar="module:function", help="a JAX function: module:function or path/to/file.py:function")
    made.add_argument("--args", metavar="EXPRESSIONS",
                      help="its arguments, as Python expressions: \"jnp.ones(3), 2.0, scale=1.5\"; jnp, np, jax and the names "
                           "of the function's module may be used")
    made.add_argument("-o", "--output", metavar="FILE", help="write the picture there: .svg, or .png by matplotlib")
    return made


def write(save: Callable[[str], None], path: str | None) -> int:
    """Write the picture, where a file is named; the exit status."""
    if path is None:
        return 0
    try:
        save(path)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"the picture can't be written: {error}") from error
    print(f"written: {path}", file=sys.stderr)
    return 0
