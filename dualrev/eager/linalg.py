"""Linear algebra under PyTorch's names: ``torch.linalg``."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.linear_algebra import CHOLESKY, DET, INV, SLOGDET, SOLVE
from dualrev.eager.ops.matrix_products import matmul as matmul

SlogdetResult = namedtuple("SlogdetResult", ["sign", "logabsdet"])


def inv(A: Tensor) -> Tensor:
    """The inverse of a matrix."""
    return apply(INV, (A,))


def det(A: Tensor) -> Tensor:
    """The determinant of a matrix."""
    return apply(DET, (A,))


def slogdet(A: Tensor) -> SlogdetResult:
    """The sign of the determinant of a matrix, and the logarithm of its absolute value."""
    return SlogdetResult(*apply(SLOGDET, (A,)))


def norm(input: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """The norm of order ``ord``, 2 by default, of all entries or along dimensions."""
    return input.norm(2 if ord is None else ord, dim, keepdim, dtype=dtype)


def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """The norm of vectors."""
    return x.norm(ord, dim, keepdim, dtype=dtype)


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The Cholesky factor of a positive definite matrix, lower or upper triangular."""
    factor = apply(CHOLESKY, (A,))
    return factor.mH if upper else factor


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The solution of ``A X = B``, or of ``X A = B`` where ``left`` is false."""
    return apply(SOLVE, (A, B)) if left else apply(SOLVE, (A.mT, B.mT)).mT
