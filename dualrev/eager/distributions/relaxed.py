"""Relaxed distributions: continuous values near whole ones, as functions of the parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.categorical import Categorical
from dualrev.eager.distributions.derived import Derived
from dualrev.eager.distributions.discrete import ByOdds
from dualrev.eager.distributions.distribution import EMPTY, Distribution
from dualrev.eager.distributions.parameters import Value, broadcast_all, clamp_probs, drawn_like
from dualrev.eager.distributions.transforms import ExpTransform, SigmoidTransform
from dualrev.eager.graph.tensor import Tensor


class LogitRelaxedBernoulli(ByOdds):
    """The log odds of a :class:`RelaxedBernoulli`."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.real
    has_rsample = True
    _parameters = {"probs": 0, "logits": 0}

    def __init__(self, temperature: Any, probs: Value | None = None, logits: Value | None = None, validate_args: bool | None = None):
        self.temperature = temperature
        self._take(probs, logits)
        super().__init__(self._param.size(), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new.temperature = self.temperature
        return new

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        shape = self._extended_shape(sample_shape)
        probs, u = clamp_probs(self.probs.expand(shape)), clamp_probs(drawn_like(self._param, shape, "rand"))
        return (u.log() - (-u).log1p() + probs.log() - (-probs).log1p()) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        value, logits = broadcast_all(self._checked(value), self.logits)
        difference = logits - value * self.temperature
        return self.temperature.log() + difference - 2 * difference.exp().log1p()


class _Relaxed(Derived):
    """What relaxed distributions share."""

    has_rsample = True

    @property
    def temperature(self) -> Any:
        """How far the values are from whole ones."""
        return self.base_dist.temperature

    @property
    def logits(self) -> Tensor:
        """Log odds, or logarithms of probabilities."""
        return self.base_dist.logits

    @property
    def probs(self) -> Tensor:
        """Probabilities."""
        return self.base_dist.probs


class RelaxedBernoulli(_Relaxed):
    """Numbers between zero and one that are near them at a low temperature, as functions of the probability [MaddisonEtAl2017]."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, temperature: Any, probs: Value | None = None, logits: Value | None = None, validate_args: bool | None = None):
        super().__init__(LogitRelaxedBernoulli(temperature, probs, logits), SigmoidTransform(), validate_args=validate_args)


class ExpRelaxedCategorical(Distribution):
    """The logarithms of a :class:`RelaxedOneHotCategorical`."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, temperature: Any, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None):
        self._categorical, self.temperature = Categorical(probs, logits), temperature
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = self._get_checked_instance(ExpRelaxedCategorical, _instance)
        new._categorical, new.temperature = self._categorical.expand(batch_shape), self.temperature
        return self._finished(new, new._categorical.batch_shape)

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self._categorical.probs

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        u = clamp_probs(drawn_like(self.logits, self._extended_shape(sample_shape), "rand"))
        scores = (self.logits - (-u.log()).log()) / self.temperature
        return scores - scores.logsumexp(-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        k = self._event_shape[0]
        value, logits = broadcast_all(self._checked(value), self.logits)
        score = logits - value * self.temperature
        return (score - score.logsumexp(-1, keepdim=True)).sum(-1) + math.lgamma(k) + (k - 1) * self.temperature.log()


class RelaxedOneHotCategorical(_Relaxed):
    """Probabilities near one-hot vectors at a low temperature, as functions of the parameters: Gumbel-softmax [JangEtAl2017]."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex

    def __init__(self, temperature: Any, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None):
        super().__init__(ExpRelaxedCategorical(temperature, probs, logits, validate_args=validate_args), ExpTransform(),
                         validate_args=validate_args)
