"""A sheet as PNG, drawn by matplotlib with the same places; light, as it goes into papers and slides."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from dualrev.inspection.pictures.sheet import INKS, Box, Label, Sheet, Stroke

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Pixels of the file for each pixel of the sheet, and the most that a side has.
SCALE, MOST_PIXELS = 2.0, 20_000.0
#: Pixels of the sheet in an inch, so that sizes of fonts are those of the SVG.
PER_INCH = 72.0


def save_png(sheet: Sheet, path: str | os.PathLike[str]) -> None:
    """Write the file.

    Raises:
      ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("A picture is saved as PNG by matplotlib, which is not installed: pip install 'dualrev[papers]' installs it; "
                          "a name that ends with .svg needs nothing more.") from error
    figure = Figure(figsize=(sheet.width / PER_INCH, sheet.height / PER_INCH))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, sheet.width)
    axes.set_ylim(sheet.height, 0)
    axes.axis("off")
    figure.patch.set_facecolor(_ink("page"))
    for order, shape in enumerate(sheet.shapes):
        if isinstance(shape, Box):
            _box(axes, shape, order)
        elif isinstance(shape, Stroke):
            _stroke(axes, shape, order)
        else:
            _label(axes, shape, order)
    scale = min(SCALE, MOST_PIXELS / max(sheet.width, sheet.height))
    figure.savefig(path, format="png", dpi=PER_INCH * scale)


def _ink(name: str) -> str:
    return INKS[name][0] if name in INKS else name


def _box(axes: Axes, box: Box, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=0,rounding_size={box.radius}" if box.radius else "square,pad=0"
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle=style, facecolor=_ink(box.fill), linewidth=1,
                                  edgecolor="none" if box.stroke is None else _ink(box.stroke),
                                  linestyle=(0, (5, 3)) if box.is_dashed else "-", zorder=order))


def _stroke(axes: Axes, stroke: Stroke, order: int) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    points, codes = [stroke.points[0]], [Path.MOVETO]
    for a, b in itertools.pairwise(stroke.points):
        if stroke.is_smooth:
            middle = (a[1] + b[1]) / 2
            points += [(a[0], middle), (b[0], middle), b]
            codes += [Path.CURVE4] * 3
        else:
            points.append(b)
            codes.append(Path.LINETO)
    dashes: Any = (0, (5, 3)) if stroke.is_dashed else "-"
    axes.add_patch(PathPatch(Path(points, codes), facecolor="none", edgecolor=_ink(stroke.ink), linewidth=stroke.width,
                             linestyle=dashes, zorder=order))
    if stroke.has_tip:
        x, y = stroke.points[-1]
        axes.add_patch(Polygon([(x, y), (x - 3.5, y - 7), (x + 3.5, y - 7)], closed=True, facecolor=_ink(stroke.ink), zorder=order))


def _label(axes: Axes, label: Label, order: int) -> None:
    anchor = {"start": "left", "middle": "center", "end": "right"}[label.anchor]
    axes.text(label.x, label.y, label.text, fontsize=label.size, color=_ink(label.ink), ha=anchor, va="baseline", zorder=order,
              family="DejaVu Sans Mono", fontweight="bold" if label.is_bold else "normal", parse_math=False)
