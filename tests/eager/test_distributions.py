"""Distributions: densities, moments, entropies, divergences and transforms as PyTorch has them; draws by their moments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from against_torch import in_both, message

from dualrev import eager as torch

pytestmark = pytest.mark.thorough


def _x(t: Any) -> Any:
    return t.tensor([0.3, 0.7])


def _shown(f: Callable[[Any], Any], x: Any) -> str:
    return repr(f(x))


CONTINUOUS: dict[str, Callable[[Any, Any], Any]] = dict(
    normal=lambda d, x: d.Normal(x, 2.0),
    laplace=lambda d, x: d.Laplace(x, 1.5),
    cauchy=lambda d, x: d.Cauchy(x, x),
    uniform=lambda d, x: d.Uniform(0.0, x + 1),
    exponential=lambda d, x: d.Exponential(x),
    student=lambda d, x: d.StudentT(x * 4, x, 2.0),
    gamma=lambda d, x: d.Gamma(x, 2.0),
    chi2=lambda d, x: d.Chi2(x),
    beta=lambda d, x: d.Beta(x, 2.0),
    fisher=lambda d, x: d.FisherSnedecor(x * 5, x * 8),
    log_normal=lambda d, x: d.LogNormal(x, 0.5),
    half_normal=lambda d, x: d.HalfNormal(x),
    half_cauchy=lambda d, x: d.HalfCauchy(x),
    gumbel=lambda d, x: d.Gumbel(x, 2.0),
    weibull=lambda d, x: d.Weibull(x, 1.5),
    inverse_gamma=lambda d, x: d.InverseGamma(x + 1.5, 2.0),
    pareto=lambda d, x: d.Pareto(x / 10, x + 2),
    independent=lambda d, x: d.Independent(d.Normal(x, x), 1),
)


def _or_name(f: Callable[[], Any]) -> Any:
    """What a function gives, or the name of its error."""
    try:
        return f()
    except (NotImplementedError, AttributeError) as error:
        return type(error).__name__


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name: str) -> None:
    def program(t: Any) -> list[Any]:
        x = _x(t).requires_grad_()
        d, value = CONTINUOUS[name](t.distributions, x), t.tensor([0.25, 0.6], requires_grad=True)
        wide = d.expand((3, *d.batch_shape))
        log_prob = d.log_prob(value)
        attributes = [_or_name(partial(getattr, d, n)) for n in ("mean", "mode", "variance", "stddev")]
        return [list(d.batch_shape), list(d.event_shape), repr(d), *attributes, log_prob,
                *[g for g in t.autograd.grad(log_prob.sum(), [x, value], allow_unused=True) if g is not None],
                _or_name(lambda: d.entropy()), _or_name(lambda: d.cdf(value)), _or_name(lambda: d.icdf(t.tensor([0.25, 0.6]))),
                list(wide.batch_shape), repr(wide), wide.log_prob(value), list(d.sample().shape), list(d.sample((2, 3)).shape),
                d.has_rsample, d.sample().requires_grad, d.rsample((4,)).requires_grad]

    in_both(program)


DISCRETE: dict[str, tuple[Callable[[Any, Any], Any], list[Any]]] = dict(
    bernoulli=(lambda d, p: d.Bernoulli(p), [1.0, 0.0, 1.0]),
    bernoulli_logits=(lambda d, p: d.Bernoulli(logits=p), [1.0, 0.0, 1.0]),
    geometric=(lambda d, p: d.Geometric(p), [1.0, 0.0, 4.0]),
    poisson=(lambda d, p: d.Poisson(p * 4), [1.0, 0.0, 4.0]),
    binomial=(lambda d, p: d.Binomial(5, p), [1.0, 0.0, 4.0]),
    negative_binomial=(lambda d, p: d.NegativeBinomial(3, p), [1.0, 0.0, 4.0]),
    categorical=(lambda d, p: d.Categorical(p), [1, 0]),
    categorical_logits=(lambda d, p: d.Categorical(logits=p.reshape(1, 3) * p.reshape(3, 1)), [[1, 0, 1], [2, 2, 0]]),
    one_hot=(lambda d, p: d.OneHotCategorical(p), [0.0, 1.0, 0.0]),
    multinomial=(lambda d, p: d.Multinomial(6, p), [3.0, 1.0, 2.0]),
)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_distributions(name: str) -> None:
    def program(t: Any) -> list[Any]:
        p = t.tensor([0.2, 0.5, 0.9], requires_grad=True)
        make, value = DISCRETE[name]
        d = make(t.distributions, p)
        log_prob = d.log_prob(t.tensor(value))
        drawn = d.sample((4, 2))
        found = [_or_name(partial(getattr, d, n)) for n in ("mean", "mode", "variance", "logits", "probs")]
        return [list(d.batch_shape), list(d.event_shape), repr(d.support) if name != "binomial" else "", *found, log_prob,
                *t.autograd.grad(log_prob.sum(), p), _or_name(lambda: d.entropy()), list(drawn.shape), str(drawn.dtype),
                _or_name(lambda: d.enumerate_support()), _or_name(lambda: d.enumerate_support(False)), d.has_enumerate_support,
                d.log_prob(drawn).isfinite().all(), list(d.expand((2, *d.batch_shape)).sample().shape)]

    in_both(program)


def test_the_normal_distribution_of_vectors() -> None:
    def program(t: Any) -> list[Any]:
        D, found = t.distributions, []
        a = t.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])
        for given in (dict(covariance_matrix=a), dict(scale_tril=t.linalg.cholesky(a)), dict(precision_matrix=a)):
            d = D.MultivariateNormal(t.zeros(3), **given)
            found += [repr(d), d.mean, d.variance, d.entropy(), d.log_prob(t.ones(2, 4, 3)), d.scale_tril, d.covariance_matrix,
                      d.precision_matrix, list(d.sample((2,)).shape)]
        d = D.MultivariateNormal(t.zeros(3), t.stack([a, a + t.eye(3)]))
        m, c = t.zeros(3, requires_grad=True), a.clone().requires_grad_()
        grads = t.autograd.grad(D.MultivariateNormal(m, c, validate_args=False).log_prob(t.ones(3)), [m, c])
        return [*found, d.log_prob(t.ones(5, 2, 3)), d.expand((4, 2)).log_prob(t.ones(3)), *grads,
                D.kl_divergence(d, D.MultivariateNormal(t.ones(3), a)), list(d.rsample((5,)).shape),
                message(lambda: D.MultivariateNormal(t.zeros(3)), ValueError),
                message(lambda: D.MultivariateNormal(t.zeros(3), -a), ValueError)]

    in_both(program)


def test_the_dirichlet_distribution() -> None:
    def program(t: Any) -> list[Any]:
        c = t.tensor([0.5, 2.0, 3.0], requires_grad=True)
        d = t.distributions.Dirichlet(c)
        log_prob = d.log_prob(t.tensor([0.2, 0.3, 0.5]))
        return [repr(d), d.mean, d.mode, d.variance, d.entropy(), log_prob, *t.autograd.grad(log_prob, c), list(d.rsample((2,)).shape),
                t.distributions.Dirichlet(t.tensor([[0.5, 0.2], [2.0, 3.0]])).mode]

    in_both(program)


def test_divergences() -> None:
    def program(t: Any) -> list[Any]:
        D = t.distributions
        x, y = t.tensor([0.3, 0.7], requires_grad=True), t.tensor([0.5, 0.6])
        two = [D.Normal, D.Beta, D.Gamma, D.Gumbel, D.Laplace, D.Cauchy, D.LogNormal]
        one = [D.Bernoulli, D.Categorical, D.Dirichlet, D.Exponential, D.Geometric, D.HalfNormal, D.Poisson, D.OneHotCategorical,
               D.Chi2]
        pairs = [*[(k(x, y), k(y, x)) for k in two], *[(k(x), k(y)) for k in one], (D.Binomial(3, x), D.Binomial(3, y)),
                 (D.Bernoulli(t.tensor([0.0, 1.0])), D.Bernoulli(y)), (D.Uniform(x, x + 1), D.Uniform(x - 1, x + 2)),
                 (D.Uniform(x, x + 1), D.Uniform(x + 0.5, x + 2)), (D.Pareto(x, y), D.Pareto(x - 0.1, y + 1)),
                 (D.Independent(D.Normal(x, y), 1), D.Independent(D.Normal(y, x), 1)), (D.Bernoulli(x), D.Poisson(y)),
                 (D.Beta(x, y), D.Uniform(0.0, 2.0)), (D.Exponential(x), D.Gamma(x, y)), (D.Gamma(x, y), D.Exponential(y)),
                 *[(k(x, y), D.Normal(y, x)) for k in two[1:5]], (D.Exponential(x), D.Normal(y, x)),
                 (D.Uniform(x, x + 1), D.Normal(y, x)), (D.Normal(x, y), D.Laplace(y, x)), (D.Normal(x, y), D.Gumbel(y, x)),
                 (D.Normal(x, y), D.Gamma(y, x)), (D.Poisson(x), D.Bernoulli(y))]
        kls = [D.kl_divergence(p, q) for p, q in pairs]
        grads = [t.autograd.grad(kl.sum(), x)[0] for kl in kls[:16]]
        none = message(lambda: D.kl_divergence(D.Normal(0.0, 1.0), D.Independent(D.Normal(x, y), 1)), NotImplementedError)
        return [*kls, *grads, none]

    in_both(program, 1e-4)


def test_transforms() -> None:
    def program(t: Any) -> list[Any]:
        D, T = t.distributions, t.distributions.transforms
        x, found = t.tensor([[0.3, -0.7, 1.2], [0.1, 0.2, 0.3]]), []
        scale = t.tensor([1.0, -2.0, 3.0])
        for f in (T.ExpTransform(), T.SigmoidTransform(), T.SoftplusTransform(), T.TanhTransform(), T.AffineTransform(1.0, 2.0),
                  T.AffineTransform(scale, scale, event_dim=1), T.StickBreakingTransform(), T.CorrCholeskyTransform(),
                  T.ComposeTransform([T.ExpTransform(), T.AffineTransform(0.0, 3.0)]), T.IndependentTransform(T.ExpTransform(), 1),
                  T.ReshapeTransform((3,), (3, 1)), T.CatTransform([T.ExpTransform(), T.AffineTransform(0.0, 2.0)], -1, [1, 2]),
                  T.StackTransform([T.ExpTransform(), T.TanhTransform()], 0)):
            y = f(x)
            found += [repr(f), y, f.inv(y), f.log_abs_det_jacobian(x, y), f.bijective, list(f.forward_shape((2, 3)))]
        m = t.tensor([[1.0, 2.0], [3.0, 0.5]])
        lower, definite = T.LowerCholeskyTransform(), T.PositiveDefiniteTransform()
        d = D.TransformedDistribution(D.Normal(t.zeros(3), 1.0), [T.SigmoidTransform(), T.AffineTransform(0.0, -2.0)])
        v = t.tensor([-0.5, -1.0, -0.2])
        simplex = D.TransformedDistribution(D.Normal(t.zeros(3), 1.0), T.StickBreakingTransform())
        return [*found, T.SoftmaxTransform()(x), T.PowerTransform(2.0)(x.abs()), lower(m), lower.inv(lower(m)), definite(m),
                definite.inv(definite(m)), T.ExpTransform() == T.ExpTransform(), d.log_prob(v), d.cdf(v), d.icdf(t.tensor(0.3)),
                list(simplex.event_shape), simplex.log_prob(t.full((4,), 0.25)), list(simplex.rsample((2,)).shape)]

    in_both(program)


def test_constraints_and_their_transforms() -> None:
    def program(t: Any) -> list[Any]:
        D, C = t.distributions, t.distributions.constraints
        sets = (C.positive, C.real, C.unit_interval, C.simplex, C.interval(1.0, 3.0), C.less_than(2.0), C.lower_cholesky,
                C.positive_definite, C.real_vector, C.corr_cholesky)
        m = t.tensor([[1.0, 2.0], [3.0, 0.5]])
        return [*[repr(c) for c in sets], *[repr(D.transform_to(c)) for c in sets],
                *[_or_name(partial(_shown, D.biject_to, c)) for c in sets], C.simplex.check(t.tensor([[0.5, 0.5], [0.5, 0.6]])),
                C.one_hot.check(t.tensor([[0.0, 1.0], [1.0, 1.0]])), C.positive_definite.check(m), C.lower_triangular.check(m.tril()),
                C.independent(C.positive, 1).check(m)]

    in_both(program)


def test_mixtures_and_relaxed_distributions() -> None:
    def program(t: Any) -> list[Any]:
        D, warm = t.distributions, t.tensor(0.7)
        d = D.MixtureSameFamily(D.Categorical(t.tensor([0.3, 0.7])), D.Normal(t.tensor([-1.0, 2.0]), t.tensor([0.5, 1.0])))
        parts = D.Independent(D.Normal(t.arange(10.0).reshape(5, 2), t.ones(5, 2)), 1)
        e = D.MixtureSameFamily(D.Categorical(t.ones(5)), parts)
        relaxed = [(D.RelaxedBernoulli(warm, t.tensor([0.3, 0.6])), t.tensor([0.2, 0.7])),
                   (D.RelaxedOneHotCategorical(warm, t.tensor([0.3, 0.6])), t.tensor([0.2, 0.8])),
                   (D.LogisticNormal(t.tensor([0.1, 0.2]), t.tensor([0.5, 1.0])), t.tensor([0.2, 0.3, 0.5]))]
        return [repr(d), d.mean, d.variance, d.log_prob(t.tensor([0.1, 0.2])), d.cdf(t.tensor(0.1)), list(d.sample((5,)).shape),
                d.expand((3,)).mean, e.mean, e.variance, e.log_prob(t.zeros(2)), list(e.sample((3,)).shape),
                *[r.log_prob(v) for r, v in relaxed], *[list(r.rsample((3,)).shape) for r, _ in relaxed]]

    in_both(program)


def test_wrong_parameters_and_values_are_refused() -> None:
    def program(t: Any) -> list[str]:
        D = t.distributions
        half = t.tensor([0.5, 0.5])
        wrong: list[Callable[[], Any]] = [
            lambda: D.Normal(0.0, -1.0), lambda: D.Normal(t.zeros(2), t.tensor([1.0, 0.0])), lambda: D.Normal(0.0, 1.0).log_prob(0.5),
            lambda: D.Normal(t.zeros(2), 1.0).log_prob(t.zeros(3)), lambda: D.Exponential(1.0).log_prob(t.tensor(-1.0)),
            lambda: D.Categorical(), lambda: D.Categorical(t.tensor(0.5)), lambda: D.Categorical(t.tensor([-0.5, 1.5])),
            lambda: D.Categorical(half).log_prob(t.tensor(3)), lambda: D.Bernoulli(1.5),
            lambda: D.Bernoulli(0.5).log_prob(t.tensor(0.3)), lambda: D.Independent(D.Normal(0.0, 1.0), 1),
            lambda: D.Uniform(1.0, 0.0), lambda: D.Uniform(0.0, 1.0).log_prob(t.tensor(2.0)),
            lambda: D.Normal("a", 1.0), lambda: D.Geometric(0.0), lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), 3),
            lambda: D.Beta(0.0, 1.0), lambda: D.Multinomial(2, half).log_prob(t.tensor([3.0, 0.0])),
            lambda: D.MultivariateNormal(t.zeros(2), t.eye(2)).log_prob(t.zeros(3))]
        unchecked = D.Normal(0.0, -1.0, validate_args=False).mean
        return [*[message(f, ValueError) for f in wrong], unchecked]

    in_both(program)


MOMENTS = ("normal", "laplace", "uniform", "exponential", "gamma", "beta", "log_normal", "half_normal", "gumbel", "weibull", "student")


@pytest.mark.parametrize("name", MOMENTS)
def test_draws_have_the_moments_and_pathwise_gradients(name: str) -> None:
    torch.manual_seed(0)
    x = torch.tensor([1.3, 1.7], requires_grad=True)
    d = CONTINUOUS[name](torch.distributions, x)
    drawn = d.rsample((20000,))
    spread = d.stddev.detach().numpy()
    np.testing.assert_allclose(drawn.mean(0).detach().numpy(), d.mean.detach().numpy(), atol=5 * spread.max() / 20000 ** 0.5)
    found, = torch.autograd.grad(drawn.mean(0).sum(), x)
    wanted, = torch.autograd.grad(d.mean.sum(), x)
    assert found is not None
    assert wanted is not None
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=0.1, atol=0.05)


def test_discrete_draws_have_the_moments() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.2, 0.5, 0.7])
    for make, _ in DISCRETE.values():
        d = make(torch.distributions, p)
        if isinstance(d, torch.distributions.Categorical):
            counts = torch.nn.functional.one_hot(d.sample((20000,)), 3).float().mean(0)
            np.testing.assert_allclose(counts.numpy(), d.probs.numpy(), atol=0.02)
        else:
            np.testing.assert_allclose(d.sample((20000,)).mean(0).numpy(), d.mean.numpy(), atol=0.1)


def test_distributions_inside_a_compiled_step() -> None:
    mean = torch.tensor([0.5, 1.0], requires_grad=True)

    def step(x: Any) -> Any:
        mean.grad = None
        d = torch.distributions.Normal(mean, 2.0)
        loss = -d.log_prob(x).sum() + torch.distributions.kl_divergence(d, torch.distributions.Normal(0.0, 1.0)).sum()
        loss.backward()
        return loss

    x = torch.tensor([1.0, 2.0])
    expected, grad = step(x), mean.grad
    assert torch.allclose(torch.jit(step)(x), expected)
    assert mean.grad is not None
    assert grad is not None
    assert torch.allclose(mean.grad, grad)
