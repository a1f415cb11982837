"""Rows whose derivative is stated as a program: J·v in terms of other primitives.

The adjoint of such a row is derived, by transposing the program through the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from dualrev import errors
from dualrev._jax import is_differentiable, tangent_aval
from dualrev.engines import reverse
from dualrev.linear_maps import Tangents
from dualrev.rules.table import OpRow, Reader, Site, Unknown, aval_of, register


class PushforwardRow(OpRow):
    """``program(t, x, y, ..., *, out, saved, params)`` gives the tangents of the outputs."""

    def __init__(self, primitive: Any, program: Callable[..., Any], saves: Callable[..., tuple[Any, Any]] | None,
                 follows: bool):
        super().__init__(primitive)
        self.program = Reader(program, skip=1)
        self.takes_all = next(iter(inspect.signature(program).parameters)) == "ts"
        self.saves = saves
        self.follows = follows

    def evaluate(self, primals: Sequence[Any], params: dict[str, Any], active: tuple[bool, ...]) -> tuple[list[Any], Tangents]:
        if self.saves is None:
            return self.bind(primals, params), ()
        outs, saved = self.saves(*primals, **params)
        return (list(outs) if self.primitive.multiple_results else [outs]), (saved,)

    def active_outs(self, active: tuple[bool, ...], outs: Sequence[Any]) -> list[bool]:
        if self.follows:
            return [moves and is_differentiable(aval_of(out)) for moves, out in zip(active, outs, strict=True)]
        return super().active_outs(active, outs)

    def save(self, active: tuple[bool, ...], primals: Sequence[Any], outs: Sequence[Any], saved: Tangents) -> Tangents:
        program = self.program
        if type(outs[0]) is Unknown and (program.reads_out or self.saves is not None):
            raise errors.not_linear(self.primitive)
        residuals = [x for i, x in enumerate(primals) if program.reads(i)]
        if program.reads_out:
            residuals.append(tuple(outs) if self.primitive.multiple_results else outs[0])
        if program.reads_saved:
            residuals.extend(saved)
        return tuple(residuals)

    def push(self, site: Site, residuals: Tangents, tangents: Tangents) -> Tangents:
        program = self.program
        values = iter(residuals)
        operands = [next(values) if program.reads(i) else None for i in range(len(site.active))]
        keywords = program.keywords(site.params)
        if program.reads_out:
            keywords["out"] = next(values)
        if program.reads_saved:
            keywords["saved"] = next(values)
        moving: Any
        if self.takes_all:
            moving = [None] * len(site.active)
            for i, t in zip(site.positions, tangents, strict=True):
                moving[i] = t
        else:
            if len(tangents) != 1:
                raise errors.RuleError(f"the program of the rule for {self.primitive} takes one tangent, `t`, but "
                                       f"{len(tangents)} operands move; take all of them, as `ts`")
            (moving,) = tangents
        result = program.function(moving, *operands, **keywords)
        return tuple(result) if self.primitive.multiple_results else (result,)

    def pull(self, site: Site, residuals: Tangents, cotangents: Tangents) -> Tangents:
        given: list[Any] = []

        def push(*tangents: Any) -> list[Any]:
            results = self.run("push", site, residuals, tangents)
            given[:] = [ct for ct, t in zip(cotangents, results, strict=True) if t is not None]
            return [t for t in results if t is not None]

        tape = reverse.transpose(push, [tangent_aval(site.in_avals[i]) for i in site.positions])
        return tape.pull(*given)


def pushforward(primitive: Any, program: Callable[..., Any], *, saves: Callable[..., tuple[Any, Any]] | None = None,
                follows: bool = False) -> None:
    """State J·v as a program over other primitives, linear in the tangents.

    The first parameter is ``t``, the tangent of the one operand that moves, or ``ts``, those of all operands (None: zero).  The
    rest are operands and, by keyword, ``out``, parameters and ``saved``: what ``saves(x, ..., **params) -> (out, saved)``
    computed beside the output, where running the primitive again would waste work.  ``follows``: output ``i`` moves only if
    operand ``i`` does.
    """
    register(PushforwardRow(primitive, program, saves, follows))
