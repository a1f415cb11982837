"""A few eigenpairs of a symmetric matrix: ``torch.lobpcg``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.linalg.basics import cholesky
from dualrev.eager.linalg.equations import solve_triangular
from dualrev.eager.linalg.factorizations import eigh
from dualrev.eager.ops.registry import function


@function
def lobpcg(A: Tensor, k: int | None = None, B: Tensor | None = None, X: Tensor | None = None, n: int | None = None,
           iK: Tensor | None = None, niter: int | None = None, tol: float | None = None,
           largest: bool | None = None, method: str | None = None, tracker: Callable[..., None] | None = None,
           ortho_iparams: dict[str, int] | None = None, ortho_fparams: dict[str, float] | None = None,
           ortho_bparams: dict[str, bool] | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest eigenvalues of ``A x = λ B x``, and their vectors, ``(values, vectors)``.

    All eigenpairs are computed, as by ``torch.linalg.eigh``, and the first ``k`` of them returned: the settings of PyTorch's iteration
    are accepted, and the result is that of an iteration that has converged.

    Args:
      A: symmetric, ``(..., m, m)``.
      k: how many pairs: by default as many as ``X`` has columns, or 1.
      B: symmetric and positive definite; by default the identity.
      largest: whether the largest come, in descending order; the smallest otherwise, in ascending order.

    Raises:
      ValueError: ``m`` is smaller than three times ``k``, as PyTorch's iteration asks.

    >>> from dualrev import eager as torch
    >>> torch.lobpcg(torch.diag(torch.tensor([1.0, 3.0, 2.0])))[0]
    tensor([3.])
    """
    m = A.shape[-1]
    if A.shape[-2] != m:
        raise AssertionError(f"A must be square, got shape {A.shape}")
    count = (1 if X is None else X.shape[-1]) if k is None else k
    wide = (count if X is None else X.shape[-1]) if n is None else n
    if m < 3 * wide:
        raise ValueError(f"LOBPCG algorithm is not applicable when the number of A rows (={m}) is smaller than 3 x the number of "
                         f"requested eigenpairs (={wide})")
    matrix: Any = A
    factor = None if B is None else cholesky(B)
    if factor is not None:
        matrix = solve_triangular(factor, solve_triangular(factor, A, upper=False).mT, upper=False)
    values, vectors = eigh(matrix)
    if factor is not None:
        vectors = solve_triangular(factor.mT, vectors, upper=True)
    if largest is None or largest:
        values, vectors = values.flip(-1), vectors.flip(-1)
    return values[..., :count], vectors[..., :count]
