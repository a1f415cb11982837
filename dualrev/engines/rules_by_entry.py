"""Rules of the user's that work entry by entry, such as that of ``jax.nn.relu`` or ``jax.nn.softplus``: read by partial derivatives.

A rule states how tangents are pushed, for whole arrays.  Where every operation of the rule works entry by entry, the factors of the
tangents are its push of ones, and a mode may read the rule as it reads a row of the table of kind ``diagonal``: it keeps the structure
of derivatives, and combines them before a product with all directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from dualrev._jax.avals import ShapedArray, is_differentiable, tangent_aval, typeof
from dualrev._jax.jaxprs import stage
from dualrev._jax.primitives import Params
from dualrev._jax.source_lines import defined_at
from dualrev._jax.traces import Trace, set_current_trace
from dualrev.engines.base import many
from dualrev.engines.custom_derivatives import CustomJvp, CustomVjp, UserRule
from dualrev.engines.parts import Dual, PartsTrace, evaluate
from dualrev.linear.zeros import Tangent
from dualrev.table.axes import Axes
from dualrev.table.mode import Carried, Mode
from dualrev.table.rows import Row

#: How many rules may be called by rules before a rule counts as one that does not work entry by entry.
DEEPEST = 8


class EntryRow(Row):
    """One call of a rule that works entry by entry, with one result, as a row of kind ``diagonal``."""

    kind = "diagonal"
    is_diagonal = True
    form = "the user's"
    is_operation = False

    def __init__(self, rule: UserRule):
        self.primitive, self.where, self.rule = rule.primitive, rule.where, rule

    def bind(self, primals: Sequence[Any], params: Params) -> list[jax.Array]:
        return self.rule.bind(primals, params)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Any:
        return self.rule.jvp(primals, tangents, params)

    def linearize(self, *args: Any) -> Any:
        return self.rule.linearize(*args)

    def partials(self, primals: Sequence[jax.Array], params: Params, active: Sequence[Any] | None = None) -> list[Tangent]:
        found: list[Tangent] = []
        for i, x in enumerate(primals):
            unit: list[Tangent] = [None] * len(primals)
            if (active is None or active[i]) and is_differentiable(typeof(x)):
                unit[i] = lax.full_like(x, 1)
            found.append(None if unit[i] is None else self.rule.first(primals, unit, params)[0])
        return found

    def axes(self, primals: Sequence[Any], params: Params) -> Axes:
        shape = jax.numpy.shape(next(x for x in primals if is_differentiable(typeof(x))))
        own = [(a,) for a in range(len(shape))]
        return Axes([own if jax.numpy.shape(x) == shape else [None] * jax.numpy.ndim(x) for x in primals], [own])


def by_entry(rule: UserRule, primals: Sequence[jax.Array], active: Sequence[bool]) -> EntryRow | None:
    """The row of kind ``diagonal`` of a call of a user's rule; None where an operation of the rule does not work entry by entry."""
    if type(rule) not in (CustomJvp, CustomVjp):
        return None
    return EntryRow(rule) if _works(rule, [typeof(x) for x in primals], active, ()) else None


# ------------------------------------------------------------------------------------------------------------- the check


class _NotByEntryError(Exception):
    """An operation of a rule does not work entry by entry."""


class _ByEntry(Mode):
    """Values that depend on the inputs entry by entry have parts, which hold nothing; :class:`_Check` evaluates operations."""

    name = "entry by entry"

    def row(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Any], params: Params) -> Carried:
        raise _NotByEntryError

    def zero(self, aval: ShapedArray) -> tuple[()]:
        return ()


_MODE = _ByEntry()


class _Check(PartsTrace):
    """Evaluates operations that work entry by entry, and refuses all others."""

    def __init__(self, parent: Trace, mode: Mode, asked: tuple[tuple[object, ...], ...]):
        super().__init__(parent, mode)
        #: The calls of rules that are being checked, the innermost last: one that calls itself is checked once.
        self.asked = asked

    def operate(self, row: Row, tracers: Sequence[jax.Array], primals: Sequence[jax.Array], marks: Sequence[Any],
                params: Params) -> Sequence[jax.Array]:
        active = [mark is not None for mark in marks]
        if row.chooses:
            row = row.choose(primals, active, params)
        if (run := row.runs(params)) is not None:
            with set_current_trace(self):
                return many(run(*tracers))
        with set_current_trace(self.parent):
            outs = row.bind(primals, params)
        if isinstance(row, UserRule):
            is_good = _works(row, [typeof(x) for x in primals], active, self.asked)
        else:
            is_good = row.kind == "zero" or _keeps_entries(row, primals, active, params, outs)
        if not is_good:
            raise _NotByEntryError
        return [Dual(self, x, ()) if row.kind != "zero" and is_differentiable(typeof(x)) else x for x in outs]


def _keeps_entries(row: Row, primals: Sequence[jax.Array], active: Sequence[bool], params: Params, outs: Sequence[jax.Array]) -> bool:
    """Whether an entry of the result depends on the entries of active operands at its own place alone, as the row states."""
    if row.kind not in ("linear", "product", "diagonal") or len(outs) != 1 or (axes := row.axes(primals, params)) is None:
        return False
    (out,), (result,) = outs, axes.results
    is_named = all(s is not None and len(s) == 1 for s in result)
    return is_named and all(list(axes.operands[i]) == list(result) and primals[i].shape == out.shape
                            for i, is_active in enumerate(active) if is_active)


def _works(rule: UserRule, avals: Sequence[ShapedArray], active: Sequence[bool], asked: tuple[tuple[object, ...], ...]) -> bool:
    """Whether a call of a user's rule has one result, which depends on the active operands entry by entry, and so has its push."""
    # Functions and rules are new objects in each trace: the same program with a rule of the same lines is the same call.
    program = str(stage(lambda *xs: rule.bind(xs, {}), avals))
    call = (type(rule), program, *map(defined_at, rule.functions()), tuple(avals), tuple(active))
    if call in asked:
        return True  # if nothing else in the rule is against it
    if len(asked) == DEEPEST:
        return False
    if len({a.shape for a, is_active in zip(avals, active, strict=True) if is_active}) != 1:
        return False
    moving = [tangent_aval(a) for a, is_active in zip(avals, active, strict=True) if is_active]
    is_good: list[bool] = []

    def push(*flat: jax.Array) -> list[jax.Array]:
        given = iter(flat[len(avals):])
        outs = rule.bind(flat[: len(avals)], {})
        moved = rule.first(flat[: len(avals)], [next(given) if is_active else None for is_active in active], {})
        is_good.append(len(outs) == 1 and outs[0].shape == moving[0].shape and is_differentiable(typeof(outs[0])))
        return [outs[0], *[t for t in moved if t is not None]]

    def check(*flat: jax.Array) -> list[jax.Array]:
        parts = [() if is_active else None for is_active in active] + [()] * len(moving)

        return evaluate(_MODE, push, flat, parts, lambda parent, mode: _Check(parent, mode, (*asked, call)))[0]

    try:
        stage(check, [*avals, *moving])
    except _NotByEntryError:
        return False
    return all(is_good)
