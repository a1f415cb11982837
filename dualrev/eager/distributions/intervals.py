"""Distributions on intervals: Kumaraswamy's, the continuous Bernoulli, the generalized Pareto."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.derived import EULER, Derived
from dualrev.eager.distributions.discrete import ByOdds
from dualrev.eager.distributions.distribution import EMPTY, Distribution, ExponentialFamily
from dualrev.eager.distributions.kl import register_kl
from dualrev.eager.distributions.location_scale import Uniform
from dualrev.eager.distributions.parameters import Value, broadcast_all, clamp_probs, drawn_like, filled_like
from dualrev.eager.distributions.transforms import AffineTransform, PowerTransform
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.functions.losses import binary_cross_entropy_with_logits


def _choice(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``x`` where a condition holds, and ``y`` elsewhere."""
    return x.where(condition, y)


class Kumaraswamy(Derived):
    """Kumaraswamy's distribution on the unit interval: ``(1 - u^(1/b))^(1/a)`` of a uniform variable [Kumaraswamy1980]."""

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True
    _parameters = {"concentration1": 0, "concentration0": 0}

    def __init__(self, concentration1: Value, concentration0: Value, validate_args: bool | None = None):
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        a, b = self.concentration1, self.concentration0
        base = Uniform(filled_like(b, b.shape, 0), filled_like(b, b.shape, 1), validate_args=validate_args)
        transforms: Any = [PowerTransform(b.reciprocal()), AffineTransform(1.0, -1.0), PowerTransform(a.reciprocal())]
        super().__init__(base, transforms, validate_args=validate_args)

    def _moment(self, n: int) -> Tensor:
        first = 1 + n / self.concentration1
        b = self.concentration0
        return b * (first.lgamma() + b.lgamma() - (first + b).lgamma()).exp()

    @property
    def mean(self) -> Tensor:
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        log_mode = a.reciprocal() * ((a - 1).log() - (a * b - 1).log())
        return log_mode.masked_fill((a < 1) | (b < 1), math.nan).exp()

    @property
    def variance(self) -> Tensor:
        return self._moment(2) - self._moment(1).pow(2)

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        harmonic = (b + 1).digamma() + EULER
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - a.log() - b.log()


class ContinuousBernoulli(ByOdds, ExponentialFamily):
    """The density proportional to ``p^x (1 - p)^(1 - x)`` on the unit interval [LoaizaGanemCunningham2019].

    Between the two ``lims``, where the formulas divide by ``1 - 2 p``, series stand for them.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _parameters = {"probs": 0, "logits": 0}
    _mean_carrier_measure = 0

    def __init__(self, probs: Value | None = None, logits: Value | None = None, lims: tuple[float, float] = (0.499, 0.501),
                 validate_args: bool | None = None):
        self._take(probs, logits)
        if "probs" in vars(self):
            if validate_args is not None and validate_args and not self.arg_constraints["probs"].check(self.probs).all():
                raise ValueError("The parameter probs has invalid values")
            self.probs = clamp_probs(self.probs)
        self._lims = lims
        super().__init__(self._param.size(), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._lims = self._lims
        return new

    def _is_apart(self) -> Tensor:
        """Where the formulas hold."""
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _by_series(self, formula: Any, series: Any) -> Tensor:
        """A formula of the probability, or a series of its distance from one half."""
        is_apart = self._is_apart()
        safe = _choice(is_apart, self.probs, filled_like(self.probs, self.probs.shape, self._lims[0]))
        return _choice(is_apart, formula(safe), series(self.probs - 0.5))

    def _log_norm(self) -> Tensor:
        return self._by_series(lambda p: (((-p).log1p() - p.log()).abs()).log() - (1 - 2 * p).abs().log(),
                               lambda d: math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * d.pow(2)) * d.pow(2))

    @property
    def mean(self) -> Tensor:
        return self._by_series(lambda p: p / (2 * p - 1) + 1 / ((-p).log1p() - p.log()),
                               lambda d: 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * d.pow(2)) * d)

    @property
    def variance(self) -> Tensor:
        return self._by_series(lambda p: p * (p - 1) / (1 - 2 * p).pow(2) + 1 / ((-p).log1p() - p.log()).pow(2),
                               lambda d: 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * d.pow(2)) * d.pow(2))

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        return self.icdf(drawn_like(self.probs, self._extended_shape(sample_shape), "rand"))

    def log_prob(self, value: Tensor) -> Tensor:
        value, logits = broadcast_all(self._checked(value), self.logits)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none") + self._log_norm()

    def cdf(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        inside = self._by_series(lambda p: (p.pow(value) * (1 - p).pow(1 - value) + p - 1) / (2 * p - 1), lambda d: value + 0 * d)
        return inside.masked_fill(value <= 0, 0.0).masked_fill(value >= 1, 1.0)

    def icdf(self, value: Tensor) -> Tensor:
        return self._by_series(lambda p: ((-p + value * (2 * p - 1)).log1p() - (-p).log1p()) / (p.log() - (-p).log1p()),
                               lambda d: value + 0 * d)

    def entropy(self) -> Tensor:
        log0, log1 = (-self.probs).log1p(), self.probs.log()
        return self.mean * (log0 - log1) - self._log_norm() - log0

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        is_apart = (x <= self._lims[0] - 0.5) | (x > self._lims[1] - 0.5)
        safe = _choice(is_apart, x, filled_like(x, x.shape, self._lims[0] - 0.5))
        return _choice(is_apart, (safe.exp() - 1).abs().log() - safe.abs().log(), 0.5 * x + x.pow(2) / 24.0 - x.pow(4) / 2880.0)


class GeneralizedPareto(Distribution):
    """The generalized Pareto distribution: of what exceeds a high bound [Pickands1975]."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real}
    has_rsample = True
    _parameters = {"loc": 0, "scale": 0, "concentration": 0}

    def __init__(self, loc: Value, scale: Value, concentration: Value, validate_args: bool | None = None):
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.size(), validate_args=validate_args)

    def _of_zero(self) -> tuple[Tensor, Tensor]:
        """Where the concentration is zero, and the concentration with ones there."""
        is_zero = self.concentration.isclose(filled_like(self.loc, self.concentration.shape, 0))
        return is_zero, self.concentration.masked_fill(is_zero, 1.0)

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        return self.icdf(drawn_like(self.loc, self._extended_shape(sample_shape), "rand"))

    def log_prob(self, value: Tensor) -> Tensor:
        z = (self._checked(value) - self.loc) / self.scale
        is_zero, c = self._of_zero()
        return _choice(is_zero, -z, -(1 / c + 1) * (c * z).log1p()) - self.scale.log()

    def log_survival_function(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of exceeding a value."""
        z = (self._checked(value) - self.loc) / self.scale
        is_zero, c = self._of_zero()
        return _choice(is_zero, -z, -(c * z).log1p() / c)

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of ``cdf``."""
        return (-self.log_survival_function(value).exp()).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        return self.log_cdf(value).exp()

    def icdf(self, value: Tensor) -> Tensor:
        is_zero, c = self._of_zero()
        log = (-value).log1p()
        return _choice(is_zero, self.loc - self.scale * log, self.loc + self.scale * (-c * log).expm1() / c)

    @property
    def mean(self) -> Tensor:
        is_finite = self.concentration < 1
        safe = self.concentration.masked_fill(~is_finite, 0.5)
        return (self.loc + self.scale / (1 - safe)).masked_fill(~is_finite, math.inf)

    @property
    def variance(self) -> Tensor:
        is_finite = self.concentration < 0.5
        safe = self.concentration.masked_fill(~is_finite, 0.25)
        return (self.scale.pow(2) / ((1 - safe).pow(2) * (1 - 2 * safe))).masked_fill(~is_finite, math.inf)

    def entropy(self) -> Tensor:
        return (self.scale.log() + self.concentration + 1).expand(self._batch_shape)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        is_below = self.concentration < 0
        end = self.loc - self.scale / self.concentration.masked_fill(~is_below, -1.0)
        return constraints.interval(self.loc, _choice(is_below, end, filled_like(end, end.shape, math.inf)))


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    return (p.mean * (p.logits - q.logits) + p._log_norm() + (-p.probs).log1p() - q._log_norm() - (-q.probs).log1p())
