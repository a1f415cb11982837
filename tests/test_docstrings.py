"""Docstrings of public names follow one recipe, so that ``help(dr.jvp)`` is enough to use it.

A sentence; mathematics; ``Args:`` with every parameter and, of arrays, their shapes or dtypes; ``Returns:``; ``Raises:``; an example
with its output, which ``test_docs.py`` runs; ``Source:`` with a key of ``papers/references.bib``.  What a name has no use for is stated
below, with the reason.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from typing import Any

import pytest
import surface
from jax.typing import ArrayLike

#: Sections, in the order in which they stand.
SECTIONS = ("Args", "Attributes", "Returns", "Raises")

#: Names that compute no derivative: there is no formula and no source.
NO_MATHEMATICS = {
    "dualrev.draw": "draws a program", "dualrev.timeline": "adds up bytes", "dualrev.explain": "compares ways to a derivative",
    "dualrev.tap": "names a value", "dualrev.check": "reports", "dualrev.CheckReport": "reports", "dualrev.where_nan": "reports",
    "dualrev.finite": "reports", "dualrev.install": "replaces transforms", "dualrev.installed": "replaces transforms",
    "dualrev.uninstall": "puts transforms back", "dualrev.Tap": "holds values", "dualrev.testing.DerivativeError": "an error",
    "dualrev.testing.check_processes": "compares types",
    "dualrev.modes": "reads rows", "dualrev.problems": "holds programs", "dualrev.policies": "chooses what is stored",
    "dualrev.errors": "says what is wrong", "dualrev.oracle": "calls jax",
    "dualrev.sparse.load": "reads a file", "dualrev.sparse.Plan": "holds colours", "dualrev.sparse.PatternReport": "reports",
    "dualrev.sparse.pattern_report": "reports", "dualrev.time_model": "is described in its module",
}


def reason(name: str, table: dict[str, str]) -> bool:
    """Whether a name, or the module that it is in, is in the table."""
    return name in table or name.rsplit(".", 1)[0] in table


@dataclass(frozen=True)
class Docstring:
    """A docstring, taken apart."""

    summary: str
    #: Of each parameter that is described, what is said of it.
    parameters: dict[str, str]
    attributes: dict[str, str]
    returns: str
    raises: dict[str, str]
    mathematics: int
    #: Prompts, and how many of them print something.
    prompts: int
    printed: int
    sources: tuple[str, ...]


def entries(block: str) -> dict[str, str]:
    """``name: text`` lines with their continuations; names may be several, separated by commas."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", inspect.cleandoc(block)):
        names, colon, text = entry.partition(":")
        if colon:
            found.update({name.strip().lstrip("*"): " ".join(text.split()) for name in names.split(",")})
    return found


def parse(text: str) -> Docstring:
    text = inspect.cleandoc(text)
    sections = dict(re.findall(rf"^({'|'.join(SECTIONS)}):\n((?:(?:  .*)?\n)+?)(?=\S|\Z)", text + "\n", flags=re.MULTILINE))
    first = text.split("\n\n", 1)[0]
    examples = re.findall(r"^>>> .*(?:\n\.\.\. ?.*)*\n(?!>>>|\n|\Z)", text + "\n", flags=re.MULTILINE)
    return Docstring(" ".join(first.split()), entries(sections.get("Args", "")),
                     entries(sections.get("Attributes", "")), sections.get("Returns", "").strip(),
                     entries(sections.get("Raises", "")), len(re.findall(r":math:`|^\.\. math::", text, flags=re.MULTILINE)),
                     len(re.findall(r"^ *>>> ", text, flags=re.MULTILINE)), len(examples),
                     tuple(re.findall(r"\[([A-Z]\w+\d{4}\w*)", text.partition("Source:")[2])))


PUBLIC: dict[str, Any] = {f"{shown}.{name}": getattr(importlib.import_module(path), name)
                          for shown, path in surface.MODULES.items() for name in importlib.import_module(path).__all__}
PUBLIC = {name: value for name, value in PUBLIC.items()
          if inspect.isroutine(value) or (inspect.isclass(value) and value.__module__.startswith("dualrev"))}

#: Classes whose fields are explained where they are declared, as there are many of them, or whose methods are what a reader needs.
EXPLAINED_INSIDE = {"dualrev.time_model.Constants", "dualrev.problems.Scenario", "dualrev.modes.Mode", "dualrev.modes.Row"}

#: What an argument that holds numbers is said to be.
OF_ARRAYS = re.compile("shape|dtype|structure|array|pytree|number|tree|argument|operand|point|key|vector|leaf|scalar|bool|matrix|entry|"
                       "input|direction")


def faults(name: str, value: Any) -> list[str]:
    """Where a docstring departs from the recipe, in words."""
    text = value.__doc__ if not isinstance(value, type) else value.__dict__.get("__doc__")
    found = parse(text or "")
    said: list[str] = []
    if not re.match(r"[A-Z`:(].*[.:]( |$)", found.summary):
        said.append(f"it starts with no sentence: {found.summary[:60]!r}")
    parameters = {} if is_error(value) or name in EXPLAINED_INSIDE else parameters_of(value)
    if found.attributes:  # of a result: nobody but dualrev calls its class
        if missing := [p for p in parameters if p not in found.attributes]:
            said.append(f"Attributes leaves out {', '.join(missing)}")
        parameters = {}
    if parameters and not found.parameters:
        said.append("it has no Args")
    elif missing := [p for p in parameters if p not in found.parameters]:
        said.append(f"Args leaves out {', '.join(missing)}")
    if unknown := [p for p in found.parameters if p not in parameters]:
        said.append(f"Args describes {', '.join(unknown)}, which it does not take")
    if vague := [p for p, form in parameters.items() if re.search(r"PyTree|Array", form) and "Callable" not in form
                 and not OF_ARRAYS.search(found.parameters.get(p, "array"))]:
        said.append(f"Args does not say what kind of array {', '.join(vague)} is")
    if not isinstance(value, type) and inspect.isfunction(value):
        if not found.returns and inspect.signature(value).return_annotation not in ("None", None):
            said.append("it has no Returns")
        if parameters and not found.raises:
            said.append("it has no Raises")
    said += [f"Raises names no error: {e!r}" for e in found.raises if not re.fullmatch(r"[A-Z]\w*(Error|Warning|Exception)", e)]
    if not found.printed:
        said.append("no example prints something")
    if not reason(name, NO_MATHEMATICS):
        if not found.mathematics:
            said.append("it has no mathematics")
        if not found.sources:
            said.append("it has no Source")
    return said


def is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def parameters_of(value: Any) -> dict[str, str]:
    try:
        found = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return {}
    return {p.name: surface.annotation(p.annotation) for p in found.values() if not p.name.startswith("_")}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_docstring_follows_the_recipe(name: str) -> None:
    assert faults(name, PUBLIC[name]) == []


def _complete(x: ArrayLike, order: int) -> Any:
    r"""Push a tangent: :math:`J v`.

    Args:
      x: array of floats.
      order: of the derivative.

    Returns:
      An array.

    Raises:
      TypeError: it does not fit.

    >>> _complete(1.0, 2)
    1.0

    Source: [Wengert1964].
    """


@pytest.mark.parametrize(("old", "new", "fault"), [
    ("Push a tangent:", "push", "no sentence"), ("      order: of the derivative.\n", "", "leaves out order"),
    ("order:", "degree:", "describes degree"), ("array of floats", "the thing", "what kind of array x is"),
    ("    Returns:\n      An array.\n", "", "no Returns"), ("    Raises:\n      TypeError: it does not fit.\n", "", "no Raises"),
    ("TypeError:", "fails:", "names no error"), ("    1.0\n", "", "prints something"), (":math:`J v`", "J v", "no mathematics"),
    ("[Wengert1964]", "a paper", "no Source")])
def test_a_departure_is_seen(monkeypatch: pytest.MonkeyPatch, old: str, new: str, fault: str) -> None:
    assert faults("dualrev.complete", _complete) == []
    text = _complete.__doc__ or ""
    assert old in text
    monkeypatch.setattr(_complete, "__doc__", text.replace(old, new))
    assert any(fault in said for said in faults("dualrev.complete", _complete)), faults("dualrev.complete", _complete)
