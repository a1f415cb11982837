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

pytestmark = pytest.mark.thorough

#: Ulps that need no peer: three roundings.  And what the order of a sum may add to a peer's.
FLOOR, SLACK, ORDER = 1.5, 1.01, 1.0


@pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.name for subject in SUBJECTS])
def test_no_worse_than_jax(subject: Subject) -> None:
    scores = measure(subject)
    for mode in ("forward", "reverse"):
        jax_has = scores.get(f"jax {mode}")
        bound = min(subject.bound, max(FLOOR, SLACK * jax_has.ulp + ORDER) if jax_has else np.inf)
        assert scores[mode].ulp <= bound, f"{mode}: {scores[mode]}, jax {jax_has}"


# ------------------------------------------------------------------------------------------------------- what jax cannot do


def second(f: Callable[[Any], Any], x: Any) -> list[Any]:
    """The second derivatives of an elementwise function, forward over reverse and reverse over reverse."""
    ones = jnp.ones_like(x)

    def slope(x: Any) -> Any:
        return dr.vjp(f, x)[1](ones)[0]

    return [jax.jit(derivative)(x) for derivative in
            (lambda x: dr.jvp(slope, (x,), (ones,))[1], lambda x: dr.vjp(slope, x)[1](ones)[0])]


def test_second_derivative_of_a_gamma_sample() -> None:
    """A sample moves as the quantile does; jax differentiates it once."""
    draw, alpha = jax.random.gamma, np.array([0.4, 3.0])
    samples = draw(jax.random.key(1), alpha)
    assert samples[0] < 1 < samples[1]

    def slope(a: Any, x: Any) -> Any:
        return -difference(gamma_tail, 0)(a, x) / gamma_density(a, x)

    def truth(alpha: float, x: float) -> float:
        a, q, h = mpf(alpha), mpf(x), mpf(10) ** -8
        by_a = (slope(a + h, q) - slope(a - h, q)) / (2 * h)
        by_x = (slope(a, q + h) - slope(a, q - h)) / (2 * h)
        return float(by_a + by_x * slope(a, q))

    with mp.workdps(60):
        expected = [truth(float(a), float(x)) for a, x in zip(alpha, samples, strict=True)]
    for got in second(lambda a: draw(jax.random.key(1), a), jnp.asarray(alpha)):
        np.testing.assert_allclose(got, expected, rtol=1e-11)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.eval_shape(jax.grad(jax.grad(lambda a: draw(jax.random.key(1), a))), 3.0)


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
    for got in second(lax.lgamma, x):
        np.testing.assert_allclose(got, expected, rtol=1e-14)
    assert abs(jax.grad(jax.grad(lax.lgamma))(x) - expected) > 1


def test_far_arguments() -> None:
    x = jnp.asarray([1e200, np.inf])
    np.testing.assert_allclose(dr.grad(lambda x: jnp.sum(lax.digamma(x)))(x), [1e-200, 0], rtol=1e-15)
    s = jnp.asarray([2.0, 3.0])
    np.testing.assert_allclose(dr.grad(lambda x: jnp.sum(lax.zeta(s, x)))(jnp.asarray([1e150, 1e100])), [-1e-300, -1e-300], rtol=1e-14)


inf, nan = np.inf, np.nan


@pytest.mark.parametrize(("f", "expected"), [
    (lax.igamma, {(0.5, 0.0): (0, inf), (1.0, 0.0): (0, 1), (20.0, 0.0): (0, 0), (2.0, inf): (0, 0), (20.0, inf): (0, 0),
                  (2.0, -1.0): (nan, nan)}),
    (lax.igamma_grad_a, {(2.0, 0.0): (0, 0), (2.0, inf): (0, 0)}),
    (lax.betainc, {(0.5, 2.0, 0.0): (0, 0, inf), (1.0, 2.0, 0.0): (0, 0, 2), (3.0, 1.0, 1.0): (0, 0, 3), (3.0, 2.0, 1.0): (0, 0, 0),
                   (3.0, 2.0, 1.5): (nan, nan, nan)}),
    (lax.erf_inv, {(1.0,): (inf,), (-1.0,): (inf,), (2.0,): (nan,)}),
    (lax.bessel_i0e, {(0.0,): (0,)}),
    (lax.bessel_i1e, {(0.0,): (0.5,), (1e300,): (0,)}),
    (lax.zeta, {(2.0, inf): (0, 0)}),
], ids=["igamma", "igamma_grad_a", "betainc", "erf_inv", "i0e", "i1e", "zeta"])
def test_ends(f: Callable[..., Any], expected: dict[tuple[float, ...], tuple[float, ...]]) -> None:
    """The limits at the ends of the domain, NaN beyond."""
    args = [jnp.asarray(arg) for arg in zip(*expected, strict=True)]
    slopes = jax.jit(lambda *args: dr.vjp(f, *args)[1](jnp.ones_like(args[0])))(*args)
    np.testing.assert_allclose(np.stack(slopes, 1), list(expected.values()), rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("derivative", [lambda f, m: dr.grad(f)(m), lambda f, m: dr.jvp(f, (m,), (1.0,))])
def test_order_of_polygamma(derivative: Callable[..., Any]) -> None:
    with pytest.raises(errors.NoDerivativeError, match=r"(?s)order of polygamma is a whole number.*Keep the order constant"):
        derivative(lambda m: lax.polygamma(m, 2.0), 1.0)
