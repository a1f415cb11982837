"""Power series through single operations: each coefficient of a result from coefficients of lower order, found from the row.

Let ``y = f(x)`` for a series ``x(t) = Σ x_k t^k``.  What the row of ``f`` states is enough for a recurrence:

====================  ================================================================================================
kind of the row       the coefficient of order ``k``
====================  ================================================================================================
``linear``            ``y_k = Df[x_k]``
``product``           ``y_k = Σ_j f(u_j, v_{k-j})``
a quotient            ``y_k = (u_k - Σ_{j<k} y_j g_{k-j}) / g_0`` where ``f`` is linear in ``u``, with the partial ``1 / g``
any other             ``y_k = s_{k-1} / k`` where ``s(t) = y'(t) = Df(x(t))[x'(t)]`` is the row's push, evaluated on series
====================  ================================================================================================

The push is a program of operations with rows, and each of its results is a series of the same kind.  A series is computed lazily,
order by order, and two equal operations on the same series are one.  So a push that reads its own result, such as that of ``tanh``,
closes the recurrence; so do ``sin`` and ``cos``, each of which reads the other.  These take ``O(K²)`` products for ``K`` orders, which
is the cost of the recurrences stated by hand [GriewankWalther2008, table 13.2].  An operation whose push leads to ever new
operations, such as ``digamma``, goes on to the next one for each order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import jax
from jax import lax

from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.primitives import Params
from dualrev._jax.traces import Trace, Tracer, set_current_trace, to_concrete_value
from dualrev.engines.base import EngineTrace, many
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import under
from dualrev.table.mode import Mode
from dualrev.table.partials import broadcast_entries
from dualrev.table.rows import Row

#: Evaluates a row that holds programs under the mode of series of some order.
ModeOf: TypeAlias = Callable[[int], Mode]


class Operation(ABC):
    """One operation on series: ``terms[k][i]`` is the coefficient of order ``k`` of result ``i``; None for zero, but not at order 0."""

    def __init__(self, values: Sequence[jax.Array]):
        self.terms: list[list[Tangent]] = [list(values)]

    def at(self, k: int) -> list[Tangent]:
        """The coefficients of order ``k`` of all results."""
        while len(self.terms) <= k:
            self.terms.append(self.next(len(self.terms)))
        return self.terms[k]

    @abstractmethod
    def next(self, k: int) -> list[Tangent]:
        """The coefficients of order ``k``, where those of lower order are known."""

    def forget(self) -> None:  # noqa: B027  (most hold nothing else)
        """Drop what refers to other operations: recurrences are circles."""


class Given(Operation):
    """A series whose coefficients are known; those that are not given are zero."""

    def __init__(self, value: jax.Array, coefficients: Sequence[Tangent]):
        super().__init__([value])
        self.terms += [[c] for c in coefficients]

    def next(self, k: int) -> list[Tangent]:
        return [None]


class Series(Tracer):  # type: ignore[type-arg]
    """One result of an operation on series."""

    __slots__ = ("index", "operation")

    def __init__(self, trace: SeriesTrace, operation: Operation, index: int):
        super().__init__(trace, typeof(operation.terms[0][index]))
        self.operation = operation
        self.index = index

    @property
    def value(self) -> jax.Array:
        value = self.operation.terms[0][self.index]
        assert value is not None  # order 0 is given
        return value

    def coefficient(self, k: int) -> Tangent:
        """The coefficient of order ``k``."""
        return self.operation.at(k)[self.index]

    def to_concrete_value(self) -> object:
        return to_concrete_value(self.value)

    def _short_repr(self) -> str:
        return f"Series({self.value})"


#: An operand: a series, or a constant.
Factor: TypeAlias = Series | jax.Array


def at(x: Factor | None, k: int) -> Tangent:
    """The coefficient of order ``k`` of a series or a constant; None is the zero series."""
    if isinstance(x, Series):
        return x.coefficient(k)
    return x if k == 0 else None


class Derivative(Operation):
    """``x'(t)``."""

    def __init__(self, x: Series):
        first = x.coefficient(1)
        super().__init__([zeros.zeros_of(typeof(x.value)) if first is None else first])
        self.x: Series | None = x

    def next(self, k: int) -> list[Tangent]:
        assert self.x is not None
        found = self.x.coefficient(k + 1)
        return [None if found is None else _times(found, k + 1)]

    def forget(self) -> None:
        self.x = None


class Applied(Operation):
    """A row applied to operands."""

    def __init__(self, row: Row, operands: Sequence[Factor], params: Params, trace: SeriesTrace):
        self.row, self.operands, self.params, self.trace = row, list(operands), params, trace
        self.primals = [x.value if isinstance(x, Series) else x for x in operands]
        super().__init__(row.bind(self.primals, params))

    def forget(self) -> None:
        self.operands = []


class Linear(Applied):
    def next(self, k: int) -> list[Tangent]:
        tangents = [at(x, k) for x in self.operands]
        if all(t is None for t in tangents):
            return [None] * len(self.terms[0])
        return self.row.first(self.primals, tangents, self.params)


class Product(Applied):
    def next(self, k: int) -> list[Tangent]:
        p, q = sorted(self.row.linear_in)  # type: ignore[arg-type]  # of a product it is a set of two
        u, v = self.operands[p], self.operands[q]
        total: list[Tangent] = [None] * len(self.terms[0])
        is_square = self.row.is_diagonal and isinstance(u, Series) and isinstance(v, Series) and (
            u.operation is v.operation and u.index == v.index)
        for j in range((k + 1) // 2 if is_square else k + 1):
            a, b = at(u, j), at(v, k - j)
            if a is not None and b is not None:
                total = _added(total, self.times({p: a, q: b}))
        if is_square:
            total = [None if t is None else lax.add(t, t) for t in total]
            if k % 2 == 0 and (middle := at(u, k // 2)) is not None:
                total = _added(total, self.times({p: middle, q: middle}))
        return total

    def times(self, factors: dict[int, jax.Array]) -> list[Tangent]:
        found = self.row.bind([factors.get(i, x) for i, x in enumerate(self.primals)], self.params)
        return [x if is_differentiable(typeof(x)) else None for x in found]


class Quotient(Applied):
    """``u / g`` for the operand ``u`` in which the row is linear, entry by entry."""

    def __init__(self, row: Row, operands: Sequence[Factor], params: Params, trace: SeriesTrace, position: int, divisor: Factor):
        super().__init__(row, operands, params, trace)
        self.u, self.divisor = operands[position], divisor

    def next(self, k: int) -> list[Tangent]:
        shape = self.terms[0][0].shape  # type: ignore[union-attr]  # order 0 is given
        total = None if (u := at(self.u, k)) is None else broadcast_entries(u, shape)
        for j in range(k):
            y, g = self.terms[j][0], at(self.divisor, k - j)
            if y is not None and g is not None:
                term = lax.mul(y, broadcast_entries(g, shape))
                total = lax.neg(term) if total is None else lax.sub(total, term)
        divisor = at(self.divisor, 0)
        assert divisor is not None
        return [None if total is None else lax.div(total, broadcast_entries(divisor, shape))]

    def forget(self) -> None:
        super().forget()
        self.u = self.divisor = self.primals[0]


class Sloped(Applied):
    """An operation whose push gives the derivative of its results along the series."""

    slope: Sequence[Factor | None] | None = None

    def next(self, k: int) -> list[Tangent]:
        if self.slope is None:
            self.slope = self.trace.slope_of(self)
        return [None if (s := at(x, k - 1)) is None else _over(s, k) for x in self.slope]

    def forget(self) -> None:
        super().forget()
        self.slope = None


class Called(Applied):
    """An operation that holds programs, evaluated once more for each order."""

    def next(self, k: int) -> list[Tangent]:
        parts = [tuple([x.coefficient(j) for j in range(1, k + 1)]) if isinstance(x, Series) else None for x in self.operands]
        parts = [None if p is None or all(c is None for c in p) else p for p in parts]
        if all(p is None for p in parts):
            return [None] * len(self.terms[0])
        found = self.row.through(self.trace.mode_of(k), self.primals, parts, self.params)
        assert isinstance(found, tuple)  # programs that are run once are run by the trace
        return [None if p is None else p[k - 1] for p in found[1]]


class SeriesTrace(EngineTrace):
    """Records operations on series; equal ones are one."""

    mode_name = "Taylor"

    def __init__(self, parent: Trace, mode_of: ModeOf):
        super().__init__(parent)
        self.mode_of = mode_of
        self.known: dict[Hashable, Applied] = {}
        self.operations: list[Operation] = []

    def series(self, operation: Operation, index: int = 0) -> Series:
        self.operations.append(operation)
        return Series(self, operation, index)

    def split(self, values: Sequence[jax.Array]) -> tuple[list[jax.Array], list[Series | None], bool]:
        marks = [x if isinstance(x, Series) and x._trace is self else None for x in values]
        primals = [x if mark is None else mark.value for x, mark in zip(values, marks, strict=True)]
        return primals, marks, any(mark is not None for mark in marks)

    def operate(self, row: Row, tracers: Sequence[jax.Array], primals: Sequence[jax.Array], marks: Sequence[Series | None],
                params: Params) -> Sequence[jax.Array]:
        if row.chooses:
            row = row.choose(primals, [m is not None for m in marks], params)
        if (run := row.runs(params)) is not None:
            with set_current_trace(self):
                return many(run(*tracers))
        with set_current_trace(self.parent):
            operation = self.applied(row, tracers, params)
        return [x if row.kind == "zero" or not is_differentiable(typeof(x)) else self.series(operation, i)  # type: ignore[misc]
                for i, x in enumerate(operation.terms[0])]

    def applied(self, row: Row, operands: Sequence[Factor], params: Params) -> Applied:
        """The operation on these operands: the one that is there already, or a new one."""
        key: Hashable = (row, tuple(params.items()),
                         tuple([(id(x.operation), x.index) if isinstance(x, Series) else id(x) for x in operands]))
        try:
            found = self.known.get(key)
        except TypeError:  # a parameter cannot be hashed
            key, found = object(), None
        if found is None:
            found = self.known[key] = self._made(row, operands, params)
        return found

    def _made(self, row: Row, operands: Sequence[Factor], params: Params) -> Applied:
        if row.kind in ("linear", "zero"):
            return Linear(row, operands, params, self)
        if row.kind == "product" and not self.settings.zero_wins:
            return Product(row, operands, params, self)
        if row.kind == "call":
            return Called(row, operands, params, self)
        with set_current_trace(self):
            found = row.divisor(operands, params)
        return Sloped(row, operands, params, self) if found is None else Quotient(row, operands, params, self, *found)

    def slope_of(self, operation: Applied) -> list[Factor | None]:
        """The derivative of the results along the series: the row's push, on series."""
        row, operands, params = operation.row, operation.operands, operation.params
        tangents: list[Series | None] = [self.series(Derivative(x)) if isinstance(x, Series) else None for x in operands]
        with set_current_trace(self):
            if row.kind != "diagonal" or self.settings.zero_wins:
                return under(self.settings, row.first, operands, tangents, params)
            factors = row.partials(operands, params, [t is not None for t in tangents])
            total: Tangent = None
            for factor, t in zip(factors, tangents, strict=True):
                if factor is not None and t is not None:
                    spread = broadcast_entries(zeros.cast(t, factor.dtype), factor.shape)
                    total = zeros.add(total, lax.mul(factor, spread))
            return [total]

    def finish(self) -> None:
        """Break the circles of recurrences, which would keep arrays alive."""
        for operation in (*self.operations, *self.known.values()):
            operation.forget()
        self.known.clear()
        self.operations.clear()
        self.invalidate()


def _added(x: Sequence[Tangent], y: Sequence[Tangent]) -> list[Tangent]:
    return [zeros.add(a, b) for a, b in zip(x, y, strict=True)]


def _times(x: jax.Array, k: int) -> jax.Array:
    return x if k == 1 else lax.mul(x, lax.full_like(x, k))


def _over(x: jax.Array, k: int) -> jax.Array:
    return x if k == 1 else lax.mul(x, lax.full_like(x, 1 / k))


