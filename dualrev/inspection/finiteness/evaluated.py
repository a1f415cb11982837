"""A traced program with the values of everything in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Var, is_literal, jaxpr_as_fun
from dualrev._jax.primitives import Params
from dualrev.inspection.finiteness.entries import Entry, Run


def closed(jaxpr: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """A program among the parameters of an operation, in the form that has constants."""
    return jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ())  # type: ignore[return-value]


class View(NamedTuple):
    """An operation where it is looked at: in a program on shards, on one of them, or on all.

    ``lead``: what comes before an entry in the stack of all shards; ``maps``: the ``shard_map`` operations that ``run`` needs;
    ``shown``, ``out``: operands and result for reports, of the shard at the coordinates ``shard``.
    """

    eqn: JaxprEqn
    operands: Sequence[jax.Array]
    run: Run
    entry: Entry
    lead: Entry
    maps: tuple[Params, ...]
    shown: Sequence[jax.Array]
    out: jax.Array
    shard: Mapping[str, int]


class Evaluated:
    """A program at operands: ``value(atom)`` for each of its operands and results.

    Its operations run as one compiled program, so that the values are those of a compiled run, or nearly.
    """

    def __init__(self, jaxpr: ClosedJaxpr, args: Sequence[jax.Array]):
        body = jaxpr.jaxpr
        self.arrange(jaxpr)
        self.values: dict[Var, jax.Array] = dict(zip((*body.constvars, *body.invars), (*jaxpr.consts, *args), strict=True))
        made = [v for v in self.makers if not isinstance(v, DropVar) and isinstance(v.aval, ShapedArray)]
        info = body.debug_info._replace(arg_names=None, result_paths=None)
        everything = ClosedJaxpr(body.replace(outvars=made, debug_info=info), jaxpr.consts)
        self.values.update(zip(made, jax.jit(jaxpr_as_fun(everything))(*args), strict=True))

    def arrange(self, jaxpr: ClosedJaxpr) -> None:
        """Note what makes each value."""
        self.jaxpr = jaxpr
        self.invars: dict[Var, int] = {v: i for i, v in enumerate(jaxpr.jaxpr.invars)}
        self.outvars = jaxpr.jaxpr.outvars
        eqns = jaxpr.jaxpr.eqns
        self.makers: dict[Var, tuple[int, int]] = {v: (k, j) for k, eqn in enumerate(eqns) for j, v in enumerate(eqn.outvars)}

    def view(self, eqn: JaxprEqn, operands: Sequence[jax.Array], entry: Entry, out: jax.Array) -> View:
        """An operation as it is looked at where an entry of a result, ``out``, is bad."""
        return View(eqn, operands, runner(eqn), entry, (), (), operands, out, {})

    def value(self, atom: Atom) -> jax.Array:
        if is_literal(atom):
            return jnp.asarray(atom.val, atom.aval.dtype)  # type: ignore[attr-defined]
        return self.values[atom]

    def operands(self, eqn: JaxprEqn) -> list[jax.Array]:
        return [self.value(atom) for atom in eqn.invars]


def bind(eqn: JaxprEqn, *operands: jax.Array) -> Sequence[jax.Array]:
    """The results of an operation."""
    out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def runner(eqn: JaxprEqn) -> Run:
    """An operation as a function of its operands; jax keeps it compiled for all uses of it with such operands."""
    run: Callable[..., Sequence[jax.Array]] = functools.partial(bind, eqn)
    if eqn.primitive.name == "shard_map":
        run = jax.jit(run)
    return lambda operands: run(*operands)


def program_of(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The program that an operation runs once on its operands, as a call does; told by its types, whatever the operation is."""
    ins, outs = [_type(v) for v in eqn.invars], [_type(v) for v in eqn.outvars]
    for held in eqn.params.values():
        if hasattr(held, "eqns"):
            jaxpr = closed(held)
            if [_type(a) for a in jaxpr.in_avals] == ins and [_type(a) for a in jaxpr.out_avals] == outs:
                return jaxpr
    return None


def _type(x: object) -> tuple[object, object]:
    aval = getattr(x, "aval", x)
    return getattr(aval, "shape", None), getattr(aval, "dtype", None)
