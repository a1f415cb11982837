"""The normal distribution of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager import linalg
from dualrev.eager.core.operation import Op
from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.distribution import EMPTY, Distribution
from dualrev.eager.distributions.parameters import drawn_like, lazy_property, shape_of
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap

_NEITHER = {"covariance_matrix": "covariance_matrix must be at least two-dimensional, with optional leading batch dimensions",
            "precision_matrix": "precision_matrix must be at least two-dimensional, with optional leading batch dimensions",
            "scale_tril": "scale_tril matrix must be at least two-dimensional, with optional leading batch dimensions"}


def _solved(factor: jax.Array, x: jax.Array) -> jax.Array:
    """``factor \\ x`` for lower triangular factors and matrices whose batches broadcast."""
    shape = jnp.broadcast_shapes(factor.shape[:-2], x.shape[:-2])
    return jax.scipy.linalg.solve_triangular(jnp.broadcast_to(factor, shape + factor.shape[-2:]),
                                             jnp.broadcast_to(x, shape + x.shape[-2:]), lower=True)


def _white(factor: jax.Array, x: jax.Array) -> jax.Array:
    """``factor \\ x`` for vectors: one triangular system with many columns where there is one factor."""
    if factor.ndim > 2:
        return _solved(factor, x[..., None])[..., 0]
    return _solved(factor, x.reshape(-1, x.shape[-1]).T).T.reshape(x.shape)


_WHITE = Op("LinalgSolveTriangular", _white)
_SOLVED = Op("LinalgSolveTriangular", _solved)
_TIMES = Op("Matmul", lambda factor, x: jnp.einsum("...ij,...j->...i", factor, x))


class MultivariateNormal(Distribution):
    """The normal distribution of vectors, by its covariance, its inverse, or its lower Cholesky factor.

    >>> from dualrev import eager as torch
    >>> d = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> d.log_prob(torch.tensor([1.0, 0.0]))
    tensor(-2.7205)
    """

    arg_constraints = {"loc": constraints.real_vector, "covariance_matrix": constraints.positive_definite,
                       "precision_matrix": constraints.positive_definite, "scale_tril": constraints.lower_cholesky}
    support = constraints.real_vector
    has_rsample = True
    _parameters = {"loc": 1, "covariance_matrix": 2, "precision_matrix": 2, "scale_tril": 2}

    def __init__(self, loc: Tensor, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None):
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        found = [(name, m) for name, m in given.items() if m is not None]
        if len(found) != 1:
            raise ValueError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        (name, matrix), = found
        if matrix.dim() < 2:
            raise ValueError(_NEITHER[name])
        batch_shape = shape_of(matrix.shape[:-2], loc.shape[:-1])
        setattr(self, name, matrix.expand((*batch_shape, -1, -1)))
        self.loc = loc.expand((*batch_shape, -1))
        super().__init__(batch_shape, self.loc.shape[-1:], validate_args=validate_args)
        self._unbroadcasted_scale_tril = (matrix if name == "scale_tril" else linalg.cholesky(matrix) if name == "covariance_matrix"
                                          else factor_of_inverse(matrix))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril
        return new

    def _matrix(self, m: Tensor) -> Tensor:
        return m.expand((*self._batch_shape, *self._event_shape, *self._event_shape))

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._matrix(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self._matrix(self._unbroadcasted_scale_tril @ self._unbroadcasted_scale_tril.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        inverse = solved(self._unbroadcasted_scale_tril, identity_like(self._unbroadcasted_scale_tril))
        return self._matrix(inverse.mT @ inverse)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self._unbroadcasted_scale_tril.pow(2).sum(-1).expand((*self._batch_shape, *self._event_shape))

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        return self.loc + apply(_TIMES, (self._unbroadcasted_scale_tril, drawn_like(self.loc, self._extended_shape(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        distance = mahalanobis(self._unbroadcasted_scale_tril, self._checked(value) - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + distance) - half_log_det(self._unbroadcasted_scale_tril)

    def entropy(self) -> Tensor:
        found = 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + half_log_det(self._unbroadcasted_scale_tril)
        return found.expand(self._batch_shape) if self._batch_shape else found


def half_log_det(factor: Tensor) -> Tensor:
    """Half the logarithm of the determinant of a matrix, from its Cholesky factor."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def mahalanobis(factor: Tensor, x: Tensor) -> Tensor:
    """The squared length of vectors in the metric of the inverse of a matrix, from its Cholesky factor."""
    return apply(_WHITE, (factor, x)).pow(2).sum(-1)


def solved(factor: Tensor, x: Tensor) -> Tensor:
    """The solutions of lower triangular systems."""
    return apply(_SOLVED, (factor, x))


def identity_like(m: Tensor) -> Tensor:
    """The identity matrix of the size and dtype of a matrix."""
    return wrap(np.eye(m.shape[-1], dtype=array_of(m).dtype))


def factor_of_inverse(precision: Tensor) -> Tensor:
    """The lower Cholesky factor of the inverse of a matrix."""
    flipped = linalg.cholesky(precision.flip((-2, -1))).flip((-2, -1))
    return solved(flipped.mT, identity_like(precision))
