"""Mutable references: the operations on them that read the table.

The engines handle references that a differentiated function makes (:mod:`dualrev.engines.references`).  These rows are for references
from outside: reading one gives a constant, writing an active value to one is an error.  In the push of a kernel
(:mod:`dualrev.calls.pallas`), the tangent of a reference is a reference, which is read and written together with its primal.
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
    """An error: an active value and a reference from outside the differentiated function."""

    def error(self) -> Exception:
        return errors.reference_from_outside(self.primitive)


class ReferenceRow(OutsideRow):
    """A read or write of a reference, the first operand, which is linear in what the reference holds and in the value written."""

    def value_of(self, params: Params) -> int | None:
        """The position of the value among the operands, if there is one."""
        return None

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        if tangents[0] is None:
            raise self.error()
        outs = self.bind(primals, params)
        operands = [tangents[0], *primals[1:]]
        value = self.value_of(params)
        if value is not None:
            operands[value] = zeros.instantiate(tangents[value], typeof(primals[value]))
        return outs, self.bind(operands, params)


class WriteRow(ReferenceRow):
    """A write, whose second operand is the value."""

    def value_of(self, params: Params) -> int | None:
        return 1


register(ReferenceRow(primitive("get")))
for name in ("swap", "addupdate"):
    register(WriteRow(primitive(name)))
for name in ("freeze", "free_ref", "new_ref", "empty_ref"):
    register(OutsideRow(primitive(name)))
