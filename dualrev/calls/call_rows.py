"""Operations that hold programs: the forms in which their rows are stated; branches, loops and checkpoints have files of their own.

Each row states two things.  How the operation is evaluated with *parts* (:mod:`dualrev.table.mode`), once for all modes that go
forward: the forward engine, whose parts are tangents, is the first of them.  And how it is evaluated with residuals and pulled back.
On concrete values the whole operation is staged once and runs compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualrev._jax.jaxprs import copy_jaxpr, jaxpr_as_fun
from dualrev._jax.traces import is_concrete, is_eager
from dualrev.calls.staging import Linearization, Pushforward, Wrapper, cached, linearization_of, pushforward_of
from dualrev.engines.forward import TANGENTS
from dualrev.linear.maps import LinearMap
from dualrev.options.settings import Active, current
from dualrev.table.mode import Mode, Parts
from dualrev.table.rows import Cost, Expansion, Linearized, Pushed, Row, Unknown, aval_of, register

Evaluate = Callable[[Mode, Sequence[Any], Sequence[Parts], dict[str, Any]], tuple[list[Any], Sequence[Parts]]]
Reverse = Callable[[Sequence[Any], tuple[Active, ...], dict[str, Any], bool],
                   tuple[list[Any], "LinearMap | None", Sequence[bool]]]


def splice(name: Any) -> Wrapper:
    """How a program that becomes part of the surrounding one is bound."""
    return Wrapper(str(name), None)


def own_copy(jaxpr: Any) -> Any:
    """A copy of a jaxpr for linear maps to hold, the same one each time."""
    return cached(jaxpr, "copy", lambda: copy_jaxpr(jaxpr))


class CallRow(Row):
    """An operation that holds programs of its own: its parameters ``jaxprs`` are jaxprs, or tuples of them.

    ``evaluate(mode, primals, parts, params)`` gives values and parts under a mode that goes forward.
    """

    kind = "call"

    def __init__(self, primitive: Any, jaxprs: Sequence[str], evaluate: Evaluate, reverse: Reverse, cost: Cost = "work",
                 selects: frozenset[int] = frozenset()):
        super().__init__(primitive)
        self.cost, self.selects = cost, selects
        self.jaxprs = jaxprs
        self.evaluate = evaluate
        self.reverse = reverse

    def _key(self, kind: Any, primals: Sequence[Any], params: dict[str, Any]) -> Any:
        settings = tuple([(name, value) for name, value in params.items() if name not in self.jaxprs])
        return (kind, self.primitive, tuple([aval_of(x) for x in primals]), settings)

    def owners(self, params: dict[str, Any]) -> tuple[Any, ...]:
        """The jaxprs whose lives bound those of the programs derived from them."""
        found: list[Any] = []
        for name in self.jaxprs:
            found.extend(params[name] if isinstance(params[name], tuple) else (params[name],))
        return tuple([jaxpr for jaxpr in found if jaxpr is not None])  # a program that the user left out

    def _run(self, params: dict[str, Any]) -> Callable[..., list[Any]]:
        return lambda *args: self.bind(args, params)

    def through(self, mode: Mode, primals: Sequence[Any], parts: Sequence[Parts], params: dict[str, Any]) -> Any:
        leaves, structure = mode.flatten(parts)
        if not is_eager(primals) or not is_eager(leaves):
            return self.evaluate(mode, primals, parts, params)
        push = cached(self.owners(params), self._key((mode, structure), primals, params), lambda: Pushforward(
            self._run(params), [aval_of(x) for x in primals], structure, splice(self.primitive), mode))
        return push(primals, parts)

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        pushed: tuple[list[Any], Sequence[Any]] = self.through(TANGENTS, primals, tangents, params)
        return pushed

    def linearize(self, primals: Sequence[Any], active: tuple[Active, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        if not is_eager([x for x in primals if type(x) is not Unknown]):
            return self.reverse(primals, active, params, is_linear)
        key = self._key(("linear" if is_linear else "linearize", active), primals, params)
        linearization = cached(self.owners(params), key, lambda: Linearization(
            self._run(params), [aval_of(x) for x in primals], active, is_linear, splice(self.primitive)))
        return linearization(primals)


class MapRow(CallRow):
    """An operation that states its linear map, through which a push goes as well; it has no program to hand other parts to."""

    def __init__(self, primitive: Any, jaxprs: Sequence[str], reverse: Reverse):
        super().__init__(primitive, jaxprs, self._push, reverse)

    def through(self, mode: Mode, primals: Sequence[Any], parts: Sequence[Parts], params: dict[str, Any]) -> Any:
        return super().through(mode, primals, parts, params) if mode.pushes else mode.row(self, primals, parts, params)

    def _push(self, mode: Mode, primals: Sequence[Any], tangents: Sequence[Any],
              params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        outs, linear_map, _ = self.reverse(primals, tuple([t is not None for t in tangents]), params, False)
        assert linear_map is not None  # there is one whatever moves
        return outs, linear_map.push(*[t for t in tangents if t is not None])


class RunRow(Row):
    """An operation that runs one program once: the derivative of a call is a call of the derivative.

    ``jaxpr_of(params)`` is the program, ``wrapper_of(params)`` how its derivatives are bound.
    """

    kind = "call"
    cost = "its program"

    def __init__(self, primitive: Any, jaxpr_of: Callable[[dict[str, Any]], Any], wrapper_of: Callable[[dict[str, Any]], Wrapper]):
        super().__init__(primitive)
        self.jaxpr_of = jaxpr_of
        self.wrapper_of = wrapper_of

    def through(self, mode: Mode, primals: Sequence[Any], parts: Sequence[Parts], params: dict[str, Any]) -> Any:
        leaves, structure = mode.flatten(parts)
        jaxpr = self.jaxpr_of(params)
        push = pushforward_of(jaxpr, structure, self.wrapper_of(params), mode)
        if push.may_refuse and is_concrete((*primals, *leaves)):
            return Expansion(None, jaxpr_as_fun(jaxpr))
        return push.on(primals, leaves)

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> Pushed:
        pushed: Pushed = self.through(TANGENTS, primals, tangents, params)
        return pushed

    def linearize(self, primals: Sequence[Any], active: tuple[Active, ...], params: dict[str, Any], is_linear: bool) -> Linearized:
        jaxpr = self.jaxpr_of(params)
        linearization = linearization_of(jaxpr, active, is_linear, self.wrapper_of(params))
        outs, linear_map, active_outs = linearization(primals)
        if linearization.may_have_poles and (current.get().split_repeated or (
                is_concrete(primals) and any(part.is_singular() for part in linear_map.singular_parts()))):
            return Expansion((outs, linear_map, active_outs), jaxpr_as_fun(jaxpr))
        return outs, linear_map, active_outs


def call(primitive: Any, jaxprs: Sequence[str], evaluate: Evaluate, reverse: Reverse, cost: Cost = "work",
         selects: frozenset[int] = frozenset()) -> None:
    """State how an operation that holds programs, in its parameters ``jaxprs``, is evaluated with parts and linearized."""
    register(CallRow(primitive, jaxprs, evaluate, reverse, cost, selects))
