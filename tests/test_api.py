"""The functional face has jax's signatures, structures and types: each scenario runs with jax and with each engine."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scenarios_gradients
import scenarios_products
from agreement import ENGINES, FACES, TRANSFORMATIONS, Face, assert_close, assert_same
from scenarios_products import MAT, VEC, product, to_dict

import dualrev
from dualrev.problems.scenario import Scenarios

SCENARIOS = Scenarios(scenarios_products.SCENARIOS, scenarios_gradients.SCENARIOS)


def called(name: str, d: Any) -> Any:
    """What the calls of a scenario give, made with a library."""
    derivative = SCENARIOS[name].derivative
    assert derivative is not None
    return derivative(d)()


@functools.cache
def of_jax(name: str) -> Any:
    return called(name, jax)


BY_EACH = [pytest.param(face, id=engine, marks=pytest.mark.thorough if engine == "forward" else ())
           for face, engine in zip(FACES, ENGINES, strict=True)]


@pytest.mark.parametrize("face", BY_EACH)
@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_as_jax(name: str, face: Face) -> None:
    assert_same(called(name, face), of_jax(name), weak_types="weak types" in SCENARIOS[name].tags)


# ---------------------------------------------------------------------------------------------------- what jax lacks


#: Parameters that jax's functions do not have, in any release or in some.
OWN = {"engine", "chunk_size", "options", "schedule", "sparse", "pattern", "format", "check", "order"}
IN_SOME_RELEASES = {"saveable_args", "in_nzs", "concrete"}  # the first two came with 0.12, where the last was gone


@pytest.mark.parametrize("name", [*TRANSFORMATIONS, "checkpoint"])
def test_signature_is_that_of_jax(name: str) -> None:
    """Each parameter of this release of jax, with its kind and default; those that are passed by position in jax's order."""
    ours = inspect.signature(getattr(dualrev, name)).parameters
    theirs = inspect.signature(getattr(jax, name)).parameters
    assert set(ours) - OWN - IN_SOME_RELEASES <= set(theirs) <= set(ours)
    by_position = [p for p in theirs if theirs[p].kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [p for p in ours if ours[p].kind is not inspect.Parameter.KEYWORD_ONLY and p != "options"] == by_position
    for p in theirs:
        assert ours[p].kind == theirs[p].kind, p
        if not (name == "checkpoint" and p in ("fun", "concrete")):  # a decorator with arguments; an argument that jax 0.10 refuses
            assert ours[p].default == theirs[p].default, p
    if name != "checkpoint":
        assert ours["engine"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", [name for name in dir(jax.checkpoint_policies) if not name.startswith("_")])
def test_policies_are_those_of_jax(name: str) -> None:
    """The names, and the parameters, of this release."""
    ours = inspect.signature(getattr(dualrev.policies, name)).parameters
    theirs = inspect.signature(getattr(jax.checkpoint_policies, name)).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [(p.name, p.kind, p.default) for p in theirs.values()]


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


@pytest.mark.thorough
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


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ENGINES)
def test_jacobians_without_columns(engine: Any) -> None:
    """An input of size 0 has no direction, and a batch of none no first member."""

    def f(x: Any) -> Any:
        return jnp.linalg.svd(jnp.sin(x).sum() + jnp.asarray(MAT), full_matrices=False)[1]

    x = jnp.zeros((0, 2))
    for name in ("jacfwd", "jacrev"):
        assert_same(getattr(dualrev, name)(f, engine=engine)(x), getattr(jax, name)(f)(x))
    assert_same(jax.jit(lambda x, ct: dualrev.vjp(f, x, engine=engine)[1](ct))(x, f(x)), jax.vjp(f, x)[1](f(x)))


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
    g = dualrev.grad(lambda x: (x.astype(float) * 1.0).sum(), allow_int=True)(np.ones((2, 4), int))
    assert g.dtype == jax.dtypes.float0
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
