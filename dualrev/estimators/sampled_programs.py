"""Programs with the same values, whose derivative keeps samples of what it would keep: loops and branches are gone into."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.calls import cond_p, jit_p, scan_layout, scan_p, while_p
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, as_traced, is_literal, stage
from dualrev._jax.primitives import Primitive
from dualrev.estimators.once import first_order_only
from dualrev.functional.ruled_functions import Statement, with_rule
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent
from dualrev.rules.sampled import Product, Sampled, sampled_product_p
from dualrev.table.rows import Row, rows


class Value(NamedTuple):
    """A value of a program: whether it depends on what is differentiated, and whether it is there anyway, as inputs are."""

    array: Any
    is_active: bool
    is_input: bool


@dataclass(frozen=True)
class Sampling:
    """One entry of ``stride`` is kept of each array that has ``least`` entries or more."""

    stride: int
    least: int

    def is_worth(self, x: Any) -> bool:
        return x.size >= self.least and self.stride > 1


class Keys:
    """A new key at each call."""

    def __init__(self, key: jax.Array):
        self.key, self.count = key, 0

    def __call__(self) -> jax.Array:
        self.count += 1
        return jax.random.fold_in(self.key, self.count)


def evaluate(program: ClosedJaxpr, args: Sequence[Value], keys: Keys, sampling: Sampling) -> list[Value]:
    """The results of a program."""
    body = program.jaxpr
    env = dict(zip(body.constvars, [Value(x, False, True) for x in program.consts], strict=True))
    env.update(zip(body.invars, args, strict=True))

    def read(atom: Any) -> Value:
        return Value(atom.val, False, True) if is_literal(atom) else env[atom]

    for eqn in body.eqns:
        with as_traced(eqn):
            env.update(zip(eqn.outvars, _equation(eqn, [read(atom) for atom in eqn.invars], keys, sampling), strict=True))
    return [read(atom) for atom in body.outvars]


def _equation(eqn: JaxprEqn, values: Sequence[Value], keys: Keys, sampling: Sampling) -> list[Value]:
    is_active = any(v.is_active for v in values)
    if is_active and eqn.primitive in HANDLERS:
        return HANDLERS[eqn.primitive](eqn, values, keys, sampling)
    row = rows.get(eqn.primitive)
    if is_active and row is not None and (ruled := _with_samples(eqn, row, values, keys, sampling)) is not None:
        return [Value(ruled, True, False)]
    outs = eqn.primitive.bind(*[v.array for v in values], **eqn.primitive.get_bind_params(eqn.params))
    stays = row is not None and row.cost == "moves" and all(v.is_input for v in values)
    return [Value(x, is_active and is_differentiable(typeof(x)), stays) for x in (outs if eqn.primitive.multiple_results else [outs])]


# --------------------------------------------------------------------------------------------------------------- one operation


def _with_samples(eqn: JaxprEqn, row: Row, values: Sequence[Value], keys: Keys, sampling: Sampling) -> jax.Array | None:
    """The result of an operation whose derivative keeps samples of its factors; None where there is nothing to sample."""
    primals, active, params = [v.array for v in values], [v.is_active for v in values], eqn.params
    if row.chooses:
        row = row.choose(primals, active, params)
    if row.kind not in ("product", "diagonal") or row.is_users_own or len(eqn.outvars) != 1:
        return None
    out: Any = eqn.outvars[0].aval
    if any(flag and typeof(x).dtype != out.dtype for x, flag in zip(primals, active, strict=True)):
        return None  # real here, complex there
    if row.kind == "product":
        if len(primals) != 2:
            return None
        chosen = [v.is_active and not other.is_input and sampling.is_worth(other.array)
                  for v, other in zip(values, reversed(values), strict=True)]
        if not any(chosen):
            return None
    elif not sampling.is_worth(out):
        return None
    data = jax.random.key_data(keys())
    remake = functools.partial(jax.random.wrap_key_data, impl=jax.random.key_impl(keys.key))

    def run(*args: jax.Array) -> jax.Array:
        result: jax.Array = row.bind(args[:-1], params)[0]
        return result

    def push(ts: Sequence[Tangent], *args: jax.Array) -> Tangent:
        operands, key, total = args[:-1], remake(args[-1]), None
        if row.kind == "product":
            for i, t in enumerate(ts[:-1]):
                if t is None or not active[i]:
                    continue
                if chosen[i]:
                    term = _product(eqn.primitive, params, 1 - i, operands[1 - i], t, jax.random.fold_in(key, i), sampling.stride)
                else:
                    (term,) = row.bind([t if k == i else x for k, x in enumerate(operands)], params)
                total = zeros.add(total, term)
            return total
        partials = row.partials(operands, params, [t is not None for t in ts[:-1]])
        for i, (partial, t) in enumerate(zip(partials, ts[:-1], strict=True)):
            if partial is not None and t is not None:
                t = jnp.broadcast_to(t, out.shape)
                total = zeros.add(total, _product(*_entrywise(), 0, partial, t, jax.random.fold_in(key, i), sampling.stride))
        return total

    return with_rule(run, Statement("pushforward", push), ())(*primals, data)


@functools.cache
def _entrywise() -> tuple[Primitive, dict[str, Any]]:
    """The product entry by entry, and its parameters, which differ between releases."""
    (eqn,) = stage(lambda x, y: [lax.mul(x, y)], [typeof(jnp.ones((), "float32"))] * 2).eqns
    return eqn.primitive, eqn.params


def _product(primitive: Primitive, params: dict[str, Any], position: int, x: jax.Array, t: jax.Array, key: jax.Array,
             stride: int) -> jax.Array:
    """The product with samples of ``x``, which stands at ``position``, in its place."""
    sampled = Sampled(x.shape, x.dtype, stride)
    picks = jax.random.randint(key, (sampled.count,), 0, stride, jnp.int32)
    picks = lax.convert_element_type(picks, jnp.uint8 if stride <= 256 else jnp.uint16 if stride <= 65536 else jnp.uint32)
    product = Product(primitive, tuple(params.items()), position, sampled)
    out: jax.Array = sampled_product_p.bind(_first_order_only(sampled.taken(x, picks)), picks, t, product=product)
    return out


#: What an outer derivative may not differentiate.
_first_order_only = first_order_only("randomized_vjp")


# ------------------------------------------------------------------------------------------------------- calls, loops, branches


def _arrays(values: Sequence[Value]) -> list[Any]:
    return [v.array for v in values]


def _like(given: Sequence[Any], values: Sequence[Value]) -> list[Value]:
    return [v._replace(array=x) for x, v in zip(given, values, strict=True)]


def _kept_once(values: Sequence[Value]) -> list[Value]:
    """What all steps read: kept whole it takes less than a sample for each step."""
    return [v._replace(is_input=True) for v in values]


def _unknown(given: Sequence[Any]) -> list[Value]:
    """Values of which nothing is known: each that is differentiable may be active."""
    return [Value(x, is_differentiable(typeof(x)), False) for x in given]


def _call(eqn: JaxprEqn, values: Sequence[Value], keys: Keys, sampling: Sampling) -> list[Value]:
    return evaluate(eqn.params["jaxpr"], values, keys, sampling)


def _scan(eqn: JaxprEqn, values: Sequence[Value], keys: Keys, sampling: Sampling) -> list[Value]:
    body = eqn.params["jaxpr"]
    n_consts, n_carry = scan_layout(eqn.params)
    consts, carry, xs = _kept_once(values[:n_consts]), _arrays(values[n_consts: n_consts + n_carry]), values[n_consts + n_carry:]
    key = keys()

    def step(state: tuple[jax.Array, list[Any]], given: list[Any]) -> tuple[tuple[jax.Array, list[Any]], list[Any]]:
        i, carried = state
        outs = evaluate(body, [*consts, *_unknown(carried), *_like(given, xs)], Keys(jax.random.fold_in(key, i)), sampling)
        return (i + jnp.uint32(1), _arrays(outs[:n_carry])), _arrays(outs[n_carry:])

    (_, last), ys = lax.scan(step, (jnp.uint32(0), carry), _arrays(xs), length=eqn.params["length"], reverse=eqn.params["reverse"],
                             unroll=eqn.params["unroll"])
    return _unknown([*last, *ys])


def _while(eqn: JaxprEqn, values: Sequence[Value], keys: Keys, sampling: Sampling) -> list[Value]:
    cond, body, n_cond, n_body = (eqn.params[name] for name in ("cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts"))
    in_cond, in_body, carry = values[:n_cond], _kept_once(values[n_cond: n_cond + n_body]), _arrays(values[n_cond + n_body:])
    key = keys()

    def goes_on(state: tuple[jax.Array, list[Any]]) -> Any:
        return evaluate(cond, [*in_cond, *_unknown(state[1])], Keys(key), Sampling(1, 0))[0].array

    def step(state: tuple[jax.Array, list[Any]]) -> tuple[jax.Array, list[Any]]:
        i, carried = state
        return i + jnp.uint32(1), _arrays(evaluate(body, [*in_body, *_unknown(carried)], Keys(jax.random.fold_in(key, i)), sampling))

    return _unknown(lax.while_loop(goes_on, step, (jnp.uint32(0), carry))[1])


def _branch(eqn: JaxprEqn, values: Sequence[Value], keys: Keys, sampling: Sampling) -> list[Value]:
    index, operands = values[0].array, values[1:]
    key = keys()

    def branch(program: ClosedJaxpr) -> Callable[..., list[Any]]:
        return lambda *given: _arrays(evaluate(program, _like(given, operands), Keys(key), sampling))

    return _unknown(lax.switch(index, [branch(program) for program in eqn.params["branches"]], *_arrays(operands)))


HANDLERS: dict[Primitive, Callable[[JaxprEqn, Sequence[Value], Keys, Sampling], list[Value]]] = {
    jit_p: _call, scan_p: _scan, while_p: _while, cond_p: _branch}
