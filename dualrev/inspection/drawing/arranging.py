"""Where boxes, frames of opened groups and arrows stand: each group is laid out by itself, and then is a box of the group around it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from dualrev.inspection.drawing.items import Item, lines_in_words, number
from dualrev.inspection.pictures.heat import ink_on
from dualrev.inspection.pictures.layers import layered
from dualrev.inspection.pictures.sheet import Box, Label, Point, Shape, Stroke, shortened, width_of

#: The height of a line of text, the size of its font, the space beside it, and the most letters that a box shows of a text.
LINE, FONT, SIDE, LETTERS = 14.0, 11.0, 8.0, 44
#: Wider rows are broken.
ACROSS = 1000.0
#: The height of the head of a frame.
HEAD = 20.0


@dataclass(frozen=True)
class Style:
    """How an item is coloured, an opened group by what belongs to none of its items, and what is said of it."""

    fill: Callable[[Item], str]
    figures: Callable[[Item], str]


@dataclass(frozen=True)
class Arranged:
    """Shapes from a corner at the origin, and the size that they take."""

    width: float
    height: float
    shapes: list[Shape]


def arranged(items: Sequence[Item], opened: Collection[Item], style: Style) -> Arranged:
    """The items of one group, with arrows from those that write a value to those that read it."""
    blocks = [_frame(item, opened, style) if item in opened else _box(item, style) for item in items]
    sizes = [(b.width, b.height) for b in blocks]
    edges = _edges(items)
    reached = {b for _, b in edges}
    places, routes, (width, height) = layered(sizes, edges, lambda i: i not in reached, ACROSS)
    rows: dict[float, float] = {}
    for (_, y), (_, h) in zip(places, sizes, strict=True):
        rows[round(y, 3)] = max(rows.get(round(y, 3), 0.0), h)
    shapes: list[Shape] = [Stroke(tuple(_around(points, rows)), is_smooth=True, has_tip=True)
                           for points in _ports(edges, routes, [w for w, _ in sizes])]
    for (x, y), block in zip(places, blocks, strict=True):
        shapes += [moved(shape, x - block.width / 2, y - block.height / 2) for shape in block.shapes]
    return Arranged(width, height, shapes)


def moved(shape: Shape, dx: float, dy: float) -> Shape:
    if isinstance(shape, Stroke):
        return replace(shape, points=tuple((x + dx, y + dy) for x, y in shape.points))
    return replace(shape, x=shape.x + dx, y=shape.y + dy)


def _edges(items: Sequence[Item]) -> list[tuple[int, int]]:
    writers = {value: k for k, item in enumerate(items) for value in item.writes}
    found: dict[tuple[int, int], None] = {}
    for k, item in enumerate(items):
        for writer in sorted({writers[value] for value in item.reads if value in writers}):
            if writer < k:
                found[writer, k] = None
    return list(found)


def _ports(edges: Sequence[tuple[int, int]], routes: Sequence[Sequence[Point]], widths: Sequence[float]) -> list[list[Point]]:
    """The routes, which leave and reach a box at places of their own, in the order of where they come from or go."""
    found = [list(route) for route in routes]
    for end, step in ((0, 1), (-1, -2)):
        at: dict[int, list[int]] = {}
        for k, edge in enumerate(edges):
            at.setdefault(edge[end], []).append(k)
        for box, ks in at.items():
            gap = min(14.0, (widths[box] - 2 * SIDE) / max(len(ks), 1))
            for n, k in enumerate(sorted(ks, key=lambda k: (routes[k][step][0], k))):
                x, y = found[k][end]
                found[k][end] = x + gap * (n - (len(ks) - 1) / 2), y
    return found


def _around(points: Sequence[Point], rows: dict[float, float]) -> list[Point]:
    """A route that crosses each row vertically, so that it turns between rows alone and never behind a box."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    start = next((y + h / 2 for y, h in rows.items() if y - h / 2 <= y0 <= y + h / 2 + 0.01), y0)
    end = next((y - h / 2 for y, h in rows.items() if y - h / 2 - 0.01 <= y1 <= y + h / 2), y1)
    found = [(x0, y0), (x0, start)]
    for x, y in points[1:-1]:
        half = rows.get(round(y, 3), 0.0) / 2
        found += [(x, y - half), (x, y + half)]
    found += [(x1, end), (x1, y1)]
    return [p for k, p in enumerate(found) if k == 0 or abs(p[1] - found[k - 1][1]) > 0.01 or abs(p[0] - found[k - 1][0]) > 0.01]


def _box(item: Item, style: Style) -> Arranged:
    """An operation, an input or output, or a folded group."""
    count = sum(item.operations().values()) if item.children else 0
    title = f"{item.label}, {number(count, 'operation')}" if count else item.label
    heading = shortened(title, LETTERS)
    rest = [item.out, style.figures(item), f"← {', '.join(item.inputs)}" if item.inputs else ""]
    lines = [shortened(line, LETTERS) for line in rest if line]
    beside = len(lines) > 0 and item.out != "" and len(heading) + len(lines[0]) + 2 <= LETTERS
    first = width_of(heading, FONT) + (width_of("  " + lines[0], FONT) if beside else 0.0)
    below = lines[1:] if beside else lines
    width = max([first, *[width_of(line, FONT) for line in below]]) + 2 * SIDE
    height = LINE * (1 + len(below)) + 8
    fill = style.fill(item) if item.kind == "operation" else "panel"
    ink = ink_on(fill) if fill.startswith("#") else "text"
    shapes: list[Shape] = []
    if count:  # a second sheet behind it says that there is more inside
        shapes.append(Box(4, 4, width, height, "panel", "frame", 4))
    shapes.append(Box(0, 0, width, height, fill, "frame", height / 2 if item.kind != "operation" else 4, tip=tip(item, style)))
    shapes.append(Label(SIDE, LINE, heading, FONT, ink, is_bold=True))
    if beside:
        shapes.append(Label(SIDE + width_of(heading + "  ", FONT), LINE, lines[0], FONT, ink))
    for k, line in enumerate(below):
        shapes.append(Label(SIDE, LINE * (k + 2), line, FONT, ink))
    extra = 4.0 if count else 0.0
    return Arranged(width + extra, height + extra, shapes)


def _frame(item: Item, opened: Collection[Item], style: Style) -> Arranged:
    """An opened group: its items under a line that says what it is."""
    inside = arranged(item.children, opened, style)
    said = [part for part in (style.figures(item), lines_in_words(item.lines())) if part]
    head, more = shortened(item.label, LETTERS), shortened(" · ".join(said), 60)
    needed = width_of(f"{head}  {more}", FONT) + 2 * SIDE
    width = max(inside.width, needed)
    shift = (width - inside.width) / 2
    shapes: list[Shape] = [
        Box(0, 0, width, inside.height + HEAD, "panel", "frame", 6, is_dashed=True, tip=tip(item, style)),
    ]
    fill, inks = style.fill(item), ("text", "faint")
    if fill != style.fill(Item("")):
        shapes.append(Box(0, 0, width, HEAD, fill, "frame", 4))
        inks = (ink_on(fill), ink_on(fill))
    shapes += [Label(SIDE, LINE, head, FONT, inks[0], is_bold=True),
               Label(SIDE + width_of(head + "  ", FONT), LINE, more, FONT, inks[1])]
    return Arranged(width, inside.height + HEAD, [*shapes, *[moved(shape, shift, HEAD) for shape in inside.shapes]])


def tip(item: Item, style: Style) -> str:
    """What is shown under the pointer: the whole texts, and the user's line."""
    count = f"{number(sum(item.operations().values()), 'operation')}" if item.children else ""
    parts = [item.label, item.out, count, style.figures(item), f"reads {', '.join(item.inputs)}" if item.inputs else "", item.line]
    return "\n".join([part for part in parts if part])
