"""A timeline: live bytes of a function and its pull under several policies, as arrays, as a table and as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dualrev.inspection.pictures.files import save
from dualrev.inspection.pictures.sheet import Sheet
from dualrev.inspection.pictures.svg import svg
from dualrev.inspection.timeline.liveness import Kept, Life
from dualrev.inspection.timeline.plotting import Curve, Span, plotted
from dualrev.linear.residuals import size


@dataclass(frozen=True)
class Course:
    """Forward and pull under one policy.

    Attributes:
      live: bytes that live while each operation runs, those of forward first; inputs and constants included.
      boundary: the number of operations of forward.
      peak: the most bytes, and ``peak_at`` the first operation with them, with its name and the user's line.
      kept_bytes: what forward makes for the pull, beside inputs and results; ``kept`` has each array, the largest first.
    """

    live: np.ndarray
    boundary: int
    peak: int
    peak_at: int
    peak_operation: str
    peak_line: str
    kept: tuple[Kept, ...]

    @property
    def kept_bytes(self) -> int:
        return sum(array.nbytes for array in self.kept)

    @property
    def peak_part(self) -> str:
        return "forward" if self.peak_at < self.boundary else "pull"

    @staticmethod
    def of(life: Life) -> Course:
        live = np.array([step.live for step in life.steps], np.int64)
        if not live.size:
            return Course(live, 0, life.before, 0, "", "", life.kept)
        at = int(live.argmax())
        return Course(live, life.boundary, int(live[at]), at, life.steps[at].operation, life.steps[at].line, life.kept)


@dataclass(frozen=True)
class Timeline:
    """What lives when: ``courses`` has forward and pull under each policy, by its name; a notebook shows the plot by itself.

    ``inputs`` are the bytes of the function's inputs and constants, which live throughout.  ``print`` gives a table, ``save`` writes
    the plot, ``to_dict`` what JSON can hold.
    """

    name: str
    inputs: int
    courses: Mapping[str, Course]
    _drawn: list[Sheet] = field(default_factory=list, repr=False, compare=False)

    @property
    def sheet(self) -> Sheet:
        """The plot, drawn when it is asked for."""
        if not self._drawn:
            curves = [Curve(name, course.live, course.boundary, f"peak {size(course.peak)} in {course.peak_part} at {_place(course)}; "
                            f"{size(course.kept_bytes)} kept") for name, course in self.courses.items()]
            first = next(iter(self.courses.values()))
            spans = [Span(" · ".join(part for part in (size(kept.nbytes), kept.type, kept.operation, _short(kept.line)) if part),
                          kept.nbytes, kept.start, kept.end) for kept in joined(first.kept)]
            self._drawn.append(plotted(self.name, self.inputs, curves, spans, next(iter(self.courses))))
        return self._drawn[0]

    @property
    def svg(self) -> str:
        """The plot as a text."""
        return svg(self.sheet)

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plot to a file: ``.svg``, or ``.png`` by matplotlib.

        Raises:
          ValueError: another ending.
          ImportError: a PNG is asked for, and matplotlib is not installed (``pip install 'dualrev[papers]'``).
        """
        save(self.sheet, path)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, texts and lists of them."""
        return {"name": self.name, "inputs": self.inputs, "courses": {name: {
            "live": course.live.tolist(), "boundary": course.boundary, "peak": course.peak, "peak_at": course.peak_at,
            "peak_part": course.peak_part, "peak_operation": course.peak_operation, "peak_line": course.peak_line,
            "kept_bytes": course.kept_bytes, "kept": [vars(kept) for kept in course.kept],
        } for name, course in self.courses.items()}}

    def __rich__(self) -> Table:
        made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), title_justify="left",
                     title=f"{self.name}: {size(self.inputs)} of inputs and constants")
        for header, justify in (("policy", "left"), ("peak", "right"), ("when", "left"), ("operation", "left"), ("kept", "right"),
                                ("operations", "right")):
            made.add_column(header, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for name, course in self.courses.items():
            when = f"{course.peak_part}, {course.peak_at + 1} of {course.live.size}"
            made.add_row(name, size(course.peak), when, _place(course), size(course.kept_bytes),
                         f"{course.boundary} + {course.live.size - course.boundary}")
        return made

    def __str__(self) -> str:
        out = Console(width=140, no_color=True, highlight=False)
        with out.capture() as text:
            out.print(self.__rich__())
        return "\n".join(line.rstrip() for line in text.get().splitlines())


def joined(kept: tuple[Kept, ...]) -> list[Kept]:
    """Arrays of one type, operation and line as one, from the first that is made to the last that is read; the largest first."""
    found: dict[tuple[str, str, str], list[Kept]] = {}
    for array in kept:
        found.setdefault((array.type, array.operation, array.line), []).append(array)
    whole = [Kept(sum(a.nbytes for a in arrays), f"{len(arrays)} x {type_}" if len(arrays) > 1 else type_, operation, line,
                  min(a.start for a in arrays), max(a.end for a in arrays)) for (type_, operation, line), arrays in found.items()]
    return sorted(whole, key=lambda array: -array.nbytes)


def _place(course: Course) -> str:
    return f"{course.peak_operation} {_short(course.peak_line)}".strip() or "no operation"


def _short(line: str) -> str:
    """``file.py:line`` of a line with its folder, column and function."""
    place = line.partition(" (")[0].replace("\\", "/").rpartition("/")[2]
    return ":".join(place.split(":")[:2])
