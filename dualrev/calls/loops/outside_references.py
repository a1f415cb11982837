"""Loops that read and write mutable references from outside: each reference becomes a carry, which is read before and written after.

In reverse mode, a loop's body may run again where residuals are recomputed, and once more where steps are counted.  A write must not
happen again, nor may a read find what later steps have written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from dualrev import errors
from dualrev._jax.avals import is_reference
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.references import discharge_operation
from dualrev.table.rows import Expansion, Operand, aval_of


def with_values(primitive: Primitive, primals: Sequence[Operand], params: Params) -> Expansion | None:
    """The loop as a program of the values that references hold, or None if no operand is a reference."""
    avals = [aval_of(x) for x in primals]
    references = [is_reference(aval) for aval in avals]
    if not any(references):
        return None

    def run(*operands: Any) -> Sequence[jax.Array]:
        values = [x[...] if is_ref else x for x, is_ref in zip(operands, references, strict=True)]
        found = discharge_operation(primitive, avals, references, values, params)
        if found is None:
            raise errors.reference_cannot_enter(primitive)
        new_values, results = found
        for x, is_ref, value in zip(operands, references, new_values, strict=True):
            if is_ref and value is not None:
                x[...] = value
        return results  # type: ignore[return-value]  # a loop has several results

    return Expansion(None, run)
