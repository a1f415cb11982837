"""What a drawing consists of: operations, and groups of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal


@dataclass(eq=False)
class Item:
    """An operation, or a group where it has ``children``.

    ``reads`` and ``writes`` name values; items that stand beside each other in a group are joined where one reads what another
    writes.  ``own_seconds``, ``own_flops`` and ``own_stored`` (bytes of the tape) are without those of the children.
    """

    label: str
    #: The type of the result: ``float32[4, 8]``.
    out: str = ""
    #: ``path/to/file.py:line:column (function)`` of the user.
    line: str = ""
    reads: frozenset[Hashable] = frozenset()
    writes: frozenset[Hashable] = frozenset()
    #: Names of inputs of the function that it reads.
    inputs: tuple[str, ...] = ()
    children: list[Item] = field(default_factory=list)
    own_seconds: float = 0.0
    own_flops: float = 0.0
    own_stored: int = 0
    #: Whether only one of the children runs, as of a branch.
    is_choice: bool = False
    #: What the operation is called in the program, for what a tape says of it.
    name: str = ""
    #: The calls that consist of it alone, and are drawn as it.
    calls: tuple[str, ...] = ()
    kind: Literal["operation", "input", "output"] = "operation"

    @property
    def seconds(self) -> float:
        return self._total("own_seconds")

    @property
    def flops(self) -> float:
        return self._total("own_flops")

    @property
    def stored(self) -> int:
        return int(sum(item.own_stored for item in self.walk()))

    def _total(self, what: str) -> float:
        own: float = getattr(self, what)
        parts = [child._total(what) for child in self.children]
        return own + (max(parts, default=0.0) if self.is_choice else sum(parts))

    def walk(self) -> Iterator[Item]:
        """The children, each after its own, and then the item."""
        for child in self.children:
            yield from child.walk()
        yield self

    def operations(self) -> Counter[str]:
        """How often each operation stands in it."""
        return Counter(item.label for item in self.walk() if not item.children)

    def lines(self) -> list[str]:
        """The short lines of its operations, each once, in the order of the program."""
        return list(dict.fromkeys(short(item.line) for item in self.walk() if item.line))


def short(line: str) -> str:
    """``file.py:line`` of a line with its folder, column and function."""
    place = line.partition(" (")[0].replace("\\", "/").rpartition("/")[2]
    name, _, rest = place.partition(":")
    return f"{name}:{rest.partition(':')[0]}" if rest else name


def number(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def lines_in_words(lines: list[str]) -> str:
    """``model.py:3-8`` where all lines are of one file, else the first and how many follow."""
    if not lines:
        return ""
    files = {line.partition(":")[0] for line in lines}
    numbers = [int(n) for line in lines if (n := line.partition(":")[2]).isdigit()]
    if len(files) == 1 and len(numbers) == len(lines):
        low, high = min(numbers), max(numbers)
        return f"{lines[0].partition(':')[0]}:{low}" + (f"-{high}" if high > low else "")
    return lines[0] if len(lines) == 1 else f"{lines[0]} and {number(len(lines) - 1, 'line')} more"
