"""Derivatives of roots and fixed points from the equations that they solve."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy.sparse.linalg import gmres as jax_gmres

import dualrev as dr
from dualrev.functional.krylov import gmres


def assert_close(got: Any, expected: Any, tolerance: float = 1e-8) -> None:
    trees: list[Any] = [jax.tree.structure(got), jax.tree.structure(expected)]
    assert trees[0] == trees[1]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def newton(a: Any) -> Any:
    return lax.while_loop(lambda s: jnp.any(jnp.abs(s**2 - a) > 1e-13 * a), lambda s: (s + a / s) / 2, a)


root = dr.implicit(newton, lambda s, a: s**2 - a)
X = jnp.array([2.0, 3.0, 7.0])


def through(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jnp.sum(jnp.sin(f(x * x)) * x)


DERIVATIVES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "grad": (dr.grad, jax.grad),
    "by the forward engine": (lambda f: dr.grad(f, engine="forward"), jax.grad),
    "by jax": (jax.grad, jax.grad),
    "hessian": (dr.hessian, jax.hessian),
    "reverse over reverse": (lambda f: dr.jacrev(dr.jacrev(f)), jax.hessian),
    "reverse over forward": (lambda f: dr.jacrev(dr.jacfwd(f)), jax.hessian),
    "forward over forward": (lambda f: dr.jacfwd(dr.jacfwd(f)), jax.hessian),
    "jax over ours": (lambda f: jax.jacfwd(dr.grad(f)), jax.hessian),
}


@pytest.mark.thorough
@pytest.mark.parametrize("wrap", ["plain", "jit inside", "jit outside"])
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_square_root(derivative: str, wrap: str) -> None:
    ours, oracle = DERIVATIVES[derivative]
    f = jax.jit(through(root)) if wrap == "jit inside" else through(root)
    got = (jax.jit(ours(f)) if wrap == "jit outside" else ours(f))(X)
    assert_close(got, oracle(through(jnp.sqrt))(X))


def test_third_order_and_vmap() -> None:
    assert_close(dr.grad(dr.grad(dr.grad(root)))(2.0), jnp.array(3 / 8 * 2**-2.5))
    batch, expected = jnp.stack([X, X + 1]), jax.vmap(jax.grad(through(jnp.sqrt)))(jnp.stack([X, X + 1]))
    assert_close(jax.vmap(dr.grad(through(root)))(batch), expected)
    assert_close(dr.grad(lambda b: jnp.sum(jax.vmap(through(root))(b)))(batch), expected)


def test_the_derivative_is_that_of_the_residual() -> None:
    """Not of what the solver does."""
    exact = dr.implicit(lambda a: lax.stop_gradient(jnp.sqrt(a)), lambda s, a: s**2 - a)
    assert_close(dr.grad(exact)(4.0), jnp.array(0.25))
    wrong = dr.implicit(jnp.sqrt, lambda s, a: s - 3 * a)
    assert_close(dr.grad(wrong)(4.0), jnp.array(3.0))


def test_fixed_point() -> None:
    def solver(a: Any) -> Any:
        return lax.while_loop(lambda x: jnp.abs(jnp.cos(x) * a - x) > 1e-14, lambda x: jnp.cos(x) * a, a)

    x = solver(0.7)
    got = dr.grad(dr.implicit(solver, lambda x, a: jnp.cos(x) * a - x))(0.7)
    assert_close(got, jnp.cos(x) / (1 + 0.7 * jnp.sin(x)))


A = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)) + 4 * np.eye(4))
B = jnp.arange(1.0, 5.0)


def linear(solve: Any) -> Callable[..., Any]:
    """Trees for arguments and results; the matrix and the scale are closed over."""

    def f(matrix: Any, b: Any, scale: Any) -> Any:
        def tree(y: Any) -> Any:
            return {"y": y[:3], "z": (y[3],)}

        def residual(x: Any, args: Any) -> Any:
            return tree(matrix @ jnp.append(x["y"], x["z"][0]) - args["b"] * scale)

        out = dr.implicit(lambda args: tree(jnp.linalg.solve(matrix, args["b"] * scale)), residual, solve=solve)({"b": b})
        return jnp.sum(out["y"] ** 3) * out["z"][0]

    return f


def explicit(matrix: Any, b: Any, scale: Any) -> Any:
    y = jnp.linalg.solve(matrix, b * scale)
    return jnp.sum(y[:3] ** 3) * y[3]


@pytest.mark.thorough
@pytest.mark.parametrize("solve", [None, lambda matvec, b: jax_gmres(matvec, b, tol=1e-13)[0]], ids=["default", "given"])
def test_trees_closures_and_a_solver_of_the_users(solve: Any) -> None:
    f, every = linear(solve), (0, 1, 2)
    expected = jax.grad(explicit, every)(A, B, 1.5)
    assert_close(dr.grad(f, every)(A, B, 1.5), expected)
    assert_close(jax.jit(dr.grad(f, every))(A, B, 1.5), expected)
    assert_close(dr.grad(f, every, engine="forward")(A, B, 1.5), expected)
    second = jax.hessian(explicit, (1, 2))(A, B, 1.5)
    assert_close(dr.hessian(f, (1, 2))(A, B, 1.5), second, 1e-6)
    assert_close(dr.jacrev(dr.grad(f, (1, 2)), (1, 2))(A, B, 1.5), second, 1e-6)


N = 300
D = jnp.linspace(1, 2, N)


def relaxation(a: Any) -> Any:
    return lax.fori_loop(0, 150, lambda _, x: x - 0.4 * large_residual(x, a), a)


def large_residual(x: Any, a: Any) -> Any:
    return D * x + 0.1 * jnp.roll(x, 1) + 0.01 * x**3 - a


def test_a_large_system() -> None:
    a = jnp.sin(jnp.arange(float(N)))

    def ours(a: Any) -> Any:
        return jnp.sum(dr.implicit(relaxation, large_residual)(a) ** 2)

    def unrolled(a: Any) -> Any:
        return jnp.sum(relaxation(a) ** 2)

    assert_close(dr.grad(ours)(a), jax.grad(unrolled)(a))
    assert_close(dr.jvp(ours, (a,), (a,)), jax.jvp(unrolled, (a,), (a,)))
    assert_close(dr.jvp(dr.grad(ours), (a,), (a,)), jax.jvp(jax.grad(unrolled), (a,), (a,)))


def test_gmres() -> None:
    rng = np.random.default_rng(1)
    for n in (1, 3, 60):
        matrix, b = jnp.asarray(rng.normal(size=(n, n)) + 2 * np.sqrt(n) * np.eye(n)), jnp.asarray(rng.normal(size=n))
        assert_close(gmres(functools.partial(jnp.matmul, matrix), b), jnp.linalg.solve(matrix, b), 1e-10)
    assert_close(gmres(lambda x: 2 * x, jnp.zeros(3)), jnp.zeros(3))
    assert jnp.isnan(gmres(lambda x: x.at[0].set(0), jnp.ones(3))).all()  # singular


def test_a_solver_that_looks_at_values_and_returns_more() -> None:
    def solver(a: Any, n: int, kind: str) -> Any:
        s, steps = a, 0
        while abs(s**2 - a) > 1e-13:
            s, steps = (s + a / s) / 2, steps + 1
        return {"s": s}, {"steps": steps, "range": jnp.arange(n)}

    solution = dr.implicit(solver, lambda x, a, n, kind: {"s": x["s"] ** 2 - a}, has_aux=True)

    def f(a: Any) -> Any:
        x, aux = solution(a, 3, "plain")
        assert aux["range"].shape == (3,)
        return x["s"]

    assert int(solution(2.0, 3, "plain")[1]["steps"]) > 2
    assert_close(dr.grad(f)(2.0), jnp.array(0.5 / 2**0.5))
    assert_close(dr.grad(dr.grad(f))(2.0), jnp.array(-0.25 * 2**-1.5))
    with pytest.raises(TypeError, match="two-element tuple"):
        dr.implicit(newton, lambda s, a: s**2 - a, has_aux=True)(2.0)


def test_complex_solutions_need_not_be_holomorphic() -> None:
    def solver(c: Any) -> Any:
        return (c - 0.3 * jnp.conj(c)) / (1 - 0.09)

    def loss(f: Any) -> Callable[[Any], Any]:
        return lambda c: jnp.sum(jnp.abs(f(c * c)) ** 3)

    ours, c = loss(dr.implicit(solver, lambda z, c: z + 0.3 * jnp.conj(z) - c)), jnp.array([1 + 2j, -0.4 + 0.3j])
    for gradient in (dr.grad(ours), dr.grad(ours, engine="forward"), jax.jit(dr.grad(ours))):
        assert_close(gradient(c), jax.grad(loss(solver))(c))


def test_nothing_to_solve() -> None:
    none = jnp.zeros(0)
    assert_close(dr.grad(lambda a: jnp.sum(root(a)))(none), none)
    assert_close(jax.jit(dr.jacfwd(root))(none), jnp.zeros((0, 0)))


def test_a_loop_in_the_residual() -> None:
    """The matrix by x is formed by pushes; for reverse mode by the arguments, the loop is a region."""

    @dr.region("forward")
    def cube(x: Any) -> Any:
        return lax.while_loop(lambda s: s[1] < 3, lambda s: (s[0] * x, s[1] + 1), (jnp.ones_like(x), 0))[0]

    f = dr.implicit(jnp.cbrt, lambda x, a: cube(x) - a)
    assert_close(dr.grad(f)(8.0), jnp.array(1 / 12))
    assert_close(dr.jvp(f, (8.0,), (1.0,)), (jnp.array(2.0), jnp.array(1 / 12)))


@pytest.mark.parametrize(("residual", "found"), [
    (lambda x, a: (x,), r"\(float64\[3\]\)"), (lambda x, a: x[0], r"\(float64\[\]\)"),
    (lambda x, a: x.astype(jnp.float32), r"\(float32\[3\]\)"),
])
def test_a_residual_that_does_not_fit(residual: Any, found: str) -> None:
    with pytest.raises(dr.errors.RuleError, match=rf"the residual has .*{found}, the solution has .*\(float64\[3\]\)"):
        dr.implicit(newton, residual)(X)


def test_wrong_uses() -> None:
    with pytest.raises(TypeError, match="expected a residual, a function; got 3"):
        dr.implicit(newton, 3)  # type: ignore[arg-type]
    with pytest.raises(dr.errors.RuleError, match="must return floating-point or complex arrays"):
        dr.implicit(lambda a: 3, lambda x, a: x)(2.0)
    with pytest.raises(dr.errors.RuleError, match="solve must return what it is given for b"):
        dr.grad(lambda a: jnp.sum(dr.implicit(newton, lambda s, a: s**2 - a, solve=lambda f, b: b[0])(a)))(X)


def test_a_singular_system() -> None:
    double = dr.implicit(lambda a: a * 0, lambda x, a: x**2 - a)
    for gradient in (dr.grad(double), dr.grad(double, engine="forward")):
        with pytest.raises(dr.errors.NoDerivativeError, match="by what <lambda> returned is singular"):
            gradient(0.0)
    assert not np.isfinite(jax.jit(dr.grad(double))(0.0))
    parallel = dr.implicit(lambda a: a, lambda x, a: jnp.sum(x) - a)
    with pytest.raises(dr.errors.NoDerivativeError):
        dr.grad(lambda a: jnp.sum(parallel(a)))(jnp.ones(2))


def test_a_call_compiles_nothing_again(caplog: pytest.LogCaptureFixture) -> None:
    derivative = dr.grad(root)
    derivative(4.0), derivative(5.0)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        assert_close(derivative(9.0), jnp.array(1 / 6))
    assert not [record for record in caplog.messages if record.startswith("Compiling")]


def test_nothing_of_a_trace_is_kept() -> None:
    def f(c: Any) -> Any:
        return dr.implicit(lambda a: jnp.sqrt(a * c), lambda s, a: s * s - a * c)(2.0) + dr.region("forward")(lambda: jnp.sin(c))()

    with jax.checking_leaks():
        assert_close(jax.jit(dr.grad(f))(2.0), jnp.array(0.5 + np.cos(2.0)))
        assert_close(dr.grad(f)(2.0), jnp.array(0.5 + np.cos(2.0)))


# ------------------------------------------------------------------------------------------------------------------ custom_root


def by_custom_root(a: Any) -> Any:
    return lax.custom_root(lambda s: s**2 - a, a, lambda _, __: newton(a), lambda g, y: jnp.linalg.solve(jax.jacfwd(g)(y), y))


@pytest.mark.parametrize("wrap", ["plain", "jit inside", "jit outside"])
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_custom_root(derivative: str, wrap: str) -> None:
    ours, oracle = DERIVATIVES[derivative]
    f = jax.jit(through(by_custom_root)) if wrap == "jit inside" else through(by_custom_root)
    got = (jax.jit(ours(f)) if wrap == "jit outside" else ours(f))(X)
    assert_close(got, oracle(through(jnp.sqrt))(X))
