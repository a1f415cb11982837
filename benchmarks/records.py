"""What was measured, as files of comma-separated values in ``benchmarks/results``: the figures that ``benchmarks/RESULTS.md`` shows.

``derivatives.csv`` has a line for each derivative of a program by a library, and ``left_out.csv`` says what has none and why.
``corpus.csv`` has the programs as users write them, ``stages.csv`` what comes before the first result, and ``growth.csv`` the gradient
over its function for growing sizes.  ``runs.csv`` says when, where and with which versions each part was measured.
"""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

FOLDER = pathlib.Path(__file__).parent
Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class Derivative:
    """One derivative of a program by one library: the lower quartile, median and upper quartile over rounds."""

    call: str
    program: str
    #: Also "function", the function alone in jax, and "control", work without derivatives.
    library: str
    milliseconds: Quartiles
    over_jax: Quartiles | None = None
    over_function: float | None = None


@dataclass(frozen=True)
class LeftOut:
    call: str
    program: str
    library: str
    why: str


@dataclass(frozen=True)
class Corpus:
    """A compiled gradient of a program as users write it, by dualrev over jax's, on one release of jax."""

    release: str
    program: str
    over_jax: Quartiles
    over_function: float
    jax_over_function: float
    memory_over_jax: float | None
    compiling_over_jax: float
    tracing_over_jax: float


@dataclass(frozen=True)
class Stages:
    """Ratios of dualrev's first gradient to jax's: medians; pairs are dualrev's and jax's."""

    program: str
    tracing: float
    #: Tracing the function alone, over tracing jax's gradient.
    function: float
    lowering: float
    compiling: float
    first_call: float
    compiling_ms: tuple[float, float]
    first_call_ms: tuple[float, float]
    #: Of dualrev's first call, the part that compiles.
    share: float
    equations: tuple[int, int]
    temporary_bytes: tuple[int, int]


@dataclass(frozen=True)
class Growth:
    """A gradient over its function, and over jax's gradient, for one size."""

    library: str
    size: int
    over_function: float
    over_jax: float | None


@dataclass(frozen=True)
class Written:
    """When, where and how one part of the results was measured."""

    part: str
    how: str


FILES: dict[str, type[Any]] = {"derivatives": Derivative, "left_out": LeftOut, "corpus": Corpus, "stages": Stages, "growth": Growth,
                               "runs": Written}
#: What has to agree for a line to take the place of an older one.
KEYS = {"derivatives": ("call", "program", "library"), "left_out": ("call", "program", "library"), "corpus": ("release", "program"),
        "stages": ("program",), "growth": ("library", "size"), "runs": ("part",)}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(_text(x) for x in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(text: str, form: str) -> Any:
    """The value of a cell, by its field's annotation."""
    if not text and "None" in form:
        return None
    if form.startswith(("Quartiles", "tuple")):
        number = int if "int" in form else float
        return tuple(number(x) for x in text.split())
    return {"str": str, "int": int, "float": float}[form.removesuffix(" | None")](text)


def read(name: str, folder: pathlib.Path = FOLDER) -> list[Any]:
    """The lines of a file, none where it is not there."""
    path = folder / "results" / f"{name}.csv"
    if not path.exists():
        return []
    kind = FILES[name]
    with path.open(encoding="utf-8", newline="") as lines:
        return [kind(**{f.name: _value(line[f.name], str(f.type)) for f in fields(kind)}) for line in csv.DictReader(lines)]


def add(name: str, records: Iterable[Any], folder: pathlib.Path = FOLDER) -> None:
    """Write lines; those with the same key as older ones take their places."""
    kept = {tuple(getattr(r, key) for key in KEYS[name]): r for r in [*read(name, folder), *records]}
    write(name, kept.values(), folder)


def write(name: str, records: Iterable[Any], folder: pathlib.Path = FOLDER) -> None:
    path = folder / "results" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f.name for f in fields(FILES[name])]
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(names)
        lines.writerows([_text(getattr(r, key)) for key in names] for r in records)
