"""What dominates a program, by the user's source line: seconds, bytes moved, and bytes that reverse mode keeps."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr
from dualrev._jax.source_lines import line_of
from dualrev.inspection.explanation.variants import Line
from dualrev.linear.residuals import Residuals
from dualrev.time_model import Cost

#: ``file:line:column (function)``, as jax says where an operation stands.
PLACE = re.compile(r"^(.*?):(\d+)(?::\d+)? \(.*\)$")


def _place(where: str) -> str:
    """``file:line``; empty where no line of the user's is known."""
    found = PLACE.match(where)
    return f"{found[1]}:{found[2]}" if found else where


def _source(place: str) -> str:
    """The text of a line, where it can be read."""
    path, _, number = place.rpartition(":")
    return linecache.getline(path, int(number)).strip() if number.isdigit() else ""


def _places(jaxpr: ClosedJaxpr | Jaxpr, outside: str) -> Iterator[tuple[int, str]]:
    """The line of each equation, by its identity; what has none, as jax's own functions, has that of the equation that holds it."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        place = _place(line_of(eqn.source_info)) or outside
        yield id(eqn), place
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _places(inner, place)


@dataclass
class _Sum:
    seconds: float = 0.0
    nbytes: float = 0.0
    kept: int = 0
    operations: dict[str, float] = field(default_factory=dict)


def dominating(jaxpr: ClosedJaxpr, cost: Cost, kept: Residuals) -> tuple[Line, ...]:
    """The lines of a program, those that take most of the time first."""
    places: Mapping[int, str] = dict(_places(jaxpr, ""))
    sums: dict[str, _Sum] = {}
    for eqn, seconds, nbytes in cost.by_equation.values():
        of = sums.setdefault(places.get(id(eqn)) or _place(line_of(eqn.source_info)), _Sum())
        of.seconds += seconds
        of.nbytes += nbytes
        name = str(eqn.primitive)
        of.operations[name] = of.operations.get(name, 0.0) + seconds
    for residual in kept:
        sums.setdefault(_place(residual.line), _Sum()).kept += residual.nbytes
    total = sum(of.seconds for of in sums.values()) or 1.0
    return tuple([Line(place, _source(place), of.seconds / total, of.seconds, round(of.nbytes), of.kept,
                       max(of.operations, key=lambda name: of.operations[name], default=""))
                  for place, of in sorted(sums.items(), key=lambda item: (-item[1].seconds, -item[1].kept))
                  if of.seconds or of.kept])


def short(place: str) -> str:
    """A place without its folders."""
    path, colon, number = place.rpartition(":")
    return f"{Path(path).name}{colon}{number}" if path else place
