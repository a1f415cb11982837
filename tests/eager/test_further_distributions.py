"""Distributions on intervals, of angles, of low rank and of matrices: densities, moments and gradients as PyTorch has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from against_torch import in_both

from dualrev import eager as torch

pytestmark = pytest.mark.thorough


def _or_name(f: Callable[[], Any]) -> Any:
    try:
        return f()
    except (NotImplementedError, AttributeError) as error:
        return type(error).__name__


MATRIX = [[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]]
CASES: dict[str, tuple[Callable[[Any, Any, Any], Any], Any]] = dict(
    kumaraswamy=(lambda t, d, x: d.Kumaraswamy(x * 3, x + 1), [0.25, 0.6]),
    continuous_bernoulli=(lambda t, d, x: d.ContinuousBernoulli(x), [0.25, 0.6]),
    continuous_bernoulli_near_half=(lambda t, d, x: d.ContinuousBernoulli(x * 1e-4 + 0.5), [0.25, 0.6]),
    continuous_bernoulli_logits=(lambda t, d, x: d.ContinuousBernoulli(logits=x), [0.25, 0.6]),
    generalized_pareto=(lambda t, d, x: d.GeneralizedPareto(x, x + 1, t.tensor([0.0, 0.3])), [0.75, 1.6]),
    generalized_pareto_bounded=(lambda t, d, x: d.GeneralizedPareto(x, x + 1, -x), [0.75, 1.6]),
    von_mises=(lambda t, d, x: d.VonMises(x, x * 4), [0.25, -2.0]),
    low_rank=(lambda t, d, x: d.LowRankMultivariateNormal(x, t.stack([x, x * 2], -1), x + 1), [0.25, -2.0]),
    wishart=(lambda t, d, x: d.Wishart(x.sum() + 4, t.tensor(MATRIX) * x[0]), MATRIX),
    wishart_batch=(lambda t, d, x: d.Wishart(x + 4, precision_matrix=t.tensor(MATRIX)), MATRIX),
    wishart_factor=(lambda t, d, x: d.Wishart(5.0, scale_tril=t.tensor(MATRIX).tril() * x[1]), MATRIX),
    lkj=(lambda t, d, x: d.LKJCholesky(3, x), [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.36, 0.48, 0.8]]),
)


@pytest.mark.parametrize("name", CASES)
def test_distributions(name: str) -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor([0.3, 0.7], requires_grad=True)
        make, value = CASES[name]
        d, value = make(t, t.distributions, x), t.tensor(value, requires_grad=True)
        log_prob = d.log_prob(value)
        names = ["mean", "mode", "variance", "stddev", "covariance_matrix", "precision_matrix", "scale_tril", "logits", "probs"]
        if name == "kumaraswamy":  # its mode is NaN in PyTorch, whatever the parameters
            names.remove("mode")
        wide = d.expand((3, *d.batch_shape))
        share = t.tensor([0.25, 0.6])
        return [list(d.batch_shape), list(d.event_shape), repr(d), repr(d.support), *[_or_name(partial(getattr, d, n)) for n in names],
                log_prob, *[g for g in t.autograd.grad(log_prob.sum(), [x, value], allow_unused=True) if g is not None],
                _or_name(lambda: d.entropy()), _or_name(lambda: d.cdf(value)), _or_name(lambda: d.icdf(share)),
                list(wide.batch_shape), repr(wide), wide.log_prob(value.detach()), list(d.sample().shape), list(d.sample((2, 3)).shape),
                d.has_rsample, d.sample().requires_grad, d.log_prob(d.sample((4,))).isfinite().all(),
                d.rsample((4,)).requires_grad if d.has_rsample else None]

    in_both(program, 2e-5)


def test_divergences_and_transforms() -> None:
    def program(t: Any) -> list[Any]:
        D = t.distributions
        p = D.LowRankMultivariateNormal(t.zeros(3), t.tensor([[1.0], [0.5], [-1.0]]), t.tensor([1.0, 2.0, 0.5]))
        q = D.LowRankMultivariateNormal(t.ones(2, 3), t.tensor([[0.3, 1.0], [0.5, 0.0], [1.0, 2.0]]), t.tensor([0.7, 1.0, 1.5]))
        r = D.MultivariateNormal(t.ones(3), t.tensor(MATRIX))
        c = D.CumulativeDistributionTransform(D.Normal(t.tensor(0.5), 2.0))
        x = t.tensor([0.2, -1.0])
        y = c(x)
        return [*[D.kl_divergence(a, b) for a, b in ((p, q), (p, r), (r, q), (q, p), (r, p))],
                D.kl_divergence(D.ContinuousBernoulli(t.tensor([0.2, 0.5])), D.ContinuousBernoulli(t.tensor([0.6, 0.4]))),
                y, c.inv(y), c.log_abs_det_jacobian(x, y), repr(c.domain), repr(c.codomain), c.bijective, c.sign,
                D.TransformedDistribution(D.Normal(0.5, 2.0), [c]).log_prob(t.tensor([0.3, 0.6]))]

    in_both(program)


def test_refusals() -> None:
    def program(t: Any) -> list[Any]:
        D, found = t.distributions, []
        calls: list[Callable[[], Any]] = [
            lambda: D.Wishart(t.tensor(1.0), t.eye(3)), lambda: D.Wishart(t.tensor(3.0)), lambda: D.LKJCholesky(1),
            lambda: D.LowRankMultivariateNormal(t.tensor(1.0), t.ones(1, 1), t.ones(1)),
            lambda: D.LowRankMultivariateNormal(t.ones(2), t.ones(1, 1), t.ones(2)),
            lambda: D.LowRankMultivariateNormal(t.ones(2), t.ones(1), t.ones(2)),
            lambda: D.LowRankMultivariateNormal(t.ones(2), t.ones(2, 1), t.ones(1)), lambda: D.ContinuousBernoulli(),
            lambda: D.VonMises(0.0, -1.0), lambda: D.GeneralizedPareto(0.0, -1.0, 1.0)]
        for call in calls:
            try:
                call()
            except (ValueError, AssertionError) as error:
                found.append([type(error).__name__, str(error).splitlines()[0]])
        return found

    in_both(program)


def test_the_mode_is_where_the_density_is_largest() -> None:
    d = torch.distributions.Kumaraswamy(2.0, 3.0)
    x = torch.linspace(0.001, 0.999, 999)
    assert abs(x[d.log_prob(x).argmax()].item() - d.mode.item()) < 2e-3


DRAWN: dict[str, Callable[[Any], Any]] = dict(
    kumaraswamy=lambda d: d.Kumaraswamy(2.0, 3.0), continuous_bernoulli=lambda d: d.ContinuousBernoulli(torch.tensor(0.8)),
    generalized_pareto=lambda d: d.GeneralizedPareto(1.0, 2.0, 0.1),
    wishart=lambda d: d.Wishart(torch.tensor(6.0), torch.tensor(MATRIX)),
    low_rank=lambda d: d.LowRankMultivariateNormal(torch.ones(2), torch.tensor([[1.0], [2.0]]), torch.tensor([0.5, 1.0])))


@pytest.mark.parametrize("name", DRAWN)
def test_draws_have_the_moments(name: str) -> None:
    d = DRAWN[name](torch.distributions)
    torch.manual_seed(0)
    drawn = d.sample((20_000,)).numpy()
    error = d.stddev.numpy() / np.sqrt(20_000)
    assert (np.abs(drawn.mean(0) - d.mean.numpy()) < 5 * error).all()
    np.testing.assert_allclose(drawn.var(0), d.variance.numpy(), 0.1)


def test_draws_of_angles_and_factors() -> None:
    torch.manual_seed(0)
    d = torch.distributions.VonMises(torch.tensor(1.0), torch.tensor(3.0))
    angles = d.sample((20_000,)).numpy()
    resultant = np.exp(1j * angles).mean()
    assert abs(np.angle(resultant) - 1.0) < 0.02
    assert abs(1 - np.abs(resultant) - d.variance.item()) < 0.02
    factors = torch.distributions.LKJCholesky(3, torch.tensor(1.0)).sample((20_000,))
    entries = (factors @ factors.mT).numpy()
    np.testing.assert_allclose(entries[:, [0, 1, 2], [0, 1, 2]], 1, 1e-5)
    # Of uniform correlation matrices of size 3, an entry has mean 0 and variance 1 / 4.
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(entries[:, i, j].mean()) < 0.02
        assert abs(entries[:, i, j].var() - 0.25) < 0.02
