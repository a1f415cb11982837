"""Eigenvalues and singular values.

Perturbation theory gives the tangents of eigenvectors as ``V Ω`` with ``Ωᵢⱼ = Pᵢⱼ / (wⱼ - wᵢ)``, where ``P = Vᴴ dA V``, and those of
eigenvalues as the diagonal of ``P`` [Giles2008, sec. 3.1].  Where eigenvalues coincide:

- a **push** chooses, among the eigenvectors of the repeated eigenvalue, those of ``P`` within their space.  Then ``P`` has no entries
  where ``Ω`` has a pole, and the result is the derivative along this direction of eigenvectors and eigenvalues that are smooth in it
  [Kato1995, ch. II, sec. 6; Lancaster1964].  Such eigenvectors depend on the direction;
- a **tape** of concrete values splits the eigenvalues by infinitesimals (:mod:`dualrev.engines.infinitesimal`), which gives the
  derivative of a function that does not depend on the choice of eigenvectors, and an error for any other;
- a tape of unknown values (under ``jit`` or ``vmap``) has NaN where ``Ω`` has a pole, so that a derivative that reads it is NaN; one
  that reads eigenvalues alone does not.  The option ``split_repeated=True`` splits the eigenvalues of these tapes too; all results of
  eigenvectors then carry an infinitesimal part.

A symmetric function of eigenvalues has a derivative there in every mode; for one that is not, such as the largest eigenvalue, a pull
gives a subgradient and a push the derivative along its direction.  Eigenvalues coincide when their gap is within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.traces import is_concrete, is_eager
from dualrev.linear.maps import Tangent, Tangents
from dualrev.linear.poles import size, without_pole
from dualrev.options.settings import Active, current
from dualrev.rules.linalg.matrices import (
    H,
    across,
    cast,
    columns,
    diagonal,
    down,
    epsilon,
    eye_like,
    hermitian,
    keep,
    mm,
    real,
    real_dtype,
)
from dualrev.rules.linalg.ratio import Mode, ratio
from dualrev.table.operations import OpMap, Residuals, Site
from dualrev.table.pushforward import Push, PushforwardRow, Saves
from dualrev.table.rows import Dual, Linearized, Operand, Split, Taped, register

#: Eigenvectors or singular vectors and their values, in an order that the operation defines; a pull adds a mask of idle values.
Vectors: TypeAlias = tuple[Array, ...]

#: The range of values to return; None for all.
Subset: TypeAlias = tuple[int, int] | None

#: What a decomposition keeps for its push.
Saved = TypeVar("Saved", bound=tuple[Any, ...])

# ----------------------------------------------------------------------------------------------------------------- clusters


def rounding(w: Array) -> Array:
    """The largest computed difference of equal neighbours, for each batch.

    With LAPACK it is at most ten units of rounding of the largest value, for any size; for matrices that were themselves computed, a
    little more.
    """
    units = 8 + 2 * w.shape[-1] ** 0.5
    return lax.mul(lax.reduce_max(lax.abs(w), (w.ndim - 1,)), lax.full(w.shape[:-1], units * epsilon(w), real_dtype(w)))


def cluster_index(w: Array) -> Array:
    """For each of the sorted values, the number of its cluster of equal values."""
    n, last = w.shape[-1], w.ndim - 1
    if n < 2:
        return lax.full(w.shape, 0, np.int32)
    gaps = lax.abs(lax.sub(lax.slice_in_dim(w, 1, n, axis=last), lax.slice_in_dim(w, 0, n - 1, axis=last)))
    is_new = lax.convert_element_type(lax.gt(gaps, down(rounding(w), n - 1)), np.int32)
    return lax.cumsum(lax.pad(is_new, np.int32(0), [(0, 0, 0)] * last + [(1, 0, 0)]), last)


def pairs(v: Array, combine: Callable[[Array, Array], Array]) -> Array:
    """``combine(v[i], v[j])`` for all ``i`` and ``j``."""
    return combine(down(v, v.shape[-1]), across(v, v.shape[-1]))


def same_cluster(w: Array) -> Array:
    """Which pairs of sorted values are equal, to rounding."""
    return pairs(cluster_index(w), lax.eq)


def off_diagonal(x: Array) -> Array:
    return keep(~np.eye(x.shape[-1], dtype=bool), x)


def by_gaps(P: Array, gaps: Array, vanishes: Array, mode: Mode) -> Array:
    """``P / gaps`` off the diagonal, zero on it."""
    identity = lax.broadcast(np.eye(gaps.shape[-1], dtype=bool), gaps.shape[:-2])
    gaps = lax.select(identity, lax.full_like(gaps, 1), gaps)
    return ratio(off_diagonal(P), cast(gaps, P.dtype), off_diagonal(vanishes), mode)


def all_zero(ct: Array, axis: int) -> Array:
    """Which columns (``axis`` -2) or rows (-1) of a cotangent are exactly zero."""
    return lax.reduce_and(lax.eq(ct, lax.full_like(ct, 0)), (ct.ndim + axis,))


def without_idle(mask: Array, idle: Sequence[Array]) -> Array:
    """``mask`` without the pairs of idle values, if idle values are given."""
    return mask if not idle else lax.bitwise_and(mask, lax.bitwise_not(pairs(idle[0], lax.bitwise_and)))


def difference(x: Array, y: Array) -> Array:
    """``y - x``."""
    return lax.sub(y, x)


# -------------------------------------------------------------------------------------------------------------------- rows


class SplitRow(PushforwardRow):
    """A row at split values.  The pull of a function that depends on the choice of eigenvectors raises an error.

    In mode ``"pole"`` the program gives the coefficients of ``1/ε`` in the tangents of eigenvectors.
    """

    def __init__(self, primitive: Primitive, program: Callable[[Mode], Push], saves: Saves):
        super().__init__(primitive, program("split"), saves, False)
        self.poles = PushforwardRow(primitive, program("pole"), saves, False)

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        scale = sum([size(ct) for ct in cotangents if ct is not None])
        results = super().pull(site, residuals, cotangents)
        poles = self.poles.pull(site, residuals, cotangents)
        return tuple([x if pole is None else without_pole(x, pole, scale) for x, pole in zip(results, poles, strict=True)])  # type: ignore[arg-type]


class SpectralRow(PushforwardRow, Generic[Saved]):
    """``program(mode)`` is the push, where ``mode`` determines quotients at repeated values; it reads ``saved`` and no operand.

    ``decompose(x, **params)`` returns ``saved``, ``present(saved, **params)`` the outputs, ``split(saved, dual)`` is ``saved`` with
    infinitesimals, and ``has_poles(saved)`` is true if the program divides by zero.  ``idle(cotangents, saved)`` is a mask of values
    that, with their vectors, are not used, for example because of a mask or a slice: their cotangents are exactly zero.  Idle values
    that differ by no more than rounding do not count as equal, and quotients by their gap are zero.
    """

    may_be_singular = True

    def __init__(self, primitive: Primitive, program: Callable[[Mode], Push], decompose: Callable[..., Saved],
                 present: Callable[..., list[Array]], split: Callable[[Saved, Dual], Saved], has_poles: Callable[[Saved], Array],
                 idle: Callable[[Tangents, Saved], Tangent]):
        def saves(x: Array, **params: object) -> tuple[list[Array], Saved]:
            saved = decompose(x, **params)
            return present(saved, **params), saved

        super().__init__(primitive, program("open"), saves, False)
        self.present = present
        self.split = split
        self.has_poles = jax.jit(has_poles)
        self.idle = idle
        self.split_row = SplitRow(primitive, program, saves)

    def refuse(self, saved: Saved) -> None:
        """Raise an error if there is no derivative at all; values are known."""

    def is_singular(self, residuals: Residuals) -> bool:
        return bool(self.has_poles(residuals[0]))

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        (saved,) = residuals
        idle = self.idle(cotangents, saved)
        return super().pull(site, residuals if idle is None else ((*saved, idle),), cotangents)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,  # type: ignore[override]
                  is_linear: bool) -> Linearized:  # other rows of one operation never split
        outs, linear_map, active_outs = super().linearize(primals, active, params, is_linear)
        assert isinstance(linear_map, OpMap)  # rows of one operation have no other map
        (saved,) = linear_map.residuals

        def linearize_split(dual: Dual) -> Taped:
            shifted = self.split(saved, dual)
            return list(self.present(shifted, **params)), OpMap(self.split_row.site(active, primals, params), (shifted,)), active_outs

        has_poles = is_concrete(primals) and self.is_singular(linear_map.residuals)
        if has_poles:
            self.refuse(saved)
        if has_poles or current.get().split_repeated:
            return Split((outs, linear_map, active_outs), linearize_split)
        return outs, linear_map, active_outs


# -------------------------------------------------------------------------------------------------------- Hermitian matrices


def eigh_push(mode: Mode) -> Push:
    def push(t: Array, _: Array, *, saved: Vectors, lower: bool, subset_by_index: Subset) -> tuple[Array, Tangent]:
        V, w, *idle = saved
        P = mm(H(V), hermitian(t, lower), V)
        omega = by_gaps(P, pairs(w, difference), without_idle(same_cluster(w), idle), mode)
        dV, dw = eigh_subset((mm(V, omega), real(diagonal(P))), subset_by_index=subset_by_index)
        return dV, None if mode == "pole" else dw
    return push


def eigh_subset(pair: Vectors, *, subset_by_index: Subset, **_: object) -> list[Array]:
    """The eigenvectors and eigenvalues of a range.  All are computed, as the derivative of each depends on all the others."""
    V, w = pair
    if subset_by_index is None or tuple(subset_by_index) == (0, w.shape[-1]):
        return [V, w]
    start, stop = subset_by_index
    return [columns(V, start, stop), lax.slice_in_dim(w, start, stop, axis=w.ndim - 1)]


def eigh_all(x: Array, **params: object) -> tuple[Array, Array]:
    V, w = lax.linalg.eigh_p.bind(x, **dict(params, subset_by_index=None))
    return V, w


def eigh_split(saved: Vectors, dual: Dual) -> Vectors:
    V, w = saved
    return V, dual(w, jnp.broadcast_to(jnp.arange(1, w.shape[-1] + 1, dtype=w.dtype), w.shape))


def eigh_idle(cotangents: Tangents, saved: Vectors) -> Tangent:
    ct_V, ct_w = cotangents
    if ct_V is None or ct_V.shape[-1] != saved[1].shape[-1]:
        return None
    zero = all_zero(ct_V, -2)
    return zero if ct_w is None else lax.bitwise_and(zero, lax.eq(ct_w, lax.full_like(ct_w, 0)))


def has_repeated(w: Array) -> Array:
    return jnp.any(off_diagonal(same_cluster(w)))


class EighRow(SpectralRow[Vectors]):
    """A row whose push chooses the eigenvectors along the direction."""

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        if is_eager((*primals, *tangents)):
            return compiled_eigh_jvp(primals[0], tangents[0], **params)
        return eigh_jvp(primals[0], tangents[0], **params)  # type: ignore[arg-type]  # the one operand is active


def eigh_jvp(x: Array, t: Array, *, lower: bool, subset_by_index: Subset, **params: object) -> tuple[list[Array], list[Array]]:
    V, w = eigh_all(x, lower=lower, **params)
    P = mm(H(V), hermitian(t, lower), V)
    together = same_cluster(w)

    def turned(V: Array, w: Array, P: Array) -> tuple[Array, Array, Array]:
        Q = along(P, together)
        return mm(V, Q), turned_values(w, Q), mm(H(Q), P, Q)

    if w.shape[-1] > 1:
        V, w, P = lax.cond(jnp.any(off_diagonal(together)), turned, lambda *same: same, V, w, P)
    omega = by_gaps(P, pairs(w, difference), together, "zero")
    return (eigh_subset((V, w), subset_by_index=subset_by_index),
            eigh_subset((mm(V, omega), real(diagonal(P))), subset_by_index=subset_by_index))


def along(P: Array, together: Array) -> Array:
    """``Q`` that rotates vectors within clusters such that ``Qᴴ P Q`` is diagonal there.

    The eigenvalues of the clusters are shifted apart, so that the eigenvectors of the blocks of ``P`` do not mix clusters, and are in
    order.
    """
    n, last = P.shape[-1], P.ndim - 1
    block = keep(together, P)
    size = lax.reduce_max(lax.abs(block), (last - 1, last))
    first = lax.convert_element_type(lax.argmax(together, last, np.int32), size.dtype)
    apart = lax.mul(first, down(several(size, 4), n))
    block = lax.add(block, lax.mul(eye_like(P, n), cast(down(apart, n), P.dtype)))
    Q, _ = lax.linalg.eigh_p.bind(block, lower=True, sort_eigenvalues=True, subset_by_index=None, algorithm=None)
    return keep(together, Q)


def several(size: Array, factor: float) -> Array:
    """``factor`` times ``size``, or times 1 where that is zero."""
    return lax.mul(lax.select(lax.eq(size, lax.full_like(size, 0)), lax.full_like(size, 1), size), lax.full_like(size, factor))


def turned_values(w: Array, Q: Array) -> Array:
    """The diagonal of ``Qᴴ diag(w) Q``: equal to ``w`` within clusters, with the tangent of the rotated eigenvectors."""
    weights = lax.square(lax.abs(Q))
    return lax.reduce_sum(lax.mul(weights, down(w, w.shape[-1])), (Q.ndim - 2,))


compiled_eigh_jvp = jax.jit(eigh_jvp, static_argnames=("lower", "subset_by_index", "sort_eigenvalues", "algorithm"))
register(EighRow(lax.linalg.eigh_p, eigh_push, eigh_all, eigh_subset, eigh_split, lambda saved: has_repeated(saved[1]), eigh_idle))
