"""Operations that hold programs: the form, and ``jit``; branches, loops and checkpoints stand in files of their own.

These rows alone see an engine: they transform the inner program with the engine that asks.  Each states how a program is
evaluated with tangents, and how it is evaluated with residuals and pulled back; on concrete values the whole operation is
staged once and runs compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualrev._jax.jaxprs import copy_jaxpr, jaxpr_as_fun
from dualrev._jax.traces import is_concrete, is_eager
from dualrev.calls.staging import Linearization, Pushforward, Wrapper, cached, linearization_of, pushforward_of
from dualrev.linear.maps import LinearMap
from dualrev.options.settings import current
from dualrev.table.rows import Cost, Row, Unfold, Unknown, aval_of, register

Forward = Callable[[Sequence[Any], Sequence[Any], dict[str, Any]], tuple[list[Any], Sequence[Any]]]
Reverse = Callable[[Sequence[Any], tuple[bool, ...], dict[str, Any], bool],
                   tuple[list[Any], "LinearMap | None", Sequence[bool]]]


def splice(name: Any) -> Wrapper:
    """How a program that becomes part of the surrounding one is bound."""
    return Wrapper(str(name), None)


def own_copy(jaxpr: Any) -> Any:
    """A copy of a jaxpr for linear maps to hold, the same one each time."""
    return cached(jaxpr, "copy", lambda: copy_jaxpr(jaxpr))


class CallRow(Row):
    """An operation that holds programs of its own: its parameters ``jaxprs`` are jaxprs, or tuples of them."""

    kind = "call"

    def __init__(self, primitive: Any, jaxprs: Sequence[str], forward: Forward, reverse: Reverse, cost: Cost = "work",
                 selects: frozenset[int] = frozenset()):
        super().__init__(primitive)
        self.cost, self.selects = cost, selects
        self.jaxprs = jaxprs
        self.forward = forward
        self.reverse = reverse

    def _key(self, kind: str, active: tuple[bool, ...], primals: Sequence[Any], params: dict[str, Any]) -> Any:
        settings = tuple([(name, value) for name, value in params.items() if name not in self.jaxprs])
        return (kind, self.primitive, active, tuple([aval_of(x) for x in primals]), settings)

    def owners(self, params: dict[str, Any]) -> tuple[Any, ...]:
        """The jaxprs whose lives bound those of the programs derived from them."""
        found: list[Any] = []
        for name in self.jaxprs:
            found.extend(params[name] if isinstance(params[name], tuple) else (params[name],))
        return tuple([jaxpr for jaxpr in found if jaxpr is not None])  # a program that the user left out

    def _evaluate(self, params: dict[str, Any]) -> Callable[..., list[Any]]:
        return lambda *args: self.bind(args, params)

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        if not is_eager(primals) or not is_eager(tangents):
            return self.forward(primals, tangents, params)
        active = tuple([t is not None for t in tangents])
        push = cached(self.owners(params), self._key("push", active, primals, params), lambda: Pushforward(
            self._evaluate(params), [aval_of(x) for x in primals], active, splice(self.primitive)))
        return push(primals, tangents)

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        if not is_eager([x for x in primals if type(x) is not Unknown]):
            return self.reverse(primals, active, params, is_linear)
        key = self._key("linear" if is_linear else "linearize", active, primals, params)
        linearization = cached(self.owners(params), key, lambda: Linearization(
            self._evaluate(params), [aval_of(x) for x in primals], active, is_linear, splice(self.primitive)))
        return linearization(primals)


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

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        active = tuple([t is not None for t in tangents])
        jaxpr = self.jaxpr_of(params)
        push = pushforward_of(jaxpr, active, self.wrapper_of(params))
        if push.may_refuse and is_concrete((*primals, *tangents)):
            raise Unfold(None, jaxpr_as_fun(jaxpr))
        return push(primals, tangents)

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        jaxpr = self.jaxpr_of(params)
        linearization = linearization_of(jaxpr, active, is_linear, self.wrapper_of(params))
        outs, linear_map, active_outs = linearization(primals)
        if linearization.may_have_poles and (current.get().split_repeated or (
                is_concrete(primals) and any(part.is_singular() for part in linear_map.singular_parts()))):
            raise Unfold((outs, linear_map, active_outs), jaxpr_as_fun(jaxpr))
        return outs, linear_map, active_outs


def call(primitive: Any, jaxprs: Sequence[str], forward: Forward, reverse: Reverse, cost: Cost = "work",
         selects: frozenset[int] = frozenset()) -> None:
    """State how an operation that holds programs, in its parameters ``jaxprs``, is pushed through and linearized."""
    register(CallRow(primitive, jaxprs, forward, reverse, cost, selects))
