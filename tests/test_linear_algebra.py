"""What ``linearize`` returns is a value: its algebra, its matrix, copies, and what NumPy, SciPy and lineax make of it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, assert_close
from jax import lax
from scipy.sparse import linalg

import dualrev as dr

A = np.random.default_rng(0).standard_normal((2, 3))
X = jnp.array([0.3, 0.5, 0.7])


def f(x: Any) -> Any:
    return jnp.sin(jnp.asarray(A) @ x)


def g(x: Any) -> Any:
    return jnp.asarray(A) @ jnp.cos(x)


def square(y: Any) -> Any:
    return y**2 * y[::-1]


def of_complex(z: Any) -> Any:
    return jnp.exp(jnp.asarray(A + 1j * A[::-1]) @ z)


def to_complex(x: Any) -> Any:
    return jnp.exp(lax.complex(x, x * x[0]))


# The matrices in closed form.
J, K, Q = (dr.linearize(fun, x)[1] for fun, x in ((f, X), (g, X), (square, X[:2])))
J_, K_ = np.cos(A @ X)[:, None] * A, -A * np.sin(X)
Q_ = np.array([[2 * 0.3 * 0.5, 0.3**2], [0.5**2, 2 * 0.5 * 0.3]])
Z = lax.complex(X, X[::-1])
C = dr.linearize(of_complex, Z)[1]
C_ = np.exp((A + 1j * A[::-1]) @ np.asarray(Z))[:, None] * (A + 1j * A[::-1])
R = dr.linearize(to_complex, X)[1]
X_ = np.asarray(X)
R_ = np.exp(X_ + 1j * X_ * X_[0])[:, None] * (np.eye(3) * (1 + 1j * X_[0]) + 1j * np.outer(X_, [1, 0, 0]))

ALGEBRA: dict[str, tuple[Callable[[], Any], Any]] = {
    "2 J": (lambda: 2 * J, 2 * J_),
    "J 2": (lambda: J * 2, 2 * J_),
    "J / 4": (lambda: J / 4, J_ / 4),
    "-J": (lambda: -J, -J_),
    "J + K": (lambda: J + K, J_ + K_),
    "J - K": (lambda: J - K, J_ - K_),
    "sum": (lambda: sum([J, K, J]), 2 * J_ + K_),
    "NumPy's scalars": (lambda: np.float32(3) * J * np.int32(2), 6 * J_),
    "jax's scalars": (lambda: jnp.asarray(3) * J / jnp.asarray(2.0), 1.5 * J_),
    "Jᵀ J": (lambda: J.T @ J, J_.T @ J_),
    "J Jᵀ": (lambda: J @ J.T, J_ @ J_.T),
    "Q (J + 2 K)": (lambda: Q @ (J + 2 * K), Q_ @ (J_ + 2 * K_)),
    "Jᵀ Qᵀ": (lambda: J.T @ Q.T, (Q_ @ J_).T),
    "Q + Qᵀ": (lambda: Q + Q.T, Q_ + Q_.T),
    "2 Jᵀ - Kᵀ / 3": (lambda: 2 * J.T - K.T / 3, 2 * J_.T - K_.T / 3),
    "Jᵀ (K Jᵀ)": (lambda: J.T @ (K @ J.T), J_.T @ K_ @ J_.T),
    "complex": (lambda: C, C_),
    "i C": (lambda: (2 + 1j) * C - C, (1 + 1j) * C_),
    "Cᵀ C": (lambda: C.T @ C, C_.T @ C_),
    "real to complex": (lambda: R, R_),
    "(real to complex)ᵀ": (lambda: R.T, R_.T),
}


@pytest.mark.parametrize("name", ALGEBRA)
def test_algebra(name: str) -> None:
    make, expected = ALGEBRA[name]
    got = make()
    m, n = expected.shape
    assert got.shape == (m, n)
    assert got.dtype == expected.dtype
    assert_close(got.dense(), jnp.asarray(expected))
    assert_close(got.T.dense(), jnp.asarray(expected).T)
    x, u = np.arange(1.0, n + 1), np.arange(1.0, m + 1)
    assert_close(got.matvec(x), expected @ x)
    assert_close(got.rmatvec(u), expected.conj().T @ u)
    if expected.dtype.kind == "f":
        assert_close(got @ jnp.asarray(x), expected @ x)
        assert_close(got.T @ jnp.asarray(u), expected.T @ u)
        x, u = x + 0j, u + 0j
    assert_close(got.matvec(1j * x), expected @ (1j * x))
    assert_close(got.rmatvec(1j * u), expected.conj().T @ (1j * u))


def test_trees() -> None:
    def fun(p: Any, y: Any) -> Any:
        return {"a": p["w"] * y, "b": [jnp.sum(p["w"]) + jnp.sum(p["n"]).astype(y.dtype)]}

    T = dr.linearize(fun, {"w": X, "n": jnp.ones(2, int)}, jnp.asarray(2.0))[1]
    T_ = np.block([[2 * np.eye(3), np.asarray(X)[:, None]], [np.ones((1, 3)), np.zeros((1, 1))]])
    assert_close(np.asarray(T), T_)
    assert_close((T.T @ T / 2 + T.T @ T).dense(), 1.5 * T_.T @ T_)
    got, y_t = (2 * T.T @ T) @ ({"w": X, "n": np.zeros(2, jax.dtypes.float0)}, jnp.asarray(1.0))
    expected = 2 * T_.T @ T_ @ [*X, 1.0]
    assert_close(got["w"], expected[:3])
    assert got["n"].dtype == jax.dtypes.float0
    assert_close(y_t, expected[3])
    assert "({'n': int64[2], 'w': float64[3]}, float64[]) -> {'a': float64[3], 'b': [float64[]]}, 4 x 4" in repr(T)


def test_maps_cross_jit_and_vmap() -> None:
    @jax.jit
    def combined(x: Any, c: Any) -> Any:
        return c * dr.linearize(f, x)[1] - dr.linearize(g, x)[1] / 2

    M = combined(X, 3.0)
    expected = 3 * J_ - K_ / 2
    assert_close(M.dense(), expected)
    assert_close(jax.jit(lambda M, v: (2 * M) @ v)(M, X), 2 * expected @ X)
    assert_close(jax.jit(lambda v: (J.T @ J) @ v)(X), J_.T @ J_ @ X)
    xs, cs = jnp.stack([X, 2 * X]), jnp.array([3.0, 5.0])
    stacked = jax.vmap(combined)(xs, cs)
    got = jax.vmap(lambda M, v: M @ v)(2 * stacked, xs)
    expected = jax.vmap(lambda x, c: 2 * (c * jax.jvp(f, (x,), (x,))[1] - jax.jvp(g, (x,), (x,))[1] / 2))(xs, cs)
    assert_close(got, expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_map_is_differentiated(engine: Any) -> None:
    def through(x: Any, c: Any) -> Any:
        M = dr.linearize(f, x)[1]
        return jnp.sum((c * M.T @ M) @ x)

    def dense(x: Any, c: Any) -> Any:
        M = jax.jacfwd(f)(x)
        return jnp.sum(c * M.T @ (M @ x))

    for got, expected in zip(dr.grad(through, (0, 1), engine=engine)(X, 2.0), jax.grad(dense, (0, 1))(X, 2.0), strict=True):
        assert_close(got, expected)


def test_nothing_is_evaluated_before_it_is_applied() -> None:
    wide = dr.linearize(jnp.sin, jnp.ones(10_000))[1]
    combined = 2 * (wide.T @ wide) - wide / 3
    assert combined.residual_bytes == wide.residual_bytes == 80_000
    assert combined.residuals().nbytes == 80_000
    assert combined.n_ops == 3 * wide.n_ops
    assert (combined @ jnp.ones(10_000)).shape == (10_000,)


def test_parts_keep_their_options() -> None:
    steep = dr.linearize(jnp.sqrt, jnp.zeros(2), zero_wins=True)[1]
    plain = dr.linearize(jnp.sqrt, jnp.ones(2))[1]
    for M in (steep + plain, plain + steep, plain @ steep, plain - 2 * steep):
        assert_close(M @ jnp.zeros(2), np.zeros(2))
    assert not np.isfinite((dr.linearize(jnp.sqrt, jnp.zeros(2))[1] + plain) @ jnp.zeros(2)).any()


def test_wide_cotangents() -> None:
    w = jnp.ones(3, jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        wide = dr.linearize(lambda w: w * 2, w, cotangent_dtype=jnp.float32)[1]
    assert ((wide + wide).T @ w).dtype == jnp.float32
    assert ((wide + dr.linearize(jnp.sin, w)[1]).T @ w).dtype == jnp.bfloat16
    assert ((wide @ wide).T @ w).tolist() == [4.0, 4.0, 4.0]
    assert (wide.T @ wide @ w).dtype == jnp.float32


def test_numpy_makes_a_matrix_when_asked() -> None:
    assert isinstance(np.asarray(J), np.ndarray)
    assert np.asarray(J, np.float32).dtype == np.float32
    assert np.array(J, copy=True).flags.owndata
    with pytest.raises(ValueError, match="computed when it is asked for"):
        np.asarray(J, copy=False)
    assert type(np.float64(2) * J) is type(J)
    X3 = np.arange(6.0).reshape(3, 2)
    assert_close(J.matmat(X3), J_ @ X3)
    assert_close(J.rmatmat(A), J_.T @ A)
    assert_close(jax.vmap(lambda x: J @ x, 1, 1)(jnp.asarray(X3)), J_ @ X3)


def test_copies() -> None:
    for M in (J, J.T, 2 * J + K, J.T @ J):
        shallow, deep = copy.copy(M), copy.deepcopy(M)
        assert shallow is not M
        assert M == M  # equality is identity
        assert shallow != M
        assert len({M, shallow, deep}) == 3
        for got in (shallow, deep):
            assert_close(got.dense(), M.dense())
        assert all(x is y for x, y in zip(jax.tree.leaves(shallow), jax.tree.leaves(M), strict=True))
        assert not any(x is y for x, y in zip(jax.tree.leaves(deep), jax.tree.leaves(M), strict=True) if isinstance(x, jax.Array))


PICKLED: dict[str, Callable[[Any], Any]] = {
    "product": f,
    "jit": jax.jit(f),
    "where": lambda x: jnp.where(x > 0.4, x, x**2)[::-1],
    "sort": lambda x: jnp.cumsum(jnp.sort(x) * x),
    "gather": lambda x: {"a": x[jnp.array([2, 0])] ** 2, "b": x[0]},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PICKLED)
def test_pickle(name: str, engine: Any) -> None:
    M = dr.linearize(PICKLED[name], X, engine=engine)[1]
    for whole in (M, M.T, 2 * (M.T @ M)):
        got = pickle.loads(pickle.dumps(whole))
        assert_close(got.dense(), whole.dense())
        assert_close(got.T.dense(), whole.T.dense())


def test_what_cannot_be_pickled_is_named() -> None:
    loop = dr.linearize(lambda x: lax.scan(lambda c, y: (c * y, c), jnp.ones(()), jnp.sin(x))[1], X)[1]
    with pytest.raises(pickle.PicklingError, match=r"float64\[3\] cannot be pickled: the operation 'scan' at .*linear_algebra"):
        pickle.dumps(2 * loop)
    assert_close(copy.deepcopy(loop).dense(), loop.dense())
    assert_close(pickle.loads(pickle.dumps(dr.linearize(jnp.cumprod, X, engine="forward")[1])).dense(), jax.jacfwd(jnp.cumprod)(X))


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "compose": (lambda: J @ Q, TypeError, r"J takes float64\[3\] .*f: float64\[3\] -> float64\[2\].*K returns float64\[2\]"),
    "dtypes": (lambda: J @ dr.linearize(jnp.sin, X.astype("float32"))[1], TypeError, r"takes float64\[3\].*returns float32\[3\]"),
    "add": (lambda: J + Q, TypeError, r"same inputs.*f: float64\[3\] -> float64\[2\] and square: float64\[2\] -> float64\[2\]"),
    "add outputs": (lambda: J - dr.linearize(jnp.sin, X)[1], TypeError, "same outputs"),
    "add transposed": (lambda: J + J.T, TypeError, r"f, transposed: float64\[2\] -> float64\[3\]"),
    "add a number": (lambda: J + 1, TypeError, "unsupported operand"),
    "product of maps": (lambda: J * J, TypeError, "unsupported operand"),  # type: ignore[operator]
    "vector times": (lambda: jnp.ones(3) * J, TypeError, r"scalars; got ArrayImpl of shape \(3,\)"),
    "NumPy's vector times": (lambda: np.ones(3) * J, TypeError, r"scalars; got ndarray of shape \(3,\)"),
    "string": (lambda: "a" * J, TypeError, "scalars; got 'a'"),  # type: ignore[operator]
    "complex": (lambda: 1j * J, TypeError, "real outputs"),
    "divided by zero": (lambda: J / 0, ZeroDivisionError, "division"),
    "truth": (lambda: bool(J), TypeError, "truth value of a linear map"),
    "structure": (lambda: J @ [X], TypeError, r"expected \(float64\[3\],\), got \(\[float64\[3\]\],\)"),
    "no matrix": (lambda: dr.linearize(jnp.conj, Z)[1].dense(), ValueError, "linear over the real numbers only"),
    "no matrix, real": (lambda: dr.linearize(lambda z: jnp.abs(z) ** 2, Z)[1].matvec(Z), ValueError, "over the real numbers only"),
    "traced": (lambda: jax.jit(lambda z: dr.linearize(of_complex, z)[1].dense())(Z), TypeError, "holomorphic=True"),
    "vector": (lambda: J.matvec(np.ones(2)), ValueError, r"vector of 3 numbers; got one of shape \(2,\)"),
    "matrix": (lambda: J.matmat(np.ones((2, 2))), ValueError, "3 rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_says_both(name: str) -> None:
    make, error, match = WRONG[name]
    with pytest.raises(error, match=match):
        make()


def test_a_promise_of_holomorphy() -> None:
    assert_close(jax.jit(lambda z: dr.linearize(of_complex, z)[1].dense(holomorphic=True))(Z), C_)


def test_words() -> None:
    assert repr(J).splitlines()[0] == "Linear map of f: float64[3] -> float64[2], 2 x 3, 2 ops, 64 residual bytes"
    assert repr(J.T).splitlines()[0] == "Linear map of f, transposed: float64[2] -> float64[3], 3 x 2, 2 ops, 64 residual bytes"
    assert repr(Q @ (2 * J)).splitlines()[0].startswith("Linear map of square @ (2 * f): float64[3] -> float64[2]")
    text = dr.linearize(lambda x: x * 2, X)[1]._repr_html_()
    assert "&lt;lambda&gt;: float64[3] -&gt; float64[3]" in text
    assert "<td>mul</td><td>1</td>" in text
    # Programs that compare structures show them as people write them.
    with pytest.raises(TypeError, match=r"f: float64\[3\] -> float64\[2\]") as caught:
        lax.cond(True, lambda: 2 * J, lambda: K)
    assert " object at 0x" not in str(caught.value)


def test_constant_inputs() -> None:
    _, M = dr.linearize(lambda x, y: x * y, X, X[::-1], in_nzs=(True, False))
    assert_close(M @ (X, X), X * X[::-1])
    assert_close(M.dense(), np.hstack([np.diag(X[::-1]), np.zeros((3, 3))]))
    _, pull = dr.vjp(lambda p: p["a"] * p["b"], {"a": X, "b": X[::-1]}, in_nzs=({"a": False, "b": True},))
    assert_close(pull(jnp.ones(3))[0]["a"], np.zeros(3))
    assert_close(pull(jnp.ones(3))[0]["b"], X)
    with pytest.raises(ValueError, match="in_nzs must be a bool, or a tree of bools"):
        dr.linearize(f, X, in_nzs=(True, False))
    with pytest.raises(NotImplementedError, match="saveable_args"):
        dr.vjp(f, X, saveable_args=False)
    with pytest.raises(TypeError, match="in_nzs"):
        M + dr.linearize(lambda x, y: x * y, X, X)[1]


def test_scipy() -> None:
    random = np.random.default_rng(0)
    B = random.standard_normal((8, 6)) + 1j * random.standard_normal((8, 6))
    z, b = random.standard_normal(6) + 0.5j, random.standard_normal(8) + 0j
    M = dr.linearize(lambda z: jnp.asarray(B) @ jnp.sin(z), z)[1]
    M_ = B * np.cos(z)
    operator = linalg.aslinearoperator(M)
    assert operator.dtype == M_.dtype
    assert_close(operator.H @ b, M_.conj().T @ b)
    assert_close(operator @ np.eye(6), M_)
    assert_close(linalg.lsqr(operator, b, atol=1e-14, btol=1e-14)[0], np.linalg.lstsq(M_, b)[0], 1e-8)
    assert_close(np.sort(linalg.svds(operator, k=2)[1]), np.sort(np.linalg.svd(M_)[1][:2]), 1e-8)
    normal = dr.linearize(lambda x: jnp.asarray(B.real) @ jnp.sin(x), z.real)[1]
    N, N_ = normal.T @ normal, (B.real * np.cos(z.real)).T @ (B.real * np.cos(z.real))
    assert_close(linalg.cg(linalg.aslinearoperator(N), z.real, rtol=1e-12)[0], np.linalg.solve(N_, z.real), 1e-8)
    assert_close(linalg.eigsh(linalg.aslinearoperator(N), k=2)[0], np.linalg.eigvalsh(N_)[-2:], 1e-8)


def test_lineax() -> None:
    lineax = pytest.importorskip("lineax", reason="lineax is an optional library, in the extra 'ecosystem'")
    M, N = Q.to_lineax(), (Q.T @ Q).to_lineax(lineax.positive_semidefinite_tag)
    b = jnp.array([1.0, -2.0])
    assert_close(M.as_matrix(), Q_)
    assert_close(M.T.mv(b), Q_.T @ b)
    for operator, solver, matrix in ((M, lineax.LU(), Q_), (M.T, lineax.GMRES(rtol=1e-12, atol=1e-12), Q_.T),
                                     (N, lineax.CG(rtol=1e-12, atol=1e-12), Q_.T @ Q_)):
        assert_close(lineax.linear_solve(operator, b, solver).value, np.linalg.solve(matrix, b), 1e-8)
    c = lax.complex(b, b)
    assert_close(lineax.conj(C.to_lineax()).T.mv(c), C_.conj().T @ c)


def test_without_lineax(monkeypatch: pytest.MonkeyPatch) -> None:
    from dualrev.functional.lineax_operator import operator_class

    operator_class.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "lineax", None)
    with pytest.raises(ImportError, match="pip install lineax"):
        J.to_lineax()
