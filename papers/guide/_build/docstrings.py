"""Docstrings as they stand in the package, read as Markdown: formulas, names in roles, literal blocks and examples."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

#: ``:func:`~dualrev.grad` ``, and with a text of its own: ``:func:`the gradient <dualrev.grad>` ``.
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc|obj):`(?:([^`<]+) <)?~?([^`>]+)>?`", re.DOTALL)
MATH = re.compile(r":math:`([^`]+)`", re.DOTALL)
DISPLAY = re.compile(r"^([ \t]*)\.\. math::[ \t]*(.*)\n((?:[ \t]*\n|\1[ \t]+\S.*\n?)*)", re.MULTILINE)
LITERAL = re.compile(r"^([ \t]*)(\S.*?) ?::[ \t]*\n\n((?:\1[ \t]+\S.*\n?|[ \t]*\n(?=\1[ \t]+\S))+)", re.MULTILINE)
EXAMPLE = re.compile(r"^([ \t]*)>>> .*(?:\n\1[ \t]*\S.*)*", re.MULTILINE)
#: What is returned, up to the next section: a sentence, of which a parser must not take the part before a colon for a type.
RETURNED = re.compile(r"^([ \t]*)(?:Returns|Yields):[ \t]*\n((?:\1[ \t]+\S.*\n?)+)", re.MULTILINE)
COLON = re.compile(r"(`+[^`]*`+)|:(?=\s)")


def as_markdown(text: str) -> str:
    def display(found: re.Match[str]) -> str:
        formula = " ".join(f"{found[2]} {textwrap.dedent(found[3])}".split())
        return f"{found[1]}$${formula}$$\n\n"

    def literal(found: re.Match[str]) -> str:
        body = textwrap.indent(textwrap.dedent(found[3]).rstrip("\n"), found[1])
        return f"{found[1]}{found[2]}:\n\n{found[1]}```text\n{body}\n{found[1]}```\n"

    def role(found: re.Match[str]) -> str:
        name = "".join(found[2].split())
        shown = found[1] or name.removeprefix("dualrev.")
        return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'

    def sentence(found: re.Match[str]) -> str:
        head = found[0][: found.start(2) - found.start()]
        return head + COLON.sub(lambda part: part[1] or "&#58;", found[2])

    text = RETURNED.sub(sentence, f"{text}\n")
    text = DISPLAY.sub(display, text)
    text = LITERAL.sub(literal, text)
    text = EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", text)
    text = MATH.sub(lambda found: f"${' '.join(found[1].split())}$", text)
    return ROLE.sub(role, text).rstrip()


class Roles(griffe.Extension):
    """Every docstring that is loaded goes through :func:`as_markdown`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
