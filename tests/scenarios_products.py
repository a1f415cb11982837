"""Scenarios that are calls of the functional face, made with jax and with dualrev and compared: products and linear maps.

Each takes the library and returns a pytree of what it gave.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from agreement import promoting
from jax import lax

from dualrev.problems.scenario import Scenario

float0 = jax.dtypes.float0
Point = namedtuple("Point", ["x", "y"])


class Calls(list[Scenario]):
    """A list that functions are put into, as scenarios."""

    def scenario(self, fun: Callable[[Any], Any], tags: tuple[str, ...] = ("face",)) -> Callable[[Any], Any]:
        """A program that takes the differentiating library as ``d``; its results must not depend on which one it is."""
        self.append(Scenario(fun.__name__, None, tuple, derivative=lambda d: functools.partial(fun, d), tags=tags))
        return fun

    def weak(self, fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """One on Python scalars, whose derivatives must not widen what they are combined with."""
        return self.scenario(fun, ("face", "weak types"))


SCENARIOS = Calls()
scenario, weak = SCENARIOS.scenario, SCENARIOS.weak


def none0(*shape: int) -> np.ndarray:
    return np.zeros(shape, float0)


VEC = np.array([0.5, -1.5, 2.0])
MAT = np.arange(6.0).reshape(2, 3) / 7 - 0.3


def product(x: Any, y: Any) -> Any:
    return jnp.sin(x) * y + x * y**2


def to_dict(x: Any, y: Any) -> dict[str, Any]:
    return {"a": jnp.outer(x, y), "b": [x.sum(), (y**3).sum()]}


# --------------------------------------------------------------------------------------------------------------- jvp


@weak
def jvp_two_arguments(d: Any) -> Any:
    return d.jvp(product, (2.0, 3.0), (1.0, -1.0))


@scenario
def jvp_lists_for_tuples(d: Any) -> Any:
    return d.jvp(product, [2.0, 3.0], [1.0, -1.0])


@scenario
def jvp_pytrees(d: Any) -> Any:
    p = ({"a": VEC, "b": (MAT, None)}, Point(2.0, [VEC]))
    t = ({"a": VEC + 1, "b": (MAT * 2, None)}, Point(1.0, [VEC]))
    return d.jvp(lambda u, v: Point((u["a"] * v.x, None), {"c": u["b"][0] @ v.y[0]}), p, t)


@scenario
def jvp_has_aux(d: Any) -> Any:
    return d.jvp(lambda x: (x**2, {"cube": x**3, "label": "text", "nothing": None}), (2.0,), (1.0,), has_aux=True)


@scenario
@promoting()
def jvp_integer_input(d: Any) -> Any:
    return d.jvp(lambda i, x: (i + 1, x * i), (np.arange(3), VEC), (none0(3), VEC))


@scenario
def jvp_integer_output(d: Any) -> Any:
    return d.jvp(lambda x: (x > 0, jnp.floor(x).astype(int), x), (VEC,), (VEC,))


@scenario
def jvp_identity_of_an_integer(d: Any) -> Any:
    return d.jvp(lambda x: x, (1,), (none0(),))


@scenario
def jvp_none_output(d: Any) -> Any:
    return d.jvp(lambda x: None, (1.0,), (1.0,))


@scenario
def jvp_constant_output(d: Any) -> Any:
    return d.jvp(lambda x: (3.0, np.ones(2), jnp.float32(1)), (1.0,), (1.0,))


@scenario
def jvp_of_jit_closing_over_the_input(d: Any) -> Any:
    def f(x: Any) -> Any:
        inner = jax.jit(lambda y: y * x)
        return inner(4.0) + inner(5.0)

    return d.jvp(f, (5.0,), (1.0,))


@scenario
def jvp_half_precision(d: Any) -> Any:
    x = jnp.asarray(VEC, jnp.bfloat16)
    return d.jvp(lambda x: x * 2 + jnp.sin(x), (x,), (x,))


@scenario
def jvp_float0_leaf_in_a_pytree(d: Any) -> Any:
    return d.jvp(lambda p: p["w"][p["i"]], ({"w": VEC, "i": 1},), ({"w": VEC, "i": none0()},))


# --------------------------------------------------------------------------------------------------------------- vjp


@weak
def vjp_returns_a_tuple(d: Any) -> Any:
    out, pull = d.vjp(jnp.sin, 2.0)
    return out, pull(1.0)


@scenario
def vjp_pytrees(d: Any) -> Any:
    out, pull = d.vjp(to_dict, VEC, VEC * 2)
    return out, pull({"a": np.ones((3, 3)), "b": [2.0, -1.0]})


@scenario
def vjp_has_aux(d: Any) -> Any:
    out, pull, aux = d.vjp(lambda x: (x**2, ["text", x, None]), 3.0, has_aux=True)
    return out, pull(1.0), aux


@scenario
def vjp_integer_input(d: Any) -> Any:
    out, pull = d.vjp(lambda x, i: x[i], VEC, 1)
    return out, pull(1.0)


@scenario
def vjp_integers_only(d: Any) -> Any:
    out, pull = d.vjp(lambda x, y: x + y, 2, 1)
    return out, pull(1), pull(none0())


@scenario
def vjp_integer_output(d: Any) -> Any:
    out, pull = d.vjp(lambda x: (jnp.floor(x).astype(int), x), 2.5)
    return out, pull((none0(), 1.0)), pull((1, 1.0))


@scenario
def vjp_unused_inputs(d: Any) -> Any:
    return d.vjp(lambda x, y, z: x * 2, 1.0, {"a": VEC, "n": None}, np.arange(2))[1](1.0)


@scenario
def vjp_no_inputs(d: Any) -> Any:
    out, pull = d.vjp(lambda: jnp.ones(2))
    return out, pull(jnp.ones(2))


@scenario
def vjp_output_is_an_input(d: Any) -> Any:
    out, pull = d.vjp(lambda x, y: (y, x, y, 1.0), VEC, 2.0)
    return out, pull((1.0, VEC, 2.0, 5.0))


@scenario
def vjp_no_outputs(d: Any) -> Any:
    out, pull = d.vjp(lambda x: (), 2.0)
    return out, pull(())


@scenario
def vjp_called_twice(d: Any) -> Any:
    _, pull = d.vjp(product, 2.0, 3.0)
    return pull(1.0), pull(2.0)


@scenario
def vjp_function_leaves_jit(d: Any) -> Any:
    pull = jax.jit(lambda x: d.vjp(lambda x: jnp.sin(x) * x, x)[1])(2.0)
    return pull(3.0), jax.jit(lambda p, ct: p(ct))(pull, 3.0)


@scenario
def vjp_function_under_jit_and_vmap(d: Any) -> Any:
    _, pull = d.vjp(lambda x: jnp.sin(x) * x, VEC)
    return jax.jit(pull)(VEC), jax.vmap(pull)(jnp.eye(3))


@scenario
@promoting()
def vjp_mixed_dtypes(d: Any) -> Any:
    x, y = np.float16(2), np.ones(2, np.float32)
    out, pull = d.vjp(lambda x, y: x * y, x, y)
    return out, pull(np.ones(2, np.float32))


# --------------------------------------------------------------------------------------------------------- linearize


@weak
def linearize_is_a_function(d: Any) -> Any:
    out, push = d.linearize(product, 2.0, 3.0)
    return out, push(1.0, 0.0), push(0.5, -2.0)


@scenario
def linearize_pytrees(d: Any) -> Any:
    out, push = d.linearize(to_dict, VEC, VEC * 2)
    return out, push(VEC, VEC + 1)


@scenario
def linearize_has_aux(d: Any) -> Any:
    out, push, aux = d.linearize(lambda x: (x**2, {"x": x}), 3.0, has_aux=True)
    return out, push(1.0), aux


@scenario
def linearize_integer_input(d: Any) -> Any:
    out, push = d.linearize(lambda x: x, np.ones(2, np.int32))
    return out, push(none0(2))


@scenario
def linearize_leaves_jit(d: Any) -> Any:
    push = jax.jit(lambda x: d.linearize(jnp.sin, x)[1])(2.0)
    return push(3.0), jax.jit(lambda p, t: p(t))(push, 3.0)


@scenario
def linearize_under_vmap(d: Any) -> Any:
    _, push = d.linearize(lambda x: jnp.sin(x) * x[0], VEC)
    return jax.vmap(push)(jnp.eye(3))


# -------------------------------------------------------------------------------------------------- linear_transpose


@weak
def linear_transpose_scalar(d: Any) -> Any:
    return d.linear_transpose(lambda x: 2 * x, 1.0)(3.0)


@scenario
def linear_transpose_abstract_inputs(d: Any) -> Any:
    duck = SimpleNamespace(shape=(3,), dtype=np.dtype("float32"))
    struct = jax.ShapeDtypeStruct((2, 3), np.float64)
    return (d.linear_transpose(lambda x: 2 * x, duck)(jnp.ones(3, "float32")),
            d.linear_transpose(lambda x: jnp.sum(x, 0), struct)(VEC))


@scenario
def linear_transpose_several(d: Any) -> Any:
    return d.linear_transpose(lambda x, y: [0.5 * x - y["a"], 3 * y["a"].sum()], VEC, {"a": VEC})([VEC, 2.0])


@scenario
def linear_transpose_integers(d: Any) -> Any:
    return d.linear_transpose(lambda x: 2 * x, 1)(3)


@scenario
def linear_transpose_complex(d: Any) -> Any:
    return d.linear_transpose(lambda x: (1 + 2j) * x, 1j)(3 + 4j)


@scenario
def linear_transpose_unused(d: Any) -> Any:
    return d.linear_transpose(lambda x: x[0], [1.0, 2.0])(3.0)


@scenario
def linear_transpose_of_jit_with_another_output(d: Any) -> Any:
    f = jax.jit(lambda x: (2 * x, x > 0))
    return d.linear_transpose(lambda x: f(x)[0], 1.0)(1.0)


@scenario
def linear_transpose_leaves_jit(d: Any) -> Any:
    t = jax.jit(lambda x: d.linear_transpose(lambda y: 2.0 * y, x))(1.0)
    return t(3.0), jax.jit(lambda t, u: t(u))(t, 3.0)


@scenario
def linear_transpose_of_a_closure(d: Any) -> Any:
    return jax.jit(lambda a, u: d.linear_transpose(lambda x: a @ x, VEC)(u))(MAT, np.ones(2))


@scenario
def linear_transpose_twice(d: Any) -> Any:
    def once(u: Any) -> Any:
        return d.linear_transpose(lambda x: MAT @ x, VEC)(u)[0]

    return d.linear_transpose(once, np.ones(2))(VEC)


@scenario
def linear_transpose_of_scan(d: Any) -> Any:
    def f(x: Any) -> Any:
        return lax.scan(lambda c, a: (c * 0.5 + a, c), jnp.zeros(()), x)

    return d.linear_transpose(f, VEC)((1.0, VEC * 2))
