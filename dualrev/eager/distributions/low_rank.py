"""The normal distribution of vectors whose covariance is a diagonal plus a matrix of low rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dualrev.eager import linalg
from dualrev.eager.core.size import Size
from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.distribution import EMPTY, Distribution
from dualrev.eager.distributions.kl import register_kl
from dualrev.eager.distributions.multivariate_normal import MultivariateNormal, half_log_det, identity_like, mahalanobis, solved
from dualrev.eager.distributions.parameters import drawn_like, lazy_property, shape_of
from dualrev.eager.graph.tensor import Tensor


class LowRankMultivariateNormal(Distribution):
    """The normal distribution with covariance ``cov_factor @ cov_factor.mT + diag(cov_diag)``.

    Densities take the factorization of ``I + W^T D^-1 W``, whose size is the rank (Woodbury's identity).
    """

    arg_constraints = {"loc": constraints.real_vector, "cov_factor": constraints.independent(constraints.real, 2),
                       "cov_diag": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector
    has_rsample = True
    _parameters = {"loc": 1, "cov_factor": 2, "cov_diag": 1}

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None):
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        event_shape = Size(loc.shape[-1:])
        if cov_factor.dim() < 2:
            raise ValueError("cov_factor must be at least two-dimensional, with optional leading batch dimensions")
        if cov_factor.shape[-2:-1] != event_shape:
            raise ValueError(f"cov_factor must be a batch of matrices with shape {event_shape[0]} x m")
        if cov_diag.shape[-1:] != event_shape:
            raise ValueError(f"cov_diag must be a batch of vectors with shape {event_shape!r}")
        batch_shape = shape_of(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc = loc.expand((*batch_shape, -1))
        self.cov_factor = cov_factor.expand((*batch_shape, *cov_factor.shape[-2:]))
        self.cov_diag = cov_diag.expand((*batch_shape, -1))
        self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag = cov_factor, cov_diag
        self._capacitance_tril = _capacitance(cov_factor, cov_diag)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        for name in ("_unbroadcasted_cov_factor", "_unbroadcasted_cov_diag", "_capacitance_tril"):
            setattr(new, name, getattr(self, name))
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:
        """The variance of each entry."""
        found = self._unbroadcasted_cov_factor.pow(2).sum(-1) + self._unbroadcasted_cov_diag
        return found.expand((*self._batch_shape, *self._event_shape))

    def _matrix(self, m: Tensor) -> Tensor:
        return m.expand((*self._batch_shape, *self._event_shape, *self._event_shape))

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        w, d = self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag
        return self._matrix(w @ w.mT + d.diag_embed())

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        w, d = self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag
        return self._matrix(linalg.cholesky(w @ w.mT + d.diag_embed()))

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        d = self._unbroadcasted_cov_diag
        half = solved(self._capacitance_tril, self._unbroadcasted_cov_factor.mT / d.unsqueeze(-2))
        return self._matrix(d.reciprocal().diag_embed() - half.mT @ half)

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        shape = self._extended_shape(sample_shape)
        few = drawn_like(self.loc, (*shape[:-1], self.cov_factor.shape[-1]))
        return (self.loc + (self._unbroadcasted_cov_factor @ few.unsqueeze(-1)).squeeze(-1)
                + self._unbroadcasted_cov_diag.sqrt() * drawn_like(self.loc, shape))

    def log_prob(self, value: Tensor) -> Tensor:
        distance = low_rank_distance(self, self._checked(value) - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + low_rank_log_det(self) + distance)

    def entropy(self) -> Tensor:
        found = 0.5 * (self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + low_rank_log_det(self))
        return found.expand(self._batch_shape) if self._batch_shape else found


def _capacitance(factor: Tensor, diagonal: Tensor) -> Tensor:
    """The lower Cholesky factor of ``I + W^T D^-1 W``."""
    product = (factor.mT / diagonal.unsqueeze(-2)) @ factor
    return linalg.cholesky(product + identity_like(product))


def low_rank_log_det(d: LowRankMultivariateNormal) -> Tensor:
    """The logarithm of the determinant of the covariance."""
    return 2 * half_log_det(d._capacitance_tril) + d._unbroadcasted_cov_diag.log().sum(-1)


def low_rank_distance(d: LowRankMultivariateNormal, x: Tensor, more: int = 0) -> Tensor:
    """The squared length of vectors in the metric of the inverse of the covariance; they may have dimensions before the last."""
    diagonal, factor, capacitance = d._unbroadcasted_cov_diag, d._unbroadcasted_cov_factor, d._capacitance_tril
    for _ in range(more):
        diagonal, factor, capacitance = diagonal.unsqueeze(-2), factor.unsqueeze(-3), capacitance.unsqueeze(-3)
    scaled = x / diagonal
    inside = (factor.mT @ scaled.unsqueeze(-1)).squeeze(-1)
    return (x * scaled).sum(-1) - mahalanobis(capacitance, inside)


def _log_det(d: Any) -> Tensor:
    return low_rank_log_det(d) if isinstance(d, LowRankMultivariateNormal) else 2 * half_log_det(d._unbroadcasted_scale_tril)


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
@register_kl(LowRankMultivariateNormal, MultivariateNormal)
@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _normals(p: Any, q: Any) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError("KL-divergence between two (Low Rank) Multivariate Normals with different event shapes cannot be computed")
    if isinstance(q, LowRankMultivariateNormal):
        distance = low_rank_distance(q, q.loc - p.loc)
        # The columns of a root of the covariance of p, in the metric of q.
        roots = ([p._unbroadcasted_cov_factor, p._unbroadcasted_cov_diag.sqrt().diag_embed()]
                 if isinstance(p, LowRankMultivariateNormal) else [p._unbroadcasted_scale_tril])
        trace = sum([low_rank_distance(q, root.mT, 1).sum(-1) for root in roots])
    else:
        factor = q._unbroadcasted_scale_tril
        distance = mahalanobis(factor, q.loc - p.loc)
        trace = (solved(factor, p._unbroadcasted_cov_factor).pow(2).sum((-2, -1))
                 + solved(factor, p._unbroadcasted_cov_diag.sqrt().diag_embed()).pow(2).sum((-2, -1)))
    return 0.5 * (_log_det(q) - _log_det(p) + distance + trace - p.event_shape[0])

