"""Scenarios that are calls of the functional face, made with jax and with dualrev and compared: gradients, Jacobians, Hessians."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from agreement import promoting
from jax import lax
from scenarios_products import MAT, VEC, Calls, Point, product

SCENARIOS = Calls()
scenario, weak = SCENARIOS.scenario, SCENARIOS.weak

# -------------------------------------------------------------------------------------------------------------- grad


@weak
def grad_scalar(d: Any) -> Any:
    return d.grad(jnp.sin)(2.0), d.value_and_grad(jnp.sin)(2.0)


@weak
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
@promoting()
def grad_allow_int(d: Any) -> Any:
    f = d.grad(lambda x, i, b: x[i] + 0.0 * b, argnums=(0, 1, 2), allow_int=True)
    return f(VEC, 1, True), jax.jit(f)(VEC, 1, True), d.grad(lambda x: jnp.sum(x + 0.0), allow_int=True)(np.ones((2, 4), int))


@scenario
def grad_of_bool_through_cond(d: Any) -> Any:
    return d.value_and_grad(lambda p: lax.cond(p, lambda _: 1.0, lambda _: 2.0, 1.0), allow_int=True)(True)


@weak
def grad_dtypes(d: Any) -> Any:
    values = [np.float16(2), np.float32(2), jnp.bfloat16(2), 2.0, np.float64(2), jnp.float32(2)]
    return [d.value_and_grad(lambda x: x * x)(v) for v in values]


@weak
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
@promoting()
def jacobians_of_mixed_dtypes(d: Any) -> Any:
    args = (np.ones(1, "float16"), np.full(1, 3, "float32"))
    return [j(lambda a: (a[0], a[1], a[0] + a[1]))(args) for j in (d.jacfwd, d.jacrev)]


@weak
def jacobians_weak(d: Any) -> Any:
    return [j(jnp.sin)(1.0) for j in (d.jacfwd, d.jacrev, d.hessian)]


@scenario
def jacobians_holomorphic(d: Any) -> Any:
    return [j(lambda z: jnp.sin(z) * z[0], holomorphic=True)(VEC + 1j) for j in (d.jacfwd, d.jacrev, d.hessian)]


@scenario
@promoting()
def jacobian_real_to_complex(d: Any) -> Any:
    return d.jacfwd(lambda x: x * (1 + 2j))(VEC)


@scenario
def jacobian_of_complex_input_by_rows(d: Any) -> Any:
    return d.jacrev(lambda z: jnp.cos(jnp.sum(jnp.abs(2 * z))))(VEC + 1j)


@scenario
def jacobian_integer_output(d: Any) -> Any:
    return d.jacfwd(lambda x: jnp.floor(x).astype(int))(VEC)


@scenario
@promoting()
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


@weak
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
