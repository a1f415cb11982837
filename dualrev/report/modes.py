"""How each operation of a function goes through each mode, as its row says: ``python -m dualrev --modes``.

COVERAGE.md says the same of every row of the table, by the same functions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import jax

from dualrev._jax.jaxprs import JaxprEqn
from dualrev.errors import MissingRuleError
from dualrev.programs.partition import eqns_within
from dualrev.report.measure import Flat
from dualrev.sparse.propagation import ways_of
from dualrev.table.choosing import ChoosingRow
from dualrev.table.rows import Kind, Row, row_of

#: The modes beside forward and reverse.
HIGHER = ("Laplacian", "Taylor", "sparsity", "elimination")

#: What each of them reads of a row, by its kind; ``sparsity`` says it by more than the kind.
READ: dict[str, dict[Kind, str]] = {
    "Laplacian": {"zero": "zero", "linear": "push", "product": "product rule", "diagonal": "second partials",
                  "program": "push of the push", "call": "its program"},
    "Taylor": {"zero": "zero", "linear": "push", "product": "convolution", "diagonal": "recurrence",
               "program": "push on series", "call": "its program"},
    "elimination": {"zero": "no edge", "linear": "block by its push", "product": "block by its push", "diagonal": "diagonal block",
                    "program": "dense block", "call": "dense block"},
}


def options_of(row: Row) -> tuple[Row, ...]:
    """The rows that a row chooses from; itself if it does not choose."""
    return tuple(row.options) if isinstance(row, ChoosingRow) else (row,)


def read_by(mode: str, row: Row) -> str:
    """What a mode reads of a row, and of all that it chooses from."""
    if row.form == "no derivative":
        return "" if mode == "sparsity" else "an error"
    if mode == "sparsity":
        return ", ".join(dict.fromkeys(way for option in options_of(row) for way in ways_of(option, str(row.primitive))))
    return ", ".join(dict.fromkeys(READ[mode][option.kind] for option in options_of(row)))


@dataclass(frozen=True)
class Operation:
    """One primitive of a function: how often it occurs, the kind of its row, and what each mode reads of it."""

    name: str
    times: int
    kind: str
    reads: dict[str, str]


@dataclass(frozen=True)
class Modes:
    """The operations of a function that active values go through, the most frequent first."""

    name: str
    operations: tuple[Operation, ...]


def modes(name: str, flat: Flat) -> Modes:
    """What each mode reads of the operations of a function, those of its loops and calls included."""
    jaxpr = jax.make_jaxpr(flat.function)(*flat.primals)
    eqns: list[JaxprEqn] = list(eqns_within(jaxpr))
    times = Counter(eqn.primitive for eqn in eqns)
    found = []
    for primitive, count in times.most_common():
        try:
            row = row_of(primitive, "any")
        except MissingRuleError:
            found.append(Operation(str(primitive), count, "no row", dict.fromkeys(HIGHER, "an error")))
            continue
        kinds = ", ".join(dict.fromkeys(option.kind for option in options_of(row)))
        found.append(Operation(str(primitive), count, kinds, {mode: read_by(mode, row) for mode in HIGHER}))
    return Modes(name, tuple(found))
