"""The forms in which a row states the derivative of a primitive, once.

==================  ==============================================================================================
``zero``            the derivative is zero almost everywhere
``elementwise``     one partial derivative for each operand, applied entry by entry
``linear``          the push is the operation itself; only its adjoint is stated
``bilinear``        linear in each of two operands; one adjoint for each
``pushforward``     J·v as a program over other primitives (:mod:`dualrev.table.pushforward`)
``definition``      the operation itself as a program over other primitives (:mod:`dualrev.table.pushforward`)
``alongside``       output ``i`` is operand ``i``
``by_kind``         one row for real operands, another for complex ones (and others that choose: :mod:`dualrev.table.choosing`)
``call``            operations that hold a program of their own (:mod:`dualrev.calls.call_rows`)
==================  ==============================================================================================

Operands of a partial or an adjoint are positional; ``out`` and the primitive's parameters are keyword-only.  A function names
only what it reads, and an operand whose name begins with ``_`` is not read: *the signature is the list of residuals*.  Both modes,
symbolic zeros, broadcasting of scalars and low precision are handled in this package and never in a row.  What a reader asks of a row
(:class:`~dualrev.table.rows.Row`: kind, linearity) is found from the statement; the cost of the operation is stated beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import jax

from dualrev import errors
from dualrev._jax.primitives import Params, Primitive
from dualrev.linear.maps import Tangent
from dualrev.options.settings import Active
from dualrev.table.adjoints import Adjoint, AlongsideRow, AxesOf, BilinearRow, LinearRow, PartOf
from dualrev.table.choosing import KindRow
from dualrev.table.partials import ElementwiseRow, Over, Partial
from dualrev.table.rows import Cost, Operand, Row, Taped, register


class RefusingRow(Row):
    """An operation that raises an error if an operand is active."""

    @abstractmethod
    def error(self) -> Exception:
        """The error to raise."""

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
            params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
        raise self.error()

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Taped:
        raise self.error()


class ImpossibleRow(RefusingRow):
    """An operation whose derivative cannot be found, such as a call of the host."""

    form = "no derivative"

    def __init__(self, primitive: Primitive, why: str, what_to_do: str):
        super().__init__(primitive)
        self.why = why
        self.what_to_do = what_to_do

    def error(self) -> Exception:
        return errors.no_derivative(self.primitive, self.why, self.what_to_do)


# ------------------------------------------------------------------------------------------------------------- stating a row


def elementwise(primitive: Primitive, *partials: Partial | Over | complex | None, cost: Cost = "entrywise",
                linear_in: Iterable[int] | None = None) -> None:
    """State one partial derivative for each operand: a function of ``(x, y, ..., *, out, params)``, a constant, or None for 0.

    ``linear_in``: the operands in which the operation is linear, where the partials' signatures say otherwise.
    """
    register(ElementwiseRow(primitive, *partials, cost=cost, linear_in=linear_in))


def linear(primitive: Primitive, *adjoints: Adjoint | None, cost: Cost = "work", linear_in: Iterable[int] | None = None,
           part: PartOf | None = None, axes: AxesOf | None = None) -> None:
    """State one adjoint ``(ct, x, y, ..., *, params)`` for each operand; None for an operand without a derivative, such as an index or
    a predicate.  Operands at the end without a derivative need no None.

    An adjoint gets the operands that the operation is linear in as abstract values (shape and dtype), and the others as values.
    ``linear_in``: the operands in which the operation is linear, where that is not so for each that has an adjoint.
    ``part(x, *, params)``: for an operation whose result is a part of the first operand, the place of it; a list of places for
    several results.  A place that is known at run time only reads the other operands.
    ``axes(x, y, ..., *, params)``, of abstract values: which axes of the operands are which of the results (:mod:`dualrev.table.axes`).
    """
    register(LinearRow(primitive, adjoints, cost=cost, linear_in=linear_in, part=part, axes=axes))


def linear_together(primitive: Primitive, adjoint: Adjoint, fixed: tuple[int, ...] = (), cost: Cost = "work",
                    selects: Iterable[int] = (), axes: AxesOf | None = None) -> None:
    """As :func:`linear` for any number of operands: one adjoint returns a cotangent for each operand not in ``fixed``."""
    register(LinearRow(primitive, (adjoint,), together=True, fixed=fixed, cost=cost, selects=selects, axes=axes))


def bilinear(primitive: Primitive, *adjoints: Adjoint | None, cost: Cost = "work", axes: AxesOf | None = None) -> None:
    """State an adjoint ``(ct, x, y, ..., *, params)`` for each of two operands; None for other operands, such as indices.

    The adjoint of an operand gets that operand as an abstract value; ``axes`` is as in :func:`linear`.
    """
    register(BilinearRow(primitive, adjoints, cost, axes))


def over(function: Partial) -> Over:
    """The partial derivative ``1 / function(...)``: tangents are divided by ``function(...)``.

    A quotient rounds once, a product with a reciprocal twice.
    """
    return Over(function)


def alongside(primitive: Primitive, params_of: Callable[..., Params] | None = None, cost: Cost = "work") -> None:
    """State that output ``i`` is operand ``i``: the operation maps tangents to tangents, and cotangents to cotangents.

    ``params_of(active operands, their positions, back, **params)`` gives the parameters for the active operands alone, for cotangents
    if ``back``; without it, the parameters stay.
    """
    register(AlongsideRow(primitive, params_of, cost))


def impossible(primitive: Primitive, why: str, what_to_do: str) -> None:
    """State that the derivative of an operation cannot be found: why, and what the user can do."""
    register(ImpossibleRow(primitive, why, what_to_do))


def by_kind(real: Row, complex_: Row) -> None:
    """State the derivative of one primitive by one row for real operands and another for complex ones."""
    register(KindRow(real, complex_))
