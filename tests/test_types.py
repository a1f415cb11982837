"""What a type checker knows of derivatives: mypy reads this file, and each line that it must refuse carries what it ignores.

An ``ignore`` that is not needed is an error of mypy's own here, so a signature that lets a wrong call pass is found.
"""

from __future__ import annotations

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import pytest

import dualrev as dr
from dualrev.functional.linearized import Linearized, Transposed
from dualrev.functional.operators import Operator
from dualrev.functional.results import LinearTranspose, Pullback
from dualrev.linear.maps import LinearMap, Tangent, Tangents

X = jnp.array([1.0, 2.0])


def energy(x: jax.Array, scale: float = 1.0) -> jax.Array:
    return scale * jnp.sum(x**3)


def energy_and_size(x: jax.Array) -> tuple[jax.Array, str]:
    return jnp.sum(x**3), f"{x.size} numbers"


def test_a_derivative_has_the_parameters_of_its_function() -> None:
    gradient, hessian = dr.grad(energy), dr.hessian(energy)
    assert gradient(X).tolist() == gradient(X, scale=1.0).tolist() == [3.0, 12.0]
    assert hessian(X, 2.0).shape == (2, 2)
    for transform in (dr.grad, dr.value_and_grad, dr.jacfwd, dr.jacrev, dr.jacobian, dr.hessian):
        with pytest.raises(TypeError):
            transform(energy)(X, 1.0, 2.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        gradient(X, 1.0, 2.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        hessian(X, factor=2.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        dr.value_and_grad(energy)()  # type: ignore[call-arg]


def test_values_and_what_comes_with_them() -> None:
    value, gradient = dr.value_and_grad(energy)(X)
    assert_type(value, jax.Array)
    assert float(value) == 9.0 and gradient.shape == (2,)
    gradient, said = dr.grad(energy_and_size, has_aux=True)(X)
    assert_type(said, str)
    (value, said), gradient = dr.value_and_grad(energy_and_size, has_aux=True)(X)
    assert_type(value, jax.Array)
    assert_type(said, str)
    jacobian, said = dr.jacrev(energy_and_size, has_aux=True)(X)
    assert_type(said, str)
    assert said == "2 numbers" and jacobian.shape == (2,)


def test_pushes_and_pulls() -> None:
    out, tangent = dr.jvp(energy, (X,), (X,))
    assert_type(out, jax.Array)
    assert_type(tangent, jax.Array)
    out, pull = dr.vjp(energy, X)
    assert_type(out, jax.Array)
    assert_type(pull, Pullback)
    assert_type(pull(jnp.ones(())), tuple[Any, ...])
    out, J = dr.linearize(energy, X)
    assert_type(out, jax.Array)
    assert_type(J, Linearized)
    assert_type(dr.linear_transpose(lambda x: 2 * x, X), LinearTranspose)
    assert float(tangent) == float(J(X))


def test_linear_maps_know_what_they_are() -> None:
    J = dr.linearize(lambda x: x**2, X)[1]
    assert_type(J.T, Transposed)
    assert_type(J.dense(), jax.Array)
    assert_type(J @ J, Operator)
    assert_type(2 * J + J, Operator)
    with pytest.raises(TypeError):
        J * J  # type: ignore[operator]
    with pytest.raises(TypeError):
        J - 1.0  # type: ignore[operator]

    def halves(linear_map: LinearMap, t: Tangent) -> Tangents:
        assert_type(linear_map.pull(t), tuple[jax.Array | None, ...])
        return linear_map.push(t, None, 3)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="zip"):
        halves(J.tape, X)


def test_decorators_keep_signatures() -> None:
    @dr.region("forward")
    def twice(x: jax.Array, times: int = 1) -> jax.Array:
        return 2.0 * x * times

    assert_type(twice(X), jax.Array)
    assert_type(dr.checkpoint(twice)(X, times=2), jax.Array)
    assert_type(dr.implicit(lambda a: jnp.sqrt(a), lambda x, a: x**2 - a)(X), jax.Array)
    with pytest.raises(TypeError):
        twice(X, factor=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        dr.checkpoint(twice)(X, 1, 2)  # type: ignore[call-arg]


def test_options_are_checked_by_name() -> None:
    with pytest.raises(TypeError):
        dr.grad(energy, zero_win=True)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="engine"):
        dr.linearize(energy, X, engine="backward")  # type: ignore[call-overload]
