"""Probability distributions whose draws can be differentiated: ``torch.distributions``.

May import: ``core``, ``graph``, ``ops``, ``autograd``, ``nn`` and ``linalg``.  Start reading at
:mod:`dualrev.eager.distributions.distribution`, the base class, then ``location_scale``, which has the normal distribution;
``transformed`` has distributions that are made of others, and ``kl`` their divergences.
"""

from dualrev.eager.distributions import constraint_registry as constraint_registry
from dualrev.eager.distributions import constraints as constraints
from dualrev.eager.distributions import kl as kl
from dualrev.eager.distributions import transforms as transforms
from dualrev.eager.distributions.categorical import Categorical as Categorical
from dualrev.eager.distributions.categorical import Multinomial as Multinomial
from dualrev.eager.distributions.categorical import OneHotCategorical as OneHotCategorical
from dualrev.eager.distributions.categorical import OneHotCategoricalStraightThrough as OneHotCategoricalStraightThrough
from dualrev.eager.distributions.circular import VonMises as VonMises
from dualrev.eager.distributions.constraint_registry import biject_to as biject_to
from dualrev.eager.distributions.constraint_registry import transform_to as transform_to
from dualrev.eager.distributions.derived import Gumbel as Gumbel
from dualrev.eager.distributions.derived import HalfCauchy as HalfCauchy
from dualrev.eager.distributions.derived import HalfNormal as HalfNormal
from dualrev.eager.distributions.derived import InverseGamma as InverseGamma
from dualrev.eager.distributions.derived import LogisticNormal as LogisticNormal
from dualrev.eager.distributions.derived import LogNormal as LogNormal
from dualrev.eager.distributions.derived import Pareto as Pareto
from dualrev.eager.distributions.derived import Weibull as Weibull
from dualrev.eager.distributions.discrete import Bernoulli as Bernoulli
from dualrev.eager.distributions.discrete import Binomial as Binomial
from dualrev.eager.distributions.discrete import Geometric as Geometric
from dualrev.eager.distributions.discrete import NegativeBinomial as NegativeBinomial
from dualrev.eager.distributions.discrete import Poisson as Poisson
from dualrev.eager.distributions.distribution import Distribution as Distribution
from dualrev.eager.distributions.distribution import ExponentialFamily as ExponentialFamily
from dualrev.eager.distributions.gamma import Beta as Beta
from dualrev.eager.distributions.gamma import Chi2 as Chi2
from dualrev.eager.distributions.gamma import Dirichlet as Dirichlet
from dualrev.eager.distributions.gamma import FisherSnedecor as FisherSnedecor
from dualrev.eager.distributions.gamma import Gamma as Gamma
from dualrev.eager.distributions.intervals import ContinuousBernoulli as ContinuousBernoulli
from dualrev.eager.distributions.intervals import GeneralizedPareto as GeneralizedPareto
from dualrev.eager.distributions.intervals import Kumaraswamy as Kumaraswamy
from dualrev.eager.distributions.kl import kl_divergence as kl_divergence
from dualrev.eager.distributions.kl import register_kl as register_kl
from dualrev.eager.distributions.location_scale import Cauchy as Cauchy
from dualrev.eager.distributions.location_scale import Exponential as Exponential
from dualrev.eager.distributions.location_scale import Laplace as Laplace
from dualrev.eager.distributions.location_scale import Normal as Normal
from dualrev.eager.distributions.location_scale import StudentT as StudentT
from dualrev.eager.distributions.location_scale import Uniform as Uniform
from dualrev.eager.distributions.low_rank import LowRankMultivariateNormal as LowRankMultivariateNormal
from dualrev.eager.distributions.matrices import LKJCholesky as LKJCholesky
from dualrev.eager.distributions.matrices import Wishart as Wishart
from dualrev.eager.distributions.multivariate_normal import MultivariateNormal as MultivariateNormal
from dualrev.eager.distributions.relaxed import RelaxedBernoulli as RelaxedBernoulli
from dualrev.eager.distributions.relaxed import RelaxedOneHotCategorical as RelaxedOneHotCategorical
from dualrev.eager.distributions.transformed import Independent as Independent
from dualrev.eager.distributions.transformed import MixtureSameFamily as MixtureSameFamily
from dualrev.eager.distributions.transformed import TransformedDistribution as TransformedDistribution
from dualrev.eager.distributions.transforms import AbsTransform as AbsTransform
from dualrev.eager.distributions.transforms import AffineTransform as AffineTransform
from dualrev.eager.distributions.transforms import CatTransform as CatTransform
from dualrev.eager.distributions.transforms import ComposeTransform as ComposeTransform
from dualrev.eager.distributions.transforms import CorrCholeskyTransform as CorrCholeskyTransform
from dualrev.eager.distributions.transforms import CumulativeDistributionTransform as CumulativeDistributionTransform
from dualrev.eager.distributions.transforms import ExpTransform as ExpTransform
from dualrev.eager.distributions.transforms import IndependentTransform as IndependentTransform
from dualrev.eager.distributions.transforms import LowerCholeskyTransform as LowerCholeskyTransform
from dualrev.eager.distributions.transforms import PositiveDefiniteTransform as PositiveDefiniteTransform
from dualrev.eager.distributions.transforms import PowerTransform as PowerTransform
from dualrev.eager.distributions.transforms import ReshapeTransform as ReshapeTransform
from dualrev.eager.distributions.transforms import SigmoidTransform as SigmoidTransform
from dualrev.eager.distributions.transforms import SoftmaxTransform as SoftmaxTransform
from dualrev.eager.distributions.transforms import SoftplusTransform as SoftplusTransform
from dualrev.eager.distributions.transforms import StackTransform as StackTransform
from dualrev.eager.distributions.transforms import StickBreakingTransform as StickBreakingTransform
from dualrev.eager.distributions.transforms import TanhTransform as TanhTransform
from dualrev.eager.distributions.transforms import Transform as Transform
from dualrev.eager.distributions.transforms import identity_transform as identity_transform

__all__ = ["AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "CatTransform", "Categorical", "Cauchy", "Chi2",
           "ComposeTransform", "ContinuousBernoulli", "CorrCholeskyTransform", "CumulativeDistributionTransform", "Dirichlet",
           "Distribution", "ExpTransform", "Exponential", "ExponentialFamily", "FisherSnedecor", "Gamma", "GeneralizedPareto",
           "Geometric", "Gumbel", "HalfCauchy", "HalfNormal", "Independent", "IndependentTransform", "InverseGamma", "Kumaraswamy",
           "LKJCholesky", "Laplace", "LogNormal", "LogisticNormal", "LowRankMultivariateNormal", "LowerCholeskyTransform",
           "MixtureSameFamily", "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal", "OneHotCategorical",
           "OneHotCategoricalStraightThrough", "Pareto", "Poisson", "PositiveDefiniteTransform", "PowerTransform", "RelaxedBernoulli",
           "RelaxedOneHotCategorical", "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform",
           "StackTransform", "StickBreakingTransform", "StudentT", "TanhTransform", "Transform", "TransformedDistribution", "Uniform",
           "VonMises", "Weibull", "Wishart", "biject_to", "constraint_registry", "constraints", "identity_transform", "kl",
           "kl_divergence", "register_kl", "transform_to", "transforms"]
