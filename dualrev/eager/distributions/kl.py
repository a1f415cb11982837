"""The Kullback-Leibler divergence of pairs of distributions, and the table of pairs: ``torch.distributions.kl``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from dualrev.eager.autograd.gradients import grad
from dualrev.eager.distributions.categorical import Categorical, OneHotCategorical
from dualrev.eager.distributions.derived import EULER, Gumbel, HalfNormal, Pareto
from dualrev.eager.distributions.discrete import Bernoulli, Binomial, Geometric, Poisson
from dualrev.eager.distributions.distribution import Distribution, ExponentialFamily, is_true
from dualrev.eager.distributions.gamma import Beta, Dirichlet, Gamma
from dualrev.eager.distributions.location_scale import Cauchy, Exponential, Laplace, Normal, Uniform
from dualrev.eager.distributions.multivariate_normal import MultivariateNormal, half_log_det, mahalanobis, solved
from dualrev.eager.distributions.parameters import filled_like, sum_rightmost
from dualrev.eager.distributions.transformed import Independent, TransformedDistribution
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.functions.activations import softplus

#: A divergence of two distributions.
Divergence = Callable[[Any, Any], Tensor]
_REGISTRY: dict[tuple[type, type], Divergence] = {}
_FOUND: dict[tuple[type, type], Divergence | None] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Divergence], Divergence]:
    """A decorator: the function gives the divergence of two classes of distributions.

    >>> from dualrev import eager as torch
    >>> class Point(torch.distributions.Normal):
    ...     pass
    >>> @torch.distributions.register_kl(Point, Point)
    ... def of_points(p, q):
    ...     return (p.loc - q.loc) ** 2
    >>> torch.distributions.kl_divergence(Point(0.0, 1.0), Point(2.0, 1.0))
    tensor(4.)
    """
    for name, kind in (("type_p", type_p), ("type_q", type_q)):
        if not isinstance(kind, type) or not issubclass(kind, Distribution):
            raise TypeError(f"Expected {name} to be a Distribution subclass but got {kind}")

    def register(fun: Divergence) -> Divergence:
        _REGISTRY[type_p, type_q] = fun
        _FOUND.clear()
        return fun

    return register


def _nearest(pairs: list[tuple[type, type]]) -> tuple[type, type]:
    """The pair of the most special classes, of the first ones first."""
    return min(pairs, key=lambda pair: [sum(issubclass(kind, x) for x in {p[i] for p in pairs}) * -1 for i, kind in enumerate(pair)])


def _dispatch(type_p: type, type_q: type) -> Divergence | None:
    matches = [(p, q) for p, q in _REGISTRY if issubclass(type_p, p) and issubclass(type_q, q)]
    if not matches:
        return None
    left = _nearest(matches)
    right_q, right_p = _nearest([(q, p) for p, q in matches])
    if _REGISTRY[left] is not _REGISTRY[right_p, right_q]:
        warnings.warn(f"Ambiguous kl_divergence({type_p.__name__}, {type_q.__name__}). Please register_kl({left[0].__name__}, "
                      f"{right_q.__name__})", RuntimeWarning, stacklevel=3)
    return _REGISTRY[left]


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of two distributions.

    Raises:
      NotImplementedError: none is known for their classes.

    >>> from dualrev import eager as torch
    >>> from dualrev.eager.distributions import Normal, kl_divergence
    >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 2.0))
    tensor(0.4431)
    """
    key = type(p), type(q)
    if key not in _FOUND:
        _FOUND[key] = _dispatch(*key)
    fun = _FOUND[key]
    if fun is None:
        raise NotImplementedError(f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}")
    return fun(p, q)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    one = one.masked_fill(q.probs == 0, math.inf).masked_fill(p.probs == 0, 0)
    zero = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    return one + zero.masked_fill(q.probs == 1, math.inf).masked_fill(p.probs == 1, 0)


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    normalizers = c.lgamma() + d.lgamma() + (a + b).lgamma() - a.lgamma() - b.lgamma() - (c + d).lgamma()
    return normalizers + (a - c) * a.digamma() + (b - d) * b.digamma() + (c + d - a - b) * (a + b).digamma()


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    if not is_true(p.total_count >= q.total_count):
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    kl = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p())
    return kl.masked_fill(p.total_count > q.total_count, math.inf)


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    t = p.probs * (p.logits - q.logits)
    return t.masked_fill(q.probs == 0, math.inf).masked_fill(p.probs == 0, 0).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    normalizers = a.sum(-1).lgamma() - b.sum(-1).lgamma() - (a.lgamma() - b.lgamma()).sum(-1)
    return normalizers + ((a - b) * (a.digamma() - a.sum(-1).digamma().unsqueeze(-1))).sum(-1)


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(ExponentialFamily, ExponentialFamily)
def _exponential_family(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    if type(p) is not type(q):
        raise NotImplementedError("The cross KL-divergence between different exponential families cannot be computed using Bregman "
                                  "divergences")
    natural = [x.detach().requires_grad_() for x in p._natural_params]
    normalizer = p._log_normalizer(*natural)
    gradients = grad(normalizer.sum(), natural, create_graph=True)
    result = q._log_normalizer(*q._natural_params) - normalizer
    for a, b, g in zip(natural, q._natural_params, gradients, strict=True):
        assert g is not None
        result = result - sum_rightmost((b - a) * g, len(q.event_shape))
    return result


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return (b * (p.rate / q.rate).log() + b.lgamma() - a.lgamma() + (a - b) * a.digamma() + (q.rate - p.rate) * (a / p.rate))


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    ratio, a, b = p.scale / q.scale, q.loc / q.scale, p.loc / q.scale
    return -ratio.log() - a + b + ratio * EULER + (a + (1 + ratio).lgamma() - b).exp() - (1 + EULER)


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * (-distance / p.scale).exp() - 1


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    return ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log() - (4 * p.scale * q.scale).log()


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError("KL-divergence between two Multivariate Normals with different event shapes cannot be computed")
    a, b = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    trace = solved(b, a).pow(2).sum((-2, -1))
    return half_log_det(b) - half_log_det(a) + 0.5 * (trace + mahalanobis(b, q.loc - p.loc) - p.event_shape[0])


@register_kl(Pareto, Pareto)
def _pareto(p: Pareto, q: Pareto) -> Tensor:
    ratio = q.alpha / p.alpha
    return (q.alpha * (p.scale / q.scale).log() - ratio.log() + ratio - 1).masked_fill(p.scale < q.scale, math.inf)


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    return ((q.high - q.low) / (p.high - p.low)).log().masked_fill((q.low > p.low) | (q.high < p.high), math.inf)


# ------------------------------------------------------------------------------------------------------ of different classes

@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Beta, Uniform)
def _beta_uniform(p: Beta, q: Uniform) -> Tensor:
    return (-p.entropy() + (q.high - q.low).log()).masked_fill((q.low > 0) | (q.high < 1), math.inf)


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Exponential, q: Gamma) -> Tensor:
    ratio = q.rate / p.rate
    return -q.concentration * ratio.log() + ratio + q.concentration.lgamma() + q.concentration * EULER - (1 + EULER)


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Gamma, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.concentration / p.rate


def _under_normal(p: Any, q: Normal) -> Tensor:
    """The divergence from a normal distribution, which needs two moments and the entropy."""
    square = q.scale.pow(2)
    return -p.entropy() + 0.5 * (2 * math.pi * square).log() + (p.variance + (p.mean - q.loc).pow(2)) / (2 * square)


for _of in (Beta, Exponential, Gamma, Gumbel, Laplace, Uniform, Pareto):
    register_kl(_of, Normal)(_under_normal)


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    distance, ratio = p.loc - q.loc, p.scale / q.scale
    away = distance / p.scale
    expected = math.sqrt(2 / math.pi) * p.scale * (-0.5 * away.pow(2)).exp() + distance * (math.sqrt(0.5) * away).erf()
    return -ratio.log() + expected / q.scale - 0.5 * (1 + math.log(0.5 * math.pi))


@register_kl(Normal, Gumbel)
def _normal_gumbel(p: Normal, q: Gumbel) -> Tensor:
    a, b, ratio = p.loc / q.scale, q.loc / q.scale, (p.scale / q.scale).pow(2)
    return -0.5 * ratio.log() + a - b + (b - a + 0.5 * ratio).exp() - 0.5 * (1 + math.log(2 * math.pi))


def _infinite(p: Any, q: Any) -> Tensor:
    """The first distribution has values that the second one has not."""
    first = next(vars(p)[name] for name in (*p._parameters, *p.arg_constraints) if name in vars(p)) if p._parameters else p.mean
    return filled_like(first, first.shape, math.inf)


#: Pairs of classes where the first one has values that the second one has not.
_INFINITE: tuple[tuple[type, tuple[type, ...]], ...] = (
    (Exponential, (Beta, Pareto, Uniform)), (Gamma, (Beta, Pareto, Uniform)), (Beta, (Pareto,)),
    (Gumbel, (Beta, Exponential, Gamma, Pareto, Uniform)), (Laplace, (Beta, Exponential, Gamma, Pareto, Uniform)),
    (Normal, (Beta, Exponential, Gamma, Pareto, Uniform)), (Pareto, (Beta, Uniform)), (Poisson, (Bernoulli, Binomial)))
for _wide, _narrow in _INFINITE:
    for _kind in _narrow:
        register_kl(_wide, _kind)(_infinite)
