"""Settings for the tests of other libraries, and a line for each library at the end: uses passed, skipped, failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uses import as_libraries_expect

OUTCOMES = ("passed", "skipped", "failed")
FOLDER = Path(__file__).parent.name


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Our own code runs under strict promotion in the rest of the suite; most of these libraries do not."""
    with as_libraries_expect():
        yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts: dict[str, Counter[str]] = {}
    for outcome in OUTCOMES:
        for report in terminalreporter.stats.get(outcome, []):
            path = Path(report.nodeid.split("::")[0])
            if path.parent.name == FOLDER:
                counts.setdefault(path.stem.removeprefix("test_"), Counter())[outcome] += 1
    if not counts:
        return
    terminalreporter.section("uses of other libraries")
    for library, count in [*sorted(counts.items()), ("total", sum(counts.values(), Counter()))]:
        terminalreporter.write_line(f"{library:12} " + ", ".join(f"{count[outcome]} {outcome}" for outcome in OUTCOMES))
