"""Lines for linear systems: triangular, tridiagonal, and those that the user solves."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from cases import RC, Maker, case, normal
from jax import lax
from jax.lax.linalg import triangular_solve, tridiagonal_solve


def well(*shape: int) -> Maker:
    """Square matrices with a large diagonal."""
    make = normal(*shape)

    def wrapped(rng: Any, dtype: Any) -> Any:
        x = make(rng, dtype)
        x[..., range(shape[-1]), range(shape[-1])] += 3
        return x
    return wrapped


def away(*shape: int) -> Maker:
    """Values far from zero."""
    make = normal(*shape)
    return lambda rng, dtype: make(rng, dtype) + 4


FLAGS = [dict(left_side=left, lower=lower, transpose_a=transpose, conjugate_a=conjugate, unit_diagonal=unit)
         for left, lower, transpose, conjugate, unit in [(True, True, False, False, False), (False, False, False, True, False),
                                                         (True, False, True, False, True), (False, True, True, True, False),
                                                         (False, True, False, False, True), (True, True, True, True, False)]]


def linear_solve(a: Any, b: Any, **kwargs: Any) -> Any:
    """A system solved by LU factors that the solver closes over."""
    return lax.custom_linear_solve(lambda x: a @ x, b, lambda _, y: jnp.linalg.inv(lax.stop_gradient(a)) @ y,
                                   lambda _, y: jnp.linalg.inv(lax.stop_gradient(a)).T @ y, **kwargs)


def with_aux(a: Any, b: Any) -> Any:
    """A solver that returns something beside the solution."""
    inverse = jnp.linalg.inv(lax.stop_gradient(a))
    return lax.custom_linear_solve(lambda x: a @ x, b, lambda _, y: (inverse @ y, 7), lambda _, y: (inverse.T @ y, 7), has_aux=True)


def of_a_tree(a: Any, b: Any, c: Any) -> Any:
    """A diagonal system in two parts, symmetric."""
    def operate(x: Any) -> Any:
        return {"b": a * x["b"], "c": a[0] * x["c"]}

    def solve(_: Any, y: Any) -> Any:
        return {"b": y["b"] / lax.stop_gradient(a), "c": y["c"] / lax.stop_gradient(a[0])}

    x = lax.custom_linear_solve(operate, {"b": b, "c": c}, solve, symmetric=True)
    return x["b"], x["c"]


CASES = [
    *[case("triangular_solve", lambda a, b, f=flags: triangular_solve(a, b, **f), well(3, 3), normal(3, 3),
           dtypes=(*RC, "float32", "complex64") if i == 0 else RC, label=f"flags {i}") for i, flags in enumerate(FLAGS)],
    case("triangular_solve", lambda a, b: triangular_solve(a, b, left_side=True), well(2, 2, 2), normal(2, 2, 3), label="batched"),
    case("triangular_solve", lambda a, b: triangular_solve(a, b), well(0, 0), normal(2, 0), label="size 0"),
    case("triangular_solve", lambda a, b: triangular_solve(a, b, left_side=True, lower=True), well(1, 1), normal(1, 2), label="size 1"),

    case("tridiagonal_solve", tridiagonal_solve, normal(3), away(3), normal(3), normal(3, 2), dtypes=(*RC, "float32", "complex64")),
    case("tridiagonal_solve", tridiagonal_solve, normal(2, 3), away(2, 3), normal(2, 3), normal(2, 3, 1), label="batched"),
    case("tridiagonal_solve", tridiagonal_solve, normal(1), away(1), normal(1), normal(1, 2), label="size 1"),

    case("custom_linear_solve", linear_solve, well(3, 3), normal(3), dtypes=(*RC, "float32")),
    case("custom_linear_solve", jnp.linalg.solve, well(2, 2, 2), normal(2, 2, 2), dtypes=RC, label="solve, batched"),
    case("custom_linear_solve", with_aux, well(2, 2), normal(2), label="aux"),
    case("custom_linear_solve", of_a_tree, away(2), normal(2), normal(), label="tree, symmetric"),
    case("custom_linear_solve", lambda a, b: lax.custom_linear_solve(lambda x: a @ x, b, lambda _, y: lax.linalg.triangular_solve(
        a, y[:, None], left_side=True, lower=True)[:, 0]), lambda rng, dtype: jnp.tril(well(2, 2)(rng, dtype)), normal(2),
        reverse=False, order=1, label="no transpose"),
]
