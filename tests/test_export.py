"""Derivatives of programs with lengths that are symbols, as ``jax.export`` keeps them for later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close, assert_same
from jax import export, lax

import dualrev as dr

Function = Callable[[Any], Any]

FUNCTIONS: dict[str, Function] = {
    "layers": lambda x: jnp.mean(jax.nn.log_softmax(jnp.tanh(x @ jnp.ones((3, 4))) + x[:, :1]) ** 2),
    "contractions": lambda x: jnp.sum(jnp.einsum("kji,nj->kin", jnp.ones((5, 3, 4)), x) ** 2) + jnp.sum(jax.nn.softmax(x @ x.T) @ x),
    "order": lambda x: jnp.sum(jnp.sort(x, 0) * x) + jnp.sum(jnp.max(x, 0)),
    "moves": lambda x: jnp.sum(jnp.concatenate([x[::-1], 2 * x]).at[0].multiply(3.0) ** 2) + jnp.sum(jnp.pad(x, 1).reshape(-1) ** 3),
    "scan": lambda x: jnp.sum(lax.scan(lambda c, y: (jnp.sin(c + y), c * y), jnp.ones(3), x)[1]),
    "loop": lambda x: jnp.sum(lax.while_loop(lambda c: jnp.sum(c) < 50.0, lambda c: c * (1 + x**2), 1 + x**2)),
    "checkpoint": lambda x: jnp.sum(dr.checkpoint(lambda x: jnp.sin(jnp.sin(x)), policy="auto")(x)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", FUNCTIONS)
def test_symbolic_length(name: str) -> None:
    f = FUNCTIONS[name]
    (n,) = export.symbolic_shape("n")

    def derivatives(x: Any) -> list[Any]:
        return [dr.grad(f)(x), dr.jvp(f, (x,), (x,))[1], dr.jvp(dr.grad(f), (x,), (x,))[1]]

    exported = export.export(jax.jit(derivatives))(jax.ShapeDtypeStruct((n, 3), "float64"))
    x = np.random.default_rng(0).standard_normal((4, 3))
    for got, expected in zip(exported.call(x), derivatives(x), strict=True):
        assert_close(got, expected)


def scalar(x: Any) -> Any:
    return jnp.sum(jnp.sin(x) ** 2) * jnp.sum(x)


def vector(x: Any) -> Any:
    return jnp.concatenate([jnp.sin(x) * jnp.sum(x**2), x])


def tree(p: Any) -> Any:
    return {"a": jnp.outer(p["x"], p["y"]), "b": jnp.sum(p["x"] ** 2) * p["y"]}


def holomorphic(z: Any) -> Any:
    return z**2 * jnp.sum(z)


N, M = export.symbolic_shape("n, m")
VECTOR = jax.ShapeDtypeStruct((N,), "float64")
COMPLEX = jax.ShapeDtypeStruct((N,), "complex128")
TREE = {"x": VECTOR, "y": jax.ShapeDtypeStruct((M,), "float64")}


def example(spec: Any, sizes: dict[str, int]) -> Any:
    """Random arrays for a tree of types, with these numbers for the symbols."""
    random = np.random.default_rng(0)

    def array(s: Any) -> Any:
        x = random.uniform(0.3, 1.7, [sizes.get(str(d), d) for d in s.shape])
        return (x * (1 + 0.5j) if s.dtype.kind == "c" else x).astype(s.dtype)

    return jax.tree.map(array, spec)


#: Functions of dualrev or jax, and of which engine and chunk, with the types of the arguments.
DERIVATIVES: dict[str, tuple[Callable[[Any, dict[str, Any]], Any], tuple[Any, ...]]] = {
    "jacfwd": (lambda d, o: d.jacfwd(vector, **o), (VECTOR,)),
    "jacrev": (lambda d, o: d.jacrev(vector, **o), (VECTOR,)),
    "jacobian": (lambda d, o: d.jacobian(vector, **o), (VECTOR,)),
    "hessian": (lambda d, o: d.hessian(scalar, **o), (VECTOR,)),
    "tree": (lambda d, o: d.jacobian(tree, **o), (TREE,)),
    "argnums": (lambda d, o: d.jacrev(jnp.outer, argnums=(0, 1), **o), (VECTOR, TREE["y"])),
    "holomorphic": (lambda d, o: d.jacfwd(holomorphic, holomorphic=True, **o), (COMPLEX,)),
    "vmap": (lambda d, o: jax.vmap(d.jacfwd(vector, **o)), (jax.ShapeDtypeStruct((M, N), "float64"),)),
    "aux": (lambda d, o: d.jacrev(lambda x: (vector(x), x), has_aux=True, **o), (VECTOR,)),
    "integers": (lambda d, o: d.jacfwd(lambda x: (x**2, jnp.argsort(x)), **o), (VECTOR,)),
    "scan": (lambda d, o: d.hessian(lambda x: lax.scan(lambda c, y: (jnp.sin(c + y), y), jnp.ones(()), x)[0], **o), (VECTOR,)),
}


@pytest.mark.parametrize("options", [{"engine": "forward"}, {"engine": "reverse", "chunk_size": 2}], ids=["forward", "chunks"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_matrices_of_symbolic_size(name: str, options: dict[str, Any]) -> None:
    """A basis of which only the call tells the size; chunks need not divide it."""
    make, specs = DERIVATIVES[name]
    exported = export.export(jax.jit(make(dr, options)))(*specs)
    for sizes in [{"n": 5, "m": 3}, {"n": 2, "m": 4}][: 2 if name in ("tree", "jacfwd") else 1]:
        args = example(specs, sizes)
        expected = jax.jit(make(jax, {}))(*args)
        got = exported.call(*args)
        assert_same(got, expected)


#: With one engine each, as the rest is theirs in common: what is computed by dualrev, by jax, and from what.
PRODUCTS: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "grad, forward": (dr.grad(scalar, engine="forward"), jax.grad(scalar), (VECTOR,)),
    "value_and_grad": (dr.value_and_grad(scalar), jax.value_and_grad(scalar), (VECTOR,)),
    "hvp": (lambda x, t: dr.hvp(scalar, (x,), (t,)), lambda x, t: jax.jvp(jax.grad(scalar), (x,), (t,))[1], (VECTOR, VECTOR)),
    "vjp, forward": (lambda x, u: dr.vjp(holomorphic, x, engine="forward")[1](u), lambda x, u: jax.vjp(holomorphic, x)[1](u),
                     (COMPLEX, COMPLEX)),
    "linearize": (lambda x, t: dr.linearize(vector, x)[1](t), lambda x, t: jax.jvp(vector, (x,), (t,))[1], (VECTOR, VECTOR)),
    "algebra": (lambda x: (lambda J: (3 * J.T @ J).dense())(dr.linearize(vector, x)[1]),
                lambda x: 3 * jax.jacfwd(vector)(x).T @ jax.jacfwd(vector)(x), (VECTOR,)),
    "linear_transpose": (lambda x, u: dr.linear_transpose(lambda y: y * jnp.sum(x), x, engine="forward")(u)[0],
                         lambda x, u: jnp.sum(x) * u, (VECTOR, VECTOR)),
    "auto, which n and m do not settle": (dr.jacobian(lambda x, w: w * jnp.sum(x**2)), jax.jacobian(lambda x, w: w * jnp.sum(x**2)),
                                          (VECTOR, TREE["y"])),
    "region": (dr.grad(lambda x: jnp.sum(dr.region("forward")(vector)(x))), jax.grad(lambda x: jnp.sum(vector(x))), (VECTOR,)),
    "region of complex": (dr.jacrev(dr.region("forward")(holomorphic), holomorphic=True), jax.jacrev(holomorphic, holomorphic=True),
                          (COMPLEX,)),
    "implicit": (dr.grad(lambda a: jnp.sum(dr.implicit(jnp.sqrt, lambda s, a: s**2 - a)(a))), lambda a: 0.5 / jnp.sqrt(a), (VECTOR,)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_symbolic_size(name: str) -> None:
    ours, theirs, specs = PRODUCTS[name]
    exported = export.export(jax.jit(ours))(*specs)
    args = example(specs, {"n": 4, "m": 5})
    for x, y in zip(jax.tree.leaves(exported.call(*args)), jax.tree.leaves(jax.jit(theirs)(*args)), strict=True):
        assert_close(x, y)


def test_a_derivative_is_stored_and_read() -> None:
    pytest.importorskip("flatbuffers", reason="jax.export writes files by flatbuffers, which jax does not install")
    stored = export.export(jax.jit(dr.hessian(scalar, chunk_size=2)))(VECTOR).serialize()
    x = np.linspace(0.1, 1.0, 5)
    assert_close(export.deserialize(stored).call(x), jax.hessian(scalar)(x))


def test_what_needs_a_number_says_so() -> None:
    (n,) = export.symbolic_shape("n")
    gradient = jax.jit(dr.grad(FUNCTIONS["scan"], schedule="sqrt"))
    with pytest.raises(ValueError, match=r"schedule.*needs the number of steps.*n"):
        export.export(gradient)(jax.ShapeDtypeStruct((n, 3), "float64"))
