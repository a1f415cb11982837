"""Distributions of whole numbers: Bernoulli, geometric, Poisson, binomial, negative binomial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dualrev.eager.core.evaluation import Evaluation
from dualrev.eager.core.modes import no_grad
from dualrev.eager.core.size import Size
from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.distribution import EMPTY, Distribution, ExponentialFamily, is_true
from dualrev.eager.distributions.gamma import Gamma
from dualrev.eager.distributions.parameters import (
    Value,
    broadcast_all,
    drawn_like,
    filled_like,
    lazy_property,
    limits,
    logits_to_probs,
    probs_to_logits,
)
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.nn.functions.activations import logsigmoid
from dualrev.eager.nn.functions.losses import binary_cross_entropy_with_logits
from dualrev.eager.ops.distributions import bernoulli, poisson
from dualrev.eager.ops.generator import default_generator, key_from

_BINOMIAL = Evaluation(lambda words, n, p: jax.random.binomial(key_from(words), n, p, n.shape, n.dtype))


def one_given(probs: Any, logits: Any) -> None:
    """Refuse both and none."""
    if (probs is None) == (logits is None):
        raise ValueError("Either `probs` or `logits` must be specified, but not both.")


class ByOdds(Distribution):
    """What distributions share that have the probability of an event, or its log odds."""

    def _take(self, probs: Any, logits: Any, *others: Value) -> tuple[Tensor, ...]:
        """Set the one that is given; the others, broadcast with it."""
        one_given(probs, logits)
        *found, value = broadcast_all(*others, logits if probs is None else probs)
        setattr(self, "logits" if probs is None else "probs", value)
        return tuple(found)

    @property
    def _param(self) -> Tensor:
        return vars(self)["probs" if "probs" in vars(self) else "logits"]

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter that was given."""
        return self._param.size()

    @lazy_property
    def logits(self) -> Tensor:
        """Log odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """Probabilities."""
        return logits_to_probs(self.logits, is_binary=True)

    def _whole_numbers(self, n: int, expand: bool) -> Tensor:
        values = np.arange(n, dtype=array_of(self._param).dtype).reshape(-1, *[1] * len(self._batch_shape))
        return wrap(np.array(np.broadcast_to(values, (n, *self._batch_shape))) if expand else values)


class Bernoulli(ByOdds, ExponentialFamily):
    """One with probability ``probs``, or with log odds ``logits``; zero otherwise.

    >>> from dualrev import eager as torch
    >>> torch.distributions.Bernoulli(torch.tensor(0.25)).log_prob(torch.tensor(1.0))
    tensor(-1.3863)
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True
    _parameters = {"probs": 0, "logits": 0}

    def __init__(self, probs: Value | None = None, logits: Value | None = None, validate_args: bool | None = None):
        self._take(probs, logits)
        super().__init__(self._param.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return (self.probs >= 0.5).to(self.probs.dtype).masked_fill(self.probs == 0.5, math.nan)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        value, logits = broadcast_all(self._checked(value), self.logits)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self._whole_numbers(2, expand)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.probs.log() - (-self.probs).log1p(),)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.exp().log1p()


class Geometric(ByOdds):
    """The number of failures before the first success."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer
    _parameters = {"probs": 0, "logits": 0}

    def __init__(self, probs: Value | None = None, logits: Value | None = None, validate_args: bool | None = None):
        self._take(probs, logits)
        super().__init__(self._param.size(), validate_args=validate_args)
        if self._validate_args and probs is not None and not is_true(self.probs > 0):
            value = self.probs
            raise ValueError(f"Expected parameter probs ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
                             f"{self!r} to be positive but found invalid values:\n{value.detach()[value <= 0]}")

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return filled_like(self.probs, self.probs.shape, 0)

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        with no_grad():
            u = drawn_like(self.probs, self._extended_shape(sample_shape), "rand").clamp(min=float(limits(self.probs).tiny))
            return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        value, probs = broadcast_all(self._checked(value), self.probs)
        probs = probs.masked_fill((probs == 1) & (value == 0), 0)
        return value * (-probs).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


class Poisson(ExponentialFamily):
    """The Poisson distribution."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer
    _parameters = {"rate": 0}

    def __init__(self, rate: Value, validate_args: bool | None = None):
        self.rate, = broadcast_all(rate)
        super().__init__(self.rate.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        with no_grad():
            return poisson(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        rate, value = broadcast_all(self.rate, self._checked(value))
        return value.xlogy(rate) - rate - (value + 1).lgamma()

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.rate.log(),)

    @property
    def _mean_carrier_measure(self) -> Any:
        raise NotImplementedError

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.exp()


class Binomial(ByOdds):
    """The number of successes in ``total_count`` trials."""

    arg_constraints = {"total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval, "logits": constraints.real}
    has_enumerate_support = True
    _parameters = {"total_count": 0, "probs": 0, "logits": 0}

    def __init__(self, total_count: Any = 1, probs: Value | None = None, logits: Value | None = None,
                 validate_args: bool | None = None):
        count, = self._take(probs, logits, total_count)
        self.total_count = count.type_as(self._param)
        super().__init__(self._param.size(), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return wrap(_BINOMIAL(default_generator.key(), *[array_of(x.expand(shape)) for x in (self.total_count, self.probs)]))

    def log_prob(self, value: Tensor) -> Tensor:
        value, n, odds = self._checked(value), self.total_count, self.logits
        above = (odds.clamp(min=0) + odds - odds.clamp(max=0)) / 2  # its derivative at zero is 1/2
        normalizer = n * above + n * (-odds.abs()).exp().log1p() - (n + 1).lgamma()
        return value * odds - (value + 1).lgamma() - (n - value + 1).lgamma() - normalizer

    def entropy(self) -> Tensor:
        self._count("entropy")
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(log_prob.exp() * log_prob).sum(0)

    def _count(self, of: str) -> int:
        most = int(self.total_count.max())
        if int(self.total_count.min()) != most:
            raise NotImplementedError(f"Inhomogeneous total count not supported by `{of}`.")
        return most

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self._whole_numbers(1 + self._count("enumerate_support"), expand)


class NegativeBinomial(ByOdds):
    """The number of successes before ``total_count`` failures."""

    arg_constraints = {"total_count": constraints.greater_than_eq(0), "probs": constraints.half_open_interval(0.0, 1.0),
                       "logits": constraints.real}
    support = constraints.nonnegative_integer
    _parameters = {"total_count": 0, "probs": 0, "logits": 0}

    def __init__(self, total_count: Any, probs: Value | None = None, logits: Value | None = None, validate_args: bool | None = None):
        count, = self._take(probs, logits, total_count)
        self.total_count = count.type_as(self._param)
        super().__init__(self._param.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        with no_grad():
            return poisson(Gamma(self.total_count, (-self.logits).exp(), validate_args=False).sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        value, n = self._checked(value), self.total_count
        unnormalized = n * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        normalizer = -(n + value).lgamma() + (1.0 + value).lgamma() + n.lgamma()
        return unnormalized - normalizer.masked_fill(n + value == 0.0, 0.0)
