"""Lineax: every solver, every kind of operator, least squares, and differentiation by the matrix and by the right-hand side."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

lx = library("lineax")

use = Uses()
random = np.random.RandomState(0)
A = random.randn(3, 3) + 3 * np.eye(3)
B = random.randn(3)
TALL = random.randn(4, 3)
WIDE = random.randn(2, 3)
DIAGONAL = np.array([2.0, -1.0, 0.5])


def solved(solver: Any, operator: Any, vector: Any = B, **options: Any) -> Any:
    """A scalar function of the matrix and the right-hand side."""

    def fun(pair: Any) -> Any:
        matrix, b = pair
        return jnp.sum(jnp.sin(lx.linear_solve(operator(matrix), b, solver, **options).value))

    return fun, vector


def dense(*tags: Any) -> Any:
    return lambda a: lx.MatrixLinearOperator(a, tags)


def symmetric(a: Any) -> Any:
    return lx.MatrixLinearOperator(a @ a.T + jnp.eye(3), lx.positive_semidefinite_tag)


@use("grad", "jvp", "hvp", "vmap", "eager")
def lu() -> Any:
    fun, b = solved(lx.LU(), dense())
    return fun, ((A, b),)


@use("grad", "jvp", "vmap")
def qr_least_squares() -> Any:
    fun, b = solved(lx.QR(), dense(), random.randn(4))
    return fun, ((TALL, b),)


@use("grad", "jvp")
def qr_minimum_norm() -> Any:
    fun, b = solved(lx.QR(), dense(), random.randn(2))
    return fun, ((WIDE, b),)


@use("grad", "jvp", "vmap")
def svd_of_a_tall_matrix() -> Any:
    fun, b = solved(lx.SVD(), dense(), random.randn(4))
    return fun, ((TALL, b),)


@use("grad", "hvp", "vmap")
def cholesky() -> Any:
    fun, b = solved(lx.Cholesky(), symmetric)
    return fun, ((A, b),)


@use("grad", "jvp", "vmap")
def conjugate_gradients() -> Any:
    fun, b = solved(lx.CG(1e-13, 1e-13), symmetric)
    return fun, ((A, b),)


@use("grad", "jvp")
def conjugate_gradients_on_the_normal_equations() -> Any:
    fun, b = solved(lx.Normal(lx.CG(1e-14, 1e-14)), dense())
    return fun, ((A, b),)


@use("grad", "jvp")
def gmres() -> Any:
    fun, b = solved(lx.GMRES(1e-13, 1e-13), dense())
    return fun, ((A, b),)


@use("grad", "jvp")
def bicgstab() -> Any:
    fun, b = solved(lx.BiCGStab(1e-13, 1e-13), dense())
    return fun, ((A, b),)


@use("grad", "jvp")
def lsmr() -> Any:
    fun, b = solved(lx.LSMR(1e-14, 1e-14), dense())
    return fun, ((A, b),)


@use("grad", "hvp", "vmap", "eager")
def triangular() -> Any:
    fun, b = solved(lx.Triangular(), lambda a: lx.MatrixLinearOperator(jnp.tril(a), lx.lower_triangular_tag))
    return fun, ((A, b),)


@use("grad", "jvp", "vmap")
def tridiagonal() -> Any:
    fun, b = solved(lx.Tridiagonal(), lambda d: lx.TridiagonalLinearOperator(d[0], d[1, :2], d[2, :2]))
    return fun, ((A + 2, b),)


@use("grad", "hessian")
def diagonal() -> Any:
    fun, b = solved(lx.Diagonal(), lx.DiagonalLinearOperator)
    return fun, ((DIAGONAL, b),)


@use("grad", "jvp")
def diagonal_pseudoinverse() -> Any:
    fun, b = solved(lx.Diagonal(well_posed=False), lx.DiagonalLinearOperator)
    return fun, ((np.array([2.0, 0.5, -1.0]), b),)


@use("grad", "jvp", "vmap")
def chosen_by_the_operator() -> Any:
    fun, b = solved(lx.AutoLinearSolver(well_posed=None), dense())
    return fun, ((A, b),)


@use("grad", "hvp")
def operator_algebra() -> Any:
    def operator(a: Any) -> Any:
        m = lx.MatrixLinearOperator(a)
        return 2.0 * m @ m.T + lx.DiagonalLinearOperator(jnp.exp(a[0])) - lx.IdentityLinearOperator(jax.ShapeDtypeStruct((3,), a.dtype))

    fun, b = solved(lx.LU(), operator)
    return fun, ((A, b),)


@use("grad", "jvp")
def jacobian_of_a_function() -> Any:
    fun, b = solved(lx.LU(), lambda a: lx.JacobianLinearOperator(lambda x, _: jnp.tanh(a @ x) + x, jnp.asarray(DIAGONAL)))
    return fun, ((A, b),)


@use("grad", "jvp")
def function_of_pytrees() -> Any:
    def operator(a: Any) -> Any:
        def apply(x: Any) -> Any:
            return {"u": a[:2, :2] @ x["u"] + x["v"], "v": x["u"][:1] + a[2, 2:] * x["v"]}

        return lx.FunctionLinearOperator(apply, jax.eval_shape(lambda: {"u": jnp.zeros(2), "v": jnp.zeros(1)}))

    b = {"u": B[:2], "v": B[2:]}
    return lambda a: jnp.sum(lx.linear_solve(operator(a), b, lx.GMRES(1e-13, 1e-13)).value["u"] ** 2), (A,)


@use("grad", "jvp")
def state_kept_for_two_solves() -> Any:
    def fun(pair: Any) -> Any:
        a, b = pair
        operator, solver = lx.MatrixLinearOperator(a), lx.LU()
        state = solver.init(operator, {})
        first = lx.linear_solve(operator, b, solver, state=state).value
        return jnp.sum(lx.linear_solve(operator, first**2, solver, state=state).value)

    return fun, ((A, B),)


@use("grad", "jvp")
def by_the_right_hand_side_only() -> Any:
    return lambda b: jnp.sum(lx.linear_solve(lx.MatrixLinearOperator(jnp.asarray(A)), b, lx.LU()).value ** 3), (B,)


@use("grad", "vmap")
def by_the_matrix_only_with_transposed_solve() -> Any:
    return lambda a: jnp.sum(lx.linear_solve(lx.MatrixLinearOperator(a).T, jnp.asarray(B), lx.QR()).value ** 2), (A,)


@use.program
def jacobian_operator_under_installed() -> Any:
    def run() -> Any:
        operator = lx.JacobianLinearOperator(lambda x, _: jnp.tanh(A @ x) + x, jnp.asarray(DIAGONAL))
        return (
            operator.as_matrix(),
            operator.mv(jnp.asarray(B)),
            operator.T.mv(jnp.asarray(B)),
            lx.linear_solve(operator, jnp.asarray(B)).value,
        )

    return run


@use.program
def gradient_under_installed() -> Any:
    return lambda: jax.jit(jax.grad(lambda a: jnp.sum(lx.linear_solve(lx.MatrixLinearOperator(a), jnp.asarray(B)).value ** 2)))(A)


test_use = use.derivatives_test()
test_installed = use.programs_test()
