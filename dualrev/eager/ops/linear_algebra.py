"""Linear algebra: traces, determinants, inverses and powers of matrices; ``torch.linalg`` has more."""

from __future__ import annotations

import jax.numpy as jnp

from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.checks import square
from dualrev.eager.ops.registry import both

_trace = Op("Trace", jnp.trace)
INV = Op("LinalgInvEx", lambda a: jnp.linalg.inv(square(a, "linalg.inv")), guards="result")
DET = Op("LinalgDet", lambda a: jnp.linalg.det(square(a, "linalg.det")))
SLOGDET = Op("LinalgSlogdet", lambda a: jnp.linalg.slogdet(square(a, "linalg.slogdet")), many=True)
CHOLESKY = Op("LinalgCholeskyEx", lambda a: jnp.linalg.cholesky(square(a, "linalg.cholesky")), guards="result")
SOLVE = Op("LinalgSolveEx", jnp.linalg.solve)
_power = family("LinalgMatrixPower", lambda x, n: jnp.linalg.matrix_power(x, n))


@both
def trace(input: Tensor) -> Tensor:  # noqa: A002
    """The sum of the diagonal."""
    return apply(_trace, (input,))


@both
def inverse(input: Tensor) -> Tensor:  # noqa: A002
    """The inverse of a matrix."""
    return apply(INV, (input,))


@both
def det(input: Tensor) -> Tensor:  # noqa: A002
    """The determinant of a matrix."""
    return apply(DET, (input,))


@both
def matrix_power(input: Tensor, n: int) -> Tensor:  # noqa: A002
    """The product of a matrix with itself, ``n`` times."""
    return apply(_power(n), (input,))
