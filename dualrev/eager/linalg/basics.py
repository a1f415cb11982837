"""Inverses, determinants, solutions, Cholesky factors and norms."""

from __future__ import annotations

from collections import namedtuple

from dualrev.eager.core.annotations import Dims, DType
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.linear_algebra import (
    CHOLESKY,
    DET,
    INV,
    SLOGDET,
    SOLVE,
    check,
    first_negative_minor,
    first_zero_pivot,
    infos,
    inverse,
)
from dualrev.eager.ops.linear_algebra import LinAlgError as LinAlgError
from dualrev.eager.ops.matrix_products import matmul as matmul

InvExResult = namedtuple("InvExResult", ["inverse", "info"])
CholeskyExResult = namedtuple("CholeskyExResult", ["L", "info"])
SlogdetResult = namedtuple("SlogdetResult", ["sign", "logabsdet"])


def inv(A: Tensor) -> Tensor:
    """The inverse of a matrix.

    Raises:
      LinAlgError: the matrix is singular.
    """
    return inverse(A)


def inv_ex(A: Tensor, *, check_errors: bool = False) -> InvExResult:
    """The inverse of a matrix, and the place of the first zero pivot of its LU factorization, 0 where there is none."""
    result = inverse(A) if check_errors else apply(INV, (A,))
    return InvExResult(result, infos(A, first_zero_pivot))


def det(A: Tensor) -> Tensor:
    """The determinant of a matrix."""
    return apply(DET, (A,))


def slogdet(A: Tensor) -> SlogdetResult:
    """The sign of the determinant of a matrix, and the logarithm of its absolute value."""
    return SlogdetResult(*apply(SLOGDET, (A,)))


def vector_norm(x: Tensor, ord: float | str = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The norm of vectors."""
    return x.norm(ord, dim, keepdim, dtype=dtype)


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The Cholesky factor of a positive definite matrix, lower or upper triangular.

    Raises:
      LinAlgError: the matrix is not positive definite.
    """
    factor = apply(CHOLESKY, (A,))
    check(factor, A, first_negative_minor, "linalg.cholesky: {batch}The factorization could not be completed because the input is not "
          "positive-definite (the leading minor of order {info} is not positive-definite).")
    return factor.mH if upper else factor


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyExResult:
    """The Cholesky factor, and the order of the first leading minor that is not positive definite, 0 where there is none."""
    factor = cholesky(A) if check_errors else apply(CHOLESKY, (A,))
    return CholeskyExResult(factor.mH if upper else factor, infos(A, first_negative_minor))


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The solution of ``A X = B``, or of ``X A = B`` where ``left`` is false.

    Raises:
      LinAlgError: the matrix is singular.
    """
    is_vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1]))
    n = B.shape[-1] if is_vector else B.shape[-2 if left else -1]
    if A.ndim >= 2 and A.shape[-1] != n:
        shape = (B.shape[-1], 1) if is_vector else tuple(B.shape[-2:])
        raise RuntimeError(f"linalg.solve: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
                           f"({A.shape[-2]}x{A.shape[-1]} and {shape[0]}x{shape[1]})")
    result = apply(SOLVE, (A, B)) if left else apply(SOLVE, (A.mT, B.mT)).mT
    check(result, A, first_zero_pivot, "torch.linalg.solve: {batch}The solver failed because the input matrix is singular.")
    return result
