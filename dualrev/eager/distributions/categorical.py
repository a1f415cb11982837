"""Distributions of one of several classes: categorical, one-hot, multinomial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dualrev.eager.core.size import Size
from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.discrete import Binomial, one_given
from dualrev.eager.distributions.distribution import EMPTY, Distribution
from dualrev.eager.distributions.parameters import broadcast_all, filled_like, lazy_property, limits, logits_to_probs, probs_to_logits
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.nn.functions.linear import one_hot
from dualrev.eager.ops.distributions import multinomial

_CLASSES = {"probs": constraints.simplex, "logits": constraints.real_vector}


class Categorical(Distribution):
    """One of several classes, with probabilities, or with logarithms of them up to a constant.

    >>> from dualrev import eager as torch
    >>> d = torch.distributions.Categorical(logits=torch.tensor([0.0, 1.0, 2.0]))
    >>> d.sample((5,)).shape
    torch.Size([5])
    >>> d.log_prob(torch.tensor([0, 2])), d.entropy()
    (tensor([-2.4076, -0.4076]), tensor(0.8324))
    """

    arg_constraints = _CLASSES
    has_enumerate_support = True
    _parameters = {"probs": 1, "logits": 1}

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None):
        one_given(probs, logits)
        if probs is not None:
            if probs.dim() < 1:
                raise ValueError("`probs` parameter must be at least one-dimensional.")
            self.probs = probs / probs.sum(-1, keepdim=True)
        elif logits is not None:
            if logits.dim() < 1:
                raise ValueError("`logits` parameter must be at least one-dimensional.")
            self.logits = logits - logits.logsumexp(-1, keepdim=True)
        super().__init__(self._param.size()[:-1], validate_args=validate_args)

    @property
    def _param(self) -> Tensor:
        return vars(self)["probs" if "probs" in vars(self) else "logits"]

    @property
    def _num_events(self) -> int:
        return self._param.size()[-1]

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return logits_to_probs(self.logits)

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter that was given."""
        return self._param.size()

    @property
    def mean(self) -> Tensor:
        return filled_like(self.probs, self._batch_shape, math.nan)

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Tensor:
        return filled_like(self.probs, self._batch_shape, math.nan)

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        n = math.prod(sample_shape)
        rows = self.probs.detach().reshape(-1, self._num_events)
        return multinomial(rows, n, True).T.reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value).long().unsqueeze(-1)
        logits = self.logits
        shape = np.broadcast_shapes(tuple(value.shape), (*logits.shape[:-1], 1))[:-1]
        return logits.expand((*shape, logits.shape[-1])).gather(-1, value.expand((*shape, 1))).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.logits.clamp(min=float(limits(self.logits).min)) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = np.arange(self._num_events).reshape(-1, *[1] * len(self._batch_shape))
        return wrap(np.array(np.broadcast_to(values, (len(values), *self._batch_shape))) if expand else values)


class _OfCategorical(Distribution):
    """What distributions share that are made of a categorical one."""

    _categorical: Categorical

    def _begin(self, probs: Tensor | None, logits: Tensor | None, validate_args: bool | None) -> None:
        self._categorical = Categorical(probs, logits)
        Distribution.__init__(self, self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    def _expanded(self, batch_shape: Sequence[int], new: Any) -> Any:
        new._categorical = self._categorical.expand(batch_shape)
        return self._finished(new, new._categorical.batch_shape)

    @property
    def _param(self) -> Tensor:
        return self._categorical._param

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter that was given."""
        return self._categorical.param_shape


class OneHotCategorical(_OfCategorical):
    """One of several classes, as a vector with a one in its place."""

    arg_constraints = _CLASSES
    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None):
        self._begin(probs, logits, validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        return self._expanded(batch_shape, self._get_checked_instance(OneHotCategorical, _instance))

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return one_hot(self.probs.argmax(-1), self.probs.shape[-1]).to(self.probs.dtype)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        return one_hot(self._categorical.sample(sample_shape), self._categorical._num_events).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._categorical.log_prob(self._checked(value).argmax(-1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = self._event_shape[0]
        values = np.eye(n, dtype=array_of(self._param).dtype).reshape(n, *[1] * len(self._batch_shape), n)
        return wrap(np.array(np.broadcast_to(values, (n, *self._batch_shape, n))) if expand else values)


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """As :class:`OneHotCategorical`; the gradient of a draw is that of the probabilities [BengioEtAl2013]."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


class Multinomial(_OfCategorical):
    """How often each class occurs in ``total_count`` draws."""

    arg_constraints = _CLASSES

    def __init__(self, total_count: int = 1, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None):
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._begin(probs, logits, validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        new = self._get_checked_instance(Multinomial, _instance)
        new.total_count = self.total_count
        return self._expanded(batch_shape, new)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        drawn = self._categorical.sample((self.total_count, *sample_shape))
        return one_hot(drawn, self._event_shape[0]).sum(0).to(self.probs.dtype)

    def entropy(self) -> Tensor:
        n = self.total_count
        binomial = Binomial(n, self.probs, validate_args=False)
        counts = binomial.enumerate_support(expand=False)[1:]
        expected = (binomial.log_prob(counts).exp() * (counts + 1).lgamma()).sum([0, -1])
        return n * self._categorical.entropy() - math.lgamma(n + 1) + expected

    def log_prob(self, value: Tensor) -> Tensor:
        value, logits = broadcast_all(self._checked(value), self.logits)
        logits = logits.masked_fill((value == 0) & (logits == -math.inf), 0)
        return (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1) + (logits * value).sum(-1)
