"""Derivatives where jax's own program, or the plain formula, gives a wrong number: against closed forms and mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src.dtypes import ExtendedDType  # the base class of such dtypes has no public name
from jax.scipy.linalg import eigh_tridiagonal, expm_frechet, funm, sqrtm
from mpmath import mp, mpf

import dualrev as dr
from dualrev import errors

# ------------------------------------------------------------------------------------------------- square root of a matrix

SYMMETRIC = np.array([[4.0, 1.0], [1.0, 3.0]])
GENERAL = np.array([[4.0, 1.0, -0.5], [0.3, 3.0, 0.2], [0.7, -1.0, 5.0]])
MULTIPLE = 4.0 * np.eye(3)
DEFECTIVE = MULTIPLE + np.eye(3, k=1)
E3 = np.array([[0.3, -1.0, 0.2], [0.5, 0.1, 0.7], [-0.4, 0.6, 1.0]])


def root(A: Any) -> Any:
    return jnp.real(sqrtm(A))


def sylvester(X: np.ndarray, C: np.ndarray) -> np.ndarray:
    """``Y`` with ``X Y + Y X = C``, by the n² by n² system."""
    n = len(X)
    return np.linalg.solve(np.kron(X, np.eye(n)) + np.kron(np.eye(n), X.T), C.reshape(-1)).reshape(n, n)


@jax.jit
def root_slopes(A: Any, E: Any, C: Any) -> Any:
    """Along ``E``: the value, first and second derivatives, and the gradient of ``Σ C X`` with its derivative along ``E``."""
    def gradient(A: Any) -> Any:
        return dr.grad(lambda A: jnp.sum(C * root(A)))(A)

    X, first = dr.jvp(root, (A,), (E,))
    second = dr.jvp(lambda A: dr.jvp(root, (A,), (E,))[1], (A,), (E,))[1]
    return X, first, second, *dr.jvp(gradient, (A,), (E,)), dr.vjp(gradient, A)[1](E)[0]


@pytest.mark.parametrize("A", [GENERAL, MULTIPLE, DEFECTIVE], ids=["general", "multiple of the identity", "defective"])
def test_square_root(A: np.ndarray) -> None:
    C = np.linspace(-1, 1, 9).reshape(3, 3)
    X, first, second, gradient, along, back = map(np.asarray, root_slopes(A, E3, C))
    np.testing.assert_allclose(first, sylvester(X, E3), rtol=1e-12, atol=1e-14)
    # X² = A, differentiated twice along E: X Ẍ + Ẍ X = -2 Ẋ Ẋ.
    np.testing.assert_allclose(second, sylvester(X, -2 * first @ first), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(gradient, sylvester(X.T, C), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.sum(E3 * along), np.sum(C * second), rtol=1e-11)
    np.testing.assert_allclose(back, along, rtol=1e-10, atol=1e-12)  # a Hessian is symmetric


def test_square_root_of_a_symmetric_matrix_and_of_complex_ones() -> None:
    off_diagonal = sylvester(np.asarray(root(SYMMETRIC)), np.ones((2, 2)))
    np.testing.assert_allclose(dr.grad(lambda A: jnp.sum(root(A)))(SYMMETRIC), off_diagonal, rtol=1e-12)
    np.testing.assert_allclose(off_diagonal[0, 1], 0.23599241, rtol=1e-7)
    A = SYMMETRIC + np.array([[1j, 2.0], [0.5j, -1.0]])
    X, moved = dr.jvp(sqrtm, (A,), (np.full((2, 2), 1.0 + 0.5j),))
    np.testing.assert_allclose(moved, sylvester(np.asarray(X), np.full((2, 2), 1.0 + 0.5j)), rtol=1e-12)


def test_batches_of_square_roots() -> None:
    """The batches of the program that jax makes of it may be any axis, and as many as the matrices are large."""
    batch = np.stack([GENERAL, MULTIPLE, DEFECTIVE])
    expected = np.stack([sylvester(np.asarray(root(A)).T, np.ones((3, 3))) for A in batch])
    for axis in (0, 2):
        gradient = dr.grad(lambda As, axis=axis: jnp.sum(jax.vmap(root, in_axes=axis)(As)))(np.moveaxis(batch, 0, axis))
        np.testing.assert_allclose(np.moveaxis(np.asarray(gradient), axis, 0), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(jax.vmap(dr.grad(lambda A: jnp.sum(root(A))))(batch), expected, rtol=1e-11, atol=1e-13)


def test_square_root_inside_a_checkpoint() -> None:
    """A checkpoint splices the calls of its program, but not those whose derivative is not that of their program."""
    def f(A: Any) -> Any:
        return jnp.sum(jnp.sin(root(jnp.sin(A))))

    A = np.array([[1.0, 0.2], [0.2, 0.8]])
    np.testing.assert_allclose(dr.grad(dr.checkpoint(f))(A), dr.grad(f)(A), rtol=1e-12)


def test_functions_of_matrices() -> None:
    """``funm`` is differentiated as its program is, which needs eigenvalues that differ; where some coincide, that is an error."""
    def f(A: Any) -> Any:
        return jnp.real(jnp.asarray(funm(A, jnp.exp)))

    A, E = np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([[0.3, -1.0], [0.5, 0.7]])
    np.testing.assert_allclose(dr.jvp(f, (A,), (E,))[1], expm_frechet(A, E, compute_expm=False), rtol=1e-10)
    with pytest.raises(errors.NoDerivativeError, match=r"eigenvalues that coincide(?s:.*)sqrtm"):
        dr.jvp(f, (2 * np.eye(2),), (E,))
    with pytest.raises(errors.NoDerivativeError, match=r"eigenvalues that coincide(?s:.*)sqrtm"):
        dr.vjp(f, 2 * np.eye(2))


# ------------------------------------------------------------------------------------------------------ tridiagonal matrices

DIAGONAL, BESIDE = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, -1.0, 0.25])
WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0])


def weighted(select: tuple[int, int] | None) -> Callable[..., Any]:
    chosen: dict[str, Any] = {} if select is None else dict(select="i", select_range=select)
    count = 4 if select is None else select[1] - select[0] + 1

    def f(d: Any, e: Any) -> Any:
        return jnp.sum(WEIGHTS[:count] * eigh_tridiagonal(d, e, eigvals_only=True, **chosen))

    return f


def slopes_of_eigenvalues(d: np.ndarray, e: np.ndarray, start: int = 0, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """``Σ weight (vⱼ², 2 vⱼ vⱼ₊₁)``."""
    V = np.linalg.eigh(np.diag(d) + np.diag(e, 1) + np.diag(e, -1))[1][:, start: start + count]
    return V**2 @ WEIGHTS[:count], 2 * V[:-1] * V[1:] @ WEIGHTS[:count]


@pytest.mark.parametrize("select", [None, (1, 2)], ids=["all", "some"])
def test_eigenvalues_of_a_tridiagonal_matrix(select: tuple[int, int] | None) -> None:
    start, count = (0, 4) if select is None else (select[0], 2)
    expected = slopes_of_eigenvalues(DIAGONAL, BESIDE, start, count)
    for gradient in (dr.grad(weighted(select), (0, 1)), dr.jacfwd(weighted(select), (0, 1))):
        for got, true in zip(gradient(DIAGONAL, BESIDE), expected, strict=True):
            np.testing.assert_allclose(got, true, rtol=1e-12)


def test_second_derivatives_of_tridiagonal_eigenvalues() -> None:
    h, t = 1e-5, np.array([0.3, -1.0, 0.7, 0.2])
    got = dr.jvp(jax.jit(dr.grad(weighted(None), (0, 1))), (DIAGONAL, BESIDE), (t, np.zeros(3)))[1]
    ends = [slopes_of_eigenvalues(DIAGONAL + s * h * t, BESIDE) for s in (1, -1)]
    for second, high, low in zip(got, *ends, strict=True):
        np.testing.assert_allclose(second, (high - low) / (2 * h), rtol=1e-8)


@pytest.mark.parametrize("axes", [(0, 0), (1, 1), (0, None)])
def test_batches_of_tridiagonal_matrices(axes: tuple[int, int | None]) -> None:
    """As many as there are rows, so that shapes do not tell axes apart."""
    d = np.stack([DIAGONAL + k * np.sin(DIAGONAL) for k in range(4)])
    e = np.stack([BESIDE + k for k in range(4)]) if axes[1] is not None else BESIDE
    pairs = [slopes_of_eigenvalues(d[k], e[k] if axes[1] is not None else e) for k in range(4)]
    got_d, got_e = dr.grad(lambda d, e: jnp.sum(jax.vmap(weighted(None), in_axes=axes)(d, e)), (0, 1))(
        np.moveaxis(d, 0, axes[0]), e if axes[1] is None else np.moveaxis(e, 0, axes[1]))
    np.testing.assert_allclose(np.moveaxis(np.asarray(got_d), axes[0], 0), [p for p, _ in pairs], rtol=1e-11, atol=1e-13)
    by_e = np.stack([q for _, q in pairs])
    got_e = np.asarray(got_e) if axes[1] is None else np.moveaxis(np.asarray(got_e), axes[1], 0)
    np.testing.assert_allclose(got_e, by_e.sum(0) if axes[1] is None else by_e, rtol=1e-11, atol=1e-13)


def test_complex_tridiagonal_matrices() -> None:
    """Eigenvalues depend on the size of an entry beside the diagonal, and not on its phase."""
    phase = np.exp(1j * np.array([0.3, 2.0, -1.0]))
    _, by_e = dr.grad(weighted(None), (0, 1))(DIAGONAL.astype(complex), BESIDE * phase)
    np.testing.assert_allclose(by_e, slopes_of_eigenvalues(DIAGONAL, BESIDE)[1] * np.conj(phase), rtol=1e-11)


# --------------------------------------------------------------------------------------------------------------- range

f16, f32 = np.float16, np.float32

#: Name: (function, true derivative, points for each dtype).
RANGE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], dict[Any, list[float]]]] = {
    "arctan": (jnp.arctan, lambda x: 1 / (1 + x * x), {f16: [300.0, -500.0, 0.5], f32: [1e15, -1e18]}),
    "arctan2 by y": (lambda x: jnp.arctan2(x, lax.stop_gradient(x)), lambda x: 1 / (2 * x),
                     {f16: [3e-4, 3e4, -300.0], f32: [3e30, 3e-30, -3e30]}),
    "arctan2 by x": (lambda x: jnp.arctan2(lax.stop_gradient(x) * 2, x), lambda x: -2 / (5 * x),
                     {f16: [3e-4, 2e4, -300.0], f32: [3e30, 3e-30, -3e30]}),
    "x ** -1": (lambda x: x**-1, lambda x: -1 / (x * x), {f16: [300.0, -500.0], f32: [1e18, -1e-18]}),
    "x ** -3": (lambda x: x**-3, lambda x: -3 / x**4, {f16: [20.0, 10.0], f32: [1e8]}),
    "300 / x": (lambda x: 300 / x, lambda x: -300 / (x * x), {f16: [300.0, -1000.0], f32: [2e19, -1e-16]}),
    "hypot": (lambda x: jnp.hypot(x, 2 * lax.stop_gradient(x)), lambda x: mp.sign(x) / mp.sqrt(5), {f16: [1e-3], f32: [1e-30, 1e30]}),
}


@pytest.mark.parametrize("name", RANGE)
def test_nothing_overflows_or_underflows_on_the_way(name: str) -> None:
    f, truth, points = RANGE[name]
    for dtype, given in points.items():
        x = np.array(given, dtype)
        ones = np.ones_like(x)

        def slopes(x: Any, ones: Any = ones) -> Any:
            return dr.jvp(f, (x,), (ones,))[1], dr.vjp(f, x)[1](ones)[0]

        expected = np.array([float(truth(mpf(float(value)))) for value in x])
        for got in (*slopes(x), *jax.jit(slopes)(x)):
            assert got.dtype == dtype
            # A float16 below 6e-5 is subnormal: multiples of 6e-8.
            np.testing.assert_allclose(np.asarray(got, float), expected, rtol=8 * np.finfo(dtype).eps, atol=6e-8 if dtype == f16 else 0)


def test_angle_of_large_and_small_numbers() -> None:
    z = np.array([3e30 + 1e30j, 2e-30 - 1e-30j], np.complex64)
    wide = z.astype(complex)
    got = dr.vjp(jnp.angle, z)[1](np.ones(2, f32))[0]
    np.testing.assert_allclose(got, -1j * np.conj(wide) / np.abs(wide) ** 2, rtol=1e-6)


# --------------------------------------------------------------------------------------------------------------- tails

HIGHEST = lax.AccuracyMode.HIGHEST


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_tails_are_as_accurate_as_was_asked_for(dtype: Any) -> None:
    """``1 - tanh²`` and ``s (1 - s)`` cancel where the value is within rounding of 1."""
    x = np.array([20.0, -20.0, 8.0, 0.25, 0.0], dtype)
    shift = 0.5j if dtype is np.complex64 else 0
    x = (x + shift).astype(dtype)
    truths = {lax.logistic: lambda x: 1 / (2 + mp.exp(x) + mp.exp(-x)), lax.tanh: lambda x: mp.sech(x) ** 2}
    for f, truth in truths.items():
        def slopes(x: Any, f: Any = f) -> Any:
            ones = jnp.ones_like(x)
            return (dr.jvp(lambda x: f(x, accuracy=HIGHEST), (x,), (ones,))[1],
                    dr.vjp(lambda x: f(x, accuracy=HIGHEST), x)[1](ones)[0])

        def second(x: Any, slopes: Any = slopes) -> Any:
            return dr.jvp(lambda x: slopes(x)[1], (x,), (jnp.ones_like(x),))[1]

        exact = [mp.mpmathify(complex(value)) for value in x]
        expected = np.array([complex(truth(value)) for value in exact])
        for got in slopes(x):
            np.testing.assert_allclose(got, expected, rtol=32 * np.finfo(dtype).eps)
        bent = np.array([complex(mp.diff(truth, value)) for value in exact])
        np.testing.assert_allclose(second(x)[:-1], bent[:-1], rtol=256 * np.finfo(dtype).eps)


def test_accuracy_reaches_the_derivatives() -> None:
    for f in (lax.sin, lax.cos, lax.expm1):
        jaxpr = jax.make_jaxpr(dr.grad(lambda x, f=f: f(x, accuracy=HIGHEST)))(1.0)
        asked = [eqn.params["accuracy"] for eqn in jaxpr.jaxpr.eqns if "accuracy" in eqn.params]
        assert asked
        assert all(accuracy is HIGHEST for accuracy in asked), jaxpr


# ------------------------------------------------------------------------------------------------------------ whole powers


def along(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: dr.jvp(f, (x,), (jnp.ones_like(x),))[1]


def back(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: dr.vjp(f, x)[1](jnp.ones_like(x))[0]


@pytest.mark.parametrize("turns", [(along,) * 4, (back,) * 4, (along, back, along, back)], ids=["forward", "reverse", "both"])
def test_whole_powers_have_the_derivatives_of_polynomials(turns: Any) -> None:
    x, exponents = (a.reshape(-1) for a in np.meshgrid([0.0, -1.5, 2.0], [0.0, 1.0, 2.0, 3.0]))

    def derivatives(x: Any) -> list[Any]:
        functions = [lambda x: lax.pow(x, exponents)]
        for turn in turns:
            functions.append(turn(functions[-1]))
        return [f(x) for f in functions]

    for order, got in enumerate(jax.jit(derivatives)(x)):
        expected = [np.polyval(np.polyder(np.eye(1, int(n) + 1)[0], order), value) for value, n in zip(x, exponents, strict=True)]
        np.testing.assert_allclose(got, expected, rtol=1e-13, err_msg=f"order {order}")


def test_powers_that_are_literals() -> None:
    third = dr.grad(dr.grad(dr.grad(lambda x: x**2.0)))
    assert third(0.0) == jax.jit(third)(0.0) == third(-1.0) == 0
    assert dr.grad(lambda x: x**0.5)(0.0) == np.inf
    assert dr.grad(lambda x: x**-1.0)(0.0) == -np.inf
    assert dr.grad(lambda y: 0.0**y)(2.0) == 0
    # By base and exponent: d²/dxdy of xʸ at y = 0 is 1/x.
    np.testing.assert_allclose(dr.grad(dr.grad(lax.pow, 0), 1)(2.0, 0.0), 0.5)


# ------------------------------------------------------------------------------------------- numbers that stand in a program


@pytest.mark.parametrize("call", [
    jax.jit, jax.checkpoint, lambda f: lambda x: lax.cond(x > 0, f, lambda x: x, x),
    lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=1)[0],
], ids=["jit", "checkpoint", "cond", "scan"])
def test_zero_wins_over_literals(call: Any) -> None:
    for f, expected in ((lambda x: 3.0 * x, 3), (lambda x: x / 4.0, 0.25), (lambda x: jnp.dot(x, 3.0), 3)):
        assert dr.grad(call(f), zero_wins=True)(1.0) == expected
        assert dr.jvp(call(f), (1.0,), (1.0,), zero_wins=True)[1] == expected
        assert dr.grad(call(f))(1.0) == expected


# ------------------------------------------------------------------------------------------------------- eight bits and fewer


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"])
@pytest.mark.thorough
def test_small_floats_are_moved(dtype: str) -> None:
    x = jnp.asarray([1, 2, 4], dtype)
    index = np.array([0, 0, 2])

    def f(x: Any) -> Any:
        return (jnp.sum(x[index].astype(f32)) + jnp.sum(jnp.broadcast_to(x, (2, 3)).astype(f32))
                + jnp.sum(lax.dynamic_slice(x, (1,), (1,)).astype(f32)))

    for got in (dr.grad(f)(x), jax.jit(dr.grad(f))(x)):
        assert got.dtype == dtype
        np.testing.assert_array_equal(np.asarray(got.astype(f32)), [4, 3, 3])
    assert dr.jvp(f, (x,), (x,))[1] == 1 + 1 + 4 + 14 + 2


def test_windows_reduced_by_an_operation_of_ones_own() -> None:
    x = np.array([0.5, -1.0, 2.0, 0.25])

    def f(x: Any) -> Any:  # the operation is x + y + x y, whose identity is 0: Π (1 + x) - 1
        return lax.reduce_window(x, np.zeros((), x.dtype), lambda a, b: a + b + a * b, (3,), (1,), "VALID")

    J = np.array([[np.prod(np.delete(1 + x[i: i + 3], j - i)) if i <= j < i + 3 else 0 for j in range(4)] for i in range(2)])
    for derivative in (dr.jacfwd(f), dr.jacrev(f), jax.jit(dr.jacfwd(f))):
        np.testing.assert_allclose(derivative(x), J, rtol=1e-14)


# ------------------------------------------------------------------------------------------------------- extended dtypes


class LargestRules:
    """A float whose cotangents add up to the largest of them: the scales of a quantized network are kept so."""

    allow_conversion = True

    @staticmethod
    def physical_element_aval(dtype: Any) -> Any:
        return jax.core.ShapedArray((), np.dtype("float32"))

    @staticmethod
    def tangent_dtype(dtype: Any) -> Any:
        return dtype

    @staticmethod
    def add(dtype: Any, x: Any, y: Any) -> Any:
        return lax.convert_element_type(lax.max(*(lax.convert_element_type(a, f32) for a in (x, y))), dtype)

    @staticmethod
    def zero(dtype: Any) -> Any:
        return lax.convert_element_type(np.array(-np.inf, f32), dtype)


class LargestType(jax.dtypes.extended):
    pass


class Largest(ExtendedDType):
    """The dtype."""

    name, type, itemsize, _rules = "largest", LargestType, 4, LargestRules

    def __repr__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return type(other) is Largest

    def __hash__(self) -> int:
        return hash(Largest)


@jax.custom_vjp
def scaled(x: Any, scale: Any) -> Any:
    return x * lax.convert_element_type(scale, f32)


# The cotangent of the scale is the size of what it scales: a measurement, not a derivative.
scaled.defvjp(lambda x, scale: (scaled(x, scale), (x, scale)),
              lambda kept, ct: (ct * lax.convert_element_type(kept[1], f32), lax.convert_element_type(abs(kept[0]), Largest())))


def test_conversions_to_dtypes_that_somebody_defined() -> None:
    def there_and_back(x: Any) -> Any:
        return 3 * lax.convert_element_type(lax.convert_element_type(x, Largest()), f32)

    def measured(scale: Any) -> Any:
        scale = lax.convert_element_type(scale, Largest())
        return sum(scaled(f32(x), scale) for x in (1.0, -5.0, 2.0))

    # Arrays of such a dtype exist inside compiled functions alone.
    assert jax.jit(dr.grad(there_and_back))(f32(2)) == 3
    assert jax.jit(lambda x: dr.jvp(there_and_back, (x,), (f32(2),)))(f32(2))[1] == 6
    assert jax.jit(dr.grad(measured))(f32(2)) == jax.jit(jax.grad(measured))(f32(2)) == 5
