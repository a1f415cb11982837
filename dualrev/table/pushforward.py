"""Rows whose derivative is stated as a program: J·v in terms of other primitives.

The adjoint is derived: the program is transposed through the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeAlias

import jax

from dualrev import errors
from dualrev._jax.avals import abstract_outputs, is_differentiable, tangent_aval
from dualrev._jax.primitives import Params, Primitive
from dualrev.linear.maps import Tangent, Tangents, Tape
from dualrev.options.settings import Active, under
from dualrev.table import engine
from dualrev.table.mode import Mode, Parts
from dualrev.table.operations import OpRow, Reader, Residuals, Site
from dualrev.table.rows import AllBut, Cost, Expansion, Operand, Program, Row, Unknown, aval_of, register

#: J·v: a function of the tangent (or of all tangents), operands, ``out``, ``saved`` and parameters.
Push: TypeAlias = Callable[..., Tangent | Sequence[Tangent]]

#: ``saves(x, ..., **params) -> (out, saved)``: the outputs, and a pytree of what the push reads beside them.
Saves: TypeAlias = Callable[..., tuple[jax.Array | Sequence[jax.Array], Any]]

#: A program over other primitives that computes what a primitive does.
Definition: TypeAlias = Callable[..., jax.Array | Sequence[jax.Array]]


class PushforwardRow(OpRow):
    """``program(t, x, y, ..., *, out, saved, params)`` gives the tangents of the outputs."""

    form = "pushforward"

    def __init__(self, primitive: Primitive, program: Push, saves: Saves | None = None,
                 follows: bool = False, cost: Cost = "work", linear_in: Iterable[int] | AllBut | None = None):
        super().__init__(primitive)
        self.cost = cost
        self.program = Reader(program, skip=1)
        self.takes_all = next(iter(inspect.signature(program).parameters)) == "ts"
        self.saves = saves
        self.follows = follows
        if linear_in is None:
            linear_in = self._unread()
        self.linear_in = linear_in if isinstance(linear_in, AllBut) else frozenset(linear_in)

    def _unread(self) -> frozenset[int]:
        """The operands that the program does not read, if it reads neither the output nor what is saved.

        Its results are the same at all values of these operands, so that the operation is linear in them.
        """
        if self.program.reads_out or self.program.reads_saved:
            return frozenset()
        return frozenset(i for i in range(self.program.n_named) if not self.program.reads(i))

    def evaluate(self, primals: Sequence[Operand], params: Params, active: tuple[Active, ...]) -> tuple[list[jax.Array], Residuals]:
        if self.saves is None:
            return self.bind(primals, params), ()
        outs, saved = self.saves(*primals, **params)
        return (list(outs) if self.primitive.multiple_results else [outs]), (saved,)  # type: ignore[list-item]

    def active_outs(self, active: tuple[Active, ...], outs: Sequence[Operand]) -> list[bool]:
        if self.follows:
            return [bool(is_active) and is_differentiable(aval_of(out)) for is_active, out in zip(active, outs, strict=True)]
        return super().active_outs(active, outs)

    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand], saved: Residuals) -> Residuals:
        program = self.program
        if type(outs[0]) is Unknown and (program.reads_out or self.saves is not None):
            raise errors.not_linear(self.primitive)
        residuals: list[object] = [x for i, x in enumerate(primals) if program.reads(i)]
        if program.reads_out:
            residuals.append(tuple(outs) if self.primitive.multiple_results else outs[0])
        if program.reads_saved:
            residuals.extend(saved)
        return tuple(residuals)

    def push(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        if not site.settings.zero_wins:
            return self.run_program(site, residuals, tangents)
        # Where zero wins, the products of the program are those of its tape.
        tape, which = self.tape(site, residuals, [t is not None for t in tangents])
        pushed = iter(under(site.settings, tape.push, *[t for t in tangents if t is not None]))
        return tuple([next(pushed) if w else None for w in which])

    def run_program(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        program = self.program
        values = iter(residuals)
        operands = [next(values) if program.reads(i) else None for i in range(len(site.active))]
        keywords = program.keywords(site.params)
        if program.reads_out:
            keywords["out"] = next(values)
        if program.reads_saved:
            keywords["saved"] = next(values)
        given: Tangent | list[Tangent]
        if self.takes_all:
            given = [None] * len(site.active)
            for i, t in zip(site.positions, tangents, strict=True):
                given[i] = t
        else:
            if len(tangents) != 1:
                raise errors.RuleError(f"the program of the rule for {self.primitive} takes one tangent, `t`, but "
                                       f"{len(tangents)} operands are active; take the tangents of all, as `ts`")
            (given,) = tangents
        result = program.function(given, *operands, **keywords)
        return tuple(result) if self.primitive.multiple_results else (result,)

    def tape(self, site: Site, residuals: Residuals, is_nonzero: Sequence[bool]) -> tuple[Tape, list[bool]]:
        """The tape of the program for tangents of which some are zero, and which of its results are not zero."""
        which: list[bool] = []

        def program(*tangents: jax.Array) -> list[jax.Array]:
            given = iter(tangents)
            results = self.run("run_program", site, residuals, tuple([next(given) if m else None for m in is_nonzero]))
            which[:] = [t is not None for t in results]
            return [t for t in results if t is not None]

        avals = [tangent_aval(site.in_avals[i]) for i, m in zip(site.positions, is_nonzero, strict=True) if m]
        return under(site.settings, engine.transpose, program, avals), which

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        tape, which = self.tape(site, residuals, [True] * len(site.positions))
        return under(site.settings, tape.pull, *[ct for ct, w in zip(cotangents, which, strict=True) if w])


def pushforward(primitive: Primitive, program: Push, *, saves: Saves | None = None,
                follows: bool = False, cost: Cost = "work", linear_in: Iterable[int] | AllBut | None = None) -> None:
    """State J·v as a program over other primitives, linear in the tangents.

    The first parameter is ``t``, the tangent of the one active operand, or ``ts``, the tangents of all operands (None: zero).  The
    others are operands and, by keyword, ``out``, parameters and ``saved``.  ``saves(x, ..., **params) -> (out, saved)`` evaluates the
    operation in place of the primitive, and ``saved`` holds what the push needs beside the output.  ``follows``: output ``i`` has a
    tangent only if operand ``i`` is active.  ``linear_in``: the operands in which the operation is linear although the program reads
    them.
    """
    register(PushforwardRow(primitive, program, saves, follows, cost, linear_in))


class DefinedRow(Row):
    """An operation that a program over other primitives defines: the program is differentiated in place of the operation."""

    def __init__(self, primitive: Primitive, program: Definition):
        super().__init__(primitive)
        self.program = program
        self.compiled: dict[Hashable, Definition] = {}

    def function(self, params: Params) -> Program:
        settings = {name: value for name, value in params.items() if name in inspect.signature(self.program).parameters}
        key = tuple(settings.items())
        if key not in self.compiled:
            def program(*operands: jax.Array) -> jax.Array | Sequence[jax.Array]:
                return self.program(*operands, **settings)

            program.__name__ = str(self.primitive)
            self.compiled[key] = jax.jit(program)
        compiled = self.compiled[key]

        def run(*operands: jax.Array) -> list[jax.Array]:
            result = compiled(*operands)
            outs: list[jax.Array] = list(result) if self.primitive.multiple_results else [result]  # type: ignore[list-item]
            if self.is_users_own:
                self.check(operands, params, outs)
            return outs

        return run

    def check(self, operands: Sequence[jax.Array], params: Params, outs: Sequence[Operand]) -> None:
        """Check that a user's program returns the types of the primitive."""
        expected = abstract_outputs(self.primitive, [aval_of(x) for x in operands], params)
        if len(outs) != len(expected):
            raise errors.wrong_definition(self, f"returns {len(outs)} values; the primitive returns {len(expected)}")
        for i, (out, aval) in enumerate(zip(outs, expected, strict=True)):
            found = aval_of(out)
            if found.shape != aval.shape or found.dtype != aval.dtype:
                raise errors.wrong_definition(self, f"returns for output {i} a value of type {found.dtype.name}{list(found.shape)}; "
                                                    f"the primitive's is {aval.dtype.name}{list(aval.shape)}")

    def runs(self, params: Params) -> Program:
        return self.function(params)

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Expansion:
        return Expansion(None, self.function(params))

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Expansion:
        return Expansion(None, self.function(params))

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Expansion:
        return Expansion(None, self.function(params))


def definition(primitive: Primitive, program: Definition) -> None:
    """State that a primitive computes ``program(x, y, ..., *, params)``, and has the derivative of that program."""
    register(DefinedRow(primitive, program))
