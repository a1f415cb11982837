"""Derivatives of special functions against mpmath: none is worse than jax's, and some exist here alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accuracy import SUBJECTS, Subject, difference, gamma_density, gamma_tail, measure
from jax import lax
from mpmath import mp, mpf

import dualrev as dr
from dualrev import errors

#: Ulps that need no peer, and what the order of two roundings may add to a peer's.
FLOOR, SLACK = 8.0, 1.25
#: Where jax has no derivative; second derivatives pass through zero.
WITHOUT_PEER = 1e4


@pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.name for subject in SUBJECTS])
def test_no_worse_than_jax(subject: Subject) -> None:
    scores = measure(subject)
    bound = max(FLOOR, SLACK * scores["jax"].ulp) if "jax" in scores else WITHOUT_PEER
    for mode in ("forward", "reverse"):
        assert scores[mode].ulp <= bound, f"{mode}: {scores[mode]}, jax {scores.get('jax')}"


# ------------------------------------------------------------------------------------------------------- what jax cannot do


def second(f: Callable[[Any], Any], x: Any) -> list[float]:
    """The second derivative of a function of numbers, forward over reverse and reverse over reverse."""
    return [float(d) for d in (dr.jvp(dr.grad(f), (x,), (jnp.ones_like(x),))[1], dr.grad(dr.grad(f))(x))]


@pytest.mark.parametrize("alpha", [0.4, 3.0])
def test_second_derivative_of_a_gamma_sample(alpha: float) -> None:
    """A sample moves as the quantile does; jax differentiates it once."""
    draw = jax.random.gamma
    x = float(draw(jax.random.key(1), alpha))

    def slope(a: Any, x: Any) -> Any:
        return -difference(gamma_tail, 0)(a, x) / gamma_density(a, x)

    with mp.workdps(60):
        a, q, h = mpf(alpha), mpf(x), mpf(10) ** -8
        by_a = (slope(a + h, q) - slope(a - h, q)) / (2 * h)
        by_x = (slope(a, q + h) - slope(a, q - h)) / (2 * h)
        expected = float(by_a + by_x * slope(a, q))
    np.testing.assert_allclose(second(lambda a: draw(jax.random.key(1), a), jnp.asarray(alpha)), expected, rtol=1e-11)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(jax.grad(lambda a: draw(jax.random.key(1), a)))(alpha)


def test_a_sample_of_log_gamma_too_small_for_its_exponential() -> None:
    """``log x`` is ``log(u)/a`` up to a constant where ``x`` underflows, hence ``d log x/da = -log(x)/a`` up to small terms."""
    draw, a = jax.random.loggamma, jnp.asarray(1e-4)
    log_x = draw(jax.random.key(0), a)
    assert jnp.exp(log_x) == 0
    # P = xᵃ/Γ(a+1) up to x: (log x - ψ(a+1)) da + (a/x) dx = 0.
    np.testing.assert_allclose(dr.grad(lambda a: draw(jax.random.key(0), a))(a), -(log_x - lax.digamma(a + 1)) / a, rtol=1e-12)


def test_negative_arguments() -> None:
    """jax's second derivative of lgamma is wrong in every digit below -8."""
    x = jnp.asarray(-20.3)
    expected = float(mp.psi(1, mpf(-20.3)))
    np.testing.assert_allclose(second(lax.lgamma, x), expected, rtol=1e-14)
    assert abs(jax.grad(jax.grad(lax.lgamma))(x) - expected) > 1


def test_far_arguments() -> None:
    x = jnp.asarray([1e200, np.inf])
    np.testing.assert_allclose(dr.grad(lambda x: jnp.sum(lax.digamma(x)))(x), [1e-200, 0], rtol=1e-15)
    s = jnp.asarray([2.0, 3.0])
    np.testing.assert_allclose(dr.grad(lambda x: jnp.sum(lax.zeta(s, x)))(jnp.asarray([1e150, 1e100])), [-1e-300, -1e-300], rtol=1e-14)


def slopes(f: Callable[..., Any], *args: float) -> list[float]:
    return [float(d) for d in dr.grad(f, argnums=tuple(range(len(args))))(*args)]


def test_ends() -> None:
    """The limits at the ends of the domain, NaN beyond."""
    inf, nan = np.inf, np.nan
    for f, args, expected in [
        (lax.igamma, (0.5, 0.0), (0, inf)), (lax.igamma, (1.0, 0.0), (0, 1)), (lax.igamma, (20.0, 0.0), (0, 0)),
        (lax.igamma, (2.0, inf), (0, 0)), (lax.igamma, (20.0, inf), (0, 0)), (lax.igamma, (2.0, -1.0), (nan, nan)),
        (lax.igamma_grad_a, (2.0, 0.0), (0, 0)), (lax.igamma_grad_a, (2.0, inf), (0, 0)),
        (lax.betainc, (0.5, 2.0, 0.0), (0, 0, inf)), (lax.betainc, (1.0, 2.0, 0.0), (0, 0, 2)), (lax.betainc, (3.0, 1.0, 1.0), (0, 0, 3)),
        (lax.betainc, (3.0, 2.0, 1.0), (0, 0, 0)), (lax.betainc, (3.0, 2.0, 1.5), (nan, nan, nan)),
        (lax.erf_inv, (1.0,), (inf,)), (lax.erf_inv, (-1.0,), (inf,)), (lax.erf_inv, (2.0,), (nan,)),
        (lax.bessel_i0e, (0.0,), (0,)), (lax.bessel_i1e, (0.0,), (0.5,)), (lax.bessel_i1e, (1e300,), (0,)),
        (lax.zeta, (2.0, inf), (0, 0)),
    ]:
        np.testing.assert_allclose(slopes(f, *args), expected, rtol=1e-14, atol=1e-300, err_msg=f"{f.__name__}{args}")


@pytest.mark.parametrize("derivative", [lambda f, m: dr.grad(f)(m), lambda f, m: dr.jvp(f, (m,), (1.0,))])
def test_order_of_polygamma(derivative: Callable[..., Any]) -> None:
    with pytest.raises(errors.NoDerivativeError, match=r"(?s)order of polygamma is a whole number.*Keep the order constant"):
        derivative(lambda m: lax.polygamma(m, 2.0), 1.0)
