"""The plot of a timeline: a step curve for each policy, the border between forward and pull, and bars for what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dualrev.inspection.pictures.sheet import Box, Label, Point, Sheet, Stroke, shortened, width_of
from dualrev.linear.residuals import size

#: Colours that all kinds of colour vision tell apart [OkabeIto2008], after the ink of texts for the first curve.
COLOURS = ("text", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
#: Later curves are thinner, so that equal ones are seen on top of each other.
WIDTHS = (5.6, 4.0, 3.0, 2.2, 1.5)

WIDTH, HEIGHT, LEFT, RIGHT = 900.0, 300.0, 96.0, 20.0
#: Curves of more points are drawn by the largest value of neighbours; bars of more arrays by their sum.
POINTS, BARS = 1000, 8


@dataclass(frozen=True)
class Curve:
    """Live bytes at each operation; ``boundary`` operations are of forward."""

    name: str
    live: np.ndarray
    boundary: int
    note: str


@dataclass(frozen=True)
class Span:
    """An array that is kept, from the operation that makes it to the last that reads it."""

    text: str
    nbytes: int
    start: int
    end: int


def plotted(name: str, inputs: int, curves: Sequence[Curve], spans: Sequence[Span], of: str) -> Sheet:
    """The plot; ``spans`` are those of the first curve, which is named ``of``."""
    top = 66.0 + 18 * len(curves)
    bottom = top + HEIGHT
    bars = spans[:BARS]
    height = bottom + 54 + (34 + 27 * len(bars) + (16 if len(spans) > BARS else 0) if spans else 0)
    sheet = Sheet(WIDTH, height, f"Live bytes of {name} over forward and pull")
    shown = shortened(name, 40)
    sheet.add(Label(16, 26, shown, 14, is_bold=True),
              Label(28 + width_of(shown, 14), 26, f"live bytes over forward and pull; dashed: inputs and constants, {size(inputs)}",
                    ink="faint"))
    for k, curve in enumerate(curves):
        y = 50 + 18.0 * k
        sheet.add(Stroke(((16, y - 4), (44, y - 4)), _colour(k), _width(k)), Label(52, y, f"{curve.name}", is_bold=True),
                  Label(52 + 18 * width_of("m"), y, shortened(curve.note, 105), ink="faint"))
    most = max([inputs, *[int(c.live.max(initial=0)) for c in curves]], default=0)
    step = _tick(most)
    ceiling = max(step * math.ceil(most / step), step)

    def up(nbytes: float) -> float:
        return bottom - HEIGHT * nbytes / ceiling

    for k in range(round(ceiling / step) + 1):
        y = up(k * step)
        sheet.add(Stroke(((LEFT, y), (WIDTH - RIGHT, y)), "grid"), Label(LEFT - 8, y + 4, size(k * step), 10, "faint", "end"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    if inputs:
        sheet.add(Stroke(((LEFT, up(inputs)), (WIDTH - RIGHT, up(inputs))), "line", is_dashed=True))
    for k, curve in enumerate(curves):
        points = _steps(curve, up)
        if points:
            sheet.add(Stroke(tuple(points), _colour(k), _width(k), tip=f"{curve.name}: {curve.note}"))
    sheet.add(Stroke(((middle, top), (middle, bottom + 22)), "text", is_dashed=True))
    first = curves[0]
    sheet.add(Label(middle - 10, bottom + 18, f"forward, {first.boundary:,} operations", ink="faint", anchor="end"),
              Label(middle + 10, bottom + 18, f"pull, {first.live.size - first.boundary:,} operations", ink="faint"))
    if spans:
        _add_bars(sheet, bottom + 54, first, spans, of)
    return sheet


def _add_bars(sheet: Sheet, y: float, first: Curve, spans: Sequence[Span], of: str) -> None:
    """What is kept between forward and pull, largest first: when it is made and when it is read last."""
    total = sum(span.nbytes for span in spans)
    sheet.add(Label(16, y, f"kept for the pull ({of}): {size(total)}", is_bold=True))
    y += 22
    for span in spans[:BARS]:
        a, b = across(span.start, first), across(span.end + 1, first)
        sheet.add(Label(LEFT, y, shortened(span.text, 110), 10),
                  Box(LEFT, y + 4, WIDTH - RIGHT - LEFT, 7, "panel", None),
                  Box(a, y + 4, max(b - a, 2.0), 7, COLOURS[1], None, tip=span.text))
        y += 27
    if len(spans) > BARS:
        rest = spans[BARS:]
        sheet.add(Label(LEFT, y, f"and {len(rest)} more lines of the program, {size(sum(span.nbytes for span in rest))}", 10, "faint"))


def across(at: float, curve: Curve) -> float:
    """Where an operation begins: forward takes the left half, the pull the right one."""
    half = (WIDTH - RIGHT - LEFT) / 2
    if at <= curve.boundary:
        return LEFT + half * (at / curve.boundary if curve.boundary else 1.0)
    return LEFT + half * (1 + (at - curve.boundary) / max(curve.live.size - curve.boundary, 1))


def _steps(curve: Curve, up: Callable[[float], float]) -> list[Point]:
    """The corners of the curve."""
    found: list[Point] = []
    for start, end in ((0, curve.boundary), (curve.boundary, curve.live.size)):
        stride = max(1, math.ceil((end - start) / POINTS))
        for at in range(start, end, stride):
            to = min(at + stride, end)
            y = up(float(curve.live[at:to].max()))
            found += [(across(at, curve), y), (across(to, curve), y)]
    return [p for k, p in enumerate(found) if k in (0, len(found) - 1) or not found[k - 1][1] == p[1] == found[k + 1][1]]


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _width(k: int) -> float:
    return WIDTHS[min(k, len(WIDTHS) - 1)]


def _tick(most: int) -> int:
    """The distance of the lines of the grid: 1, 2 or 5 times a power of ten of a binary unit, for at most six of them."""
    unit = 2 ** (10 * max(0, int(math.log2(max(most, 1))) // 10))
    rough = max(most, 1) / unit / 5
    power = 10.0 ** math.floor(math.log10(rough))
    factor = next(f for f in (1, 2, 5, 10) if f * power >= rough - 1e-9)
    return max(1, round(float(factor * power * unit)))
