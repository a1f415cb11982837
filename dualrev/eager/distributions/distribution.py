"""The base class of distributions: shapes, checks, what is computed from what."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.autograd.gradients import grad
from dualrev.eager.core.modes import no_grad
from dualrev.eager.core.size import Size
from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.parameters import lazy_property, sum_rightmost
from dualrev.eager.graph.tensor import Tensor, array_of

#: No dimensions.
EMPTY = Size(())


class Distribution:
    """Base class of distributions.

    A subclass sets its parameters, calls ``__init__`` with the shapes of a batch and of an event, and defines ``arg_constraints``,
    ``support``, ``rsample`` or ``sample``, ``log_prob`` and what else it has.
    """

    has_rsample: Any = False
    has_enumerate_support: Any = False
    _validate_args: bool = __debug__
    #: The parameters, by name, with the number of dimensions of an event in each: what ``expand`` expands.
    _parameters: ClassVar[Mapping[str, int]] = {}

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether parameters and values are checked where ``validate_args`` is not given."""
        if value not in (True, False):
            raise ValueError
        Distribution._validate_args = value

    def __init__(self, batch_shape: Sequence[int] = EMPTY, event_shape: Sequence[int] = EMPTY, validate_args: bool | None = None):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        try:
            declared = self.arg_constraints
        except NotImplementedError:
            declared = {}
            warnings.warn(f"{type(self)} does not define `arg_constraints`. Please set `arg_constraints = {{}}` or initialize the "
                          "distribution with `validate_args=False` to turn off validation.", stacklevel=4)
        for name, constraint in declared.items():
            if constraints.is_dependent(constraint):
                continue
            if name not in vars(self) and isinstance(getattr(type(self), name), lazy_property):
                continue  # it is computed from one that is checked
            value = getattr(self, name)
            if not holds(constraint, value):
                raise ValueError(f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
                                 f"{self!r} to satisfy the constraint {constraint!r}, but found invalid values:\n{value}")

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """The distribution with another shape of its batch, to which the parameters broadcast."""
        if not self._parameters:
            raise NotImplementedError
        own = next(c for c in type(self).__mro__ if c.__module__.startswith(__package__ or ""))
        new = self._get_checked_instance(own, _instance)
        shape = Size(batch_shape)
        for name, dims in self._parameters.items():
            if name in vars(self):
                value = vars(self)[name]
                setattr(new, name, value.expand((*shape, *value.shape[value.dim() - dims:])))
        return self._finished(new, shape)

    def _finished(self, new: Any, batch_shape: Size) -> Any:
        """An expanded copy, with the shapes and checks of this one."""
        Distribution.__init__(new, batch_shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def batch_shape(self) -> Size:
        """The shape of a batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one value."""
        return self._event_shape

    @property
    def arg_constraints(self) -> Any:
        """The sets that the parameters belong to, by name."""
        raise NotImplementedError

    @property
    def support(self) -> Any:
        """The set that values belong to."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        raise NotImplementedError(f"{type(self)} does not implement mode")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        """Values drawn at random, ``sample_shape`` of each; no gradient passes through them."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        """Values drawn at random as functions of the parameters: gradients pass through them."""
        raise NotImplementedError

    def sample_n(self, n: int) -> Tensor:
        """As ``sample((n,))``."""
        warnings.warn("`sample_n(n)` will be deprecated. Use `sample((n,))` instead.", FutureWarning, stacklevel=2)
        return self.sample(Size((n,)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, of values."""
        raise NotImplementedError

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of being at most a value."""
        raise NotImplementedError

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a share of the probability lies."""
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """The exponential of the entropy."""
        return self.entropy().exp()

    def _extended_shape(self, sample_shape: Sequence[int] = EMPTY) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _checked(self, value: Any) -> Any:
        """A value, after its checks where they are on."""
        if self._validate_args:
            self._validate_sample(value)
        return value

    def _validate_sample(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        n, shape = len(self._event_shape), value.size()
        if shape[len(shape) - n:] != self._event_shape:
            raise ValueError(f"The right-most size of value must match event_shape: {shape} vs {self._event_shape}.")
        expected = Size((*self._batch_shape, *self._event_shape))
        if any(i != 1 and j != 1 and i != j for i, j in zip(reversed(shape), reversed(expected), strict=False)):
            raise ValueError(f"Value is not broadcastable with batch_shape+event_shape: {shape} vs {expected}.")
        try:
            support = self.support
        except NotImplementedError:
            warnings.warn(f"{type(self)} does not define `support` to enable sample validation. Please initialize the distribution "
                          "with `validate_args=False` to turn off validation.", stacklevel=4)
            return
        if not holds(support, value):
            raise ValueError(f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within the support "
                             f"({support!r}) of the distribution {self!r}, but found invalid values:\n{value}")

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        if _instance is None and type(self).__init__ is not cls.__init__:  # type: ignore[misc]
            raise NotImplementedError(f"Subclass {type(self).__name__} of {cls.__name__} that defines a custom __init__ method must "
                                      "also define a custom .expand() method.")
        return object.__new__(type(self)) if _instance is None else _instance

    def __repr__(self) -> str:
        names = [name for name in self.arg_constraints if name in vars(self)]
        shown = [(name, vars(self)[name]) for name in names]
        return f"{type(self).__name__}({', '.join(f'{n}: {x if x.numel() == 1 else x.size()}' for n, x in shown)})"


def holds(constraint: Any, value: Tensor) -> bool:
    """Whether values belong to a set; what is being traced is not checked."""
    if isinstance(array_of(value), Tracer):
        return True
    with no_grad():
        return is_true(constraint.check(value))


def is_true(condition: Tensor) -> bool:
    """Whether a condition holds everywhere; what is being traced is not checked."""
    array = array_of(condition)
    return isinstance(array, Tracer) or bool(np.all(np.asarray(array)))


class ExponentialFamily(Distribution):
    """Distributions whose density is that of an exponential family: the entropy follows from the logarithm of the normalizer."""

    _mean_carrier_measure: Any = 0

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The entropy, as a Bregman divergence of the normalizer."""
        natural = [p.detach().requires_grad_() for p in self._natural_params]
        normalizer = self._log_normalizer(*natural)
        gradients = grad(normalizer.sum(), natural, create_graph=True)
        result = normalizer - self._mean_carrier_measure
        for p, g in zip(natural, gradients, strict=True):
            assert g is not None
            result = result - sum_rightmost(p * g, p.dim() - len(self._batch_shape))
        return result
