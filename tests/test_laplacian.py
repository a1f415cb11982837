"""Laplacians, weighted Laplacians, diagonals of Hessians and biharmonic operators, against Hessians by jax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_modes import CONSTRUCTS, SHORT, X

import dualrev
from dualrev import errors
from dualrev.programs.partition import eqns_within
from dualrev.table.rows import Row, rows

RNG = np.random.default_rng(0)
W1, W2 = (jnp.asarray(RNG.normal(size=(4, 4))) / 2 for _ in range(2))


def network(x: Any, weights: Any = (W1, W2)) -> Any:
    for w in weights:
        x = jnp.tanh(x @ w)
    return jnp.sum(x**2)


def flat(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jnp.concatenate([jnp.ravel(y) for y in jax.tree.leaves(f(x))])


def hessians(f: Callable[[Any], Any], x: Any) -> Any:
    return jax.jacfwd(jax.jacfwd(f))(x)


def same(got: Any, expected: Any, rtol: float = 1e-9) -> None:
    tree: Any = jax.tree.structure(got)
    assert tree == jax.tree.structure(expected)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-11), got, expected)
    assert [jnp.shape(x) for x in jax.tree.leaves(got)] == [jnp.shape(x) for x in jax.tree.leaves(expected)]


@pytest.mark.parametrize(("name", "wrap"), [
    pytest.param(name, wrap, marks=pytest.mark.thorough if how == "eager" or name not in SHORT else (), id=f"{name}-{how}")
    for name in CONSTRUCTS for how, wrap in (("eager", lambda f: f), ("jit", jax.jit))])
def test_constructs(name: str, wrap: Any) -> None:
    f = flat(CONSTRUCTS[name])
    second = hessians(flat(lambda x: jnp.sin(x) * x * x[0]) if name == "custom_vjp" else f, X)  # jax pushes through no custom_vjp
    value, found = wrap(dualrev.laplacian(f))(X)
    same(value, f(X))
    same(found, jnp.trace(second, axis1=-1, axis2=-2))
    same(wrap(dualrev.hessian_diagonal(f))(X)[1], jnp.diagonal(second, axis1=-1, axis2=-2))


#: Positions of particles, and functions with the structure of networks that are applied to each of them.
PARTICLES = jnp.asarray(RNG.normal(size=(3, 2)))
V1, V2 = (jnp.asarray(RNG.normal(size=shape)) for shape in ((2, 4), (4, 3)))


def each(x: Any) -> Any:
    return jnp.tanh(jax.nn.silu(x @ V1) @ V2)


def pairs(x: Any) -> Any:
    difference = x[:, None] - x[None]
    distance = jnp.sqrt(jnp.sum(difference**2, -1) + 0.1)
    both = jnp.concatenate([jnp.tanh(difference @ V1), distance[..., None]], -1).mean(1)
    return jnp.sum(jnp.concatenate([both, each(x)], -1) ** 3)


def attention(x: Any) -> Any:
    h = x @ V1
    return jnp.sum((jax.nn.softmax(h @ jnp.sin(h).T) @ h) ** 2)


STRUCTURED: dict[str, Callable[[Any], Any]] = {
    "each": lambda x: jnp.sum(each(x)), "pairs": pairs, "attention": attention,
    "of a vector": lambda x: pairs(x.reshape(-1, 2)), "scores": lambda x: (x @ x.T) ** 2, "determinant": lambda x: jnp.linalg.det(
        jnp.concatenate([each(x)[:, :2], jnp.ones((3, 1))], 1)),
    "axes": lambda x: jnp.stack([jnp.sum(each(x).T.reshape(9) ** 2), jnp.prod(jnp.cumsum(jnp.sin(x), 1)[:, -1] * x[::-1, 0]),
                                 jnp.sum(jnp.pad(x, ((1, 0), (0, 1))) ** 3), jnp.sum(jnp.where(x > 0, x**2, x)),
                                 jnp.sum(x[jnp.array([0, 2])] ** 3), jnp.sum(x[:, jnp.array([1, 1])] ** 3 * x)]),
    "a loop": lambda x: jnp.sum(lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ V2 @ V2.T), each(x) @ V2.T)),
    "no structure": lambda x: jnp.sum(jnp.sort(x**2, 0) * x), "two dtypes": lambda x: jnp.sum(x.astype("complex128") ** 3),
    "split": lambda x: jnp.prod(jnp.stack([jnp.sum(part**2) for part in jnp.split(jnp.sin(x), 3)])),
    "products": lambda x: jnp.einsum("ij,kj,ik->", x, jnp.sin(x), x @ x.T),
}


@pytest.mark.parametrize(("name", "wrap"), [
    pytest.param(name, wrap, id=f"{name}-{how}",
                 marks=() if how == "jit" and name in ("pairs", "attention") else pytest.mark.thorough)
    for name in STRUCTURED for how, wrap in (("eager", lambda f: f), ("jit", jax.jit))])
def test_structure(name: str, wrap: Any) -> None:
    f, x = STRUCTURED[name], PARTICLES.ravel() if name == "of a vector" else PARTICLES
    value, found = wrap(dualrev.laplacian(f))(x)
    same(value, f(x))
    second = hessians(f, x)
    same(found, jnp.trace(second.reshape(*jnp.shape(value), x.size, x.size), axis1=-1, axis2=-2), 1e-8)


def products(f: Any, x: Any) -> int:
    """The multiplications of the contractions of a Laplacian."""
    total = 0
    eqn: Any
    for eqn in eqns_within(jax.make_jaxpr(dualrev.laplacian(f))(x)):
        if str(eqn.primitive) == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            total += math.prod((*eqn.outvars[0].aval.shape, *[eqn.invars[0].aval.shape[a] for a in contract]))
    return total


def test_the_cost_is_linear_in_the_number_of_particles_and_of_pairs() -> None:
    few, many = (products(STRUCTURED["each"], jnp.ones((n, 2))) for n in (5, 50))
    assert many == 10 * few
    few, many = (products(lambda x: jnp.sum(each(x[:, None] - x[None])), jnp.ones((n, 2))) for n in (5, 20))
    assert many == 16 * few


@pytest.mark.thorough
def test_several_inputs_with_structure() -> None:
    def f(x: Any, y: Any, z: Any) -> Any:
        return jnp.sum(each(x) * jnp.sin(each(y))) + jnp.sum(each(x) @ each(y).T * z) ** 2 + jnp.sum(x[0] * y[1]) * z

    y, z = PARTICLES + 0.5, jnp.array(0.3)
    found = dualrev.laplacian(f, argnums=(0, 1, 2))(PARTICLES, y, z)[1]

    def packed(v: Any) -> Any:
        return f(v[:6].reshape(3, 2), v[6:12].reshape(3, 2), v[12])

    same(found, jnp.trace(hessians(packed, jnp.concatenate([PARTICLES.ravel(), y.ravel(), z[None]]))))


def test_all_inputs_of_trees() -> None:
    def f(x: Any, n: Any, y: Any) -> Any:
        return {"a": jnp.sin(x["u"]) @ x["v"] * y, "b": (x["v"] ** n, jnp.int32(3))}

    x, y = {"u": X[:2], "v": X[2:]}, jnp.array(0.7)

    def packed(z: Any) -> Any:
        return f({"u": z[:2], "v": z[2:4]}, 3, z[4])

    second = jax.tree.map(lambda h: jnp.trace(h, axis1=-1, axis2=-2),
                          hessians(lambda z: (packed(z)["a"], packed(z)["b"][0]), jnp.append(X, y)))
    value, found = dualrev.laplacian(f, argnums=(0, 2))(x, 3, y)
    same(value, f(x, 3, y))
    same((found["a"], found["b"][0]), second)
    assert found["b"][1] == 0
    diagonal = dualrev.hessian_diagonal(f, argnums=(0, 2))(x, 3, y)[1]["b"][0]
    same(diagonal[0]["v"], jnp.diag(6 * x["v"]))
    same(diagonal[1], jnp.zeros(2))


@pytest.mark.parametrize(("chunk_size", "wrap"), [
    pytest.param(n, wrap, id=f"{how}-{n}", marks=() if n == 3 and how == "jit" else pytest.mark.thorough)
    for n in (1, 2, 3, 9) for how, wrap in (("eager", lambda f: f), ("jit", jax.jit))])
def test_chunks(chunk_size: int, wrap: Any) -> None:
    f = lambda x: (network(x), x**3)  # noqa: E731
    same(wrap(dualrev.laplacian(f, chunk_size=chunk_size))(X), dualrev.laplacian(f)(X))
    same(wrap(dualrev.hessian_diagonal(f, chunk_size=chunk_size))(X), dualrev.hessian_diagonal(f)(X))
    weights = jnp.asarray(np.diag([1.0, -2.0, 3.0, 0.0]))
    same(wrap(dualrev.weighted_laplacian(f, weights, chunk_size=chunk_size))(X), dualrev.weighted_laplacian(f, weights)(X))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind == "not symmetric" else pytest.mark.thorough) for kind in (
    "definite", "indefinite", "not symmetric", "rank one", "a diagonal", "zero", "integers")])
def test_weights(kind: str) -> None:
    matrix = RNG.normal(size=(4, 4))
    weights = {"definite": matrix @ matrix.T, "indefinite": matrix + matrix.T, "not symmetric": matrix,
               "rank one": np.outer(matrix[0], matrix[0]), "a diagonal": matrix[0], "zero": np.zeros((4, 4)),
               "integers": np.arange(16).reshape(4, 4)}[kind]
    expected = jnp.sum(hessians(network, X) * (np.diag(weights) if weights.ndim == 1 else weights).astype("float64"))
    same(dualrev.weighted_laplacian(network, weights)(X)[1], expected)
    same(jax.jit(lambda w, x: dualrev.weighted_laplacian(network, w)(x)[1])(weights, X), expected)
    same(dualrev.weighted_laplacian(network, lambda x: weights * 2)(X)[1], 2 * expected)


@pytest.mark.thorough
def test_weights_are_differentiated() -> None:
    found = dualrev.grad(lambda w: dualrev.weighted_laplacian(network, w)(X)[1])(jnp.eye(4))
    same(found, hessians(network, X))


@pytest.mark.thorough
def test_biharmonic() -> None:
    f = lambda x: (jnp.sum(x**2) ** 3, network(x))  # noqa: E731
    expected = jax.tree.map(lambda h: jnp.einsum("iijj", h), hessians(lambda x: hessians(f, x), X))
    same(jax.jit(dualrev.biharmonic(f))(X), (f(X), expected))
    same(jax.jit(dualrev.biharmonic(f, chunk_size=3))(X), (f(X), expected))


@pytest.mark.thorough
def test_complex_outputs() -> None:
    def wave(x: Any) -> Any:
        z = lax.complex(jnp.sum(x**2), x[0])
        return jnp.exp(1j * z) * lax.complex(jnp.abs(z), z.real), jnp.conj(z) ** 2

    same(dualrev.laplacian(wave)(X)[1], jax.tree.map(jnp.trace, hessians(wave, X)))


@pytest.mark.parametrize("d", [pytest.param(jax, id="jax.grad", marks=pytest.mark.thorough), pytest.param(dualrev, id="dualrev.grad")])
def test_training(d: Any) -> None:
    def loss(weights: Any, laplacian: Any) -> Any:
        value, found = jax.vmap(laplacian(lambda x: network(x, weights)))(jnp.stack([X, X + 1]))
        return jnp.sum((found + value) ** 2)

    def by_jax(f: Any) -> Any:
        return lambda x: (f(x), jnp.trace(jax.hessian(f)(x)))

    weights = (W1, W2)
    found = jax.jit(lambda w: d.grad(lambda w: loss(w, dualrev.laplacian))(w))(weights)
    same(found, jax.grad(lambda w: loss(w, by_jax))(weights), 1e-8)


def test_aux_and_nothing() -> None:
    (value, aux), found = dualrev.laplacian(lambda x: (network(x), {"n": x.size}), has_aux=True)(X)
    assert aux == {"n": 4}
    same((value, found), dualrev.laplacian(network)(X))
    same(dualrev.laplacian(lambda x: jnp.sum(x) + 1)(jnp.zeros(0)), (jnp.ones(()), jnp.zeros(())))
    same(dualrev.laplacian(lambda x: jnp.ones(3))(X)[1], jnp.zeros(3))


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_low_precision(dtype: str) -> None:
    value, found = dualrev.laplacian(lambda x: jnp.sum(jnp.tanh(x) * x))(X.astype(dtype))
    assert value.dtype == found.dtype == dtype
    expected = jnp.trace(hessians(lambda x: jnp.sum(jnp.tanh(x) * x), X))
    np.testing.assert_allclose(found.astype("float64"), expected, rtol={"bfloat16": 0.05, "float16": 5e-3, "float32": 1e-5}[dtype])


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"laplacian requires real floating-point inputs, but got int32.*argnums"):
        dualrev.laplacian(network)(jnp.arange(4, dtype="int32"))
    with pytest.raises(TypeError, match="real floating-point inputs, but got complex128"):
        dualrev.hessian_diagonal(network)(X.astype("complex128"))
    with pytest.raises(TypeError, match=r"needs arrays as outputs"):
        dualrev.laplacian(lambda x: "text")(X)
    with pytest.raises(TypeError, match="Expected a callable"):
        dualrev.laplacian(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk_size must be a positive int"):
        dualrev.laplacian(network, chunk_size=0)
    with pytest.raises(ValueError, match=r"weights must have shape \(4, 4\), or \(4,\).*got shape \(3, 3\)"):
        dualrev.weighted_laplacian(network, np.eye(3))(X)
    with pytest.raises(ValueError, match="weights must be finite; got NaN or infinity in 4 of 16"):
        dualrev.weighted_laplacian(network, np.diag([np.nan, np.inf, np.nan, -np.inf]))(X)
    with pytest.raises(TypeError, match="weights must be an array, or a function that returns one; got 'w' of type str"):
        dualrev.weighted_laplacian(network, lambda x: "w")(X)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="biharmonic requires real floating-point inputs, but got int32"):
        dualrev.biharmonic(network)(jnp.arange(4, dtype="int32"))
    with pytest.raises(TypeError, match="weights must be real numbers; got dtype complex128"):
        dualrev.weighted_laplacian(network, 1j * np.eye(4))(X)
    with pytest.raises(errors.NoDerivativeError, match="pure_callback"):
        dualrev.laplacian(lambda x: jax.pure_callback(np.sin, x, x))(X)


def mixed(a: Any, b: Any) -> Any:
    return a + b + a * b / 2


@pytest.mark.parametrize(("name", "f"), [
    ("reduce", lambda x: lax.reduce(jnp.sin(x**2), np.float64(0), mixed, (1,)).sum()),
    ("reduce pairs", lambda x: sum(y.sum() for y in lax.reduce(
        (jnp.sin(x), x**2), (np.float64(0), np.float64(1)), lambda a, b: (a[0] * b[1] + b[0], a[1] * b[1]), (1,)))),
    ("windows", lambda x: lax.reduce_window(jnp.tanh(x) ** 2, np.float64(0), mixed, (1, 2), (1, 1), "SAME").sum()),
    ("applied in place", lambda x: jnp.sin(x).at[np.array([0, 1, 1])].apply(lambda y: jnp.sin(y) * y).sum()),
])
def test_operations_of_the_user(name: str, f: Callable[[Any], Any]) -> None:
    """Chains of operations entry by entry lead to them, whose parts the engine multiplies late."""
    for g in (f, jax.jit(f)):
        same(dualrev.laplacian(g)(PARTICLES)[1], jnp.sum(jnp.diag(dualrev.hessian(f)(PARTICLES).reshape(6, 6))))


def test_rows_that_run_programs_say_which_parts_they_take() -> None:
    given = [row for row in rows.values() if type(row).through is not Row.through and row.takes_parts == "any"]
    assert {type(row).__name__ for row in given} <= {"DefinedRow", "PushforwardRow", "HighRow"}, given
