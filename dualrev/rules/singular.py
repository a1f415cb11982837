"""Singular values: ``A = U S Vᴴ``.  Where they coincide, or are zero, see :mod:`dualrev.rules.spectral`.

With ``P = U₁ᴴ dA V₁``, where ``U₁`` and ``V₁`` belong to the singular values, ``dU₁ = U₁ Ω_U + ...`` and ``dV₁ = V₁ Ω_V + ...``, both ``Ω``
skew-Hermitian, ``Uᴴ dA V = Ω_U S + dS - S Ω_V``.  So ``dS`` is the real part of the diagonal of ``P``, and off the diagonal
``Pᵢⱼ = Ω_Uᵢⱼ sⱼ - sᵢ Ω_Vᵢⱼ``.  The sum and the difference of this and its conjugate transpose give

    ``Ω_U + Ω_V = (P + Pᴴ)ᵢⱼ / (sⱼ - sᵢ)``    and    ``Ω_U - Ω_V = (P - Pᴴ)ᵢⱼ / (sⱼ + sᵢ)``

[Townsend 2016; Wan & Zhang 2019, for complex numbers], which loses fewer digits than a quotient of squares.  The imaginary part of
the diagonal of ``P`` is ``s (Ω_U - Ω_V)``; how it is shared, a choice of phases, is free: ``U`` takes it, as in jax.

What ``U₁`` gains beyond its own columns is ``(I - U₁ U₁ᴴ) dA V₁ S⁻¹``, and likewise ``V₁`` with ``dAᴴ``.  With full matrices the further
columns ``U₂`` follow, by ``U₁ᴴ dU₂ = -(U₂ᴴ dU₁)ᴴ``; they are taken not to turn among themselves, which is a choice as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax import is_eager
from dualrev.rules.matrices import H, across, beside, cast, columns, diagonal, keep, mm, real
from dualrev.rules.ratio import Mode, ratio
from dualrev.rules.spectral import SpectralRow, along, by_gaps, difference, has_repeated, off_diagonal, pairs, rounding, same_cluster, turned_values
from dualrev.rules.table import register


def is_zero(s: Any) -> Any:
    """Which singular values are zero, to rounding."""
    return lax.le(s, lax.broadcast_in_dim(rounding(s), s.shape, tuple(range(s.ndim - 1))))


def over_values(x: Any, s: Any, mode: Mode) -> Any:
    """``x S⁻¹``."""
    n = x.shape[-2]
    return ratio(x, cast(across(s, n), x.dtype), across(is_zero(s), n), mode)


def beyond(x: Any, y: Any, U: Any, s: Any, k: int, mode: Mode) -> tuple[Any, Any]:
    """What the columns ``U₁`` gain from ``x``, beyond ``U₁ y``, and the tangent of the columns after ``k``, if there are any."""
    first, others = columns(U, 0, k), columns(U, k, U.shape[-1])
    if U.shape[-1] == k:
        return over_values(lax.sub(x, mm(first, y)), s, mode), None
    inner = over_values(mm(H(others), x), s, mode)
    return mm(others, inner), lax.neg(mm(first, H(inner)))


def svd_tangents(t: Any, saved: Any, P: Any, mode: Mode, within: Mode) -> tuple[Any, Any]:
    """``(dU, dVᴴ)``; ``within`` says how to divide among equal singular values that are not zero."""
    U, s, V = saved
    k = s.shape[-1]
    zero = is_zero(s)
    both_zero = pairs(zero, lax.bitwise_and)
    together = same_cluster(s)
    half = lax.full_like(P, 0.5)
    hermitian, skew = lax.mul(half, lax.add(P, H(P))), lax.mul(half, lax.sub(P, H(P)))
    total = by_gaps(hermitian, pairs(s, difference), together, within)
    if within != mode:  # among the zeros as elsewhere
        total = lax.select(off_diagonal(both_zero), by_gaps(hermitian, pairs(s, difference), both_zero, mode), total)
    rest = by_gaps(skew, pairs(s, lax.add), both_zero, mode)
    in_U, in_V = lax.add(total, rest), lax.sub(total, rest)
    if P.dtype.kind == "c":
        phases = keep(np.eye(k, dtype=bool), over_values(lax.sub(P, cast(real(P), P.dtype)), s, mode))
        in_U = lax.add(in_U, phases)
    dU, dV = mm(columns(U, 0, k), in_U), mm(columns(V, 0, k), in_V)
    if U.shape[-2] > k:
        gain, others = beyond(mm(t, columns(V, 0, k)), P, U, s, k, mode)
        dU = lax.add(dU, gain)
        dU = dU if others is None else beside(dU, others)
    if V.shape[-2] > k:
        gain, others = beyond(mm(H(t), columns(U, 0, k)), H(P), V, s, k, mode)
        dV = lax.add(dV, gain)
        dV = dV if others is None else beside(dV, others)
    return dU, H(dV)


def projected(t: Any, saved: Any) -> Any:
    """``P = U₁ᴴ dA V₁``."""
    U, s, V = saved
    k = s.shape[-1]
    return mm(H(columns(U, 0, k)), t, columns(V, 0, k))


def svd_push(mode: Mode) -> Any:
    def push(t: Any, _: Any, *, saved: Any, compute_uv: bool, full_matrices: bool, subset_by_index: Any) -> Any:
        P = projected(t, saved)
        ds = None if mode == "pole" else real(diagonal(P))
        dU, dVh = svd_tangents(t, saved, P, mode, mode) if compute_uv else (None, None)
        return presented((ds, dU, dVh), compute_uv=compute_uv, subset_by_index=subset_by_index)
    return push


def presented(parts: Any, *, compute_uv: bool, subset_by_index: Any, **_: Any) -> list[Any]:
    """The outputs that were asked for.  Singular vectors move towards all the others, so all are computed."""
    s, U, Vh = parts
    if subset_by_index is not None:
        start, stop = subset_by_index
        s = s if s is None else lax.slice_in_dim(s, start, min(stop, s.shape[-1]), axis=s.ndim - 1)
        if compute_uv and stop - start < min(U.shape[-1], Vh.shape[-2]):
            U, Vh = columns(U, start, stop), lax.slice_in_dim(Vh, start, stop, axis=Vh.ndim - 2)
    return [s, U, Vh] if compute_uv else [s]


def decompose(x: Any, **params: Any) -> Any:
    """``(U, s, V)``; their tangents need all singular values and both sides of vectors."""
    full = params["full_matrices"] and params["compute_uv"]
    s, U, Vh = lax.linalg.svd_p.bind(x, **dict(params, compute_uv=True, subset_by_index=None, full_matrices=full))
    return U, s, H(Vh)


def present(saved: Any, **params: Any) -> list[Any]:
    U, s, V = saved
    return presented((s, U, H(V)), **params)


def split(saved: Any, dual: Callable[[Any, Any], Any]) -> Any:
    U, s, V = saved
    return U, dual(s, jnp.broadcast_to(jnp.arange(s.shape[-1], 0, -1, dtype=s.dtype), s.shape)), V


def has_poles(saved: Any) -> Any:
    """Equal singular values, or a zero that a vector divides by: beyond the shorter side, or by its phase."""
    U, s, _ = saved
    divides = U.dtype.kind == "c" or saved[0].shape[-2] != saved[2].shape[-2]
    return has_repeated(s) | (jnp.any(is_zero(s)) if divides else False)


class SvdRow(SpectralRow):
    """Pushes choose singular vectors along the direction, among those of equal values that are not zero."""

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        if not params["compute_uv"]:
            return super().jvp(primals, tangents, params)
        run = compiled_svd_jvp if is_eager((*primals, *tangents)) else svd_jvp
        return run(primals[0], tangents[0], **params)


def svd_jvp(x: Any, t: Any, **params: Any) -> tuple[list[Any], list[Any]]:
    U, s, V = decompose(x, **params)
    P = projected(t, (U, s, V))
    k = s.shape[-1]
    movable = lax.bitwise_and(same_cluster(s), lax.bitwise_not(pairs(is_zero(s), lax.bitwise_and)))
    together = lax.bitwise_or(movable, lax.broadcast(np.eye(k, dtype=bool), s.shape[:-1]))

    def turned(U: Any, s: Any, V: Any, P: Any) -> tuple[Any, Any, Any, Any]:
        Q = along(lax.mul(lax.full_like(P, 0.5), lax.add(P, H(P))), s, together)
        first, others = columns(U, 0, k), columns(U, k, U.shape[-1])
        right, further = columns(V, 0, k), columns(V, k, V.shape[-1])
        return beside(mm(first, Q), others), turned_values(s, Q), beside(mm(right, Q), further), mm(H(Q), P, Q)

    U, s, V, P = lax.cond(jnp.any(off_diagonal(together)), turned, lambda *same: same, U, s, V, P)
    dU, dVh = svd_tangents(t, (U, s, V), P, "open", "zero")
    return present((U, s, V), **params), presented((real(diagonal(P)), dU, dVh), **params)


compiled_svd_jvp = jax.jit(svd_jvp, static_argnames=("full_matrices", "compute_uv", "subset_by_index", "algorithm"))
register(SvdRow(lax.linalg.svd_p, svd_push, decompose, present, split, has_poles))
