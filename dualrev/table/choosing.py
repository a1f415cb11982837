"""Primitives with several rows, one of which is chosen by operands, activity or parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import jax

from dualrev._jax.primitives import Params
from dualrev.linear.maps import Tangent
from dualrev.options.settings import Active
from dualrev.table.rows import AllBut, Cost, Linearized, Operand, Operands, Pushed, Row, aval_of

_COSTS: tuple[Cost, ...] = ("entrywise", "moves", "its program", "work")


class ChoosingRow(Row):
    """One row of several.  Readers call :meth:`choose` once; the facts of this row itself are those that hold for all options."""

    chooses = True

    def __init__(self, *options: Row):
        first, *others = options
        super().__init__(first.primitive)
        self.options = options
        self.kind = first.kind if all(row.kind == first.kind for row in others) else "program"
        self.form = ", ".join(dict.fromkeys(row.form for row in options))
        self.cost = max((row.cost for row in options), key=_COSTS.index)
        self.linear_in = _common([row.linear_in for row in options])
        self.selects = frozenset.intersection(*[row.selects for row in options])
        self.is_diagonal = all(row.is_diagonal for row in options)
        self.may_refuse = any(row.may_refuse for row in options)

    @abstractmethod
    def choose(self, primals: Sequence[Operand], active: Sequence[Active], params: Params) -> Row: ...

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        return self.choose(primals, [t is not None for t in tangents], params).jvp(primals, tangents, params)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Linearized:
        return self.choose(primals, active, params).linearize(primals, active, params, is_linear)

    def partials(self, primals: Sequence[jax.Array], params: Params, active: Sequence[Active] | None = None) -> list[Tangent]:
        return self.choose(primals, [True] * len(primals) if active is None else active, params).partials(primals, params, active)


def _common(several: Sequence[Operands]) -> Operands:
    """The intersection of sets of operands."""
    named = [operands for operands in several if isinstance(operands, frozenset)]
    if not named:
        return AllBut(*[i for operands in several if isinstance(operands, AllBut) for i in operands.positions])
    return frozenset(i for i in named[0] if all(i in operands for operands in several))


class KindRow(ChoosingRow):
    """One row for real operands and one for complex ones."""

    def __init__(self, real: Row, complex_: Row):
        super().__init__(real, complex_)
        self.real, self.complex = real, complex_

    def choose(self, primals: Sequence[Operand], active: Sequence[Active], params: Params) -> Row:
        return self.complex if aval_of(primals[0]).dtype.kind == "c" else self.real


class ByParameterRow(ChoosingRow):
    """One row for the usual parameters, another for those that ``is_special``."""

    def __init__(self, plain: Row, special: Row, is_special: Callable[[Params], bool]):
        super().__init__(plain, special)
        self.plain, self.special, self.is_special = plain, special, is_special

    def choose(self, primals: Sequence[Operand], active: Sequence[Active], params: Params) -> Row:
        return self.special if self.is_special(params) else self.plain


class ByActivityRow(ChoosingRow):
    """An operation that is linear in some operands: one row if only these are active, so that none of them is a residual, and another
    row otherwise.
    """

    def __init__(self, linear: Row, full: Row):
        super().__init__(full, linear)
        self.linear, self.full = linear, full

    def choose(self, primals: Sequence[Operand], active: Sequence[Active], params: Params) -> Row:
        for i, is_active in enumerate(active):
            if is_active and i not in self.linear.linear_in:
                return self.full
        return self.linear
