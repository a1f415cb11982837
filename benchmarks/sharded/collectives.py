"""What a compiled program sends: its collectives, how often each runs, and the bytes that one device hands to others.

Read from the text of the optimized program.  A collective in a loop counts once for each pass, where the compiler knows their number.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8,
         "f64": 8, "c64": 8, "c128": 16}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
_TYPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_NAME = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass
class Traffic:
    """Collectives of one run of a program, by kind, and bytes."""

    counts: Counter[str] = field(default_factory=Counter)
    #: What one device sends, by kind, by the algorithms that send the least in a ring.
    sent: Counter[str] = field(default_factory=Counter)
    #: Collectives in loops of which the compiler does not tell the number of passes, counted once.
    is_exact: bool = True

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def nbytes(self) -> int:
        return round(sum(self.sent.values()))


def _nbytes(text: str) -> int:
    return sum(BYTES[dtype] * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in _TYPE.findall(text) if dtype in BYTES)


def _group(line: str, devices: int) -> int:
    """How many devices take part in each group of a collective."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(found[2])
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(found[1].split(","))
    return devices


def _sent(kind: str, nbytes: int, n: int) -> float:
    """Bytes that a device sends: a result of so many bytes, among ``n`` devices in a ring."""
    if kind == "all-reduce":
        return 2 * nbytes * (n - 1) / n
    if kind == "reduce-scatter":
        return nbytes * (n - 1)
    if kind in ("all-gather", "all-to-all"):
        return nbytes * (n - 1) / n
    return nbytes


def traffic(compiled: Any, devices: int = 8) -> Traffic:
    """What a compiled function sends."""
    return of_text(compiled.as_text(), devices)


def of_text(text: str, devices: int) -> Traffic:
    parts: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if not line.startswith(" ") and (found := _NAME.match(line)):
            name = found[1]
            parts[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            parts[name].append(line)
    total = Traffic()

    def add(name: str, times: int) -> None:
        for line in parts.get(name, ()):
            if found := _COLLECTIVE.search(line):
                kind, n = found[2], _group(line, devices)
                if n > 1:
                    shape = found[1]
                    if found[3] and shape.startswith("("):  # started: the type holds operands and results
                        shape = shape[len(shape) // 2:]
                    total.counts[kind] += times
                    total.sent[kind] += round(times * _sent(kind, _nbytes(shape), n))
            if " while(" in line:
                trips = _TRIPS.search(line)
                body = re.search(r"body=%?([\w.\-]+)", line)
                assert body is not None
                before = total.count
                add(body[1], times * (int(trips[1]) if trips else 1))
                total.is_exact &= trips is not None or total.count == before
            else:
                for called in re.findall(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", line):
                    add(called, times)
                if branches := re.search(r"branch_computations=\{([^}]*)\}", line):
                    for called in branches[1].split(","):
                        add(called.strip().lstrip("%"), times)

    add(entry, 1)
    return total
