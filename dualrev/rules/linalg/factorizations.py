"""Triangular factorizations: Cholesky, LU and QR.  Eigenvalues and singular values are in :mod:`dualrev.rules.linalg.spectral`.

All follow one pattern: multiply the differential of ``A = L R`` by the inverses of the factors from their sides.  The result
is a sum of two unknowns, one lower and the other upper triangular (or one skew-Hermitian), which determines both.  Where a factor is
singular the derivative does not exist, and the result is infinite or NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import Array, lax

from dualrev.linear import zeros
from dualrev.linear.maps import Tangent
from dualrev.rules.linalg.matrices import (
    H,
    T,
    above,
    beside,
    columns,
    down,
    eye_like,
    half,
    hermitian,
    keep,
    mm,
    rows,
    solve,
    take_columns,
    take_rows,
    triangular,
    tril,
    triu,
)
from dualrev.table.pushforward import pushforward
from dualrev.table.rows import zero

# --------------------------------------------------------------------------------------------------------------- Cholesky


def cholesky_tangent(t: Array, L: Array) -> Array:
    """``dL`` from ``dA``, where ``A = L Lᴴ``.

    ``dA = dL Lᴴ + L dLᴴ``, so with ``G = L⁻¹ dL``, lower triangular with a real diagonal, ``G + Gᴴ = L⁻¹ dA L⁻ᴴ``: ``G`` is its lower
    triangle with half of its diagonal [Murray2016].
    """
    inner = triangular(L, triangular(L, t, lower=True), left=False, lower=True, adjoint=True)
    return mm(L, half(inner))


# The operation reads the lower triangle of its operand; above the diagonal its output is undefined.
pushforward(lax.linalg.cholesky_p, lambda t, _, *, out: cholesky_tangent(hermitian(t, lower=True), tril(out)))


def cholesky_update_push(ts: Sequence[Tangent], R: Array, w: Array, *, out: Array) -> Array:
    """``A = Rᵀ R + w wᵀ`` is ``out.T @ out``, so ``dA = dRᵀ R + Rᵀ dR + dw wᵀ + w dwᵀ`` gives the tangent of its Cholesky factor."""
    t_R, t_w = ts
    part = None if t_R is None else mm(T(triu(t_R)), triu(R))
    part = zeros.add(part, None if t_w is None else mm(down(t_w, 1), T(down(w, 1))))
    assert part is not None  # one of the operands is active
    return T(cholesky_tangent(lax.add(part, T(part)), tril(T(out))))


pushforward(lax.linalg.cholesky_update_p, cholesky_update_push)


# --------------------------------------------------------------------------------------------------------------------- LU


def lu_tangent(t: Array, lu: Array) -> Array:
    """The tangent of the packed factors of ``A = L U``, where the rows of ``t`` are in the order of the pivots.

    With ``A`` split into its leading square block ``A₁ = L₁ U₁`` and the rows or columns after it: ``G = L₁⁻¹ dA₁ U₁⁻¹`` is the sum of
    ``L₁⁻¹ dL₁``, strictly lower, and ``dU₁ U₁⁻¹``, upper triangular.  Below, ``A₂ = L₂ U₁`` gives
    ``dL₂ = (dA₂ - L₂ dU₁) U₁⁻¹ = dA₂ U₁⁻¹ - L₂ triu(G)``; to the right, ``dU₂ = L₁⁻¹ dA₂ - tril(G, -1) U₂``
    [deHoogEtAl2011].
    """
    m, n = t.shape[-2:]
    k = min(m, n)
    square = rows(columns(lu, 0, k), 0, k)
    if m >= n:
        right = triangular(square, t, left=False, lower=False)  # dA U⁻¹, whose first rows are those of dA₁
        G = triangular(square, rows(right, 0, k), lower=True, unit=True)
    else:
        left = triangular(square, t, lower=True, unit=True)
        G = triangular(square, columns(left, 0, k), left=False, lower=False)
    lower, upper = tril(G, -1), triu(G)
    U = triu(square)
    below = lower if k == 0 else lax.add(lower, mm(tril(square, -1), lower))
    leading = lax.add(tril(below, -1), mm(upper, U))
    if m > n:
        return above(leading, lax.sub(rows(right, k, m), mm(rows(lu, k, m), upper)))
    if m < n:
        return beside(leading, lax.sub(columns(left, k, n), mm(lower, columns(lu, k, n))))
    return leading


def lu_push(t: Array, _: Array, *, out: Sequence[Array]) -> Sequence[Tangent]:
    lu, _pivots, permutation = out
    return lu_tangent(take_rows(t, permutation), lu), None, None


pushforward(lax.linalg.lu_p, lu_push)
zero(lax.linalg.lu_pivots_to_permutation_p)


# --------------------------------------------------------------------------------------------------------------------- QR


def qr_rotation(C: Array) -> tuple[Array, Array]:
    """``(Ω, C - Ω)`` with ``Ω`` skew-Hermitian and the difference upper triangular with a real diagonal."""
    lower = tril(C, -1)
    omega = lax.sub(lower, H(lower))
    if C.dtype.kind == "c":
        imaginary = lax.complex(lax.full_like(lax.imag(C), 0), lax.imag(C))
        omega = lax.add(omega, keep(np.eye(C.shape[-1], dtype=bool), imaginary))
    return omega, lax.sub(C, omega)


def thin_qr(t: Array, Q: Array, R: Array) -> tuple[Array, Array]:
    """``(dQ, dR)`` for ``A = Q R`` with ``R`` square.

    ``dA R⁻¹ = dQ + Q dR R⁻¹``, so ``Qᴴ dA R⁻¹`` is the sum of ``Ω = Qᴴ dQ``, skew-Hermitian, and ``dR R⁻¹``, upper triangular with a
    real diagonal, as that of ``R`` is.  Then ``dQ = dA R⁻¹ - Q (dR R⁻¹)`` [WalterLehmann2012; SeegerEtAl2017].
    """
    right = triangular(R, t, left=False, lower=False)
    _, upper = qr_rotation(mm(H(Q), right))
    return lax.sub(right, mm(Q, upper)), mm(upper, R)


def wide_qr(t: Array, Q: Array, R: Array) -> tuple[Array, Array]:
    """As :func:`thin_qr` with more columns than rows: the first ones determine ``Q``, which is square, so that for the others
    ``dR₂ = Qᴴ dA₂ + dQᴴ A₂ = Qᴴ dA₂ - Ω R₂`` [RobertsRoberts2020]."""
    m, n = R.shape[-2:]
    first = columns(R, 0, m)
    turned = mm(H(Q), t)
    omega, upper = qr_rotation(triangular(first, columns(turned, 0, m), left=False, lower=False))
    rest = lax.sub(columns(turned, m, n), mm(omega, columns(R, m, n)))
    return mm(Q, omega), beside(mm(upper, first), rest)


def completed(t: Array, Q: Array, n: int) -> Array:
    """The tangent of the columns after the first ``n`` of a product ``Q`` of ``n`` Householder reflections, from that, ``t``, of the
    first.

    ``Q = I - V W Vᴴ`` with ``V`` unit lower trapezoidal [SchreiberVanLoan1989].  Hence ``[I; 0] - Q₁ = V W V₁ᴴ`` for the first
    columns, the blocks of which give ``V₂ V₁⁻¹ = Z`` with ``Z = Q₂₁ (Q₁₁ - I)⁻¹``; and for the others
    ``Q₂ = [0; I] - V W V₂ᴴ = [0; I] - ([I; 0] - Q₁) Zᴴ``.  The differential of this, with
    ``dZ = (dQ₂₁ - Z dQ₁₁)(Q₁₁ - I)⁻¹`` and, as ``Q Qᴴ = I``, ``([I; 0] - Q₁)(Q₁₁ - I)⁻ᴴ = Q₁ + Q₂ Z``, is
    ``dQ₂ = dQ₁ Zᴴ - (Q₁ + Q₂ Z)(dQ₂₁ - Z dQ₁₁)ᴴ``.
    """
    m = Q.shape[-2]
    first = columns(Q, 0, n)
    upper, lower = rows(first, 0, n), rows(first, n, m)
    Zh = solve(H(lax.sub(upper, eye_like(upper, n))), H(lower))
    Z = H(Zh)
    inner = lax.sub(rows(t, n, m), mm(Z, rows(t, 0, n)))
    return lax.sub(mm(t, Zh), mm(lax.add(first, mm(columns(Q, n, m), Z)), H(inner)))


def qr_push(t: Array, _: Array, *, out: Sequence[Array], pivoting: bool, full_matrices: bool) -> Sequence[Tangent]:
    Q, R, *permutation = out
    m, n = t.shape[-2:]
    if pivoting:
        t = take_columns(t, permutation[0])
    if 0 in (m, n):
        dQ, dR = lax.full_like(Q, 0), lax.full_like(R, 0)
    elif m < n:
        dQ, dR = wide_qr(t, Q, R)
    else:
        dQ, dR = thin_qr(t, columns(Q, 0, n), rows(R, 0, n))
        if full_matrices and m > n:
            dQ, dR = beside(dQ, completed(dQ, Q, n)), above(dR, lax.full_like(rows(R, n, m), 0))
    return (dQ, dR, None) if pivoting else (dQ, dR)


pushforward(lax.linalg.qr_p, qr_push)
