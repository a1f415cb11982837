"""Functions of linear algebra against jax, and derivatives where jax has none: repeated and defective eigenvalues, missing rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import pytest
from jax import lax
from jax.lax import linalg
from jax.scipy.sparse.linalg import cg, gmres

import dualrev as dr
from dualrev.errors import NoDerivativeError
from dualrev.rules.linalg.ratio import ratio

rng = np.random.default_rng(0)
A = jnp.asarray(rng.standard_normal((3, 3)) + 2 * np.eye(3))
M = jnp.asarray(rng.standard_normal((3, 3)))
T = jnp.asarray(rng.standard_normal((3, 3)))
Z = jnp.asarray(rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)))
W = jnp.asarray(rng.standard_normal((4, 3)))
b = jnp.asarray(rng.standard_normal(3))



def close(x: Any, y: Any, rtol: float = 1e-10) -> None:
    for left, right in zip(jax.tree_util.tree_leaves(x), jax.tree_util.tree_leaves(y), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * max(1.0, float(np.max(np.abs(right), initial=0))))


def central(f: Callable[[Any], Any], x: Any, t: Any, h: float = 1e-5) -> Any:
    return jax.tree_util.tree_map(lambda p, m: (p - m) / (2 * h), f(x + h * t), f(x - h * t))


def columns(V: Any, factors: Any) -> Any:
    """Each column multiplied by a factor, real or complex."""
    return V * factors.astype(V.dtype)[None]


def symmetric(x: Any) -> Any:
    return (x + jnp.conj(x).T) / 2


# ---------------------------------------------------------------------------------------------------- functions against jax

FUNCTIONS: dict[str, tuple[Callable[..., Any], Any]] = {
    "inv": (jnp.linalg.inv, A), "slogdet": (jnp.linalg.slogdet, Z), "solve": (lambda a: jnp.linalg.solve(a, a[:, :1]), Z),
    "nuclear norm": (lambda a: jnp.linalg.norm(a, "nuc"), W), "norm 2": (lambda a: jnp.linalg.norm(a, 2), W),
    "cond": (jnp.linalg.cond, A), "matrix_power": (lambda a: jnp.linalg.matrix_power(a, -2), A), "pinv": (jnp.linalg.pinv, W),
    "eigvalsh": (jnp.linalg.eigvalsh, A), "cho_solve": (lambda a: jsl.cho_solve(jsl.cho_factor(a @ a.T), b), A),
    "lu_solve": (lambda a: jsl.lu_solve(jsl.lu_factor(a), b), A), "polar": (lambda a: jsl.polar(a, method="svd"), W),
    "cg": (lambda a: cg(a @ a.T, b, tol=1e-14)[0], A), "gmres": (lambda a: gmres(a, b, tol=1e-14)[0], A),
    "lstsq": (lambda a: jnp.linalg.lstsq(a, jnp.ones(4))[0], W), "tensorsolve": (lambda a: jnp.linalg.tensorsolve(a, b), A),
    "expm": (jsl.expm, A), "expm_frechet": (lambda a: jsl.expm_frechet(a, M)[1], A),
}
#: Compared at order 1, since the second takes jax longer than it tells.
FIRST_ORDER = ("gmres", "lstsq", "tensorsolve", "expm", "expm_frechet")


@pytest.mark.thorough
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    """Push, pull and, with exceptions, the second derivative."""
    f, x = FUNCTIONS[name]
    random = np.random.default_rng(1)

    def like(y: Any) -> Any:
        real = random.standard_normal(y.shape)
        return jnp.asarray(real + 1j * random.standard_normal(y.shape) if jnp.iscomplexobj(y) else real).astype(y.dtype)

    t, c = like(x), jax.tree_util.tree_map(like, f(x))
    close(dr.jvp(f, (x,), (t,))[1], jax.jvp(f, (x,), (t,))[1])
    close(dr.vjp(f, x)[1](c)[0], jax.vjp(f, x)[1](c)[0])

    def scalar(x: Any) -> Any:
        leaves = jax.tree_util.tree_leaves
        return sum(jnp.sum(jnp.real(u * jnp.sin(v))) for u, v in zip(leaves(c), leaves(f(x)), strict=True))

    if name not in FIRST_ORDER:
        close(dr.hvp(scalar, (x,), (t,)), jax.jvp(jax.grad(scalar), (x,), (t,))[1])


# ----------------------------------------------------------------------------------------------------- beyond jax: repeated

I3 = jnp.eye(3)
ROTATION = jnp.linalg.qr(M)[0]
REPEATED = {"identity": I3, "zero": 0 * I3, "diagonal": jnp.diag(jnp.array([2.0, 1.0, 2.0])),
            "rotated": symmetric(ROTATION @ jnp.diag(jnp.array([1.0, 1.0, 3.0])) @ ROTATION.T)}


def spectral(g: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``V g(w) Vᴴ``."""
    def function(a: Any) -> Any:
        w, V = jnp.linalg.eigh(a)
        return columns(V, g(w)) @ jnp.conj(V).T
    return function


def loss(a: Any, m: Any = M) -> Any:
    return jnp.sum(m * spectral(jnp.exp)(a))


def exact(a: Any, m: Any = M) -> Any:
    return jnp.sum(m * jsl.expm(symmetric(a)))


@pytest.mark.thorough
def test_identity() -> None:
    """The gradient of the sum of exp(A), by A's eigenvectors, at the identity."""
    def f(a: Any) -> Any:
        V, w = linalg.eigh(a)
        return jnp.sum(columns(V, jnp.exp(w)) @ V.T)

    assert np.isnan(jax.grad(f)(I3)).all()
    for gradient in (dr.grad(f)(I3), dr.grad(f, engine="forward")(I3), dr.grad(jax.jit(f))(I3),
                     jax.jit(dr.grad(f, split_repeated=True))(I3)):
        close(gradient, np.e * np.ones((3, 3)))


@pytest.mark.thorough
@pytest.mark.parametrize("name", REPEATED)
def test_repeated_eigenvalues(name: str) -> None:
    """A matrix function is right in every way of differentiating it, in general directions."""
    a = REPEATED[name]
    expected = jax.grad(exact)(a)
    assert not np.allclose(jax.grad(loss)(a), expected)  # NaN, or wrong where rounding keeps the eigenvalues apart
    close(dr.grad(loss)(a), expected)
    close(dr.jvp(loss, (a,), (T,))[1], jnp.vdot(expected, T))
    close(dr.jacfwd(loss)(a), expected)
    close(dr.linearize(loss, a)[1](T), jnp.vdot(expected, T))
    close(jax.jit(lambda a: dr.jvp(loss, (a,), (T,))[1])(a), jnp.vdot(expected, T))
    assert np.isnan(jax.jit(dr.grad(loss))(a)).any()
    close(jax.vmap(dr.grad(loss, split_repeated=True))(jnp.stack([a, M])), jnp.stack([expected, jax.grad(exact)(M)]))


@pytest.mark.thorough
def test_what_local_cotangents_do_not_tell() -> None:
    """Functions whose cotangents of eigenvectors and eigenvalues are the same at the identity, and whose gradients are not."""
    m = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    for g, expected in ((lambda w: w, m), (jnp.ones_like, 0 * m), (lambda w: 1 + 3 * jnp.log(w), 3 * m)):
        close(dr.grad(lambda a, g=g: jnp.sum(m * spectral(g)(a)))(jnp.eye(2)), expected)


@pytest.mark.thorough
def test_repeated_eigenvalues_elsewhere() -> None:
    """Complex, low precision, two matrices, functions after, a linear map used again and under jit, unused eigenvectors."""
    z = jnp.eye(3, dtype=complex)
    close(dr.grad(lambda a: jnp.sum(Z * spectral(jnp.exp)(a)).real)(z), jax.grad(lambda a: jnp.sum(Z * jsl.expm(symmetric(a))).real)(z))
    close(dr.grad(lambda a: loss(a, M.astype("float32")))(I3.astype("float32")), jax.grad(exact)(I3).astype("float32"), 1e-5)
    both = dr.grad(lambda x, y: jnp.sum(M * spectral(jnp.exp)(x) @ spectral(jnp.square)(y)), (0, 1))(I3, 2 * I3)
    close(both, jax.grad(lambda x, y: jnp.sum(M * jsl.expm(symmetric(x)) @ symmetric(y) @ symmetric(y)), (0, 1))(I3, 2 * I3))
    twice = REPEATED["diagonal"]
    close(1e18 * dr.jvp(loss, (twice,), (1e-18 * T,))[1], jnp.vdot(jax.grad(exact)(twice), T))
    _, J = dr.linearize(lambda a: jnp.sin(spectral(jnp.exp)(a)), I3)
    _, pull = jax.vjp(lambda a: jnp.sin(jsl.expm(symmetric(a))), I3)
    close((J.T @ M, jax.jit(lambda J, u: J.T @ u)(J, T)), (pull(M)[0], pull(T)[0]))
    assert "eigh" in repr(J)
    # A projection on part of the space, of a matrix that has no other part: what is not used does not matter, under jit either.
    low = symmetric(ROTATION @ jnp.diag(jnp.array([0.0, 0.0, 2.0])) @ ROTATION.T)

    def projection(a: Any) -> Any:
        V = jnp.linalg.eigh(a)[1][:, 2:]
        return jnp.sum(M * (V @ V.T))

    gradient = dr.grad(projection)(low)
    close(jnp.vdot(gradient, T), central(projection, low, T), 1e-8)
    close(jax.jit(dr.grad(projection))(low), gradient)


@pytest.mark.thorough
def test_second_derivative_of_repeated_eigenvalues() -> None:
    """Symmetric functions of eigenvalues have a Hessian; of eigenvectors there is none that is silently wrong."""
    def f(a: Any) -> Any:
        return jnp.sum(jnp.linalg.eigvalsh(a) ** 3)

    expected = jax.hessian(lambda a: jnp.trace(symmetric(a) @ symmetric(a) @ symmetric(a)))(I3)
    assert not np.isfinite(jax.hessian(f)(I3)).all()
    for engine in (None, "forward", "reverse"):
        close(dr.hessian(f, engine=engine)(I3), expected)
    for split in (False, True):
        assert np.isnan(dr.hvp(loss, (I3,), (T,), split_repeated=split)).any()


def test_depends_on_basis() -> None:
    """A function of single eigenvectors has no derivative at a repeated eigenvalue: an error in both directions of a tape."""
    def entry(a: Any) -> Any:
        return jnp.linalg.eigh(a)[1][0, 1]

    assert np.isnan(jax.grad(entry)(I3)).any()
    with pytest.raises(NoDerivativeError, match="grad: eigenvalues or singular values coincide, and the function depends on which"):
        dr.grad(entry)(I3)
    with pytest.raises(NoDerivativeError, match="linearize: "):
        dr.linearize(entry, I3)[1](T)
    assert np.isnan(jax.jit(dr.grad(entry, split_repeated=True))(I3)).all()
    assert np.isfinite(dr.grad(entry)(symmetric(M))).all()


def odd(x: Any) -> Any:
    U, s, Vh = jnp.linalg.svd(x, full_matrices=False)
    return columns(U, jnp.sin(s)) @ Vh


def even(x: Any) -> Any:
    U, s, _ = jnp.linalg.svd(x, full_matrices=False)
    return columns(U, 1 - jnp.cos(s)) @ jnp.conj(U).T


def outside(x: Any) -> Any:
    """The projection on what the columns do not reach."""
    U = jnp.linalg.svd(x)[0][:, x.shape[1]:]
    return U @ jnp.conj(U).T


LEFT = jnp.linalg.qr(W, mode="complete")[0][:, :3]
UNITARY = jnp.linalg.qr(Z)[0]
SINGULAR = {
    "identity": (I3, odd), "repeated": (LEFT @ jnp.diag(jnp.array([2.0, 2.0, 1.0])) @ ROTATION, even),
    "complex": (UNITARY @ jnp.diag(jnp.array([2.0, 2.0, 1.0 + 0j])) @ ROTATION.astype(complex), odd),
    "zero": (0 * I3, odd), "rank 1": (LEFT @ jnp.diag(jnp.array([2.0, 0.0, 0.0])) @ ROTATION, even),
    "rank 1, wide": ((LEFT @ jnp.diag(jnp.array([2.0, 0.0, 0.0])) @ ROTATION).T, odd),
    "complex, rank 1": (UNITARY @ jnp.diag(jnp.array([2.0, 0.0, 0.0 + 0j])) @ ROTATION.astype(complex), odd),
    "full matrices": (LEFT @ jnp.diag(jnp.array([2.0, 2.0, 1.0])) @ ROTATION, outside),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "repeated" else pytest.mark.thorough) for name in SINGULAR])
def test_repeated_singular_values(name: str) -> None:
    """Also where they are zero, and with full matrices, which jax does not differentiate."""
    x, function = SINGULAR[name]
    random = np.random.default_rng(2)
    weights = random.standard_normal(function(x).shape)
    t = jnp.asarray(random.standard_normal(x.shape) + (1j * random.standard_normal(x.shape) if jnp.iscomplexobj(x) else 0))

    def f(x: Any) -> Any:
        return jnp.sum(weights * function(x).real)

    expected = central(f, x, t)
    if name == "full matrices":
        with pytest.raises(NotImplementedError):
            jax.grad(f)(x)
    close(jnp.sum(dr.grad(f)(x) * t).real, expected, 1e-8)
    close(dr.linearize(f, x)[1](t), expected, 1e-8)
    close(dr.jvp(f, (x,), (t,))[1], expected, 1e-8)
    close(jnp.sum(jax.jit(dr.grad(f, split_repeated=True))(x) * t).real, expected, 1e-8)


def test_polar_factor_of_a_singular_matrix() -> None:
    """It has no derivative, since zeros have no sign."""
    def f(x: Any) -> Any:
        U, _, Vh = jnp.linalg.svd(x)
        return jnp.sum(M * (U @ Vh))

    with pytest.raises(NoDerivativeError, match="coincide"):
        dr.grad(f)(ROTATION @ jnp.diag(jnp.array([2.0, 0.0, 0.0])))


@pytest.mark.thorough
def test_subsets() -> None:
    """Some eigenvectors move towards all others.  jax has no derivative, and on a CPU no value either."""
    def some(a: Any) -> Any:
        V, w = linalg.eigh(a, subset_by_index=(0, 2))
        return jnp.sum(M[:, :2] * jnp.abs(V)) + jnp.sum(w)

    def of_all(a: Any) -> Any:
        V, w = linalg.eigh(a)
        return jnp.sum(M[:, :2] * jnp.abs(V[:, :2])) + jnp.sum(w[:2])

    def singular(x: Any, **kwargs: Any) -> Any:
        U, s, Vh = linalg.svd(x, full_matrices=False, **kwargs)
        return jnp.sum(T[:2, :2] * (columns(U[:, :2], s[:2]).T @ W @ Vh[:2].T))

    close(dr.grad(some)(A), jax.grad(of_all)(A))
    close(dr.grad(some, engine="forward")(A), jax.grad(of_all)(A))
    for engine in ("forward", "reverse"):
        close(dr.grad(lambda x: singular(x, subset_by_index=(0, 2)), engine=engine)(W), jax.grad(singular)(W))


# ----------------------------------------------------------------------------------------- beyond jax: general eigenvalues


@pytest.mark.thorough
def test_semisimple_eigenvalues() -> None:
    """A general matrix whose eigenvectors span the space though eigenvalues coincide."""
    def function(a: Any) -> Any:
        w, V = jnp.linalg.eig(a)
        return jnp.sum(M * (columns(V, jnp.exp(w)) @ jnp.linalg.inv(V)).real)

    a = A @ jnp.diag(jnp.array([1.0, 1.0, 2.0])) @ jnp.linalg.inv(A)
    close(dr.grad(function)(a), jax.grad(lambda a: jnp.sum(M * jsl.expm(a)))(a))


JORDAN = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("a", [JORDAN, A @ JORDAN @ jnp.linalg.inv(A), A @ (JORDAN - I3) @ jnp.linalg.inv(A)],
                         ids=["jordan", "similar", "nilpotent"])
def test_defective(a: Any) -> None:
    """An error where values are known; NaN under jit, where jax gives numbers."""
    def f(a: Any) -> Any:
        return jnp.linalg.eigvals(a)[0].real

    with pytest.raises(NoDerivativeError, match=r"grad met the eigenvalues of a matrix that is defective.*Perturb"):
        dr.grad(f)(a)
    with pytest.raises(NoDerivativeError, match="jvp met"):
        dr.jvp(lambda a: jax.jit(f)(a), (a,), (T,))
    assert np.isnan(jax.jit(dr.grad(f))(a)).all()
    assert np.isfinite(dr.grad(f)(A)).all()


# -------------------------------------------------------------------------------------------------- beyond jax: no rule there


@pytest.mark.parametrize(("f", "x"), [
    (lambda a: jsl.schur(a), symmetric(A) + jnp.triu(A) / 10),
    (lambda a: jnp.abs(jsl.schur(a, output="complex")[0]), A),
    (lambda a: jnp.diagonal(jsl.schur(a, output="complex")[0]), Z),
    (lambda a: jsl.hessenberg(a, calc_q=True), jnp.asarray(rng.standard_normal((4, 4)))),
    (lambda a: jsl.solve_sylvester(a, A, M), T),
    (lambda a: jnp.linalg.qr(a, mode="raw"), W),
], ids=["schur", "complex schur", "schur of complex", "hessenberg", "solve_sylvester", "raw qr"])
@pytest.mark.thorough
def test_no_rule_in_jax(f: Callable[..., Any], x: Any) -> None:
    t = jnp.asarray(np.random.default_rng(3).standard_normal(x.shape)).astype(x.dtype)
    expected = central(f, x, t)
    with pytest.raises(NotImplementedError):
        jax.jvp(f, (x,), (t,))
    close(dr.jvp(f, (x,), (t,))[1], expected, 1e-7)
    close(dr.linearize(f, x)[1](t), expected, 1e-7)
    cts = jax.tree_util.tree_map(lambda y: jnp.ones_like(y), expected)
    pulled = jnp.sum(dr.vjp(f, x)[1](cts)[0] * t).real
    close(pulled, sum(jnp.sum(y).real for y in jax.tree_util.tree_leaves(expected)), 1e-7)


def test_functions_through_schur() -> None:
    """The loops inside these have no bound that is known, so they are pushed through."""
    for f in (jsl.sqrtm, lambda a: jsl.funm(a, jnp.sin)):
        with pytest.raises(NotImplementedError):
            jax.jvp(f, (A,), (T,))
        close(dr.jvp(f, (A,), (T,))[1], central(f, A, T), 1e-7)


def test_real_schur_of_complex_eigenvalues() -> None:
    turning = jnp.array([[1.0, -2.0], [1.0, 1.0]])
    for call in (lambda: dr.grad(lambda a: jsl.schur(a)[0][0, 1])(turning),
                 lambda: dr.jvp(lambda a: jsl.schur(a)[0], (turning,), (turning,))):
        with pytest.raises(NoDerivativeError, match="output='complex'"):
            call()


def test_no_transpose_solve() -> None:
    def f(b: Any) -> Any:
        return jnp.sum(lax.custom_linear_solve(lambda x: A @ x, b, lambda _, y: jnp.linalg.inv(A) @ y))

    with pytest.raises(TypeError, match=r"transpose_solve required.*grad asked for it"):
        dr.grad(f)(b)
    close(dr.jvp(f, (b,), (b,))[1], f(b))


def test_ratio() -> None:
    """Quotients with a vanishing denominator, by mode; the primitive under jit and vmap."""
    x, y, vanishes = jnp.array([4.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array([False, True])
    t_x, t_y = jnp.array([1.0, 6.0]), jnp.array([1.0, 2.0])
    for mode, value, limit, tangent in (("open", np.nan, 3.0, np.nan), ("split", np.nan, 3.0, 0.0), ("zero", 0.0, 0.0, np.nan)):
        def f(x: Any, y: Any, mode: Any = mode) -> Any:
            return ratio(x, y, vanishes, mode)

        close(f(x, y), jnp.array([2.0, value]))
        close(jax.jit(jax.vmap(f, (0, None)))(x[None], y)[0], jnp.array([2.0, value]))
        close(dr.jvp(f, (x, y), (t_x, t_y)), (jnp.array([2.0, limit]), jnp.array([-0.5, tangent])))
        pulled = dr.vjp(f, x, y)[1](jnp.ones(2))
        close(pulled, (jnp.array([0.5, value]), jnp.array([-1.0, np.nan])))
