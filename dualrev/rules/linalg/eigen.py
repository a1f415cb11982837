"""Eigenvalues of general matrices, and the Schur form.

``A = V diag(w) V⁻¹``: with ``P = V⁻¹ dA V`` the tangents of eigenvalues are the diagonal of ``P``, and those of eigenvectors ``V Ω``,
``Ωᵢⱼ = Pᵢⱼ / (wⱼ - wᵢ)`` [Giles2008, sec. 3.1], plus multiples of the eigenvectors that preserve the scaling of LAPACK: length 1,
and a real largest entry. Where eigenvalues coincide and the eigenvectors still span the space, tapes are as in
:mod:`dualrev.rules.linalg.spectral`, and pushes give NaN.  If they do not span it, the matrix is defective, and its eigenvalues have
no derivative: an error if values are known, and NaN otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualrev import errors
from dualrev._jax.primitives import Params
from dualrev._jax.traces import is_concrete, is_eager
from dualrev.linear.maps import Tangent
from dualrev.options.settings import Active
from dualrev.rules.linalg.matrices import H, across, cast, diagonal, down, epsilon, eye_like, keep, mm, solve, triangular, tril
from dualrev.rules.linalg.ratio import Mode
from dualrev.rules.linalg.spectral import SpectralRow, by_gaps, difference, off_diagonal, pairs, rounding
from dualrev.table.operations import OpMap, Residuals
from dualrev.table.pushforward import Push, PushforwardRow
from dualrev.table.rows import Dual, Operand, Taped, register

#: Eigenvalues, right and left eigenvectors (None: not computed), and the size of the matrix.
Eigen: TypeAlias = tuple[Array, Array, Array | None, Array]


def close(w: Array) -> Array:
    """Which pairs of values, in any order, are equal, to rounding."""
    gaps = pairs(w, lambda x, y: lax.abs(lax.sub(x, y)))
    return lax.le(gaps, lax.broadcast_in_dim(rounding(w), gaps.shape, tuple(range(w.ndim - 1))))


def inverse_of(V: Array, w: Array, size: Array) -> tuple[Array, Array]:
    """``V⁻¹``, and which of its rows belong to eigenvalues that are defective.

    The length of row ``j`` is the condition number of eigenvalue ``j``: its change per size of a small perturbation.  An eigenvalue is
    defective if rounding can change it by its distance from another, and its condition number is large.
    """
    n = w.shape[-1]
    inverse = solve(V, eye_like(V, n))
    condition = lax.sqrt(lax.reduce_sum(lax.square(lax.abs(inverse)), (V.ndim - 1,)))
    gaps = pairs(w, lambda x, y: lax.abs(lax.sub(x, y)))
    others = lax.select(lax.broadcast(np.eye(n, dtype=bool), w.shape[:-1]), lax.full_like(gaps, jnp.inf), gaps)
    reach = lax.mul(condition, lax.broadcast_in_dim(lax.mul(size, lax.full_like(size, 8 * n * epsilon(w))), condition.shape,
                                                    tuple(range(size.ndim))))
    meets = lax.le(lax.reduce_min(others, (w.ndim,)), reach)
    is_healthy = lax.lt(condition, lax.full_like(condition, epsilon(w) ** -0.25))  # false where it is NaN
    return inverse, lax.bitwise_not(lax.bitwise_or(is_healthy, lax.bitwise_not(lax.bitwise_or(meets, lax.ne(condition, condition)))))


def scaled(V: Array, U: Array) -> Array:
    """``U`` plus multiples of the columns of ``V``: tangents that preserve lengths, and real largest entries."""
    largest = lax.argmax(lax.abs(V), V.ndim - 2, np.int32)
    mask = lax.eq(lax.broadcasted_iota(np.int32, V.shape, V.ndim - 2), across(largest, V.shape[-2]))
    entry_V, entry_U = [lax.reduce_sum(keep_where(mask, x), (V.ndim - 2,)) for x in (V, U)]
    along = lax.reduce_sum(lax.real(lax.mul(lax.conj(V), U)), (V.ndim - 2,))
    factor = lax.complex(lax.neg(along), lax.neg(lax.div(lax.imag(entry_U), lax.real(entry_V))))
    return lax.add(U, lax.mul(V, across(factor, V.shape[-2])))


def keep_where(mask: Array, x: Array) -> Array:
    return lax.select(mask, x, lax.full_like(x, 0))


def eig_push(mode: Mode) -> Push:
    def push(t: Array, _: Array, *, saved: Eigen, compute_left_eigenvectors: bool, compute_right_eigenvectors: bool) -> list[Tangent]:
        w, right, left, size = saved
        t = cast(t, right.dtype)

        def tangents(V: Array, w: Array, t: Array) -> tuple[Array, Array]:
            inverse, is_defective = inverse_of(V, w, size)
            inverse = lax.select(down(is_defective, V.shape[-1]), lax.full_like(inverse, jnp.nan), inverse)
            P = mm(inverse, t, V)
            return P, scaled(V, mm(V, by_gaps(P, pairs(w, difference), close(w), mode)))

        P, dV = tangents(right, w, t)
        dw = None if mode == "pole" else diagonal(P)
        # uᴴ A = w uᴴ: left eigenvectors are those of Aᴴ.
        dU = None if left is None else tangents(left, lax.conj(w), H(t))[1]
        return [dw, *([dU] if compute_left_eigenvectors else []), *([dV] if compute_right_eigenvectors else [])]
    return push


def eig_decompose(x: Array, **params: object) -> Eigen:
    """``(w, right eigenvectors, left eigenvectors or None, size of the matrix)``."""
    w, *others = lax.linalg.eig_p.bind(x, **dict(params, compute_right_eigenvectors=True))
    size = lax.reduce_max(lax.abs(x), (x.ndim - 2, x.ndim - 1))
    return w, others[-1], others[0] if params["compute_left_eigenvectors"] else None, size


def eig_present(saved: Eigen, *, compute_right_eigenvectors: bool, **_: object) -> list[Array]:
    w, right, left, _size = saved
    return [w, *([] if left is None else [left]), *([right] if compute_right_eigenvectors else [])]


def eig_split(saved: Eigen, dual: Dual) -> Eigen:
    w, right, left, size = saved
    return dual(w, jnp.broadcast_to(jnp.arange(1, w.shape[-1] + 1).astype(w.dtype), w.shape)), right, left, size


def is_defective(saved: Eigen) -> Array:
    w, right, _, size = saved
    return jnp.any(inverse_of(right, w, size)[1])


def eig_has_poles(saved: Eigen) -> Array:
    return jnp.any(off_diagonal(close(saved[0]))) | is_defective(saved)


class EigRow(SpectralRow[Eigen]):
    """A row that raises an error for a defective matrix, if values are known."""

    may_refuse = True

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        outs, pushed = super().jvp(primals, tangents, params)
        if is_eager((*primals, *tangents)) and bool(jnp.any(jnp.isnan(pushed[0]))):  # type: ignore[arg-type]
            self.refuse(eig_decompose(*primals, **params))
        return outs, pushed

    def refuse(self, saved: Eigen) -> None:
        if bool(is_defective(saved)):
            raise errors.defective()


register(EigRow(lax.linalg.eig_p, eig_push, eig_decompose, eig_present, eig_split, eig_has_poles, lambda *_: None))


# -------------------------------------------------------------------------------------------------------------- Schur form


def eigenvectors_of_triangular(T: Array) -> Array:
    """``X``, unit upper triangular, with ``T X = X diag(T)``: from the last row on, ``Xᵢⱼ = -Σ_{k>i} Tᵢₖ Xₖⱼ / (Tᵢᵢ - Tⱼⱼ)``."""
    n, last = T.shape[-1], T.ndim - 1
    w = diagonal(T)
    index = np.arange(n)

    def step(X: Array, i: Array) -> tuple[Array, None]:
        row = lax.squeeze(lax.dynamic_slice_in_dim(T, i, 1, last - 1), (last - 1,))
        later = keep(lax.gt(index, lax.broadcast(i, (n,))), row)
        pivot = lax.dynamic_slice_in_dim(w, i, 1, last - 1)
        gaps = lax.sub(lax.broadcast_in_dim(pivot, w.shape, tuple(range(w.ndim))), w)
        is_later = lax.broadcast(lax.gt(index, lax.broadcast(i, (n,))), w.shape[:-1])
        product = lax.squeeze(mm(lax.expand_dims(later, (last - 1,)), X), (last - 1,))
        entries = lax.select(is_later, lax.neg(lax.div(product, lax.select(is_later, gaps, lax.full_like(gaps, 1)))),
                             lax.convert_element_type(lax.broadcast(lax.eq(index, lax.broadcast(i, (n,))), w.shape[:-1]), T.dtype))
        return lax.dynamic_update_slice_in_dim(X, lax.expand_dims(entries, (last - 1,)), i, last - 1), None

    return lax.scan(step, lax.full_like(T, 0), index, reverse=True)[0]  # type: ignore[arg-type]  # steps read tracers


def schur_push(t: Array, _: Array, *, saved: tuple[Array, Array], compute_schur_vectors: bool) -> list[Array]:
    """``A = Z T Zᴴ`` with ``Ω = Zᴴ dZ`` skew-Hermitian: ``M = Zᴴ dA Z = Ω T + dT - T Ω``, where ``dT`` has nothing below the diagonal.

    Below it, only the lower part ``L`` of ``Ω`` contributes: ``L T - T L`` and ``M`` are equal there.  The eigenvectors ``X`` of
    ``T`` are upper triangular, so that the part of ``X⁻¹ M X`` below the diagonal depends on that of ``M`` alone: it is ``Yᵢⱼ (wⱼ -
    wᵢ)`` with ``Y = X⁻¹ L X``.  The diagonal of ``Ω``, which changes phases, is free, and zero.
    """
    T, Z = saved
    n = T.shape[-1]
    M = mm(H(Z), t, Z)
    X = eigenvectors_of_triangular(T)
    is_below = lax.broadcast(np.tri(n, n, -1, dtype=bool), T.shape[:-2])
    gaps = lax.select(is_below, pairs(diagonal(T), difference), lax.full_like(T, 1))
    Y = tril(lax.div(triangular(X, mm(M, X), lower=False, unit=True), gaps), -1)
    L = tril(triangular(X, mm(X, Y), left=False, lower=False, unit=True), -1)
    if T.dtype.kind != "c":  # a pair of complex eigenvalues makes a block that is not triangular
        blocks = lax.reduce_or(lax.ne(tril(T, -1), lax.full_like(T, 0)), (T.ndim - 2, T.ndim - 1))
        L = lax.select(lax.broadcast_in_dim(blocks, L.shape, tuple(range(blocks.ndim))), lax.full_like(L, jnp.nan), L)
    omega = lax.sub(L, H(L))
    dT = lax.sub(lax.add(M, mm(T, omega)), mm(omega, T))
    dT = lax.sub(dT, keep_where(is_below, dT))
    return [dT, mm(Z, omega)] if compute_schur_vectors else [dT]


def schur_saves(x: Array, **params: object) -> tuple[list[Array], tuple[Array, Array]]:
    T, Z = lax.linalg.schur_p.bind(x, **dict(params, compute_schur_vectors=True))
    return ([T, Z] if params["compute_schur_vectors"] else [T]), (T, Z)


def schur_is_open(T: Array) -> Array:
    """Whether two eigenvalues on the diagonal of ``T`` coincide, so that their vectors are not unique."""
    return jnp.any(close(diagonal(T)) & ~np.eye(T.shape[-1], dtype=bool))


class SchurRow(PushforwardRow):
    """A row for real matrices with real eigenvalues and for complex ones, without equal eigenvalues.

    For other matrices it raises an error if values are known, and gives NaN otherwise.
    """

    may_refuse = True
    may_be_singular = True

    def __init__(self) -> None:
        super().__init__(lax.linalg.schur_p, schur_push, schur_saves, False)

    def is_singular(self, residuals: Residuals) -> bool:
        ((T, _),) = residuals
        return self.has_blocks(T) or bool(schur_is_open(T))

    def has_blocks(self, T: Array) -> bool:
        return T.dtype.kind != "c" and bool(jnp.any(jnp.tril(T, -1)))

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        outs, pushed = super().jvp(primals, tangents, params)
        if is_eager((*primals, *tangents)):
            self.refuse(((outs[0], None),))
        return outs, pushed

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Taped:
        outs, linear_map, active_outs = super().linearize(primals, active, params, is_linear)
        if is_concrete(primals):
            assert isinstance(linear_map, OpMap)  # rows of one operation have no other map
            self.refuse(linear_map.residuals)
        return outs, linear_map, active_outs

    def refuse(self, residuals: Residuals) -> None:
        ((T, _),) = residuals
        if self.has_blocks(T):
            raise errors.no_derivative(self.primitive, "The real Schur form of a matrix with complex eigenvalues is not "
                                       "differentiated.", "Ask for the complex one, output='complex', or convert the matrix to complex "
                                       "first.")
        if bool(schur_is_open(T)):
            raise errors.no_derivative(self.primitive, "The Schur form of a matrix with eigenvalues that coincide, to rounding, is not "
                                       "unique, and has no derivative.", "Perturb the matrix, or use a function of it that has a rule "
                                       "of its own (jax.scipy.linalg.sqrtm, expm, eigh of a Hermitian matrix, ...) in place of funm.")


register(SchurRow())
