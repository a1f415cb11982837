"""Mutable references: the operations that reach the table.

References that a differentiated function makes are followed by the engines (:mod:`dualrev.engines.references`), so that these
rows meet only references from outside: they may be read, for then nothing moves, and not written with what moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev import errors
from dualrev._jax import primitive
from dualrev.linear_maps import LinearMap
from dualrev.rules.table import Row, register


class OutsideRow(Row):
    """What moves meets a reference from outside the differentiated function."""

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        raise errors.reference_from_outside(self.primitive)

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        raise errors.reference_from_outside(self.primitive)


for name in ("get", "swap", "addupdate", "freeze", "free_ref", "new_ref", "empty_ref"):
    register(OutsideRow(primitive(name)))
