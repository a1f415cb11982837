"""Colours of heat, from pale to dark: lightness alone tells them apart, so that they are safe for every colour vision."""

from __future__ import annotations

from collections.abc import Callable

from dualrev.inspection.pictures.sheet import Box, Label, Shape, width_of

#: Red, green and blue at equal distances; lightness falls all the way.
STOPS = ((253, 246, 227), (250, 205, 120), (226, 130, 48), (158, 66, 22), (88, 26, 12))


def share(value: float, most: float) -> float:
    """Where a value stands between 0 and the largest: by its square root, so that small ones can be told apart."""
    return (max(value, 0.0) / most) ** 0.5 if most > 0 else 0.0


def colour(at: float) -> str:
    """The colour at a share between 0 and 1."""
    place = min(max(at, 0.0), 1.0) * (len(STOPS) - 1)
    low = min(int(place), len(STOPS) - 2)
    part = place - low
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(STOPS[low], STOPS[low + 1], strict=True))


def ink_on(code: str) -> str:
    """Dark or light text, whichever has the higher contrast on a colour (its relative luminance in sRGB)."""
    parts = [int(code[i: i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return "#1b1f24" if (luminance + 0.05) / 0.0625 > 1.05 / (luminance + 0.05) else "#ffffff"


def legend(x: float, y: float, what: str, most: float, spoken: Callable[[float], str]) -> tuple[list[Shape], float]:
    """A row of five colours, or of one where all is zero, each with the value that it stands for; and where the row ends."""
    shapes: list[Shape] = [Label(x, y + 13, what, ink="faint")]
    x += width_of(what) + 10
    for k in range(5 if most > 0 else 1):
        text = spoken(most * (k / 4) ** 2)
        code = colour(k / 4)
        width = width_of(text, 10) + 12
        shapes += [Box(x, y, width, 18, code, "frame"), Label(x + width / 2, y + 13, text, 10, ink_on(code), "middle")]
        x += width
    return shapes, x
