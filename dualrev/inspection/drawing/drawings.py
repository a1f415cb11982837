"""A drawing: the sheet with its title, legend and footer, and what a reader can ask of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dualrev.inspection.drawing.arranging import Arranged, Style, arranged, moved
from dualrev.inspection.drawing.folding import Folded, fold, folded
from dualrev.inspection.drawing.items import Item, lines_in_words, number
from dualrev.inspection.pictures.files import save
from dualrev.inspection.pictures.heat import colour, legend, share
from dualrev.inspection.pictures.sheet import Label, Sheet, shortened, width_of, wrapped
from dualrev.inspection.pictures.svg import svg
from dualrev.linear.residuals import size
from dualrev.time_model import time_in_words

#: What the heat of a box can be.
By: TypeAlias = Literal["time", "flops", "bytes"]

HEAT: dict[By, Callable[[Item], float]] = {
    "time": lambda item: item.seconds, "flops": lambda item: item.flops, "bytes": lambda item: float(item.stored)}
#: Of an opened group without its items: the steps of a loop, what a loop keeps.
OWN: dict[By, Callable[[Item], float]] = {
    "time": lambda item: item.own_seconds, "flops": lambda item: item.own_flops, "bytes": lambda item: float(item.own_stored)}
SPOKEN: dict[By, Callable[[float], str]] = {
    "time": lambda x: time_in_words(x) if x else "0", "flops": lambda x: scaled(x), "bytes": lambda x: size(round(x))}
CALLED: dict[By, str] = {"time": "predicted time", "flops": "flops", "bytes": "stored for the pull"}

#: Lines of the footer that say what was folded, and the width that a footer has at least.
LINES, NARROWEST = 12, 560.0
MARGIN = 12.0


@dataclass(frozen=True)
class Content:
    """What there is to draw: the items, the ends (inputs and outputs), and what is said of the whole."""

    name: str
    items: list[Item]
    inputs: list[Item] = field(default_factory=list)
    outputs: list[Item] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    has_times: bool = True


class Drawing:
    """A program or a linear map as a picture, which a notebook shows by itself.

    Attributes:
      svg: the picture as a text.
      folded: the groups that stand in it as one box, each with the number of its operations, its bytes, seconds and flops.
      by: what the colours show.
      boxes: the number of operations and folded groups that are drawn.

    ``str`` is a summary of a few lines, ``save`` writes a file.
    """

    def __init__(self, content: Content, by: By, max_boxes: int):
        heat = HEAT[by]
        self.by: By = by
        self._content = content
        self.operations = sum(sum(item.operations().values()) for item in content.items)
        top, opened = fold(content.items, max_boxes, heat)
        shown = list(_shown(top, opened))
        self.boxes = len(shown)
        self.folded: tuple[Folded, ...] = tuple([folded(item) for item in shown if item.children])
        self._hottest = sorted(shown, key=heat, reverse=True)[:5]
        own = OWN[by]
        most = max([*map(heat, shown), *map(own, opened)], default=0.0)

        def figures(item: Item) -> str:
            if item.kind != "operation":
                return ""
            parts = [f"{size(item.stored)} stored" if item.stored else "", SPOKEN["time"](item.seconds) if item.seconds else "",
                     f"{scaled(item.flops)} flops" if by == "flops" and item.flops else ""]
            return " · ".join(part for part in parts if part)

        self._has_own = any(own(item) > 0 for item in opened)
        body = arranged([*content.inputs, *top, *content.outputs], opened,
                        Style(lambda item: colour(share((own if item in opened else heat)(item), most)), figures))
        self.sheet = self._composed(body, most)
        self.svg: str = svg(self.sheet)

    @property
    def _title(self) -> str:
        items = self._content.items
        seconds, stored = sum(item.seconds for item in items), sum(item.stored for item in items)
        time = f"{time_in_words(seconds)} predicted, " if self._content.has_times else ""
        return f"{number(self.operations, 'operation')}, {time}{size(stored)} stored for the pull"

    def _composed(self, body: Arranged, most: float) -> Sheet:
        """The head, the legend, the body and the footer, one below the other."""
        colours, end = legend(MARGIN, 44, CALLED[self.by], most, SPOKEN[self.by])
        name = self._content.name
        head = width_of(name, 14) + width_of("  " + self._title) + 2 * MARGIN
        width = max(body.width, NARROWEST, end + MARGIN, min(head, 1200.0))
        letters = int((width - 2 * MARGIN) / width_of("m", 10))
        top, footer = 74.0, self._footer(letters)
        sheet = Sheet(width, top + body.height + 14 * len(footer) + (14 if footer else 0), f"{name}: {self._title}")
        sheet.add(Label(MARGIN, 26, shortened(name, int((width - 2 * MARGIN) / width_of("m", 14))), 14, is_bold=True))
        if head <= width:
            sheet.add(Label(MARGIN + width_of(name, 14) + width_of("  "), 26, self._title, ink="faint"))
        sheet.add(*colours, *[moved(shape, (width - body.width) / 2, top) for shape in body.shapes])
        for k, line in enumerate(footer):
            sheet.add(Label(MARGIN, top + body.height + 14 * (k + 1), line, 10, "faint"))
        return sheet

    def _footer(self, letters: int) -> list[str]:
        sentences = list(self._content.notes)
        if self._has_own:
            sentences.append("The colour of a group's head stands for what belongs to none of its operations, as the steps of a loop.")
        if self.folded:
            sentences.append(f"Folded {'group' if len(self.folded) == 1 else 'groups'}, {len(self.folded)}:")
            sentences += [f"- {line}" for line in self._folded_in_words()]
            sentences.append(f"max_boxes={self.boxes * 2} would open more of them.")
        lines = [wrapped(sentence.split(" "), letters) for sentence in sentences]
        return [("  " if k and part[0].startswith("- ") else "") + line for part in lines for k, line in enumerate(part)]

    def _folded_in_words(self) -> list[str]:
        """A line for each folded group, the largest first; equal ones share a line."""
        ordered = sorted(self.folded, key=lambda one: -sum(one.operations.values()))
        lines = [f"{count} x {line}" if count > 1 else line for line, count in Counter(map(str, ordered)).items()]
        more = [f"and {number(len(lines) - LINES, 'line')} more, which .folded has"] if len(lines) > LINES else []
        return [*lines[:LINES], *more]

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        heat, spoken = HEAT[self.by], SPOKEN[self.by]
        lines = [f"{self._content.name}: {self._title}; {number(self.boxes, 'box').replace('boxs', 'boxes')} drawn, "
                 f"{len(self.folded)} of them folded groups"]
        for item in self._hottest:
            if heat(item) > 0:
                words = (item.label, item.out, lines_in_words(item.lines()))
                lines.append(f"  {spoken(heat(item)):>10}  {'  '.join(word for word in words if word)}")
        if self.folded:
            lines.append("folded:")
            lines += [f"  {line}" for line in self._folded_in_words()]
        return "\n".join(lines)

    __repr__ = __str__

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file: ``.svg``, or ``.png`` by matplotlib.

        Raises:
          ValueError: another ending.
          ImportError: a PNG is asked for, and matplotlib is not installed (``pip install 'dualrev[papers]'``).
        """
        save(self.sheet, path)


def _shown(items: Sequence[Item], opened: Collection[Item]) -> Iterator[Item]:
    for item in items:
        if item in opened:
            yield from _shown(item.children, opened)
        else:
            yield item


def scaled(x: float) -> str:
    """A count with three digits: ``12.3 M``."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= factor:
            return f"{x / factor:.3g} {unit}"
    return f"{x:.3g}"
