"""Operations of a linear program that are not linear, or have no row: an error only where a cotangent of their results is not zero."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from dualrev import errors
from dualrev._jax.avals import abstract_outputs, is_differentiable
from dualrev._jax.primitives import Params, Primitive
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.rows import Linearized, Operand, Pushed, Row, Unknown, aval_of


class MissingRow(Row):
    """The row, in a linear program, of a primitive that has none: an error once the operation has to be differentiated."""

    def __init__(self, primitive: Primitive, error: errors.MissingRuleError):
        super().__init__(primitive)
        self.error = error

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        raise self.error

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        raise self.error


def not_linear(row: Row, primals: Sequence[Operand], params: Params,
               error: errors.DualrevError) -> tuple[list[Operand], LinearMap, Sequence[bool]]:
    """In a linear program, an operation that is not linear: an error, but only once a cotangent of its results is not zero."""
    outs: list[Operand] = [Unknown(a) for a in abstract_outputs(row.primitive, [aval_of(x) for x in primals], params)]
    has_tangents = any(is_differentiable(aval_of(out)) for out in outs)
    return outs, NonLinearMap(len(outs), has_tangents, type(error), error.template), [True] * len(outs)


class NonLinearMap(LinearMap):
    """The map of an operation that is not linear, on the tape of a linear program: it raises the error that it holds."""

    __slots__ = ("error", "has_tangents", "message", "n_out")

    name = "not linear"

    def __init__(self, n_out: int, has_tangents: bool, error: type[Exception], message: str):
        self.n_out = n_out
        self.has_tangents = has_tangents
        self.error = error
        self.message = message

    def push(self, *tangents: Tangent) -> Tangents:
        if self.has_tangents:
            raise self.error(self.message)
        return (None,) * self.n_out

    def pull(self, *cotangents: Tangent) -> Tangents:
        raise self.error(self.message)


jax.tree_util.register_pytree_node(
    NonLinearMap, lambda m: ((), (m.n_out, m.has_tangents, m.error, m.message)), lambda aux, _: NonLinearMap(*aux)
)
