"""Mutable references: the operations that reach the table.

References that a differentiated function makes are followed by the engines (:mod:`dualrev.engines.references`), so that these
rows meet only references from outside: they may be read, for then nothing moves, and not written with what moves.  Inside a kernel
that is pushed through (:mod:`dualrev.calls.pallas`), the tangent of a reference is a reference, which is read and written alongside.
"""

from __future__ import annotations

from collections.abc import Sequence

from jax import Array

from dualrev import errors
from dualrev._jax.avals import typeof
from dualrev._jax.primitives import Params, primitive
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent
from dualrev.table.forms import RefusingRow
from dualrev.table.rows import register


class OutsideRow(RefusingRow):
    """What moves meets a reference from outside the differentiated function."""

    def error(self) -> Exception:
        return errors.reference_from_outside(self.primitive)


class ReferenceRow(OutsideRow):
    """A read or write of a reference, the first operand, which is linear in what the reference holds and in the value written."""

    def value_of(self, params: Params) -> int | None:
        """Which operand is a value, if any is."""
        return None

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        if tangents[0] is None:
            raise self.error()
        outs = self.bind(primals, params)
        moving = [tangents[0], *primals[1:]]
        value = self.value_of(params)
        if value is not None:
            moving[value] = zeros.instantiate(tangents[value], typeof(primals[value]))
        return outs, self.bind(moving, params)


class WriteRow(ReferenceRow):
    """A write, whose second operand is the value."""

    def value_of(self, params: Params) -> int | None:
        return 1


register(ReferenceRow(primitive("get")))
for name in ("swap", "addupdate"):
    register(WriteRow(primitive(name)))
for name in ("freeze", "free_ref", "new_ref", "empty_ref"):
    register(OutsideRow(primitive(name)))
