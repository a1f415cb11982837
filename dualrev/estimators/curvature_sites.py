"""Where second derivatives of a program arise: its operations that are not linear, inside calls and the steps of scans too.

A program is evaluated with an increment, which is zero, added to the results of each such operation, a *site*, and returns the operands
of all sites beside its own results.  Reverse mode then gives the cotangents of the results of sites, from the increments, and takes
vectors from the operands of all sites to the inputs in one pull.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.calls import jit_p, scan_layout, scan_p
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, as_traced, is_literal
from dualrev._jax.trees import PyTree
from dualrev.functional.api import jvp, vjp
from dualrev.table.rows import rows


class Value(NamedTuple):
    """A value of a program, and whether it depends on what is differentiated."""

    array: Any
    is_active: bool


class Operation(NamedTuple):
    """A site: one operation, which is not linear in its active operands.  Operands are ``(active ones, others)``."""

    eqn: JaxprEqn
    is_active: tuple[bool, ...]
    #: Whether it works entry by entry, on active operands of one shape.
    is_diagonal: bool

    @property
    def increments(self) -> PyTree:
        avals: list[Any] = [v.aval for v in self.eqn.outvars]
        return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals if is_differentiable(a)]

    def factors(self, operands: PyTree, cotangents: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        r"""Two covectors of the active operands, left and right, with :math:`\mathbb E\, l r^T = M`.

        :math:`M` is the second derivative of the operation, weighted by the cotangents of its results.  With signs :math:`v`,
        :math:`l = s v` and :math:`r = M v / s` for any :math:`s` that is the same for :math:`v` and :math:`-v`: with
        :math:`s^2 = |M v| / |v|` both are of one length.  Entry by entry, each entry has an :math:`s` of its own.
        """
        given, others = operands

        def op(*given: jax.Array) -> list[jax.Array]:
            active, rest = iter(given), iter(others)
            outs = _bind(self.eqn, [next(active) if flag else next(rest) for flag in self.is_active])
            return [out for out in outs if is_differentiable(typeof(out))]

        def gradient(*given: jax.Array) -> tuple[jax.Array, ...]:
            pulled: tuple[jax.Array, ...] = vjp(op, *given)[1](cotangents)
            return pulled

        signs = [_signs(k, x) for k, x in zip(jax.random.split(key, len(given)), given, strict=True)]
        _, right = jvp(gradient, tuple(given), tuple(signs))
        squares = [_square(t) for t in right], [_square(v) for v in signs]
        if self.is_diagonal:
            moved, drawn = (sum(of[1:], of[0]) for of in squares)
        else:
            moved, drawn = (sum([jnp.sum(x).astype(float) for x in of], jnp.zeros((), float)) for of in squares)
        # Where M v = 0, nothing is lost by l = 0: l rᵀ is 0 anyway.
        scale = lax.sqrt(lax.sqrt(moved / drawn))
        inverse = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, jnp.ones_like(scale)), scale)
        return [_scaled(jnp.conj(v), scale) for v in signs], [_scaled(t, inverse) for t in right]


class Steps(NamedTuple):
    """A scan with sites in its step: what belongs to them is stacked over the steps."""

    length: int
    sites: list[Site]

    @property
    def increments(self) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.length, *x.shape), x.dtype), [s.increments for s in self.sites])

    def factors(self, operands: PyTree, cotangents: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        def of_step(active: PyTree, others: PyTree, cotangents: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
            return factors_of(self.sites, (active, others), cotangents, key)

        active, others = operands
        found: tuple[PyTree, PyTree] = jax.vmap(of_step)(active, others, cotangents, jax.random.split(key, self.length))
        return found


Site: TypeAlias = Operation | Steps


def factors_of(sites: Sequence[Site], operands: PyTree, cotangents: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
    """Left and right of each site, with signs of its own."""
    keys = jax.random.split(key, max(len(sites), 1))
    pairs = [site.factors((active, others), cts, k)
             for site, active, others, cts, k in zip(sites, *operands, cotangents, keys, strict=False)]
    return [left for left, _ in pairs], [right for _, right in pairs]


def _signs(key: jax.Array, x: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(x):
        return jax.random.rademacher(key, x.shape, x.dtype)
    dtype = jnp.real(x).dtype
    return lax.complex(*(jax.random.rademacher(k, x.shape, dtype) for k in jax.random.split(key)))


def _square(x: jax.Array) -> jax.Array:
    return jnp.real(x * jnp.conj(x))


def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * scale.astype(x.dtype)


def _bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    outs = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(outs) if eqn.primitive.multiple_results else [outs]


# ------------------------------------------------------------------------------------------------------------------- evaluation


class Visit:
    """One evaluation: without ``increments`` it finds the sites, with them it also keeps their operands."""

    def __init__(self, increments: Sequence[PyTree] | None = None):
        self.sites: list[Site] = []
        self.active: list[PyTree] = []
        self.others: list[PyTree] = []
        self.increments: Iterator[PyTree] | None = None if increments is None else iter(increments)


def evaluate(program: ClosedJaxpr, args: Sequence[Value], visit: Visit) -> list[Value]:
    """The results of a program."""
    body = program.jaxpr
    env = dict(zip(body.constvars, [Value(x, False) for x in program.consts], strict=True))
    env.update(zip(body.invars, args, strict=True))

    def read(atom: Any) -> Value:
        return Value(atom.val, False) if is_literal(atom) else env[atom]

    for eqn in body.eqns:
        with as_traced(eqn):
            env.update(zip(eqn.outvars, _equation(eqn, [read(atom) for atom in eqn.invars], visit), strict=True))
    return [read(atom) for atom in body.outvars]


def _equation(eqn: JaxprEqn, values: Sequence[Value], visit: Visit) -> list[Value]:
    arrays, active = [v.array for v in values], tuple([v.is_active for v in values])
    if not any(active):
        return [Value(out, False) for out in _bind(eqn, arrays)]
    if eqn.primitive is jit_p:
        return evaluate(eqn.params["jaxpr"], values, visit)
    if eqn.primitive is scan_p:
        return _scan(eqn, values, visit)
    row = rows.get(eqn.primitive)  # a rule of the user's for a function has none
    if row is not None and row.chooses:
        row = row.choose(arrays, active, eqn.params)
    outs = _bind(eqn, arrays)
    if row is None or not (row.kind in ("zero", "linear") or (row.kind == "product" and sum(active) == 1)):
        shapes = {jnp.shape(x) for x, flag in zip(arrays, active, strict=True) if flag}
        visit.sites.append(Operation(eqn, active, row is not None and row.is_diagonal and shapes == {jnp.shape(outs[0])}))
        if visit.increments is not None:
            visit.active.append([x for x, flag in zip(arrays, active, strict=True) if flag])
            visit.others.append([x for x, flag in zip(arrays, active, strict=True) if not flag])
            increments = iter(next(visit.increments))
            outs = [out + next(increments) if is_differentiable(typeof(out)) else out for out in outs]
    return [Value(out, (row is None or row.kind != "zero") and is_differentiable(typeof(out))) for out in outs]


def _scan(eqn: JaxprEqn, values: Sequence[Value], visit: Visit) -> list[Value]:
    body: ClosedJaxpr = eqn.params["jaxpr"]
    n_consts, n_carry = scan_layout(eqn.params)
    flags = [v.is_active for v in values]
    while True:  # fixed point of carry activity
        found, moved = _sites_of_step(body, flags)
        grown = [a or b for a, b in zip(flags[n_consts: n_consts + n_carry], moved[:n_carry], strict=True)]
        if grown == flags[n_consts: n_consts + n_carry]:
            break
        flags[n_consts: n_consts + n_carry] = grown
    site = Steps(eqn.params["length"], found)
    increments = None if visit.increments is None or not found else next(visit.increments)
    arrays = [v.array for v in values]

    def step(carry: list[Any], given: tuple[list[Any], PyTree]) -> tuple[list[Any], tuple[list[Any], PyTree, PyTree]]:
        own = Visit(given[1])
        outs = evaluate(body, list(map(Value, [*arrays[:n_consts], *carry, *given[0]], flags)), own)
        results = [v.array for v in outs]
        return results[:n_carry], (results[n_carry:], own.active, own.others)

    last, (ys, active, others) = lax.scan(step, arrays[n_consts: n_consts + n_carry], (arrays[n_consts + n_carry:], increments),
                                          length=eqn.params["length"], reverse=eqn.params["reverse"], unroll=eqn.params["unroll"])
    if found:
        visit.sites.append(site)
        visit.active.append(active)
        visit.others.append(others)
    return list(map(Value, [*last, *ys], moved))


def _sites_of_step(body: ClosedJaxpr, flags: Sequence[bool]) -> tuple[list[Site], list[bool]]:
    """The sites of a step, and which of its results are active."""
    found: list[tuple[list[Site], list[bool]]] = []

    def look(*arrays: jax.Array) -> list[Any]:
        visit = Visit()
        outs = evaluate(body, list(map(Value, arrays, flags)), visit)
        found.append((visit.sites, [v.is_active for v in outs]))
        return [v.array for v in outs]

    jax.eval_shape(look, *[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in body.in_avals])
    return found[-1]
