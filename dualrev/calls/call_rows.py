"""Operations that hold programs: the forms of their rows.  Branches, loops and checkpoints have files of their own.

Each row states two evaluations: with *parts* (:mod:`dualrev.table.mode`), once for all forward modes, of which the forward engine is
one; and with residuals, for the reverse engine.  Un-jitted, the whole operation is staged once and runs compiled: on concrete values,
under ``vmap`` and under other engines, each of which finds the program of the last time and what it was compiled to.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import jax

from dualrev._jax.jaxprs import ClosedJaxpr, copy_jaxpr, jaxpr_as_fun
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.traces import is_concrete, is_unjitted
from dualrev.calls.derived_programs import Wrapper, cached
from dualrev.calls.evaluation import Pushforward, pushforward_of
from dualrev.calls.linearization import Linearization, linearization_of
from dualrev.engines.forward import TANGENTS
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, current
from dualrev.programs.jaxprs import at_lines_of_user
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Cost, Expansion, Kind, Linearized, Operand, Program, Pushed, Row, TakenParts, Taped, aval_of, register

#: ``evaluate(mode, primals, parts, params) -> (outs, parts of outs)``.
Evaluate: TypeAlias = Callable[[Mode, Sequence[jax.Array], Sequence[Parts], Params], Carried]

#: ``reverse(primals, active, params, is_linear) -> (outs, linear map, active outs)``.
Reverse: TypeAlias = Callable[[Sequence[Operand], tuple[Active, ...], Params, bool], Taped]


def splice(name: object) -> Wrapper:
    """The wrapper of a program that is inlined into the program around it."""
    return Wrapper(str(name), None)


def own_copy(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """A copy of a jaxpr for linear maps to hold, the same copy each time: the cache must not keep the original alive."""
    return cached(jaxpr, "copy", lambda: copy_jaxpr(jaxpr))


class CallRow(Row):
    """An operation that holds programs: its parameters named in ``jaxprs`` are jaxprs, or tuples of them.

    ``evaluate`` is its evaluation under a forward mode, ``reverse`` its linearization.
    """

    kind: Kind = "call"
    takes_parts: TakenParts = "uniform"

    def __init__(self, primitive: Primitive, jaxprs: Sequence[str], evaluate: Evaluate, reverse: Reverse, cost: Cost = "work",
                 selects: frozenset[int] = frozenset()):
        super().__init__(primitive)
        self.cost, self.selects = cost, selects
        self.jaxprs = jaxprs
        self.evaluate = evaluate
        self.reverse = reverse

    def _key(self, kind: Hashable, primals: Sequence[Operand], params: Params) -> tuple[Hashable, ...]:
        """The key in the cache of a program derived from this operation."""
        settings = tuple([(name, value) for name, value in params.items() if name not in self.jaxprs])
        return (kind, self.primitive, tuple([aval_of(x) for x in primals]), settings)

    def owners(self, params: Params) -> tuple[ClosedJaxpr, ...]:
        """The jaxprs that the operation holds: a program derived from them is cached for as long as they live."""
        found: list[ClosedJaxpr | None] = []
        for name in self.jaxprs:
            found.extend(params[name] if isinstance(params[name], tuple) else (params[name],))
        return tuple([jaxpr for jaxpr in found if jaxpr is not None])  # a program that the user left out

    def _run(self, params: Params) -> Callable[..., list[jax.Array]]:
        return lambda *args: self.bind(args, params)

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        if not is_unjitted():
            return self.evaluate(mode, primals, parts, params)
        structure = mode.flatten(parts)[1]
        push = cached(self.owners(params), self._key((mode, structure), primals, params), lambda: Pushforward(
            self._run(params), [aval_of(x) for x in primals], structure, splice(self.primitive), mode))
        return push(primals, parts)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
            params: Params) -> Pushed:
        return self.through(TANGENTS, primals, tangents, params)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Linearized:
        if not is_unjitted():
            return self.reverse(primals, active, params, is_linear)
        key = self._key(("linear" if is_linear else "linearize", active), primals, params)
        linearization = cached(self.owners(params), key, lambda: Linearization(
            self._run(params), [aval_of(x) for x in primals], active, is_linear, splice(self.primitive)))
        return linearization(primals)


class MapRow(CallRow):
    """An operation that states its linear map, which a push uses too; it holds no program that could carry other parts."""

    kind = "program"

    def __init__(self, primitive: Primitive, jaxprs: Sequence[str], reverse: Reverse):
        super().__init__(primitive, jaxprs, self._push, reverse)

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        return super().through(mode, primals, parts, params) if mode.pushes else mode.row(self, primals, parts, params)

    def _push(self, mode: Mode, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Carried:
        outs, linear_map, _ = self.reverse(primals, tuple([t is not None for t in tangents]), params, False)
        assert linear_map is not None  # there is one whatever is active
        return outs, linear_map.push(*[t for t in tangents if t is not None])  # type: ignore[return-value]  # no output is unknown


class RunRow(Row):
    """An operation that runs one program once: the derivative of a call is a call of the derivative.

    ``jaxpr_of(params)`` is the program, ``wrapper_of(params)`` the wrapper that binds its derivatives.
    """

    kind = "call"
    cost = "its program"
    takes_parts = "arrays"

    def __init__(self, primitive: Primitive, jaxpr_of: Callable[[Params], ClosedJaxpr], wrapper_of: Callable[[Params], Wrapper]):
        super().__init__(primitive)
        self.jaxpr_of = jaxpr_of
        self.wrapper_of = wrapper_of

    def runs(self, params: Params) -> Program:
        return _in_place(self.jaxpr_of(params))

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        leaves, structure = mode.flatten(parts)
        jaxpr = self.jaxpr_of(params)
        push = pushforward_of(jaxpr, structure, self.wrapper_of(params), mode)
        if push.may_refuse and is_concrete((*primals, *leaves)):
            return Expansion(None, _in_place(jaxpr))
        return push.on(primals, leaves)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        return self.through(TANGENTS, primals, tangents, params)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        jaxpr = self.jaxpr_of(params)
        linearization = linearization_of(jaxpr, active, is_linear, self.wrapper_of(params))
        outs, linear_map, active_outs = linearization(primals)
        if linearization.may_have_poles and (current.get().split_repeated or (
                is_concrete(primals) and any(part.is_singular() for part in linear_map.singular_parts()))):
            return Expansion((outs, linear_map, active_outs), _in_place(jaxpr))
        return outs, linear_map, active_outs


def _in_place(jaxpr: ClosedJaxpr) -> Program:
    """The program of a call as a function that is evaluated in the place of the call."""
    return jaxpr_as_fun(cached(jaxpr, "in place", lambda: at_lines_of_user(jaxpr)))


class ArraysRow(CallRow):
    """An operation that passes parts of any structure on to its programs."""

    takes_parts = "arrays"


def call(primitive: Primitive, jaxprs: Sequence[str], evaluate: Evaluate, reverse: Reverse, cost: Cost = "work",
         selects: frozenset[int] = frozenset(), row: type[CallRow] = CallRow) -> None:
    """State the row of an operation that holds programs (see :class:`CallRow`)."""
    register(row(primitive, jaxprs, evaluate, reverse, cost, selects))
