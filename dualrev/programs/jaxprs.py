"""Work on traced programs: running them again quickly, and finding what does not change in a loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from dualrev import errors
from dualrev._jax.avals import AbstractValue, ArrayLike, ShapedArray, typeof
from dualrev._jax.calls import jit_p
from dualrev._jax.invalid_values import is_invalid
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, JaxprEqn, JaxprEqnContext, Var, binds_functions, is_literal, jaxpr_as_fun
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.sharding import explicit_sharding, vary_over, varying
from dualrev._jax.source_lines import SourceInfo, replayed, replaying

#: The assumed length of an axis whose length is a symbol, in an exported program.
SYMBOLIC_LENGTH = 1024

#: What a step of a replay reads: the value at a place, or one that stands in the program.
Read: TypeAlias = tuple[int | None, Any]


def nbytes_of(aval: AbstractValue) -> int:
    """Bytes of an array, or of an abstract value: of its part on one device, where its type says how it is divided."""
    lengths = [n if isinstance(n, int) else SYMBOLIC_LENGTH for n in getattr(aval, "shape", ())]
    sharding = explicit_sharding(aval) if isinstance(aval, ShapedArray) else None
    if sharding is not None and all(isinstance(n, int) for n in getattr(aval, "shape", ())):
        lengths = list(sharding.shard_shape(tuple(lengths)))
    return math.prod(lengths) * int(getattr(getattr(aval, "dtype", None), "itemsize", 8))


def work(program: ClosedJaxpr) -> tuple[int, int]:
    """How many equations one evaluation of a program evaluates, and how many entries their results have."""
    equations = entries = 0
    for eqn in program.eqns:
        inner = [work(p) for value in eqn.params.values() for p in (value if isinstance(value, (tuple, list)) else [value])
                 if isinstance(p, ClosedJaxpr)]
        times = eqn.params.get("length", 1) if inner else 1
        equations += 1 + times * sum(n for n, _ in inner)
        entries += sum(math.prod(v.aval.shape) for v in eqn.outvars) + times * sum(m for _, m in inner)
    return equations, entries


def check_operands(jaxpr: ClosedJaxpr, args: Sequence[ArrayLike], name: str) -> None:
    """Raise unless the operands have the types that the program was traced for: a compiled program would misread others."""
    for aval, x in zip(jaxpr.in_avals, args, strict=True):
        given = typeof(x)
        if given.dtype != aval.dtype or given.shape != aval.shape:
            raise errors.operand_does_not_fit(name, given, aval)


def runner(jaxpr: ClosedJaxpr, name: str) -> Callable[..., list[jax.Array]]:
    """A function that evaluates a closed jaxpr on operands of its types, and refuses others."""
    run = jaxpr_as_fun(jaxpr)

    def checked(*args: jax.Array) -> list[jax.Array]:
        check_operands(jaxpr, args, name)
        return list(run(*args))

    return checked


def first_invalid(jaxpr: ClosedJaxpr, args: Sequence[jax.Array]) -> JaxprEqn | None:
    """The first equation of a closed jaxpr, or of one that it calls, with a result that ``jax_debug_nans`` objects to."""
    body = jaxpr.jaxpr
    env = dict(zip((*body.constvars, *body.invars), (*jaxpr.consts, *args), strict=True))
    for eqn in body.eqns:
        values = [atom.val if is_literal(atom) else env[atom] for atom in eqn.invars]
        with jax.debug_nans(False), jax.debug_infs(False):
            out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
        outs = out if eqn.primitive.multiple_results else [out]
        if any(map(is_invalid, outs)):
            inner = eqn.params.get("jaxpr")
            return (first_invalid(inner, values) if isinstance(inner, ClosedJaxpr) and eqn.primitive is jit_p else None) or eqn
        env.update(zip(eqn.outvars, outs, strict=True))
    return None


def replayer(jaxpr: ClosedJaxpr) -> Callable[..., list[jax.Array]]:
    """A function that binds a closed jaxpr's equations again.

    It does what :func:`jaxpr_as_fun` does at half the cost: equations are prepared once, and their settings are compared with the
    current ones instead of being entered one by one.  Operations have the lines and scopes of the equations.
    """
    body = jaxpr.jaxpr
    slow: Callable[..., list[jax.Array]] = jaxpr_as_fun(jaxpr)
    contexts = {id(eqn.ctx): eqn.ctx for eqn in body.eqns}
    carries_functions = any(binds_functions(eqn.primitive) for eqn in body.eqns)
    if len(contexts) != 1 or carries_functions:
        return slow
    (context,) = contexts.values()
    consts = tuple(jaxpr.consts)
    place: dict[Var, int] = {}
    for var in (*body.constvars, *body.invars):
        place[var] = len(place)
    n = len(place)
    steps: list[tuple[Primitive, tuple[Read, ...], Params, bool, SourceInfo]] = []
    for eqn in body.eqns:
        ins: tuple[Read, ...] = tuple([(None, atom.val) if is_literal(atom) else (place[atom], None) for atom in eqn.invars])
        for var in eqn.outvars:
            place[var] = n
            n += 1
        steps.append((eqn.primitive, ins, eqn.params, eqn.primitive.multiple_results, replayed(eqn.source_info)))
    results: tuple[Read, ...] = tuple([(None, atom.val) if is_literal(atom) else (place[atom], None) for atom in body.outvars])

    def replay(*args: jax.Array) -> list[jax.Array]:
        if JaxprEqnContext() is not context:
            return slow(*args)
        env = [*consts, *args]
        with replaying() as here:
            for primitive, ins, params, is_many, source in steps:
                here.at(source)
                out = primitive.bind(*[value if i is None else env[i] for i, value in ins], **params)
                if is_many:
                    env.extend(out)
                else:
                    env.append(out)
        return [value if i is None else env[i] for i, value in results]

    return replay


def at_lines_of_user(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """A closed jaxpr for evaluation in the place of a call: equations without a line of the user's get that of the call."""
    body = jaxpr.jaxpr
    eqns = [eqn.replace(source_info=replayed(eqn.source_info)) for eqn in body.eqns]
    return ClosedJaxpr(body.replace(eqns=eqns), jaxpr.consts)


def on_shards(jaxpr: ClosedJaxpr) -> Callable[..., list[jax.Array]]:
    """A function that binds a closed jaxpr's equations, where its operands may vary from device to device.

    Programs inside operations such as ``reduce`` are traced without device information: their constants are not typed as varying.
    """
    body, run = jaxpr.jaxpr, jaxpr_as_fun(jaxpr)

    def on_shard(*args: jax.Array) -> list[jax.Array]:
        axes = frozenset().union(*[varying(typeof(x)) for x in args])
        if not axes:
            return list(run(*args))
        env = dict(zip((*body.constvars, *body.invars), (*jaxpr.consts, *args), strict=True))
        for eqn in body.eqns:
            values = [np.asarray(atom.val, atom.aval.dtype) if is_literal(atom) else env[atom]  # type: ignore[attr-defined]
                      for atom in eqn.invars]
            out = eqn.primitive.bind(*[vary_over(x, axes) for x in values], **eqn.primitive.get_bind_params(eqn.params))  # type: ignore[arg-type]
            env.update(zip(eqn.outvars, out if eqn.primitive.multiple_results else [out], strict=True))
        return [atom.val if is_literal(atom) else env[atom] for atom in body.outvars]

    return on_shard


def behind(eqns: Sequence[JaxprEqn], atoms: Iterable[Atom], known: Collection[Var] = (), *, has_effects: bool = False,
           operands: Callable[[JaxprEqn], Sequence[Atom]] = lambda eqn: eqn.invars) -> list[JaxprEqn]:
    """The equations that these values depend on, in the order of the program.

    The search stops at ``known`` values.  ``has_effects`` adds the equations that have effects; ``operands(eqn)`` are the operands
    to follow.
    """
    needed = {atom for atom in atoms if not is_literal(atom) and atom not in known}
    found = []
    for eqn in reversed(eqns):
        if (has_effects and eqn.effects) or any(v in needed for v in eqn.outvars):
            found.append(eqn)
            needed.update(atom for atom in operands(eqn) if not is_literal(atom) and atom not in known)
    return found[::-1]


def with_outputs(jaxpr: ClosedJaxpr, outputs: Sequence[Atom]) -> ClosedJaxpr:
    """A closed jaxpr that computes only these of its variables."""
    body = jaxpr.jaxpr
    eqns = behind(body.eqns, outputs, has_effects=True)
    info = body.debug_info._replace(arg_names=None, result_paths=None)
    return ClosedJaxpr(body.replace(outvars=list(outputs), eqns=eqns, debug_info=info), list(jaxpr.consts))


def reads(jaxpr: ClosedJaxpr) -> list[bool]:
    """Which inputs a closed jaxpr's outputs depend on."""
    body = with_outputs(jaxpr, jaxpr.jaxpr.outvars).jaxpr
    used = {atom for eqn in body.eqns for atom in eqn.invars if not is_literal(atom)}
    used.update(atom for atom in body.outvars if not is_literal(atom))
    return [var in used for var in body.invars]
