"""Householder reflections: their products, and the factorizations whose result is packed as reflections.

The factorizations are differentiated through their definition.  Step ``i`` turns a vector ``x`` into a multiple ``β`` of the unit
vector ``eᵢ`` by ``Hᴴ x``, where ``H = I - τ v vᴴ`` with ``vᵢ = 1`` and ``v`` zero before ``i``: with LAPACK's choice of signs,
``β = -sign(Re xᵢ) ‖x‖``, ``τ = (β - xᵢ)/β`` and ``v = x / (xᵢ - β)`` after ``i`` [GolubVanLoan2013, sec. 5.1].  A vector that is a
real multiple of ``eᵢ`` stays as it is: ``τ = 0``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualrev._jax.primitives import primitive
from dualrev.rules.linalg.matrices import (
    H,
    T,
    columns,
    diagonal,
    down,
    eye_like,
    hermitian,
    mm,
    rows,
    take_columns,
    triangular,
    tril,
    triu,
)
from dualrev.table.pushforward import definition

# -------------------------------------------------------------------------------------------------- products of reflections


def reflections(a: Array, taus: Array) -> tuple[Array, Array]:
    """``(V, W)`` with ``H₁ H₂ ⋯ H_k = I - V W Vᴴ``.

    ``V`` has the vectors for columns, and ``W⁻¹ = diag(1/τ) + triu(Vᴴ V, 1)`` [Puglisi1992; SchreiberVanLoan1989], that is
    ``W = (I + D triu(Vᴴ V, 1))⁻¹ D`` with ``D = diag(τ)``, which holds for ``τ = 0`` too.
    """
    m, k = a.shape[-2], taus.shape[-1]
    V = lax.add(tril(columns(a, 0, k), -1), eye_like(a, m, k))
    D = lax.mul(down(taus, k), eye_like(a, k))
    return V, triangular(lax.mul(down(taus, k), triu(mm(H(V), V), 1)), D, lower=False, unit=True)


def householder_product(a: Array, taus: Array) -> Array:
    """The first columns of ``I - V W Vᴴ``."""
    m, n = a.shape[-2:]
    V, W = reflections(a, taus)
    return lax.sub(eye_like(a, m, n), mm(V, W, H(rows(V, 0, n))))


def ormqr(a: Array, taus: Array, c: Array, *, left: bool, transpose: bool) -> Array:
    """``Q c`` or ``c Q`` with ``Q = I - V W Vᴴ`` or its adjoint."""
    V, W = reflections(a, taus)
    W = H(W) if transpose else W
    return lax.sub(c, mm(V, mm(W, mm(H(V), c))) if left else mm(mm(mm(c, V), W), H(V)))


definition(lax.linalg.householder_product_p, householder_product)
definition(lax.linalg.ormqr_p, ormqr)


# --------------------------------------------------------------------------------------------------------- factorizations


def reflector(x: Array, i: Array) -> tuple[Array, Array]:
    """``(v, τ)`` for a vector whose entries before ``i`` are ignored."""
    index = lax.iota(np.int32, x.shape[0])
    alpha = jnp.sum(jnp.where(index == i, x, 0))
    rest = jnp.where(index > i, x, 0)
    size = jnp.sum(jnp.square(jnp.real(rest)) + jnp.square(jnp.imag(rest))) + jnp.square(jnp.imag(alpha))
    is_done = size == 0  # then the root is taken of 1, so that no derivative of it at 0 is computed
    norm = jnp.sqrt(jnp.where(is_done, 1, size + jnp.square(jnp.real(alpha))))
    beta = jnp.where(jnp.real(alpha) >= 0, -norm, norm).astype(x.dtype)
    tau = jnp.where(is_done, 0, (beta - alpha) / beta)
    v = jnp.where(is_done, 0, rest / jnp.where(is_done, 1, alpha - beta))
    return jnp.where(index == i, 1, v), tau


def times(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


def from_left(v: Array, tau: Array, x: Array) -> Array:
    """``Hᴴ x``."""
    return x - jnp.conj(tau) * jnp.outer(v, times(jnp.conj(v), x))


def from_both(v: Array, tau: Array, x: Array) -> Array:
    """``Hᴴ x H``."""
    x = from_left(v, tau, x)
    return x - tau * jnp.outer(times(x, v), jnp.conj(v))


def reduced(a: Array, n: int, offset: int, reflect: Callable[[Array, Array, Array], Array]) -> tuple[Array, Array]:
    """``(packed, taus)`` after ``n`` steps, where step ``i`` makes column ``i`` zero below row ``i + offset``."""
    row, column = np.indices(a.shape, dtype=np.int32)

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        matrix, vectors = carry
        v, tau = reflector(jnp.sum(jnp.where(column == i, matrix, 0), 1), i + offset)
        return (reflect(v, tau, matrix), jnp.where(column == i, v[:, None], vectors)), tau

    (matrix, vectors), taus = lax.scan(step, (a, jnp.zeros_like(a)), np.arange(n, dtype=np.int32))  # type: ignore[arg-type]
    return jnp.where(row > column + offset, vectors, matrix), taus


def over_batches(a: Array, function: Callable[[Array], tuple[Array, Array]]) -> tuple[Array, Array]:
    for _ in range(a.ndim - 2):
        function = jax.vmap(function)
    return function(a)


def geqrf(a: Array) -> tuple[Array, Array]:
    """``A = H₁ H₂ ⋯ R``."""
    return over_batches(a, lambda x: reduced(x, min(x.shape), 0, from_left))


def geqp3(a: Array, order: Array, *, use_magma: bool | None) -> tuple[Array, Array, Array]:
    """As ``geqrf``, of permuted columns: the operation chooses the permutation, which counts from one."""
    _, order, _ = geqp3_p.bind(lax.stop_gradient(a), order, use_magma=use_magma)
    matrix, taus = geqrf(take_columns(a, lax.sub(order, lax.full_like(order, 1))))
    return matrix, order, taus


def hessenberg(a: Array) -> tuple[Array, Array]:
    """``A = Q B Qᴴ`` with ``Q = H₁ H₂ ⋯`` and ``B`` zero below its first subdiagonal."""
    return over_batches(a, lambda x: reduced(x, max(x.shape[-1] - 1, 0), 1, from_both))


def tridiagonal(a: Array, *, lower: bool) -> tuple[Array, Array, Array, Array]:
    """As ``hessenberg`` for the Hermitian matrix with the given triangle, so that ``B`` is real and tridiagonal.

    For the upper triangle, the steps go from the last row and column to the first.
    """
    turned = a if lower else lax.rev(a, (a.ndim - 2, a.ndim - 1))
    matrix, taus = hessenberg(hermitian(turned, lower=True))
    n = a.shape[-1]
    d, e = jnp.real(diagonal(matrix)), jnp.real(diagonal(rows(columns(matrix, 0, n - 1), 1, n)))
    matrix = lax.add(tril(matrix), triu(turned, 1))  # the other triangle is that of the operand
    if lower:
        return matrix, d, e, taus
    last = a.ndim - 2
    return lax.rev(matrix, (last, last + 1)), lax.rev(d, (last,)), lax.rev(e, (last,)), lax.rev(taus, (last,))


geqp3_p = primitive("geqp3")
definition(primitive("geqrf"), geqrf)
definition(geqp3_p, geqp3)
definition(lax.linalg.hessenberg_p, hessenberg)
definition(lax.linalg.tridiagonal_p, tridiagonal)


def symmetric_product(a: Array, c: Array, *, alpha: float, beta: float) -> Array:
    """``α A Aᵀ + β C``."""
    return lax.add(lax.mul(lax.full_like(c, alpha), mm(a, T(a))), lax.mul(lax.full_like(c, beta), c))


definition(lax.linalg.symmetric_product_p, symmetric_product)
