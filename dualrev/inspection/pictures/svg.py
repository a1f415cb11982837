"""A sheet as SVG: well-formed XML, the same text for the same sheet, readable on light and on dark pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

from dualrev.inspection.pictures.sheet import INKS, Box, Label, Sheet, Stroke, curve

FONT = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"

#: What XML does not allow in a text.
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def svg(sheet: Sheet) -> str:
    """The sheet as a text; named colours follow the reader's light or dark setting."""
    w, h = _number(sheet.width), _number(sheet.height)
    dark = "".join(f".dualrev-f-{name}{{fill:{ink}}}.dualrev-s-{name}{{stroke:{ink}}}" for name, (_, ink) in INKS.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" font-family="{FONT}">',
        f"<title>{_text(sheet.title)}</title>",
        f"<style>@media (prefers-color-scheme: dark){{{dark}}}</style>",
        *_rectangle(Box(0, 0, sheet.width, sheet.height, "page", None)),
    ]
    for shape in sheet.shapes:
        if isinstance(shape, Box):
            parts += _rectangle(shape)
        elif isinstance(shape, Stroke):
            parts += _stroke(shape)
        else:
            parts.append(_label(shape))
    return "\n".join([*parts, "</svg>\n"])


def _number(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return escape(_CONTROL.sub("\ufffd", text))


def _painted(fill: str | None, stroke: str | None) -> str:
    """Attributes of the colours: with the light one for readers that know no style, and a class for those that do."""
    classes, found = [], []
    for kind, ink in (("fill", fill), ("stroke", stroke)):
        if ink is None:
            found.append(f'{kind}="none"')
        elif ink in INKS:
            found.append(f'{kind}="{INKS[ink][0]}"')
            classes.append(f"dualrev-{kind[0]}-{ink}")
        else:
            found.append(f'{kind}="{ink}"')
    return " ".join([*found, f'class="{" ".join(classes)}"'] if classes else found)


def _tipped(element: str, attributes: str, tip: str) -> str:
    return f"<{element} {attributes}><title>{_text(tip)}</title></{element}>" if tip else f"<{element} {attributes}/>"


def _rectangle(box: Box) -> Iterator[str]:
    place = f'x="{_number(box.x)}" y="{_number(box.y)}" width="{_number(box.width)}" height="{_number(box.height)}"'
    round_ = f' rx="{_number(box.radius)}"' if box.radius else ""
    dashed = ' stroke-dasharray="5 3"' if box.is_dashed else ""
    yield _tipped("rect", f"{place}{round_}{dashed} {_painted(box.fill, box.stroke)}", box.tip)


def _stroke(stroke: Stroke) -> Iterator[str]:
    start, *rest = stroke.points
    path = f"M{_number(start[0])} {_number(start[1])}"
    if stroke.is_smooth:
        for _, b, c, d in curve(stroke.points):
            path += f"C{_number(b[0])} {_number(b[1])} {_number(c[0])} {_number(c[1])} {_number(d[0])} {_number(d[1])}"
    else:
        path += "".join(f"L{_number(x)} {_number(y)}" for x, y in rest)
    width = f' stroke-width="{_number(stroke.width)}"' if stroke.width != 1 else ""
    dashed = ' stroke-dasharray="5 3"' if stroke.is_dashed else ""
    yield _tipped("path", f'd="{path}"{width}{dashed} {_painted(None, stroke.ink)}', stroke.tip)
    if stroke.has_tip:
        x, y = stroke.points[-1]
        yield (f'<path d="M{_number(x)} {_number(y)}L{_number(x - 3.5)} {_number(y - 7)}L{_number(x + 3.5)} {_number(y - 7)}Z" '
               f'{_painted(stroke.ink, None)}/>')


def _label(label: Label) -> str:
    anchor = "" if label.anchor == "start" else f' text-anchor="{label.anchor}"'
    bold = ' font-weight="bold"' if label.is_bold else ""
    return (f'<text x="{_number(label.x)}" y="{_number(label.y)}" font-size="{_number(label.size)}"{anchor}{bold} '
            f'pointer-events="none" {_painted(label.ink, None)}>{_text(label.text)}</text>')
