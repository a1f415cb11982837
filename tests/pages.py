"""The code on the pages of the site, read from their fenced blocks.

A block of ``pycon`` is a session that runs and whose output is compared; all blocks of a page are one session.  ``sh`` has commands for
a shell, of which those of the README run in CI; ``text`` is no code.  There is nothing else, so that no code is shown that is not run.
"""

from __future__ import annotations

import doctest
import pathlib
import re

GUIDE = pathlib.Path(__file__).parent.parent / "papers" / "guide"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: Commands that a page may show: what sets up an environment, and what the page on development names.
COMMANDS = (
    "pip install", "python -m pytest", "python -m tests.fuzz", "python -m dualrev", "ruff check", "mkdocs build", "export XLA_FLAGS=",
)


def pages() -> list[pathlib.Path]:
    return sorted([*GUIDE.glob("*.md"), *GUIDE.glob("reference/*.md")])


def commands(page: pathlib.Path, beginning: str) -> list[str]:
    """The commands for a shell on a page that begin so."""
    lines = [line for kind, body in BLOCK.findall(page.read_text()) if kind == "sh" for line in body.splitlines()]
    return [line for line in lines if line.startswith(beginning)]


def examples(page: pathlib.Path) -> doctest.DocTest:
    """All sessions of a page, in order.

    Raises:
      ValueError: a block is of another kind, or holds lines that do not belong to its session.
    """
    text = page.read_text()
    found: list[doctest.Example] = []
    for block in BLOCK.finditer(text):
        kind, body = block[1], block[2]
        line = text[: block.start(2)].count("\n")
        if kind == "pycon":
            if not body.startswith(">>> ") or "\n\n" in body:
                raise ValueError(f"{page.name}:{line + 1}: a session starts with >>> and has no empty line")
            session = doctest.DocTestParser().get_examples(body, page.name)
            for example in session:
                example.lineno += line
            found += session
        elif kind == "sh":
            unknown = [command for command in body.splitlines() if not command.startswith(COMMANDS)]
            if unknown:
                raise ValueError(f"{page.name}:{line + 1}: a command that is not known to work: {unknown[0]}")
        elif kind != "text":
            raise ValueError(f"{page.name}:{line + 1}: a block of {kind or 'no kind'}; pycon is run, sh and text are not")
    return doctest.DocTest(found, {"__name__": "__main__"}, page.name, str(page), 0, text)
