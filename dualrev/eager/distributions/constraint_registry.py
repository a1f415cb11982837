"""Transforms from all real numbers to a set: ``biject_to`` and ``transform_to``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualrev.eager.distributions import constraints, transforms


class ConstraintRegistry:
    """Functions from constraints to transforms, by the class of the constraint."""

    def __init__(self) -> None:
        self._registry: dict[type, Callable[..., Any]] = {}

    def register(self, constraint: Any, factory: Callable[..., Any] | None = None) -> Any:
        """Register a function for a constraint, or its class; without one, a decorator."""
        if factory is None:
            return lambda f: self.register(constraint, f)
        kind = type(constraint) if isinstance(constraint, constraints.Constraint) else constraint
        if not isinstance(kind, type) or not issubclass(kind, constraints.Constraint):
            raise TypeError(f"Expected constraint to be either a Constraint subclass or instance, but got {constraint}")
        self._registry[kind] = factory
        return factory

    def __call__(self, constraint: constraints.Constraint) -> Any:
        factory = self._registry.get(type(constraint))
        if factory is None:
            raise NotImplementedError(f"Cannot transform {type(constraint).__name__} constraints")
        return factory(constraint)


#: Bijections to a set.
biject_to = ConstraintRegistry()
#: Functions onto a set, which may be easier to optimize through.
transform_to = ConstraintRegistry()


def _after(first: transforms.Transform, loc: Any, scale: Any) -> transforms.ComposeTransform:
    return transforms.ComposeTransform([first, transforms.AffineTransform(loc, scale)])


def _interval(c: Any) -> Any:
    low, high = c.lower_bound, c.upper_bound
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and (low, high) == (0, 1):
        return transforms.SigmoidTransform()
    return _after(transforms.SigmoidTransform(), low, high - low)


for _registry in (biject_to, transform_to):
    _registry.register(constraints.real, lambda c: transforms.identity_transform)
    _registry.register(constraints.independent, lambda c, r=_registry: transforms.IndependentTransform(r(c.base_constraint),
                                                                                                       c.reinterpreted_batch_ndims))
    for _kind in (constraints.greater_than, constraints.greater_than_eq):
        _registry.register(_kind, lambda c: _after(transforms.ExpTransform(), c.lower_bound, 1))
    _registry.register(constraints.less_than, lambda c: _after(transforms.ExpTransform(), c.upper_bound, -1))
    for _bounded in (constraints.interval, constraints.half_open_interval):
        _registry.register(_bounded, _interval)
    _registry.register(constraints.corr_cholesky, lambda c: transforms.CorrCholeskyTransform())
    _registry.register(constraints.cat, lambda c, r=_registry: transforms.CatTransform([r(x) for x in c.cseq], c.dim, c.lengths))
    _registry.register(constraints.stack, lambda c, r=_registry: transforms.StackTransform([r(x) for x in c.cseq], c.dim))
biject_to.register(constraints.simplex, lambda c: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: transforms.SoftmaxTransform())
transform_to.register(constraints.lower_cholesky, lambda c: transforms.LowerCholeskyTransform())
for _matrix in (constraints.positive_definite, constraints.positive_semidefinite):
    transform_to.register(_matrix, lambda c: transforms.PositiveDefiniteTransform())
