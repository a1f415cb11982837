"""Systems of linear equations: triangular ones, least squares, pseudoinverses."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dualrev.eager.core.dtypes import int64
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.linalg.basics import inv, solve
from dualrev.eager.linalg.functions_of_matrices import matrix_rank
from dualrev.eager.ops.decompositions import LU_SOLVE, TRIANGULAR, matrices, squares
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.linear_algebra import SOLVE, first_zero_pivot, infos
from dualrev.eager.ops.registry import FUNCTIONS

SolveExResult = namedtuple("SolveExResult", ["result", "info"])
LstsqResult = namedtuple("LstsqResult", ["solution", "residuals", "rank", "singular_values"])


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveExResult:
    """The solution of ``A X = B``, and the place of the first zero pivot of ``A``, 0 where there is none."""
    if check_errors:
        return SolveExResult(solve(A, B, left=left), infos(A, first_zero_pivot))
    return SolveExResult(apply(SOLVE, (A, B)) if left else apply(SOLVE, (A.mT, B.mT)).mT, infos(A, first_zero_pivot))


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """The solution of ``A X = B``, or of ``X A = B`` where ``left`` is false, for a triangular matrix."""
    squares(A, "linalg.solve_triangular")
    matrices(B, "linalg.solve_triangular")
    if A.shape[-1] != B.shape[-2 if left else -1]:
        raise RuntimeError(f"linalg.solve_triangular: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
                           f"({A.shape[-2]}x{A.shape[-1]} and {B.shape[-2]}x{B.shape[-1]})")
    return apply(TRIANGULAR(bool(upper), bool(left), bool(unitriangular)), (A, B))


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """The solution of ``A X = B``, from the packed factors and pivots of ``lu_factor``."""
    return apply(LU_SOLVE(bool(left), bool(adjoint)), (B, LU, pivots))


def _pinv_of(x: jax.Array, atol: jax.Array, rtol: jax.Array, hermitian: bool) -> jax.Array:
    # The cut of small singular values is a number: jax's derivative of the pseudoinverse is that of a constant rank.
    if hermitian:
        values, vectors = jnp.linalg.eigh(x)
        largest = jnp.max(jnp.abs(values), -1, keepdims=True)
        kept = jnp.abs(values) > jnp.maximum(atol, rtol * largest)
        inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
        return (vectors * inverse[..., None, :]) @ jnp.conj(jnp.swapaxes(vectors, -1, -2))
    s = jnp.linalg.svd(jax.lax.stop_gradient(x), compute_uv=False)
    largest = jnp.max(s, -1)
    cut = jnp.where(largest > 0, jnp.maximum(atol, rtol * largest) / jnp.where(largest > 0, largest, 1), rtol)
    return jnp.linalg.pinv(x, rtol=cut)


_pinv = family("LinalgPinv", _pinv_of)


def pinv(input: Tensor, *, atol: float | Tensor | None = None, rtol: float | Tensor | None = None, hermitian: bool = False,  # noqa: A002
         rcond: float | Tensor | None = None) -> Tensor:
    """The pseudoinverse; singular values up to ``max(atol, rtol * largest)`` are taken for zero.

    >>> from dualrev import eager as torch
    >>> torch.linalg.pinv(torch.tensor([[2.0], [0.0]]))
    tensor([[0.5000, 0.0000]])
    """
    matrices(input, "linalg.pinv")
    rtol = rcond if rtol is None else rtol
    if input.numel() == 0:
        return FUNCTIONS["zeros"](*input.shape[:-2], input.shape[-1], input.shape[-2], dtype=input.dtype)
    if rtol is None:
        rtol = 0.0 if atol is not None and not isinstance(atol, Tensor) and atol > 0 else (
            float(jnp.finfo(array_of(input).dtype).eps) * max(input.shape[-2:]))
    return apply(_pinv(bool(hermitian)), (input, 0.0 if atol is None else atol, rtol))


_least = Op("LinalgLstsq", lambda a, b: jnp.linalg.pinv(a, rtol=jnp.finfo(a.dtype).eps * max(a.shape[-2:])) @ b)


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LstsqResult:
    """``(solution, residuals, rank, singular_values)`` of the least squares problem ``A X = B``."""
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError("torch.linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)")
    matrices(A, "torch.linalg.lstsq")
    is_vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1]))
    right = B.unsqueeze(-1) if is_vector else B
    if A.shape[-2] != right.shape[-2]:
        raise RuntimeError("torch.linalg.lstsq: input.size(-2) should match other.size(-2)")
    driver = driver or "gelsy"
    found = apply(_least, (A, right)) if rcond is None else pinv(A, rtol=rcond) @ right
    empty = FUNCTIONS["empty"]
    m, n = A.shape[-2:]
    rank = matrix_rank(A, rtol=rcond) if driver != "gels" else empty(0, dtype=int64)
    is_full = bool((rank == n).all()) if driver != "gels" else True
    residuals = empty(0, dtype=A.dtype)
    if m > n and is_full and driver != "gelsy":
        difference = A @ found - right
        residuals = (difference * difference.conj()).real.sum(-2)
    values = FUNCTIONS["svd"](A.detach()).S if driver in ("gelsd", "gelss") else empty(0, dtype=A.dtype)
    return LstsqResult(found.squeeze(-1) if is_vector else found, residuals, rank, values)


def tensorinv(input: Tensor, ind: int = 2) -> Tensor:  # noqa: A002
    """The inverse of ``tensordot`` with a tensor, whose first ``ind`` dimensions stand for rows."""
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    rows, columns = math.prod(input.shape[:ind]), math.prod(input.shape[ind:])
    if rows != columns:
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got "
                           f"{columns} != {rows}")
    return inv(input.reshape(rows, columns)).reshape(*input.shape[ind:], *input.shape[:ind])


def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """The solution ``X`` of ``tensordot(A, X, X.ndim) = B``."""
    if dims is not None:
        last = [dim_of(d, A.ndim) for d in dims]
        A = A.permute(*[d for d in range(A.ndim) if d not in last], *last)
    shape = A.shape[B.ndim:]
    n = math.prod(shape)
    if n != B.numel():
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), "
                           f"but got {n} != {math.prod(A.shape[:B.ndim])}")
    return solve(A.reshape(B.numel(), n), B.reshape(-1)).reshape(*shape)
