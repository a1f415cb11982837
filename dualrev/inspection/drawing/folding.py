"""What a drawing shows and what it folds: groups are opened, those with the most heat first, as long as there is room for boxes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from dualrev.inspection.drawing.items import Item, lines_in_words, number
from dualrev.inspection.drawing.reading import group
from dualrev.linear.residuals import size

#: A group is opened in part where there is room for so many boxes.
FEWEST = 6


@dataclass(frozen=True)
class Folded:
    """A group that is drawn as one box: ``operations`` counts each that it holds, ``stored`` is in bytes."""

    label: str
    where: str
    operations: dict[str, int]
    stored: int
    seconds: float
    flops: float

    def __str__(self) -> str:
        most = [f"{count} {name}" for name, count in Counter(self.operations).most_common(4)]
        more = [f"{number(len(self.operations) - 4, 'kind')} more"] if len(self.operations) > 4 else []
        where = f" ({self.where})" if self.where else ""
        return (f"{self.label}{where}: {number(sum(self.operations.values()), 'operation')}: {', '.join([*most, *more])}; "
                f"{size(self.stored)} stored")


def folded(item: Item) -> Folded:
    return Folded(item.label, lines_in_words(item.lines()), dict(item.operations()), item.stored, item.seconds, item.flops)


def fold(items: list[Item], most: int, heat: Callable[[Item], float]) -> tuple[list[Item], set[Item]]:
    """``(items, opened)``: the items at the top, and the groups whose children are drawn; at most ``most`` boxes together."""
    top = bundled(items, most)
    opened: set[Item] = set()
    shown = list(top)
    count = len(shown)
    while True:
        room = most - count + 1
        fits = [item for item in shown if item.children and (len(item.children) <= room or room >= FEWEST)]
        if not fits:
            return top, opened
        chosen = max(fits, key=lambda item: (heat(item), -len(item.children)))  # of equals, the first in the program
        chosen.children = bundled(chosen.children, room)
        opened.add(chosen)
        place = shown.index(chosen)
        shown[place: place + 1] = chosen.children
        count += len(chosen.children) - 1


def bundled(items: list[Item], most: int) -> list[Item]:
    """At most ``most`` items: neighbours as groups, by the user's function that they stand in, or else by number."""
    if len(items) <= most:
        return items
    runs = [list(run) for _, run in itertools.groupby(items, key=_function)]
    if 1 < len(runs) < len(items):
        items = [run[0] if len(run) == 1 else group(_function(run[0]) or "operations", run) for run in runs]
    if len(items) <= most:
        return items
    parts = most if most < FEWEST else most * 2 // 3  # with room to open some
    cuts = [round(k * len(items) / parts) for k in range(parts + 1)]
    return [_part(items[a:b], k, parts) for k, (a, b) in enumerate(itertools.pairwise(cuts), 1)]


def _part(items: list[Item], k: int, parts: int) -> Item:
    if len(items) == 1:
        return items[0]
    made = group(f"part {k} of {parts}", items)
    functions = list(dict.fromkeys(_function(inner) for item in items for inner in item.walk() if _function(inner)))
    made.out = f"of {', '.join(functions[:3])}{', ...' if len(functions) > 3 else ''}" if functions else ""
    return made


def _function(item: Item) -> str:
    """The name of the user's function that an operation stands in."""
    found = item.line.partition(" (")[2].removesuffix(")")
    return found.replace("<locals>.", "")


