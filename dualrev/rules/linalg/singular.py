"""Singular values: ``A = U S Vᴴ``.  Where they coincide, or are zero, see :mod:`dualrev.rules.linalg.spectral`.

With ``P = U₁ᴴ dA V₁``, where ``U₁`` and ``V₁`` belong to the singular values, and the skew-Hermitian ``Ω_U = U₁ᴴ dU₁`` and
``Ω_V = V₁ᴴ dV₁``, we have ``P = Ω_U S + dS - S Ω_V``.  So ``dS`` is the real part of the diagonal of ``P``, and off the diagonal
``Pᵢⱼ = Ω_Uᵢⱼ sⱼ - sᵢ Ω_Vᵢⱼ``.  The sum and the difference of this and its conjugate transpose give

    ``Ω_U + Ω_V = (P + Pᴴ)ᵢⱼ / (sⱼ - sᵢ)``    and    ``Ω_U - Ω_V = (P - Pᴴ)ᵢⱼ / (sⱼ + sᵢ)``

[Townsend2016; WanZhang2019, for complex numbers], which loses fewer digits than a quotient of squares.  The imaginary part of
the diagonal of ``P`` is ``s (Ω_U - Ω_V)``; its division between the two, a choice of phases, is free: ``U`` gets all, as in jax.

The part of ``dU₁`` outside the span of ``U₁`` is ``(I - U₁ U₁ᴴ) dA V₁ S⁻¹``, and likewise for ``V₁`` with ``dAᴴ``.  With full
matrices the further columns ``U₂`` follow, by ``U₁ᴴ dU₂ = -(U₂ᴴ dU₁)ᴴ``; ``U₂ᴴ dU₂`` is zero, which is a choice as well.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualrev._jax.primitives import Params
from dualrev._jax.traces import is_eager
from dualrev.linear.maps import Tangent, Tangents
from dualrev.rules.linalg.matrices import H, across, beside, cast, columns, diagonal, down, keep, mm, real
from dualrev.rules.linalg.ratio import Mode, ratio
from dualrev.rules.linalg.spectral import (
    SpectralRow,
    Subset,
    Vectors,
    all_zero,
    along,
    by_gaps,
    difference,
    has_repeated,
    pairs,
    rounding,
    same_cluster,
    several,
    turned_values,
    without_idle,
)
from dualrev.table.pushforward import Push
from dualrev.table.rows import Dual, register


def is_zero(s: Array) -> Array:
    """Which singular values are zero, to rounding."""
    return lax.le(s, lax.broadcast_in_dim(rounding(s), s.shape, tuple(range(s.ndim - 1))))


def over_values(x: Array, s: Array, idle: Sequence[Array], mode: Mode) -> Array:
    """``x S⁻¹``."""
    n = x.shape[-2]
    zero = is_zero(s)
    if idle:
        zero = lax.bitwise_and(zero, lax.bitwise_not(idle[0]))
    return ratio(x, cast(across(s, n), x.dtype), across(zero, n), mode)


def beyond(x: Array, y: Array, U: Array, s: Array, idle: Sequence[Array], mode: Mode) -> tuple[Array, Tangent]:
    """The part of ``x`` beyond ``U₁ y`` as a tangent of the columns ``U₁``, and the tangent of the columns after them, if any."""
    k = s.shape[-1]
    first, others = columns(U, 0, k), columns(U, k, U.shape[-1])
    if U.shape[-1] == k:
        return over_values(lax.sub(x, mm(first, y)), s, idle, mode), None
    inner = over_values(mm(H(others), x), s, idle, mode)
    return mm(others, inner), lax.neg(mm(first, H(inner)))


def svd_tangents(t: Array, saved: Vectors, P: Array, mode: Mode) -> tuple[Array, Array]:
    """``(dU, dVᴴ)``."""
    U, s, V, *idle = saved
    k = s.shape[-1]
    both_zero = without_idle(pairs(is_zero(s), lax.bitwise_and), idle)
    half = lax.full_like(P, 0.5)
    hermitian, skew = lax.mul(half, lax.add(P, H(P))), lax.mul(half, lax.sub(P, H(P)))
    total = by_gaps(hermitian, pairs(s, difference), without_idle(same_cluster(s), idle), mode)
    rest = by_gaps(skew, pairs(s, lax.add), both_zero, mode)
    in_U, in_V = lax.add(total, rest), lax.sub(total, rest)
    if P.dtype.kind == "c":
        phases = keep(np.eye(k, dtype=bool), over_values(lax.sub(P, cast(real(P), P.dtype)), s, idle, mode))
        in_U = lax.add(in_U, phases)
    dU, dV = mm(columns(U, 0, k), in_U), mm(columns(V, 0, k), in_V)
    if U.shape[-2] > k:
        gain, others = beyond(mm(t, columns(V, 0, k)), P, U, s, idle, mode)
        dU = lax.add(dU, gain)
        dU = dU if others is None else beside(dU, others)
    if V.shape[-2] > k:
        gain, others = beyond(mm(H(t), columns(U, 0, k)), H(P), V, s, idle, mode)
        dV = lax.add(dV, gain)
        dV = dV if others is None else beside(dV, others)
    return dU, H(dV)


def projected(t: Array, saved: Vectors) -> Array:
    """``P = U₁ᴴ dA V₁``."""
    U, s, V, *_ = saved
    k = s.shape[-1]
    return mm(H(columns(U, 0, k)), t, columns(V, 0, k))


def svd_push(mode: Mode) -> Push:
    def push(t: Array, _: Array, *, saved: Vectors, compute_uv: bool, full_matrices: bool,
             subset_by_index: Subset) -> Sequence[Tangent]:
        P = projected(t, saved)
        ds = None if mode == "pole" else real(diagonal(P))
        dU, dVh = svd_tangents(t, saved, P, mode) if compute_uv else (None, None)
        return presented((ds, dU, dVh), compute_uv=compute_uv, subset_by_index=subset_by_index)
    return push


def presented(parts: Sequence[Any], *, compute_uv: bool, subset_by_index: Subset, **_: object) -> list[Any]:
    """The outputs of a range.  All are computed, as the derivative of each singular vector depends on all the others."""
    s, U, Vh = parts
    if subset_by_index is not None:
        start, stop = subset_by_index
        s = s if s is None else lax.slice_in_dim(s, start, min(stop, s.shape[-1]), axis=s.ndim - 1)
        if compute_uv and stop - start < min(U.shape[-1], Vh.shape[-2]):
            U, Vh = columns(U, start, stop), lax.slice_in_dim(Vh, start, stop, axis=Vh.ndim - 2)
    return [s, U, Vh] if compute_uv else [s]


def decompose(x: Array, **params: Any) -> Vectors:
    """``(U, s, V)``; their tangents need all singular values, and left and right vectors."""
    full = params["full_matrices"] and params["compute_uv"]
    s, U, Vh = lax.linalg.svd_p.bind(x, **dict(params, compute_uv=True, subset_by_index=None, full_matrices=full))
    return U, s, H(Vh)


def present(saved: Vectors, **params: Any) -> list[Array]:
    U, s, V = saved
    return presented((s, U, H(V)), **params)


def split(saved: Vectors, dual: Dual) -> Vectors:
    U, s, V = saved
    return U, dual(s, jnp.broadcast_to(jnp.arange(s.shape[-1], 0, -1, dtype=s.dtype), s.shape)), V


def idle(cotangents: Tangents, saved: Vectors) -> Tangent:
    if len(cotangents) == 1 or all(ct is None for ct in cotangents[1:]):
        return None
    ct_s, ct_U, ct_Vh = cotangents
    k = saved[1].shape[-1]
    if any(ct is not None and ct.shape[axis] != k for ct, axis in ((ct_U, -1), (ct_Vh, -2))):
        return None  # other columns are used
    found = [] if ct_s is None else [lax.eq(ct_s, lax.full_like(ct_s, 0))]
    found += [all_zero(ct, axis) for ct, axis in ((ct_U, -2), (ct_Vh, -1)) if ct is not None]
    return functools.reduce(lax.bitwise_and, found)


def has_poles(saved: Vectors) -> Array:
    """Equal singular values, or a zero in a quotient: for vectors of the longer side, or for phases."""
    U, s, _ = saved
    divides = U.dtype.kind == "c" or saved[0].shape[-2] != saved[2].shape[-2]
    return has_repeated(s) | (jnp.any(is_zero(s)) if divides else False)


class SvdRow(SpectralRow[Vectors]):
    """A row whose push chooses the singular vectors along the direction."""

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        if not params["compute_uv"]:
            return super().jvp(primals, tangents, params)
        run = compiled_svd_jvp if is_eager((*primals, *tangents)) else svd_jvp
        return run(primals[0], tangents[0], **params)  # type: ignore[arg-type]  # the one operand is active


def svd_jvp(x: Array, t: Array, **params: Any) -> tuple[list[Array], list[Array]]:
    U, s, V = decompose(x, **params)
    if s.shape[-1] > 0:
        has_poles = lax.bitwise_or(jnp.any(is_zero(s)), has_repeated(s))
        U, s, V = lax.cond(has_poles, turned, lambda _, *same: same, t, U, s, V)
    P = projected(t, (U, s, V))
    dU, dVh = svd_tangents(t, (U, s, V), P, "zero")
    return present((U, s, V), **params), presented((real(diagonal(P)), dU, dVh), **params)


def turned(t: Array, U: Array, s: Array, V: Array) -> tuple[Array, Array, Array]:
    """Singular vectors along the direction ``t``: within clusters, ``P`` is diagonal, and not negative where ``s`` is zero.

    Within a cluster of positive values one rotation of ``U`` and ``V`` diagonalizes the Hermitian part of ``P``.  For zeros there are
    two rotations, and vectors of the longer side may be any that belong to no positive value: they are the singular vectors of the
    image under ``t`` of the zeros' vectors of the shorter side, in that space.
    """
    k = s.shape[-1]
    P = projected(t, (U, s, V))
    zero = is_zero(s)
    both_zero = pairs(zero, lax.bitwise_and)
    identity = lax.broadcast(np.eye(k, dtype=bool), s.shape[:-1])
    together = lax.bitwise_or(lax.bitwise_and(same_cluster(s), lax.bitwise_not(both_zero)), identity)
    Q = along(lax.mul(lax.full_like(P, 0.5), lax.add(P, H(P))), together)
    U, s, V = with_first(U, mm(columns(U, 0, k), Q)), turned_values(s, Q), with_first(V, mm(columns(V, 0, k), Q))
    if U.shape[-2] >= V.shape[-2]:
        U, V = from_zeros(t, U, V, zero)
    else:
        V, U = from_zeros(H(t), V, U, zero)
    return U, s, V


def with_first(U: Array, first: Array) -> Array:
    """``U`` with other columns in place of its first ones."""
    return beside(first, columns(U, first.shape[-1], U.shape[-1]))


def from_zeros(t: Array, U: Array, V: Array, zero: Array) -> tuple[Array, Array]:
    """``U``, of the longer side, and ``V`` with new columns where ``zero`` holds."""
    k = zero.shape[-1]
    first, right = columns(U, 0, k), columns(V, 0, k)
    at_zero = across(zero, first.shape[-2])
    others = lax.select(at_zero, lax.full_like(first, 0), first)
    image = mm(t, lax.select(across(zero, right.shape[-2]), right, lax.full_like(right, 0)))
    image = lax.sub(image, mm(others, H(others), image))
    # Scaled up, the other columns come first, and keep their span.
    length = several(lax.reduce_max(lax.abs(image), (image.ndim - 2, image.ndim - 1)), 4 * image.shape[-1])
    image = lax.add(image, lax.mul(others, cast(lax.broadcast_in_dim(length, others.shape, tuple(range(length.ndim))), others.dtype)))
    _, left, Qh = lax.linalg.svd_p.bind(image, full_matrices=U.shape[-1] > k, compute_uv=True, subset_by_index=None, algorithm=None)
    identity = lax.broadcast(np.eye(k, dtype=bool), zero.shape[:-1])
    Q = lax.select(pairs(zero, lax.bitwise_and), H(Qh), cast(identity, Qh.dtype))
    changed = lax.select(at_zero, columns(left, 0, k), first)
    any_zero = down(lax.reduce_or(zero, (zero.ndim - 1,)), U.shape[-2])
    rest = columns(left, k, left.shape[-1])
    kept = columns(U, k, U.shape[-1])
    rest = lax.select(lax.broadcast_in_dim(any_zero, kept.shape, tuple(range(any_zero.ndim))), rest, kept)
    return beside(changed, rest), with_first(V, mm(right, Q))


compiled_svd_jvp = jax.jit(svd_jvp, static_argnames=("full_matrices", "compute_uv", "subset_by_index", "algorithm"))
register(SvdRow(lax.linalg.svd_p, svd_push, decompose, present, split, has_poles, idle))
