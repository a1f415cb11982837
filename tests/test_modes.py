"""Modes that are not in the package go through every construct: the two of papers/modes, and calls under any mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

import dualrev
from dualrev.modes import Mode, Row, evaluate
from papers.modes.counting import count
from papers.modes.uncertainty import Uncertainty, flight, propagate

A = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
X = jnp.array([0.3, -0.2, 0.5, 0.1])
C = jnp.asarray(np.diag([0.1, 0.2, 0.15, 0.05]) + 0.01)


@jax.custom_jvp
def by_push(x: Any) -> Any:
    return jnp.sin(x) * x


by_push.defjvp(lambda p, t: (by_push(*p), (jnp.cos(p[0]) * p[0] + jnp.sin(p[0])) * t[0]))


@jax.custom_vjp
def by_pull(x: Any) -> Any:
    return jnp.sin(x) * x


by_pull.defvjp(lambda x: (by_pull(x), x), lambda x, ct: ((jnp.cos(x) * x + jnp.sin(x)) * ct,))


@jax.custom_batching.custom_vmap
def with_rule_for_vmap(x: Any) -> Any:
    return jnp.exp(x) * x


@with_rule_for_vmap.def_vmap
def _(_size: int, in_batched: Any, x: Any) -> Any:
    return jnp.exp(x) * x, in_batched[0]


def solved(x: Any) -> Any:
    matrix = A @ A.T + jnp.diag(jnp.exp(x))
    return lax.custom_linear_solve(lambda v: matrix @ v, jnp.sin(x), lambda _, b: jnp.linalg.solve(matrix, b), symmetric=True)


def sharded(x: Any) -> Any:
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(lambda y: jnp.sin(y) * y.sum(), mesh=mesh, in_specs=PartitionSpec("i"), out_specs=PartitionSpec("i"))(x)


def region(x: Any) -> Any:
    return dualrev.region("forward")(lambda y: jnp.sin(y) * y[::-1])(x)


CONSTRUCTS: dict[str, Callable[[Any], Any]] = {
    "operations": lambda x: jnp.tanh(A @ x) ** 3 / (2 + x[::-1] ** 2),
    "jit": lambda x: jax.jit(lambda y: jnp.sin(y) * y[::-1])(x),
    "numbers in a program": lambda x: jax.jit(lambda y: lax.rem(y * y, 0.7) + lax.pow(1 + y**2, 1.5) * lax.atan2(y, 2.0))(x),
    "scan": lambda x: lax.scan(lambda c, a: (jnp.tanh(A @ c + a), c * a), x, jnp.outer(jnp.arange(1.0, 4.0), x))[1],
    "scan, carries that start constant": lambda x: lax.scan(lambda c, a: (c * jnp.cos(a) + a, c), jnp.ones(()), x, reverse=True),
    "while": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(A @ c[1])), (0, x))[1],
    "cond": lambda x: lax.cond(x[0] > 0, lambda y: (y**3, y[0]), lambda y: (jnp.exp(y), jnp.zeros(())), x),
    "checkpoint": lambda x: jax.checkpoint(lambda y: jnp.sin(y) * jnp.exp(y))(x),
    "custom_jvp": lambda x: by_push(x) * x[0],
    "custom_vjp": lambda x: by_pull(x) * x[0],
    "custom_vmap": lambda x: with_rule_for_vmap(x) * x[0],
    "solve": lambda x: jnp.linalg.solve(A + jnp.diag(x), x),
    "custom_linear_solve": solved,
    "cholesky": lambda x: jnp.linalg.cholesky(A @ A.T + jnp.diag(x**2 + 1)),
    "eigh": lambda x: jnp.linalg.eigh(A + A.T + jnp.diag(x))[0],
    "associative_scan": lambda x: lax.associative_scan(lambda a, b: a * b, x),
    "a reduction by the user's operation": lambda x: lax.reduce(x, np.float64(1), lambda a, b: a * b, (0,)),
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)) ** 2,
    "region": region,
    "shard_map": sharded,
}


def second_order(f: Callable[[Any], Any]) -> tuple[jax.Array, jax.Array]:
    """``(½ tr(C ∇²f), J C Jᵀ)`` by jax."""
    def flat(x: Any) -> Any:
        return jnp.concatenate([jnp.ravel(y) for y in jax.tree.leaves(f(x))])

    jacobian, hessian = jax.jacfwd(flat)(X), jax.jacfwd(jax.jacfwd(flat))(X)
    return jnp.einsum("ijk,jk->i", hessian, C) / 2, jacobian @ C @ jacobian.T


#: Constructs with a rule of their own for parts, which are tried un-jitted in the short suite too.
SHORT = ("scan", "while", "cond", "custom_jvp")


@pytest.mark.parametrize(("name", "wrap"), [
    pytest.param(name, wrap, marks=pytest.mark.thorough if how == "eager" and name not in SHORT else (), id=f"{name}-{how}")
    for name in CONSTRUCTS for how, wrap in (("eager", lambda f: f), ("jit", jax.jit))])
def test_uncertainty_goes_through(name: str, wrap: Any) -> None:
    f = CONSTRUCTS[name]
    if name == "custom_vjp":
        shift, covariance = second_order(lambda x: jnp.sin(x) * x * x[0])  # jax pushes through no custom_vjp
    else:
        shift, covariance = second_order(f)
    directions = jnp.linalg.cholesky(C).T
    out, parts = wrap(lambda x, s: evaluate(Uncertainty(4), f, (x,), ((s, jnp.zeros_like(x)),)))(X, directions)
    tree: Any
    outs, tree = jax.tree.flatten(out)
    found = tree.flatten_up_to(parts)
    moved = jnp.concatenate([s.reshape(4, -1) for s, _ in found], 1)
    np.testing.assert_allclose(jnp.concatenate([jnp.ravel(b) for _, b in found]), shift, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(moved.T @ moved, covariance, rtol=1e-9, atol=1e-11)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), out, f(X))
    assert len(outs) == len(found)


def test_uncertainty_agrees_with_samples() -> None:
    launch, covariance = jnp.array([12.0, 0.9]), jnp.diag(jnp.array([0.6, 0.05])) ** 2
    mean, spread = propagate(flight, launch, covariance)
    flights = jax.vmap(flight)(jax.random.multivariate_normal(jax.random.key(0), launch, covariance, (200_000,)))
    error = flights.std(0) / 200_000**0.5
    assert np.all(np.abs(flights.mean(0) - mean) < 4 * error)
    assert np.all(np.abs(flight(launch) - mean) > 10 * error), "the shift of the mean is what this tells from the value at the mean"
    np.testing.assert_allclose(np.cov(flights.T), spread, rtol=0.02, atol=2e-3)


def network(weights: Any, x: Any) -> Any:
    for w in weights:
        x = jnp.tanh(x @ w)
    return x.sum()


def test_counts_are_those_of_the_compiler() -> None:
    weights, x = [jnp.ones((64, 64))] * 3, jnp.ones((16, 64))
    counts = count(network, weights, x)

    def pull(weights: Any, x: Any) -> Any:
        out, back = jax.vjp(network, weights, x)
        return out, back(out)

    for name, fun in (("value", network), ("pull", pull)):
        cost = jax.jit(fun).lower(weights, x).compile().cost_analysis() or {}
        assert cost["flops"] == pytest.approx(counts[name].flops, rel=0.05)
    assert counts["push"].flops == pytest.approx(3 * counts["value"].flops, rel=0.05)
    assert 4 <= counts["value"].kernels <= 8 < counts["pull"].kernels


def test_a_loop_counts_as_often_as_it_runs() -> None:
    one = count(lambda x: jnp.tanh(A @ x), X)["value"]
    ten = count(lambda x: lax.scan(lambda c, _: (jnp.tanh(A @ c), None), x, length=10)[0], X)["value"]
    assert (ten.flops, ten.kernels) == (10 * one.flops, 10 * one.kernels)


class Pushes(Mode):
    """The forward engine once more, by what is public."""

    name = "pushes"

    def row(self, row: Row, primals: Any, parts: Any, params: Any) -> Any:
        return row.bind(primals, params), row.first(primals, parts, params)

    def zero(self, aval: Any) -> Any:
        return jnp.zeros(aval.shape, aval.dtype)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.thorough) for name in CONSTRUCTS])
def test_a_mode_of_tangents_is_the_forward_engine(name: str) -> None:
    out, tangent = evaluate(Pushes(), CONSTRUCTS[name], (X,), (X + 1,))
    expected = dualrev.jvp(CONSTRUCTS[name], (X,), (X + 1,))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14), (out, tangent), expected)


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="parts must have the structure of the arguments"):
        evaluate(Pushes(), lambda x: x, (X,), ((X, X), X))
    with pytest.raises(TypeError, match="callable"):
        evaluate(Pushes(), 3, (X,), (X,))  # type: ignore[arg-type]
    out, parts = evaluate(Pushes(), lambda x, y: {"a": x, "b": y}, (X, 2.0), (X, None))
    assert parts["b"] is None and out["b"] == 2.0
