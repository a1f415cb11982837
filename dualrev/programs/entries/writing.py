"""Equations of functions, written into a program that is being made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal, stage
from dualrev._jax.primitives import primitive
from dualrev._jax.traces import evaluating


class Writer:
    """The equations of a program, and its constants."""

    def __init__(self, consts: Mapping[Var, jax.Array]):
        self.eqns: list[JaxprEqn] = []
        self.consts = dict(consts)

    def emit(self, fun: Callable[..., jax.Array], operands: Sequence[Atom], like: JaxprEqn, out: Var | None) -> Var:
        """Write the equations of a function of operands, with the settings and the line of ``like``.

        They give ``out``, or a new value.
        """
        with like.ctx.manager:
            made = stage(lambda *args: [fun(*args)], [x.aval for x in operands])  # type: ignore[misc]  # all are arrays
        body = made.jaxpr
        env: dict[Var, Atom] = dict(zip(body.invars, operands, strict=True))
        held = {v: Var(v.aval) for v in body.constvars}
        with evaluating():  # rules take constants for arrays of jax
            self.consts.update(zip(held.values(), map(jnp.asarray, made.consts), strict=True))
        env.update(held)
        (result,) = body.outvars
        if out is not None and not is_literal(result) and result not in env:
            env[result] = out
        for eqn in body.eqns:
            env.update((v, Var(v.aval)) for v in eqn.outvars if v not in env)
            invars = [x if is_literal(x) else env[x] for x in eqn.invars]
            outvars: list[Var] = [env[v] for v in eqn.outvars]  # type: ignore[misc]  # no result is a number
            self.eqns.append(eqn.replace(invars=invars, outvars=outvars, ctx=like.ctx, source_info=like.source_info))
        if out is not None and (is_literal(result) or env[result] is not out):  # an operand itself
            return self.emit(lambda x: lax.reshape_p.bind(x, new_sizes=x.shape, dimensions=None, sharding=None), operands, like, out)
        return env[result]  # type: ignore[return-value]  # a value, not a number

    def emit_all(self, fun: Callable[..., Sequence[jax.Array]], operands: Sequence[Atom], like: JaxprEqn,
                 outs: Sequence[Var | None]) -> list[Var]:
        """As :meth:`emit`, of a function with several results, none of which is an operand, a number or another result."""
        with like.ctx.manager:
            made = stage(lambda *args: list(fun(*args)), [x.aval for x in operands])  # type: ignore[misc]  # all are arrays
        body = made.jaxpr
        env: dict[Var, Atom] = dict(zip(body.invars, operands, strict=True))
        held = {v: Var(v.aval) for v in body.constvars}
        with evaluating():
            self.consts.update(zip(held.values(), map(jnp.asarray, made.consts), strict=True))
        env.update(held)
        for v, out in zip(body.outvars, outs, strict=True):
            assert not is_literal(v) and v not in env
            env[v] = Var(v.aval) if out is None else out
        for eqn in body.eqns:
            env.update((v, Var(v.aval)) for v in eqn.outvars if v not in env)
            invars = [x if is_literal(x) else env[x] for x in eqn.invars]
            outvars: list[Var] = [env[v] for v in eqn.outvars]  # type: ignore[misc]  # no result is a number
            self.eqns.append(eqn.replace(invars=invars, outvars=outvars, ctx=like.ctx, source_info=like.source_info))
        return [env[v] for v in body.outvars]  # type: ignore[misc]  # values, not numbers

    def take(self, like: Sequence[JaxprEqn], array: Var, row: int, out: Var) -> None:
        """Write what takes a row of an array: as many equations as there are rows, so made from those of the first one."""
        first, second = like
        shape = array.aval.shape  # type: ignore[attr-defined]
        part = Var(first.outvars[0].aval)
        place = {"start_indices": (row, *[0] * (len(shape) - 1)), "limit_indices": (row + 1, *shape[1:])}
        self.eqns.append(first.replace(invars=[array], outvars=[part], params={**first.params, **place}))
        self.eqns.append(second.replace(invars=[part], outvars=[out]))

    def stack(self, values: Sequence[Atom], out: Var, like: JaxprEqn) -> None:
        """Write the stack of values along a new first axis."""
        first = self.emit(lambda x, y: primitive("stack").bind(x, y, axis=0), [values[0], values[0]], like, None)
        made = self.eqns.pop()
        assert made.outvars == [first]
        self.eqns.append(made.replace(invars=list(values), outvars=[out]))


def stacked_aval(value: Atom, n: int) -> ShapedArray:
    """The abstract value of a stack of ``n`` values of one type."""
    aval: ShapedArray = value.aval  # type: ignore[assignment]  # an array
    found: ShapedArray = aval.update(shape=(n, *aval.shape), weak_type=False)
    return found
