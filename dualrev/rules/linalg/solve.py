"""Linear systems: triangular and tridiagonal.

``A x = b`` gives ``dx = A⁻¹ (db - dA x)``: one more solve, for the tangents of ``b`` and of ``A``.
"""

from __future__ import annotations

from collections.abc import Sequence

from jax import Array, lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Primitive
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent
from dualrev.rules.linalg.matrices import T, mm, tril, triu
from dualrev.table.adjoints import Adjoint, LinearRow
from dualrev.table.choosing import ByActivityRow
from dualrev.table.pushforward import Push, PushforwardRow
from dualrev.table.rows import register


def solution(primitive: Primitive, n_operands: int, program: Push, adjoint: Adjoint) -> None:
    """State an operation that is linear in its last operand, and not in the others."""
    last = n_operands - 1
    register(ByActivityRow(LinearRow(primitive, (*[None] * last, adjoint)), PushforwardRow(primitive, program, linear_in=(last,))))


# ------------------------------------------------------------------------------------------------------- triangular systems


def triangular_solve_push(ts: Sequence[Tangent], a: Array, _: Array, *, out: Array, left_side: bool, lower: bool, transpose_a: bool,
                          conjugate_a: bool, unit_diagonal: bool) -> Array:
    """``op(A) X = B``, or ``X op(A) = B``, where ``A`` is a triangle of the operand, with ones on the diagonal if ``unit_diagonal``."""
    t_a, t = ts
    if t_a is not None:
        t_a = tril(t_a, -int(unit_diagonal)) if lower else triu(t_a, int(unit_diagonal))
        t_a = T(t_a) if transpose_a else t_a
        t_a = lax.conj(t_a) if conjugate_a and t_a.dtype.kind == "c" else t_a
        t = zeros.add(t, lax.neg(mm(t_a, out) if left_side else mm(out, t_a)))
    return lax.linalg.triangular_solve_p.bind(a, t, left_side=left_side, lower=lower, transpose_a=transpose_a,
                                              conjugate_a=conjugate_a, unit_diagonal=unit_diagonal)


def triangular_solve_adjoint(ct: Array, a: Array, _: ShapedArray, *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool,
                             unit_diagonal: bool) -> Array:
    return lax.linalg.triangular_solve_p.bind(a, ct, left_side=left_side, lower=lower, transpose_a=not transpose_a,
                                              conjugate_a=conjugate_a, unit_diagonal=unit_diagonal)


solution(lax.linalg.triangular_solve_p, 2, triangular_solve_push, triangular_solve_adjoint)


# ------------------------------------------------------------------------------------------------------ tridiagonal systems


def shifted(x: Array, by: int, axis: int) -> Array:
    """``x[i - by]`` along an axis, zero out of bounds."""
    if x.shape[axis] == 0:
        return x
    padding = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, lax.full_like(x, 0, shape=()), padding)


def scaled_rows(d: Array, x: Array) -> Array:
    return lax.mul(lax.broadcast_in_dim(d, x.shape, tuple(range(d.ndim))), x)


def tridiagonal_solve_push(ts: Sequence[Tangent], dl: Array, d: Array, du: Array, _: Array, *, out: Array,
                           perturb_singular: bool) -> Array:
    """Row ``i`` of ``A x`` is ``dl[i] x[i-1] + d[i] x[i] + du[i] x[i+1]``."""
    *t_diagonals, t = ts
    for t_d, by in zip(t_diagonals, (1, 0, -1), strict=True):
        if t_d is not None:
            t = zeros.add(t, lax.neg(scaled_rows(t_d, shifted(out, by, out.ndim - 2))))
    return lax.linalg.tridiagonal_solve_p.bind(dl, d, du, t, perturb_singular=perturb_singular)


def tridiagonal_solve_adjoint(ct: Array, dl: Array, d: Array, du: Array, _: ShapedArray, *, perturb_singular: bool) -> Array:
    """``Aᵀ`` has the entry ``A[i-1, i] = du[i-1]`` below the diagonal of its row ``i``, and ``dl[i+1]`` above."""
    last = d.ndim - 1
    return lax.linalg.tridiagonal_solve_p.bind(shifted(du, 1, last), d, shifted(dl, -1, last), ct, perturb_singular=perturb_singular)


solution(lax.linalg.tridiagonal_solve_p, 4, tridiagonal_solve_push, tridiagonal_solve_adjoint)
