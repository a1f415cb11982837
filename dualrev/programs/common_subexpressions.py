"""Equal operations on equal operands, computed once.

A program that takes ``y[0]`` in three places has three equations for it.  A compiler merges them in the function, but not what a
derivative makes of each of them: a residual, and a cotangent of the size of ``y``.  They are merged before a program is linearized.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, DropVar, JaxprEqn, Var, is_literal
from dualrev._jax.primitives import primitive
from dualrev.programs.partition import Graph, held_eqns

#: Operations whose results or calls differ although their operands are equal: the compiler's own random numbers; functions of the
#: host, whose calls a user counts; and barriers, which a user puts where computing a value twice is wanted.
_DISTINCT = frozenset(map(primitive, ("rng_uniform", "pure_callback", "ffi_call", "optimization_barrier")))


def merged(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """A closed jaxpr in which of equal operations the first one alone is left; the same object where there are none.

    Operations are equal if primitive, operands, parameters and the settings that they were traced under are; programs among the
    parameters are compared by identity.  An operation with an effect, or one that makes a reference, is equal to no other.
    """
    body = jaxpr.jaxpr
    eqns, outvars = _merged(body.eqns, body.outvars, zip(body.constvars, jaxpr.consts, strict=True))
    if len(eqns) == len(body.eqns):
        return jaxpr
    return ClosedJaxpr(body.replace(eqns=eqns, outvars=outvars), jaxpr.consts)


def merged_graph(graph: Graph) -> Graph:
    """As :func:`merged`, of a program with its calls inlined."""
    eqns, outvars = _merged(graph.eqns, graph.outvars, graph.consts.items())
    return dataclasses.replace(graph, eqns=eqns, outvars=outvars)


def _merged(eqns: Sequence[JaxprEqn], outvars: Sequence[Atom],
            consts: Iterable[tuple[Var, object]]) -> tuple[list[JaxprEqn], list[Atom]]:
    first: dict[int, Var] = {}
    #: For each value that is left out, the equal one.
    equal: dict[Var, Var] = {v: same for v, value in consts if (same := first.setdefault(id(value), v)) is not v}

    def now(atom: Atom) -> Atom:
        return atom if is_literal(atom) else equal.get(atom, atom)

    kept: list[JaxprEqn] = []
    places: dict[Hashable, int] = {}
    for eqn in eqns:
        if equal and any(not is_literal(atom) and atom in equal for atom in eqn.invars):
            eqn = eqn.replace(invars=[now(atom) for atom in eqn.invars])
        place = _place(eqn, places, len(kept))
        if place == len(kept):
            kept.append(eqn)
            continue
        found = kept[place]
        if any(isinstance(u, DropVar) and not isinstance(v, DropVar) for u, v in zip(found.outvars, eqn.outvars, strict=True)):
            # A result that is read here only.
            outs = [v if isinstance(u, DropVar) else u for u, v in zip(found.outvars, eqn.outvars, strict=True)]
            found = kept[place] = found.replace(outvars=outs)
        equal.update((v, u) for u, v in zip(found.outvars, eqn.outvars, strict=True) if u is not v)
    return kept, [now(atom) for atom in outvars]


def _place(eqn: JaxprEqn, places: dict[Hashable, int], new: int) -> int:
    """The place of an equal operation among those that are kept, or ``new`` if there is none."""
    if eqn.effects or eqn.primitive in _DISTINCT or not all(isinstance(v.aval, ShapedArray) for v in eqn.outvars):
        return new
    try:
        key = (eqn.primitive, tuple(map(_operand, eqn.invars)), tuple([(k, frozen(v)) for k, v in eqn.params.items()]), eqn.ctx)
        place = places.setdefault(key, new)
    except TypeError:  # a parameter cannot be hashed
        return new
    if place != new and any(inner.primitive in _DISTINCT for inner in held_eqns(eqn)):
        return new
    return place


def _operand(atom: Atom) -> Hashable:
    if not is_literal(atom):
        return atom
    value = np.asarray(atom.val)
    return (atom.aval.dtype, atom.aval.weak_type, value.shape, value.tobytes())  # type: ignore[attr-defined]


def frozen(value: object) -> Hashable:
    """A parameter as a key: numbers of different types or signs of zero are different."""
    if isinstance(value, (tuple, list)):
        return (type(value), *map(frozen, value))
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return (type(value), repr(value))
    return value
