"""A sheet: boxes, lines and texts at places in pixels, which :mod:`.svg` and :mod:`.png` write alike.

Colours are names of :data:`INKS`, which are light on a dark page, or codes such as ``#ffcc00`` that stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Point: TypeAlias = tuple[float, float]
Anchor: TypeAlias = Literal["start", "middle", "end"]

#: The colours of each name on a light and on a dark page.
INKS: dict[str, tuple[str, str]] = {
    "page": ("#ffffff", "#16181d"),
    "text": ("#1b1f24", "#e8eaed"),
    "faint": ("#57606a", "#a8b0ba"),
    "line": ("#6e7781", "#8b949e"),
    "frame": ("#8c959f", "#6e7781"),
    "panel": ("#f6f8fa", "#21252c"),
    "grid": ("#d0d7de", "#3a404a"),
}

#: The width of a letter over the size of the font, which is monospaced, so that texts are known to fit in their boxes.
LETTER = 0.64


@dataclass(frozen=True)
class Box:
    """A rectangle; ``tip`` is what a browser shows of it under the pointer."""

    x: float
    y: float
    width: float
    height: float
    fill: str = "page"
    stroke: str | None = "frame"
    radius: float = 0.0
    is_dashed: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Label:
    """A line of text; ``y`` is its baseline."""

    x: float
    y: float
    text: str
    size: float = 11.0
    ink: str = "text"
    anchor: Anchor = "start"
    is_bold: bool = False

    @property
    def width(self) -> float:
        return width_of(self.text, self.size)


@dataclass(frozen=True)
class Stroke:
    """A line through points; ``is_smooth`` curves it vertically, ``has_tip`` ends it with the head of an arrow."""

    points: tuple[Point, ...]
    ink: str = "line"
    width: float = 1.0
    is_smooth: bool = False
    has_tip: bool = False
    is_dashed: bool = False
    tip: str = ""


Shape: TypeAlias = Box | Label | Stroke


@dataclass
class Sheet:
    """Shapes, those drawn first at the bottom; ``title`` is what a screen reader says."""

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        self.shapes += shapes

    def labels(self) -> Iterator[Label]:
        return (shape for shape in self.shapes if isinstance(shape, Label))


def width_of(text: str, size: float = 11.0) -> float:
    return len(text) * size * LETTER


def shortened(text: str, letters: int) -> str:
    """A text of at most so many letters; an ellipsis stands for what is left out."""
    return text if len(text) <= letters else text[: max(letters - 1, 0)] + "…"


def wrapped(words: Sequence[str], letters: int) -> list[str]:
    """Lines of at most so many letters; a longer word has a line of its own, and is shortened."""
    lines: list[str] = []
    for word in [shortened(w, letters) for w in words]:
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def curve(points: Sequence[Point]) -> list[tuple[Point, Point, Point, Point]]:
    """A smooth line through points: a cubic for each piece, which leaves and arrives vertically."""
    found = []
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        middle = (y1 + y2) / 2
        found.append(((x1, y1), (x1, middle), (x2, middle), (x2, y2)))
    return found
