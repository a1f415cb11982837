"""Eigenvalues, singular values, and QR and LU factorizations."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from dualrev.eager.core.dtypes import type_name
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.checks import square
from dualrev.eager.ops.decompositions import EIG, EIGH, EIGVALS, EIGVALSH, LU, LU_FACTOR, QR, QR_R, SVD, SVDVALS, matrices, squares
from dualrev.eager.ops.linear_algebra import first_zero_pivot, infos
from dualrev.eager.ops.registry import FUNCTIONS

EighResult = namedtuple("EighResult", ["eigenvalues", "eigenvectors"])
EigResult = namedtuple("EigResult", ["eigenvalues", "eigenvectors"])
SVDResult = namedtuple("SVDResult", ["U", "S", "Vh"])
QRResult = namedtuple("QRResult", ["Q", "R"])
LUResult = namedtuple("LUResult", ["P", "L", "U"])
LUFactorResult = namedtuple("LUFactorResult", ["LU", "pivots"])
LUFactorExResult = namedtuple("LUFactorExResult", ["LU", "pivots", "info"])


def _triangle(A: Tensor, UPLO: str) -> str:
    square(array_of(A), "linalg.eigh")
    if array_of(A).dtype.kind not in "fc" or array_of(A).dtype == np.float16:
        raise NotImplementedError(f"\"linalg_eigh_cpu\" not implemented for '{type_name(array_of(A).dtype)}'")
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper()


def eigh(input: Tensor, UPLO: str = "L") -> EighResult:  # noqa: A002
    """``(eigenvalues, eigenvectors)`` of a Hermitian matrix, of which one triangle is read; the values ascend.

    >>> from dualrev import eager as torch
    >>> torch.linalg.eigh(torch.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues
    tensor([1., 2.])
    """
    return EighResult(*apply(EIGH(_triangle(input, UPLO)), (input,)))


def eigvalsh(input: Tensor, UPLO: str = "L") -> Tensor:  # noqa: A002
    """The eigenvalues of a Hermitian matrix, of which one triangle is read, in ascending order."""
    return apply(EIGVALSH(_triangle(input, UPLO)), (input,))


def eig(A: Tensor) -> EigResult:
    """``(eigenvalues, eigenvectors)`` of a square matrix, complex ones."""
    return EigResult(*apply(EIG, (squares(A, "linalg.eig"),)))


def eigvals(A: Tensor) -> Tensor:
    """The eigenvalues of a square matrix, complex ones."""
    return apply(EIGVALS, (squares(A, "linalg.eigvals"),))


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVDResult:
    """``(U, S, Vh)``: the singular values, in descending order, and singular vectors: the matrix is ``U diag(S) Vh``."""
    return SVDResult(*apply(SVD(bool(full_matrices)), (matrices(A, "linalg.svd"),)))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, in descending order."""
    return apply(SVDVALS, (matrices(A, "linalg.svdvals"),))


def qr(A: Tensor, mode: str = "reduced") -> QRResult:
    """``(Q, R)``: an orthogonal and an upper triangular factor; with mode "r", ``Q`` is empty."""
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'")
    matrices(A, "linalg.qr")
    if mode == "r":
        return QRResult(FUNCTIONS["empty"](0, dtype=A.dtype), apply(QR_R, (A,)))
    return QRResult(*apply(QR(mode), (A,)))


def lu(A: Tensor, *, pivot: bool = True) -> LUResult:
    """``(P, L, U)``: a permutation, a lower triangular factor with ones on its diagonal, and an upper triangular one."""
    _pivoted("linalg.lu", pivot)
    return LUResult(*apply(LU, (matrices(A, "linalg.lu"),)))


def _pivoted(name: str, pivot: bool) -> None:
    if not pivot:
        raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")


def lu_factor(A: Tensor, *, pivot: bool = True) -> LUFactorResult:
    """``(LU, pivots)``: both factors packed into one matrix, and which row was exchanged with each, from 1.

    Raises:
      RuntimeError: a factor is singular.
    """
    result = lu_factor_ex(A, pivot=pivot, check_errors=True)
    return LUFactorResult(result.LU, result.pivots)


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LUFactorExResult:
    """As ``lu_factor``, and the place of the first zero pivot, 0 where there is none."""
    _pivoted("linalg.lu_factor", pivot)
    packed, pivots = apply(LU_FACTOR, (matrices(A, "linalg.lu_factor"),))
    info = infos(A, first_zero_pivot) if A.shape[-1] == A.shape[-2] else wrap(np.zeros(A.shape[:-2], np.int32))
    if check_errors and info.count_nonzero():
        at = int(info.reshape(-1).nonzero()[0, 0])
        batch = f"(Batch element {at}): " if A.ndim > 2 else ""
        place = int(info.reshape(-1)[at])
        raise RuntimeError(f"torch.linalg.lu_factor: {batch}U[{place},{place}] is zero and using it on lu_solve "
                          "would result in a division by zero. If you still want to perform the factorization, consider "
                          "calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)")
    return LUFactorExResult(packed, pivots, info)
