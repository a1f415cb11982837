"""Operations that hold programs: ``jit``, ``cond``, ``scan``, ``while``, ``checkpoint``.

These rows alone see an engine: they transform the inner program with the engine that asks.  Each states how a program is
evaluated with tangents, and how it is evaluated with residuals and pulled back; on concrete values the whole operation is
staged once and runs compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualrev._jax import is_inlined, jit_p
from dualrev.engines.staging import (
    Linearization,
    Pushforward,
    Wrapper,
    cached,
    linearization_of,
    pushforward_of,
)
from dualrev.linear_maps import LinearMap, is_eager
from dualrev.rules.table import Row, Unknown, aval_of, register

Forward = Callable[[Sequence[Any], Sequence[Any], dict[str, Any]], tuple[list[Any], Sequence[Any]]]
Reverse = Callable[[Sequence[Any], tuple[bool, ...], dict[str, Any], bool],
                   tuple[list[Any], "LinearMap | None", Sequence[bool]]]


class CallRow(Row):
    """An operation that holds a program of its own.

    ``owner(params)`` is the jaxpr whose life bounds that of the programs derived from it.
    """

    def __init__(self, primitive: Any, owner: Callable[[dict[str, Any]], Any], forward: Forward, reverse: Reverse):
        super().__init__(primitive)
        self.owner = owner
        self.forward = forward
        self.reverse = reverse

    def _key(self, kind: str, active: tuple[bool, ...], primals: Sequence[Any], params: dict[str, Any]) -> Any:
        return (kind, self.primitive, active, tuple([aval_of(x) for x in primals]), tuple(params.items()))

    def _evaluate(self, params: dict[str, Any]) -> Callable[..., list[Any]]:
        return lambda *args: self.bind(args, params)

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        if not is_eager(primals) or not is_eager(tangents):
            return self.forward(primals, tangents, params)
        active = tuple([t is not None for t in tangents])
        push = cached(self.owner(params), self._key("push", active, primals, params), lambda: Pushforward(
            self._evaluate(params), [aval_of(x) for x in primals], active, Wrapper(str(self.primitive), None)))
        return push(primals, tangents)

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        if not is_eager(primals):
            return self.reverse(primals, active, params, is_linear)
        key = self._key("linear" if is_linear else "linearize", active, primals, params)
        linearization = cached(self.owner(params), key, lambda: Linearization(
            self._evaluate(params), [aval_of(x) for x in primals], active, is_linear, Wrapper(str(self.primitive), None)))
        return linearization(primals)


class JitRow(Row):
    """``jit``: the derivative of a compiled function is a compiled function."""

    @staticmethod
    def wrapper(params: dict[str, Any]) -> Wrapper:
        if is_inlined(params):
            return Wrapper(params["name"], None)
        # Without the jaxpr: what is cached for as long as the jaxpr lives must not keep it alive.
        return Wrapper(params["name"], {name: value for name, value in params.items() if name != "jaxpr"})

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        active = tuple([t is not None for t in tangents])
        return pushforward_of(params["jaxpr"], active, self.wrapper(params))(primals, tangents)

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        return linearization_of(params["jaxpr"], active, is_linear, self.wrapper(params))(primals)


register(JitRow(jit_p))


def splice(name: str) -> Wrapper:
    """A program that becomes part of the surrounding one."""
    return Wrapper(name, None)


def call(primitive: Any, owner: Callable[[dict[str, Any]], Any], forward: Forward, reverse: Reverse) -> None:
    """State how an operation that holds a program is pushed through, and how it is linearized."""
    register(CallRow(primitive, owner, forward, reverse))


def known_only(primals: Sequence[Any]) -> list[Any]:
    return [x for x in primals if type(x) is not Unknown]
