"""What the commands have in common: how they refuse what was typed, a function with its arguments, the file that a picture goes to."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from dualrev.report.targets import InputError


def like(word: str, words: Iterable[str]) -> str:
    """``" (did you mean 'json'?)"``, or nothing where no word is similar."""
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are an :class:`InputError`, hence one line, and name the option that was probably meant."""

    def __init__(self, **options: Any):
        self.options: list[str] = []
        super().__init__(**options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        self.options += [name for name in names if name.startswith("-")]
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        meant = like(unknown[1].partition("=")[0], self.options) if unknown else ""
        raise InputError(f"{message}{meant}; see {self.prog} --help")


def parser(word: str, described: str | None) -> argparse.ArgumentParser:
    """A parser that knows ``module:function``, ``--args`` and ``-o``."""
    made = Parser(prog=f"python -m dualrev {word}", description=(described or "").split(": ", 1)[-1])
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
