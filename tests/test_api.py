"""The functional face has jax's signatures, structures and types: each scenario runs with jax and with each engine."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, FACES, TRANSFORMATIONS, Face, assert_close, assert_same
from jax import lax

import dualrev

Scenario = Callable[[Any], Any]
scenarios: dict[str, Scenario] = {}

float0 = jax.dtypes.float0
Point = namedtuple("Point", ["x", "y"])


def scenario(fun: Scenario) -> Scenario:
    """A program that takes the differentiating library as ``d``; its results must not depend on which one it is."""
    scenarios[fun.__name__] = fun
    return fun


def none0(*shape: int) -> np.ndarray:
    return np.zeros(shape, float0)


VEC = np.array([0.5, -1.5, 2.0])
MAT = np.arange(6.0).reshape(2, 3) / 7 - 0.3


def product(x: Any, y: Any) -> Any:
    return jnp.sin(x) * y + x * y**2


def to_dict(x: Any, y: Any) -> dict[str, Any]:
    return {"a": jnp.outer(x, y), "b": [x.sum(), (y**3).sum()]}


# --------------------------------------------------------------------------------------------------------------- jvp


@scenario
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


@scenario
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
def vjp_mixed_dtypes(d: Any) -> Any:
    x, y = np.float16(2), np.ones(2, np.float32)
    out, pull = d.vjp(lambda x, y: x * y, x, y)
    return out, pull(np.ones(2, np.float32))


# --------------------------------------------------------------------------------------------------------- linearize


@scenario
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


@scenario
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


# -------------------------------------------------------------------------------------------------------------- grad


@scenario
def grad_scalar(d: Any) -> Any:
    return d.grad(jnp.sin)(2.0), d.value_and_grad(jnp.sin)(2.0)


@scenario
def grad_argnums(d: Any) -> Any:
    def f(x: Any, y: Any, z: Any, *, flag: bool = False) -> Any:
        assert flag
        return x + 2 * y * x + 3 * z

    return [d.grad(f, argnums=a)(1.0, 2.0, 3.0, flag=True) for a in (0, 1, -1, -3, (2, 0), (-1,), (0, 1, 2), [1, 0])]


@scenario
def grad_numpy_argnums(d: Any) -> Any:
    return d.grad(product, argnums=np.int32(1))(2.0, 3.0), d.grad(product, argnums=range(2))(2.0, 3.0)


@scenario
def grad_pytrees(d: Any) -> Any:
    tree = {"w": MAT, "b": (VEC, [None, 2.0]), "o": OrderedDict(z=1.0, a=Point(1.0, 2.0))}
    return d.grad(lambda t: (t["w"] @ t["b"][0]).sum() * t["b"][1][1] + t["o"]["z"] * t["o"]["a"].y)(tree)


@scenario
def grad_empty_pytree(d: Any) -> Any:
    return d.grad(lambda x: 1.0)(None), d.grad(lambda x: 1.0)(()), d.grad(lambda x, y: x, argnums=(0, 1))(1.0, {})


@scenario
def grad_has_aux(d: Any) -> Any:
    def f(x: Any) -> Any:
        return x**3, [x**2, 4.0, None, "text", {"k": (x, 1)}]

    return d.grad(f, has_aux=True)(3.0), d.value_and_grad(f, has_aux=True)(3.0)


@scenario
def grad_of_aux_of_grad(d: Any) -> Any:
    def f(x: Any) -> Any:
        _, aux = d.grad(lambda x: (x**3, [x**3]), has_aux=True)(x)
        return aux[0] * jnp.sin(x)

    return d.grad(f)(4.0), jax.jit(d.grad(f))(4.0), jax.jit(d.grad(jax.jit(f)))(4.0)


@scenario
def grad_allow_int(d: Any) -> Any:
    f = d.grad(lambda x, i, b: x[i] + 0.0 * b, argnums=(0, 1, 2), allow_int=True)
    return f(VEC, 1, True), jax.jit(f)(VEC, 1, True), d.grad(lambda x: jnp.sum(x + 0.0), allow_int=True)(np.ones((2, 4), int))


@scenario
def grad_of_bool_through_cond(d: Any) -> Any:
    return d.value_and_grad(lambda p: lax.cond(p, lambda _: 1.0, lambda _: 2.0, 1.0), allow_int=True)(True)


@scenario
def grad_dtypes(d: Any) -> Any:
    values = [np.float16(2), np.float32(2), jnp.bfloat16(2), 2.0, np.float64(2), jnp.float32(2)]
    return [d.value_and_grad(lambda x: x * x)(v) for v in values]


@scenario
def grad_weak_and_strong(d: Any) -> Any:
    return (d.value_and_grad(lambda x: x * jnp.float64(2))(1.0), d.value_and_grad(lambda x: x * jnp.float32(2))(1.0),
            d.grad(lambda x, y: x * y, (0, 1))(np.float32(2), 3.0), d.grad(lambda x: 1.0)(2.0), d.grad(lambda x: 1.0)(VEC))


@scenario
def grad_size_zero(d: Any) -> Any:
    return d.grad(lambda x: x.sum())(np.zeros((0, 3))), d.grad(lambda x, y: x * y.sum(), (0, 1))(1.0, np.zeros(0))


@scenario
def grad_static_arguments(d: Any) -> Any:
    marker = object()
    return (d.grad(lambda x, s: x if s == "a" else 2 * x)(1.0, "b"),
            d.grad(lambda s, x, o: x**2 if o is marker and s is None else x, argnums=1)(None, 3.0, marker),
            d.grad(lambda f, x: f(x), argnums=1)(jnp.sin, 3.0))


@scenario
def grad_keyword_arguments(d: Any) -> Any:
    return d.grad(lambda x, *, y, mode: x * y if mode == "m" else x)(2.0, y=3.0, mode="m")


@scenario
def grad_keyword_is_traced(d: Any) -> Any:
    return d.grad(lambda y: d.grad(lambda x, y: x**2 * y**3)(2.0, y=y))(3.0)


@scenario
def grad_of_real_function_of_complex(d: Any) -> Any:
    return d.grad(lambda z: jnp.abs(z) ** 2)(1 + 2j), d.grad(lambda z: jnp.sum(jnp.cos(jnp.abs(z))))(0.5j * VEC + VEC)


@scenario
def grad_mixed_real_and_complex(d: Any) -> Any:
    return d.grad(lambda p: jnp.square(jnp.abs(p[0])) + p[1] * jnp.real(p[0]))((np.array(1.0 + 1j), np.array(2.0)))


@scenario
def grad_holomorphic(d: Any) -> Any:
    return d.grad(jnp.sin, holomorphic=True)(1 + 2j), d.value_and_grad(lambda z: (z**2).sum(), holomorphic=True)(VEC * 1j)


@scenario
def grad_one_sided_parts(d: Any) -> Any:
    def f(x: Any) -> Any:
        z = lax.complex(x, 2 * x)
        return jnp.real(z * z * jnp.conj(z)).sum()

    return d.grad(f)(VEC)


@scenario
def vjp_complex_convention(d: Any) -> Any:
    out, pull = d.vjp(lambda z: (z**2, jnp.conj(z), jnp.real(z), jnp.exp(1j * z)), 1 + 2j)
    return out, pull((1 + 1j, 2j, 3.0, 1.0 + 0j))


@scenario
def grad_of_a_key(d: Any) -> Any:
    def f(key: Any, x: Any) -> Any:
        return jax.random.uniform(key) * x

    return d.grad(f, argnums=1)(jax.random.key(0), 2.0), d.vjp(f, jax.random.key(0), 2.0)[1](1.0)


@scenario
def grad_of_registered_node(d: Any) -> Any:
    return [d.grad(lambda b: b.items[0] * 2 + b.items[1] ** 2)(Box([1.0, 2.0])).items]


@scenario
def grad_of_jax_array_protocol(d: Any) -> Any:
    class Holder:
        dtype = np.dtype(float)
        shape = (3,)

        def __jax_array__(self) -> Any:
            return jnp.asarray(VEC)

    return d.grad(lambda x: jnp.sin(jnp.asarray(Holder()) * x).sum())(2.0)


class Box:
    """A pytree node that refuses anything but numbers."""

    def __init__(self, items: list[Any]):
        assert all(hasattr(x, "dtype") or isinstance(x, float) for x in items), items
        self.items = items


jax.tree_util.register_pytree_node(Box, lambda b: (b.items, None), lambda _, items: Box(list(items)))


# --------------------------------------------------------------------------------------------------------- jacobians


@scenario
def jacobians_of_a_vector_function(d: Any) -> Any:
    def f(x: Any) -> Any:
        return jnp.tanh(MAT @ x)

    return d.jacfwd(f)(VEC), d.jacrev(f)(VEC), d.jacobian(f)(VEC)


@scenario
def jacobians_of_matrices(d: Any) -> Any:
    def f(a: Any) -> Any:
        return a.T @ a * a[0, 1]

    return d.jacfwd(f)(MAT), d.jacrev(f)(MAT)


@scenario
def jacobians_of_pytrees(d: Any) -> Any:
    return [(j(lambda x, y: (x, y))(0.0, 1.0), j(lambda x, y: (x, y), (0, 1))(0.0, 1.0), j(lambda x: x[:2])((1.0, 2.0, 3.0)),
             j(lambda x, y: {"x": x, "xy": jnp.outer(x, y)}, -1)(VEC[:2], VEC)) for j in (d.jacfwd, d.jacrev)]


@scenario
def jacobians_have_aux(d: Any) -> Any:
    return [j(lambda x: (x**3, {"sq": x**2}), has_aux=True)(VEC) for j in (d.jacfwd, d.jacrev, d.hessian)]


@scenario
def jacobians_of_mixed_dtypes(d: Any) -> Any:
    args = (np.ones(1, "float16"), np.full(1, 3, "float32"))
    return [j(lambda a: (a[0], a[1], a[0] + a[1]))(args) for j in (d.jacfwd, d.jacrev)]


@scenario
def jacobians_weak(d: Any) -> Any:
    return [j(jnp.sin)(1.0) for j in (d.jacfwd, d.jacrev, d.hessian)]


@scenario
def jacobians_holomorphic(d: Any) -> Any:
    return [j(lambda z: jnp.sin(z) * z[0], holomorphic=True)(VEC + 1j) for j in (d.jacfwd, d.jacrev, d.hessian)]


@scenario
def jacobian_real_to_complex(d: Any) -> Any:
    return d.jacfwd(lambda x: x * (1 + 2j))(VEC)


@scenario
def jacobian_of_complex_input_by_rows(d: Any) -> Any:
    return d.jacrev(lambda z: jnp.cos(jnp.sum(jnp.abs(2 * z))))(VEC + 1j)


@scenario
def jacobian_integer_output(d: Any) -> Any:
    return d.jacfwd(lambda x: jnp.floor(x).astype(int))(VEC)


@scenario
def jacobian_allow_int(d: Any) -> Any:
    return d.jacrev(lambda x: x * 1.5, allow_int=True)(jnp.arange(3))


@scenario
def jacobian_size_zero(d: Any) -> Any:
    return [j(lambda x: x)(np.zeros(0)) for j in (d.jacfwd, d.jacrev)]


@scenario
def jacobian_static_arguments(d: Any) -> Any:
    return [j(lambda x, s: x if s == "a" else 2 * x * x)(VEC, "b") for j in (d.jacfwd, d.jacrev, d.hessian)]


@scenario
def hessian_of_pytrees(d: Any) -> Any:
    return d.hessian(lambda p: jnp.sin(p["a"]) @ p["b"] * p["b"][0])({"a": VEC, "b": VEC * 2})


@scenario
def hessian_of_a_vector_function(d: Any) -> Any:
    return d.hessian(lambda x: jnp.stack([x[0] ** 2 * x[1], x[1] * x[2]]))(VEC)


@scenario
def hessian_argnums(d: Any) -> Any:
    return [d.hessian(lambda x, y: jnp.sin(x * y), argnums=a)(2.0, 3.0) for a in (1, (0, 1), -1)]


@scenario
def jacobians_of_jacobians(d: Any) -> Any:
    def f(x: Any, u: Any) -> Any:
        return jnp.dot(x, x) * jnp.dot(u, u)

    x, u = jnp.ones(3), jnp.full(2, 0.5)
    return [outer(inner(f, i), j)(x, u) for outer, inner in ((d.jacrev, d.jacfwd), (d.jacfwd, d.jacrev))
            for i in (0, 1) for j in (0, 1)]


@scenario
def jacobians_under_jit_and_vmap(d: Any) -> Any:
    def f(x: Any) -> Any:
        return jnp.sin(x) * x[0]

    xs = np.stack([VEC, VEC * 2])
    return [(jax.jit(j(f))(VEC), jax.vmap(j(f))(xs)) for j in (d.jacfwd, d.jacrev)]


#: Scenarios on Python scalars, whose derivatives must not widen what they are combined with.
WEAK = {"jvp_two_arguments", "vjp_returns_a_tuple", "linearize_is_a_function", "linear_transpose_scalar", "grad_scalar",
        "grad_argnums", "grad_dtypes", "grad_weak_and_strong", "jacobians_weak", "hessian_argnums"}


@functools.cache
def of_jax(name: str) -> Any:
    return scenarios[name](jax)


@pytest.mark.parametrize("face", FACES, ids=ENGINES)
@pytest.mark.parametrize("name", list(scenarios))
def test_as_jax(name: str, face: Face) -> None:
    assert_same(scenarios[name](face), of_jax(name), weak_types=name in WEAK)


# ---------------------------------------------------------------------------------------------------- what jax lacks


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_signature_is_that_of_jax(name: str) -> None:
    ours = inspect.signature(getattr(dualrev, name)).parameters
    theirs = inspect.signature(getattr(jax, name)).parameters
    extra = {"engine", "chunk_size", "cotangent_dtype"}
    skipped = {"saveable_args", "in_nzs"}  # vjp and linearize of the newest jax only; not promised
    shared = [p for p in theirs if p not in skipped]
    assert [p for p in ours if p not in extra] == shared
    for p in shared:
        assert ours[p].kind == theirs[p].kind, p
        assert ours[p].default == theirs[p].default, p
    assert ours["engine"].kind is inspect.Parameter.KEYWORD_ONLY or ours["engine"].default is not inspect.Parameter.empty


def test_transformed_functions_keep_their_names() -> None:
    def energy(x: Any) -> Any:
        """The energy."""
        return x**2

    for name in ("grad", "value_and_grad", "jacfwd", "jacrev", "hessian"):
        assert getattr(dualrev, name)(energy).__name__ == "energy"
        assert getattr(dualrev, name)(energy).__wrapped__ is not None
    assert "Gradient of energy" in (dualrev.grad(energy).__doc__ or "")


def test_functions_without_a_name() -> None:
    class Square:
        def __call__(self, x: Any) -> Any:
            return x**2

    assert dualrev.grad(Square())(3.0) == 6.0
    assert dualrev.grad(functools.partial(product, 2.0))(3.0) == jax.grad(functools.partial(product, 2.0))(3.0)
    assert "Square" in repr(dualrev.linearize(Square(), 3.0)[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_on_every_call(engine: Any) -> None:
    face = Face(engine)
    other = Face("reverse" if engine == "forward" else "forward")
    x = jnp.asarray(VEC)

    def f(x: Any) -> Any:
        return {"a": jnp.sin(x) * x[0], "b": jnp.exp(x).sum()}

    assert_same(face.vjp(f, x)[1]({"a": x, "b": 1.0}), other.vjp(f, x)[1]({"a": x, "b": 1.0}))
    assert_same(face.jvp(f, (x,), (x,)), other.jvp(f, (x,), (x,)))
    assert_same(face.linearize(f, x)[1](x), other.linearize(f, x)[1](x))


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3)])
def test_jacobian_chooses_an_engine(engine: Any, shape: tuple[int, int]) -> None:
    a = np.arange(6.0 if shape != (3, 3) else 9.0).reshape(shape)

    def f(x: Any) -> Any:
        return jnp.sin(jnp.asarray(a) @ x)

    x = np.linspace(0.1, 0.5, shape[1])
    assert_same(dualrev.jacobian(f, engine=engine)(x), jax.jacobian(f)(x))


def test_auto_takes_few_passes() -> None:
    calls = {"wide": 0, "tall": 0}

    @jax.custom_jvp
    def watched(x: Any) -> Any:
        return jnp.sin(x)

    @watched.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        calls["tall"] += 1
        return watched(primals[0]), jnp.cos(primals[0]) * tangents[0]

    wide = dualrev.jacobian(lambda x: watched(x).sum(), engine="auto")(jnp.ones(200))
    tall = dualrev.jacobian(lambda x: watched(x) * jnp.ones(200), engine="auto")(jnp.ones(()))
    assert wide.shape == (200,)
    assert tall.shape == (200,)
    assert calls["tall"] <= 4


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_chunks_do_not_change_jacobians(engine: Any, chunk_size: int) -> None:
    def f(x: Any, y: Any) -> Any:
        return {"a": jnp.outer(x, y["w"]), "b": jnp.sin(x).sum() * y["s"]}

    args = (VEC, {"w": VEC[:2], "s": 2.0})
    for name in ("jacfwd", "jacrev"):
        got = getattr(dualrev, name)(f, argnums=(0, 1), chunk_size=chunk_size, engine=engine)(*args)
        assert_same(got, getattr(jax, name)(f, argnums=(0, 1))(*args))
    got = jax.jit(dualrev.jacfwd(f, chunk_size=chunk_size, engine=engine))(*args)
    assert_same(got, jax.jacfwd(f)(*args))


@pytest.mark.parametrize("engine", ENGINES)
def test_hvp(engine: Any) -> None:
    def f(p: Any, y: Any) -> Any:
        return jnp.sin(p["a"] * y).sum() * p["b"]

    primals, tangents = ({"a": VEC, "b": 2.0}, 3.0), ({"a": VEC + 1, "b": -1.0}, 0.5)
    expected = jax.jvp(jax.grad(f, argnums=(0, 1)), primals, tangents)[1]
    got = dualrev.hvp(f, primals, tangents, engine=engine)
    assert_close(np.concatenate([np.ravel(x) for x in jax.tree.leaves(got)]),
                 np.concatenate([np.ravel(x) for x in jax.tree.leaves(expected)]))
    assert_same(got, expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_linearize_returns_a_linear_map(engine: Any) -> None:
    def f(x: Any) -> Any:
        return jnp.exp(jnp.asarray(MAT) @ jnp.sin(x))

    out, jac = dualrev.linearize(f, VEC, engine=engine)
    dense = jax.jacfwd(f)(VEC)
    assert_close(out, f(VEC))
    assert jac.shape == (2, 3)
    assert jac.T.shape == (3, 2)
    assert_close(jac(VEC), dense @ VEC)
    assert_close(jac @ VEC, dense @ VEC)
    assert_close(jac.T @ np.ones(2), dense.T @ np.ones(2))
    assert_close(jac.T.T @ VEC, dense @ VEC)
    assert jac.residual_bytes > 0
    text = repr(jac)
    assert "2" in text
    assert "3" in text
    leaves, tree = jax.tree.flatten(jac)
    assert_close(jax.tree.unflatten(tree, leaves) @ VEC, dense @ VEC)
    t = VEC + 1
    u = np.array([1.0, -2.0])
    assert_close(np.vdot(jac @ t, u), np.vdot(t, jac.T @ u))


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_maps_of_several_arguments(engine: Any) -> None:
    out, jac = dualrev.linearize(to_dict, VEC, VEC[:2], engine=engine)
    assert jac.shape == (3 * 2 + 2, 5)
    assert_same(jac @ (VEC, VEC[:2]), jac(VEC, VEC[:2]))
    u = {"a": np.ones((3, 2)), "b": [1.0, 2.0]}
    assert_same(jac.T @ u, jax.vjp(to_dict, VEC, VEC[:2])[1](u))
    assert jax.tree.map(jnp.shape, out) == jax.tree.map(jnp.shape, u)


def test_residuals_are_counted_once() -> None:
    x = jnp.ones(1000)
    _, jac = dualrev.linearize(lambda x: jnp.sin(x) + jnp.sin(x) * x, x)
    assert x.nbytes <= jac.residual_bytes <= 4 * x.nbytes
    _, linear = dualrev.linearize(lambda x: jnp.sum(x + x), x)
    assert linear.residual_bytes < 100


def test_linear_map_leaves_jit_and_returns() -> None:
    def f(x: Any) -> Any:
        return jnp.tanh(jnp.asarray(MAT) @ x)

    jac = jax.jit(lambda x: dualrev.linearize(f, x)[1])(VEC)
    dense = jax.jacfwd(f)(VEC)
    assert_close(jac @ VEC, dense @ VEC)
    assert_close(jac.T @ np.ones(2), dense.T @ np.ones(2))
    assert_close(jax.jit(lambda j, u: j.T @ u)(jac, np.ones(2)), dense.T @ np.ones(2))


def test_float0_gradients_have_the_shape_of_the_input() -> None:
    g = dualrev.grad(lambda x: (x * 1.0).sum(), allow_int=True)(np.ones((2, 4), int))
    assert g.dtype == float0
    assert g.shape == (2, 4)
    assert g.T.shape == (4, 2)


def test_a_derivative_of_jit_is_traced_once() -> None:
    traced: list[None] = []

    @jax.jit
    def f(x: Any) -> Any:
        traced.append(None)
        return jnp.sin(x) * x

    for engine in ENGINES:
        for x in (1.0, 2.0, 3.0):
            dualrev.grad(f, engine=engine)(x)
            dualrev.jvp(f, (x,), (1.0,), engine=engine)
    assert len(traced) == 1
    g = jax.jit(dualrev.grad(f))
    assert_close(g(1.0), jax.grad(f)(1.0))
    g(2.0)
    assert len(traced) == 1


def test_inner_jit_stays_a_jit() -> None:
    inner = jax.jit(lambda x: jnp.sin(x) * x)
    for engine in ENGINES:
        jaxpr = str(jax.make_jaxpr(dualrev.grad(lambda x: inner(x) ** 2, engine=engine))(1.0))
        assert "jit[" in jaxpr
        jaxpr = str(jax.make_jaxpr(lambda x, e=engine: dualrev.jvp(inner, (x,), (x,), engine=e))(1.0))
        assert "jit[" in jaxpr
