"""Mutable references: the operations that reach the table.

References that a differentiated function makes are followed by the engines (:mod:`dualrev.engines.references`), so that these
rows meet only references from outside: they may be read, for then nothing moves, and not written with what moves.
"""

from __future__ import annotations

from dualrev import errors
from dualrev._jax import primitive
from dualrev.rules.forms import RefusingRow
from dualrev.rules.table import register


class OutsideRow(RefusingRow):
    """What moves meets a reference from outside the differentiated function."""

    def error(self) -> Exception:
        return errors.reference_from_outside(self.primitive)


for name in ("get", "swap", "addupdate", "freeze", "free_ref", "new_ref", "empty_ref"):
    register(OutsideRow(primitive(name)))
