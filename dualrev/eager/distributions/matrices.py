"""Distributions of matrices: Wishart's, of covariances, and that of Lewandowski, Kurowicka and Joe, of factors of correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dualrev.eager import linalg
from dualrev.eager.core.modes import no_grad
from dualrev.eager.core.size import Size
from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.distribution import EMPTY, Distribution, ExponentialFamily, is_true
from dualrev.eager.distributions.gamma import Beta, Chi2
from dualrev.eager.distributions.multivariate_normal import factor_of_inverse, half_log_det, identity_like, solved
from dualrev.eager.distributions.parameters import Value, broadcast_all, drawn_like, lazy_property, limits, shape_of
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.creation import tensor
from dualrev.eager.ops.joining import cat

_FORMS = ("covariance_matrix", "precision_matrix", "scale_tril")


def _counted(like: Tensor, start: int, stop: int) -> Tensor:
    """The whole numbers from ``start`` up to, and without, ``stop``, in the dtype of a tensor."""
    return wrap(np.arange(start, stop, dtype=array_of(like).dtype))


def _mvdigamma(x: Tensor, p: int) -> Tensor:
    """The derivative of the logarithm of the multivariate gamma function."""
    return (x.unsqueeze(-1) - _counted(x, 0, p) / 2).digamma().sum(-1)


class Wishart(ExponentialFamily):
    """The distribution of ``X^T X`` of ``df`` normal vectors with a covariance; draws by Bartlett's factors [Bartlett1933]."""

    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0

    @property
    def arg_constraints(self) -> Any:
        return {"covariance_matrix": constraints.positive_definite, "precision_matrix": constraints.positive_definite,
                "scale_tril": constraints.lower_cholesky, "df": constraints.greater_than(self._event_shape[-1] - 1)}

    def __init__(self, df: Value, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None):
        found = [(name, m) for name, m in zip(_FORMS, (covariance_matrix, precision_matrix, scale_tril), strict=True) if m is not None]
        if len(found) != 1:
            raise AssertionError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        (name, matrix), = found
        if matrix.dim() < 2:
            raise ValueError("scale_tril must be at least two-dimensional, with optional leading batch dimensions")
        df = df if isinstance(df, Tensor) else tensor(df, dtype=matrix.dtype)
        batch_shape, event_shape = shape_of(matrix.shape[:-2], df.shape), matrix.shape[-2:]
        self.df = df.expand(batch_shape)
        if not is_true(df > event_shape[-1] - 1):
            raise ValueError(f"Value of df={df} expected to be greater than ndim - 1 = {event_shape[-1] - 1}.")
        setattr(self, name, matrix.expand((*batch_shape, -1, -1)))
        super().__init__(batch_shape, event_shape, validate_args=validate_args)
        self._unbroadcasted_scale_tril = (matrix if name == "scale_tril" else linalg.cholesky(matrix) if name == "covariance_matrix"
                                          else factor_of_inverse(matrix))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = self._get_checked_instance(Wishart, _instance)
        shape = Size(batch_shape)
        for name in _FORMS:
            if name in vars(self):
                setattr(new, name, vars(self)[name].expand((*shape, *self._event_shape)))
        new.df = self.df.expand(shape)
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril.expand((*shape, *self._event_shape))
        # What the parameters must satisfy depends on the shape of an event.
        new._event_shape = self._event_shape
        return self._finished(new, shape)

    def _whole(self, m: Tensor) -> Tensor:
        return m.expand((*self._batch_shape, *self._event_shape))

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._whole(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance of the vectors."""
        return self._whole(self._unbroadcasted_scale_tril @ self._unbroadcasted_scale_tril.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        inverse = solved(self._unbroadcasted_scale_tril, identity_like(self._unbroadcasted_scale_tril))
        return self._whole(inverse.mT @ inverse)

    def _df(self) -> Tensor:
        return self.df.reshape((*self._batch_shape, 1, 1))

    @property
    def mean(self) -> Tensor:
        return self._df() * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        factor = self._df() - self.covariance_matrix.shape[-1] - 1
        return factor.masked_fill(factor <= 0, math.nan) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        c = self.covariance_matrix
        diagonal = c.diagonal(dim1=-2, dim2=-1)
        return self._df() * (c.pow(2) + diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2))

    def rsample(self, sample_shape: Sequence[int] = EMPTY, max_try_correction: int | None = None) -> Tensor:
        """Matrices drawn at random; ``max_try_correction`` is accepted: the factors have positive diagonals."""
        p, shape = self._event_shape[-1], self._extended_shape(sample_shape)
        degrees = self.df.unsqueeze(-1) - _counted(self.df, 0, p)
        diagonal = Chi2(degrees, validate_args=False).rsample(sample_shape).clamp(min=float(limits(self.df).tiny)).sqrt()
        noise = drawn_like(self.df, shape).tril(-1) + diagonal.diag_embed()
        factor = self._unbroadcasted_scale_tril @ noise
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        p, nu = self._event_shape[-1], self.df
        half = half_log_det(self._unbroadcasted_scale_tril)
        inside = solved(self._unbroadcasted_scale_tril, linalg.cholesky(value)).pow(2).sum((-2, -1))
        return (-nu * (p * math.log(2) / 2 + half) - (nu / 2).mvlgamma(p) + (nu - p - 1) / 2 * linalg.slogdet(value).logabsdet
                - inside / 2)

    def entropy(self) -> Tensor:
        p, nu = self._event_shape[-1], self.df
        half = half_log_det(self._unbroadcasted_scale_tril)
        return ((p + 1) * (p * math.log(2) / 2 + half) + (nu / 2).mvlgamma(p) - (nu - p - 1) / 2 * _mvdigamma(nu / 2, p)
                + nu * p / 2)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return self.df, self.precision_matrix

    def _log_normalizer(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        p = y.shape[-1]
        return x / 2 * (p * math.log(2) - linalg.slogdet(y).logabsdet) + (x / 2).mvlgamma(p)


class LKJCholesky(Distribution):
    """Lower Cholesky factors of correlation matrices, whose density is proportional to ``det^(concentration - 1)``.

    Their density and the way to draw them are from [LewandowskiEtAl2009].
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Value = 1.0, validate_args: bool | None = None):
        if dim < 2:
            raise ValueError(f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}.")
        self.dim = dim
        self.concentration, = broadcast_all(concentration)
        super().__init__(self.concentration.size(), Size((dim, dim)), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = self._get_checked_instance(LKJCholesky, _instance)
        new.dim, new.concentration = self.dim, self.concentration.expand(Size(batch_shape))
        return self._finished(new, Size(batch_shape))

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        """Factors by the onion method: row after row, a direction and a radius [LewandowskiEtAl2009]."""
        with no_grad():
            offset = _counted(self.concentration, 0, self.dim - 1)
            order = cat([offset.new_zeros((1,)), offset])
            first = order / 2 + 0.5
            second = self.concentration.unsqueeze(-1) + 0.5 * (self.dim - 2) - order / 2
            y = Beta(first.expand(second.shape), second).sample(sample_shape).unsqueeze(-1)
            normal = drawn_like(self.concentration, self._extended_shape(sample_shape)).tril(-1)
            lengths = normal.norm(dim=-1, keepdim=True)
            directions = normal / lengths.masked_fill(lengths == 0, 1.0)
            # The first row has no direction.
            radius = y.sqrt() * cat([offset.new_zeros((1, 1)), offset.new_ones((self.dim - 1, 1))])
            w = radius * directions
            tiny = float(limits(w).tiny)
            return w + (1 - w.pow(2).sum(-1)).clamp(min=tiny).sqrt().diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        diagonal = self._checked(value).diagonal(dim1=-1, dim2=-2)[..., 1:]
        order = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - _counted(self.concentration, 2, self.dim + 1)
        n = self.dim - 1
        alpha = self.concentration + 0.5 * n
        normalizer = 0.5 * n * math.log(math.pi) + (alpha - 0.5).mvlgamma(n) - alpha.lgamma() * n
        return (order * diagonal.log()).sum(-1) - normalizer
