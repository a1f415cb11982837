"""Linear algebra: traces, determinants, inverses and powers of matrices; ``torch.linalg`` has more."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from dualrev._jax.traces import Tracer
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.checks import square
from dualrev.eager.ops.precision import full_precision, low_precision
from dualrev.eager.ops.registry import both

_trace = Op("Trace", jnp.trace)
INV = Op("LinalgInvEx", lambda a: jnp.linalg.inv(square(a, "linalg.inv")))
DET = Op("LinalgDet", lambda a: jnp.linalg.det(square(a, "linalg.det")))
SLOGDET = Op("LinalgSlogdet", lambda a: jnp.linalg.slogdet(square(a, "linalg.slogdet")), many=True)
CHOLESKY = Op("LinalgCholeskyEx", lambda a: jnp.linalg.cholesky(square(a, "linalg.cholesky")))
SOLVE = Op("LinalgSolveEx", jnp.linalg.solve)
_power = family("LinalgMatrixPower", lambda x, n: jnp.linalg.matrix_power(x, n))


@both
def trace(input: Tensor) -> Tensor:  # noqa: A002
    """The sum of the diagonal."""
    if input.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}\nof several matrices: "
                           "x.diagonal(dim1=-2, dim2=-1).sum(-1)")
    return apply(_trace, (input,))


class _LinAlgError(RuntimeError):
    """A matrix for which an operation of linear algebra is not defined: ``torch.linalg.LinAlgError``."""


LinAlgError = _LinAlgError


def first_zero_pivot(a: np.ndarray) -> int:
    """The number of the first zero on the diagonal of U in the LU factorization of a matrix, from 1; 0 where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # it tells of the zero that is looked for
        found = np.nonzero(np.diagonal(scipy.linalg.lu_factor(a, check_finite=False)[0]) == 0)[0]
    return int(found[0]) + 1 if found.size else 0


def first_negative_minor(a: np.ndarray) -> int:
    """The order of the first leading minor of a matrix that is not positive definite; 0 where there is none."""
    name = {"f": "spotrf", "d": "dpotrf", "F": "cpotrf", "D": "zpotrf"}[a.dtype.char]
    return max(int(getattr(scipy.linalg.lapack, name)(a, lower=True)[1]), 0)


def infos(a: Tensor, find: Callable[[np.ndarray], int]) -> Tensor:
    """What ``find`` says of each matrix of a batch."""
    values = np.asarray(array_of(a))
    found = [find(m) for m in values.reshape(-1, *values.shape[-2:])]
    return wrap(np.asarray(np.reshape(found, values.shape[:-2]), np.int32))


def check(result: Tensor, a: Tensor, find: Callable[[np.ndarray], int], message: str) -> None:
    """Refuse a result that is not finite because of the matrix; what is being traced is not checked.

    Raises:
      LinAlgError: with the message, for the first matrix of a batch that ``find`` finds something in.
    """
    values = array_of(result)
    if isinstance(values, Tracer) or bool(np.all(np.isfinite(np.asarray(values)))):
        return
    for i, info in enumerate(np.asarray(array_of(infos(a, find))).ravel()):
        if info:
            batch = f"(Batch element {i}): " if array_of(a).ndim > 2 else ""
            raise _LinAlgError(message.format(batch=batch, info=info))


@both
def inverse(input: Tensor) -> Tensor:  # noqa: A002
    """The inverse of a matrix.

    Raises:
      LinAlgError: the matrix is singular.
    """
    result = apply(INV, (input,))
    check(result, input, first_zero_pivot, "linalg.inv: {batch}The diagonal element {info} is zero, the inversion could not be "
          "completed because the input matrix is singular.")
    return result


@both
def det(input: Tensor) -> Tensor:  # noqa: A002
    """The determinant of a matrix."""
    return apply(DET, (input,))


#: Of powers that are products, ``autocast`` chooses the narrower dtype.
_low, _single = low_precision(apply), full_precision(apply)


@both
def matrix_power(input: Tensor, n: int) -> Tensor:  # noqa: A002
    """The product of a matrix with itself, ``n`` times."""
    return (_single if n in (-1, 0, 1) else _low)(INV if n == -1 else _power(n), (input,))
