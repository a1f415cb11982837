"""Lines for matrix factorizations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import C128, F64, RC, Maker, bind, case, ints, normal
from jax import lax
from jax.lax import linalg

FOUR = (*RC, "float32", "complex64")


def adjoint(x: Any) -> Any:
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def positive(x: Any) -> Any:
    """A positive definite matrix."""
    return x @ adjoint(x) + jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)


def upper(*shape: int) -> Maker:
    """Upper triangular matrices with a positive diagonal."""
    make = normal(*shape)

    def wrapped(rng: Any, dtype: Any) -> Any:
        x = np.triu(make(rng, dtype))
        x[..., range(shape[-1]), range(shape[-1])] += 3
        return x
    return wrapped


def householder(a: Any, shift: int = 0) -> tuple[Any, Any]:
    """Reflections of a QR factorization (``shift`` 0) or a Hessenberg reduction (1), packed, step by step."""
    m, n = a.shape
    packed, taus = jnp.zeros_like(a), []
    for i in range(min(m, n) if shift == 0 else n - 1):
        x = a[i + shift:, i]
        alpha, rest = x[0], x[1:]
        if rest.size == 0 and not jnp.iscomplexobj(a):
            v, tau = jnp.ones_like(x), jnp.zeros_like(alpha)
        else:
            beta = -jnp.where(alpha.real >= 0, 1, -1) * jnp.sqrt(jnp.sum(jnp.real(x) ** 2 + jnp.imag(x) ** 2))
            tau, v = (beta - alpha) / beta, jnp.concatenate([jnp.ones_like(alpha)[None], rest / (alpha - beta)])
        reflection = jnp.eye(m, dtype=a.dtype).at[i + shift:, i + shift:].add(-tau * jnp.outer(v, jnp.conj(v)))
        a = adjoint(reflection) @ a
        a = a @ reflection if shift else a
        packed = packed.at[i + shift + 1:, i].set(v[1:])
        taus.append(tau)
    return jnp.where(np.tri(m, n, -1 - shift, dtype=bool), packed, a), jnp.stack(taus)


def from_reflections(a: Any, taus: Any, columns: int | None = None) -> Any:
    """The product of reflections, one at a time."""
    m = a.shape[0]
    product = jnp.eye(m, dtype=a.dtype)
    for i in range(taus.shape[0]):
        v = jnp.concatenate([jnp.zeros(i, a.dtype), jnp.ones(1, a.dtype), a[i + 1:, i]])
        product = product @ (jnp.eye(m, dtype=a.dtype) - taus[i] * jnp.outer(v, jnp.conj(v)))
    return product[:, :columns]


def hermitian(x: Any) -> Any:
    return (x + adjoint(x)) / 2


def tridiagonal_parts(x: Any, lower: bool) -> Any:
    """The diagonals and reflections of a reduction, with those entries of the matrix that mean something."""
    matrix, d, e, taus = linalg.tridiagonal(hermitian(x), lower=lower)
    n = x.shape[-1]
    return jnp.where(np.tri(n, n, -2, dtype=bool) if lower else np.tri(n, n, -2, dtype=bool).T, matrix, 0), d, e, taus


def tridiagonal_oracle(x: Any, lower: bool) -> Any:
    a = hermitian(x)
    matrix, taus = householder(a if lower else a[::-1, ::-1], 1)
    n = x.shape[-1]
    vectors = jnp.where(np.tri(n, n, -2, dtype=bool), matrix, 0)
    d, e = jnp.diagonal(matrix).real, jnp.diagonal(matrix, -1).real
    return (vectors, d, e, taus) if lower else (vectors[::-1, ::-1], d[::-1], e[::-1], taus[::-1])


ELSEWHERE = {"schur": "test_linalg.py", "ratio": "test_linalg.py", "sylvester": "test_values.py", "square_root": "test_values.py"}

geqrf, geqp3 = bind("geqrf"), bind("geqp3", use_magma=None)


def geqp3_oracle(a: Any, jpvt: Any) -> Any:
    order = geqp3(lax.stop_gradient(a), jpvt)[1]
    matrix, taus = householder(a[:, order - 1])
    return matrix, order, taus


CASES = [
    case("cholesky", lambda x: linalg.cholesky(positive(x)), normal(3, 3), dtypes=FOUR),
    case("cholesky", lambda x: linalg.cholesky(x + 5 * jnp.eye(2, dtype=x.dtype), symmetrize_input=False), normal(2, 2), dtypes=RC,
         label="one triangle", oracle=lambda x: linalg.cholesky(jnp.tril(x, -1) + adjoint(jnp.tril(x, -1))
                                                                + jnp.diag(jnp.diagonal(x).real + 5).astype(x.dtype))),
    case("cholesky", lambda x: linalg.cholesky(positive(x)), normal(2, 2, 2), label="batched"),
    case("cholesky", lambda x: linalg.cholesky(positive(x)), normal(1, 1), label="size 1"),
    case("cholesky", lambda x: linalg.cholesky(positive(x)), normal(2, 0, 0), label="size 0"),
    case("cholesky_update", lambda R, w: linalg.cholesky_update(jnp.triu(R), w), upper(3, 3), normal(3),
         dtypes=("float64", "float32"), vmap=False,
         oracle=lambda R, w: jnp.linalg.cholesky(jnp.triu(R).T @ jnp.triu(R) + jnp.outer(w, w)).T),

    *[case("lu", lambda x: linalg.lu(x)[0], normal(*shape), dtypes=FOUR if shape == (3, 3) else F64, label=f"{shape}")
      for shape in ((3, 3), (4, 2), (2, 4), (2, 2, 3), (1, 1), (0, 2), (2, 0))],
    case("lu", lambda x: linalg.lu(x)[0], normal(2, 3), dtypes=C128, label="wide"),
    case("lu_pivots_to_permutation", lambda x: x[linalg.lu_pivots_to_permutation(linalg.lu(x)[1], 3)], normal(3, 3)),

    *[case("qr", lambda x, f=full: linalg.qr(x, full_matrices=f), normal(*shape),
           dtypes=FOUR if shape == (3, 2) else RC if len(shape) == 2 and min(shape) > 1 else F64, label=f"{shape}, full={full}")
      for shape in ((3, 2), (2, 2), (2, 4), (2, 3, 2), (1, 1), (0, 2), (2, 0)) for full in (False, True)],
    case("qr", lambda x: linalg.qr(x, pivoting=True, full_matrices=False)[:2], normal(3, 2), dtypes=RC, label="pivoted"),
    # jax forgets to permute the columns after the square part.
    case("qr", lambda x: linalg.qr(x, pivoting=True)[:2], normal(2, 3), label="pivoted, wide",
         oracle=lambda x: linalg.qr(x[:, linalg.qr(lax.stop_gradient(x), pivoting=True)[2]])),

    case("geqrf", lambda x: tuple(geqrf(x)), normal(3, 2), dtypes=RC, oracle=householder),
    case("geqrf", lambda x: tuple(geqrf(x)), normal(2, 2), dtypes=RC, oracle=householder, label="square", order=1, vmap=False),
    case("geqrf", lambda x: tuple(geqrf(x)), normal(2, 3), oracle=householder, label="wide", order=1, vmap=False),
    case("geqrf", lambda x: tuple(geqrf(x)), normal(2, 3, 2), oracle=jax.vmap(householder), label="batched", order=1, vmap=False),
    case("geqp3", lambda x, order: tuple(geqp3(x, order)), normal(3, 2), ints(0, 1, 2), order=1, oracle=geqp3_oracle),
    case("householder_product", linalg.householder_product, normal(3, 2), normal(2), dtypes=RC,
         oracle=lambda a, taus: from_reflections(a, taus, 2)),
    case("householder_product", linalg.householder_product, normal(2, 2, 2), normal(2, 1), label="batched, fewer",
         oracle=jax.vmap(lambda a, taus: from_reflections(a, taus, 2))),
    *[case("ormqr", lambda a, taus, c, f=flags: linalg.ormqr(a, taus, c, **f), normal(3, 2), normal(2), normal(3, 3),
           dtypes=RC if i == 0 else F64, label=f"{flags}", order=2 if i == 0 else 1, vmap=i == 0,
           oracle=lambda a, taus, c, f=flags: jnp.matmul(*((lambda q: (q, c) if f["left"] else (c, q))(
               (adjoint if f["transpose"] else lambda q: q)(from_reflections(a, taus))))))
      for i, flags in enumerate(dict(left=left, transpose=transpose) for left in (True, False) for transpose in (True, False))],
    case("eigh", lambda x: linalg.eigh(x), normal(3, 3), dtypes=FOUR),
    case("eigh", lambda x: linalg.eigh(hermitian(x), lower=False, symmetrize_input=False), normal(3, 3), dtypes=RC, label="upper"),
    case("eigh", lambda x: linalg.eigh(x, symmetrize_input=False), normal(2, 2), label="one triangle",
         oracle=lambda x: linalg.eigh(jnp.tril(x) + jnp.tril(x, -1).T)),
    case("eigh", lambda x: linalg.eigh(x)[1], normal(2, 2, 2), label="batched, eigenvalues"),
    case("eigh", lambda x: linalg.eigh(x), normal(1, 1), label="size 1"),
    case("eigh", lambda x: linalg.eigh(x), normal(0, 0), label="size 0"),

    *[case("svd", lambda x, f=full: linalg.svd(x, full_matrices=f), normal(*shape),
           dtypes=FOUR if i == 0 else RC if len(shape) == 2 and min(shape) > 1 else F64, label=f"{shape}, full={full}")
      for i, (shape, full) in enumerate([((3, 2), False), ((2, 2), True), ((2, 3), False), ((2, 3, 2), False), ((1, 1), False),
                                         ((1, 2), False), ((0, 2), False), ((2, 0), False)])],
    case("svd", lambda x: linalg.svd(x, compute_uv=False), normal(3, 2), dtypes=RC, label="values"),

    *[case("eig", lambda x, f=flags: linalg.eig(x, **f, enable_eigvec_derivs=True), normal(3, 3), dtypes=FOUR if i == 0 else RC,
           label=f"{flags}", rtol=None if i == 0 else 1e-8)
      for i, flags in enumerate(dict(compute_left_eigenvectors=left, compute_right_eigenvectors=right)
                                for left, right in ((False, True), (True, False), (False, False)))],
    case("eig", lambda x: linalg.eig(x, compute_left_eigenvectors=False, compute_right_eigenvectors=False)[0], normal(2, 2, 2),
         label="batched", order=1),
    case("eig", lambda x: linalg.eig(x, enable_eigvec_derivs=True), normal(1, 1), label="size 1", order=1),

    case("hessenberg", linalg.hessenberg, normal(3, 3), dtypes=RC, order=1, oracle=lambda x: householder(x, 1)),
    case("tridiagonal", lambda x: tridiagonal_parts(x, True), normal(3, 3), dtypes=RC, order=1,
         oracle=lambda x: tridiagonal_oracle(x, True)),
    case("tridiagonal", lambda x: tridiagonal_parts(x, False), normal(3, 3), order=1, label="upper",
         oracle=lambda x: tridiagonal_oracle(x, False)),
    case("symmetric_product", lambda a, c: linalg.symmetric_product(a, c, alpha=2.0, beta=3.0), normal(2, 3), normal(2, 2),
         oracle=lambda a, c: 2 * a @ a.T + 3 * c),
]
