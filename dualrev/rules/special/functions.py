"""Special functions of mathematics: the gamma, beta, zeta, error and Bessel families.

A derivative that is a multiple of another special function is computed by that primitive, except where the primitive fails: at
negative arguments below -8 and at large ones, ``zeta`` and ``polygamma`` are evaluated by reflection and by their asymptotic series.
Derivatives of all orders exist by the parameters of the incomplete functions and by the order of ``zeta``.

Derivatives at the edges:

- at their poles those of ``lgamma`` and ``digamma`` are the values of ``digamma`` and ``zeta``: NaN and infinity;
- ``zeta`` by its order: NaN where the function is not defined around the order (``q < 0``, or an order below 1);
- ``polygamma`` by its order raises an error: it is defined for whole orders only;
- ``igamma`` and ``igammac`` at ``x = 0``: by ``x`` the limit of the density (0, 1 or infinity), by ``a`` 0; at infinity 0;
- ``regularized_incomplete_beta`` at 0 and 1: the same; NaN where a parameter is not positive;
- ``erf_inv`` at -1 and 1: infinity; ``bessel_i0e`` at 0: 0; ``bessel_i1e`` at 0: 1/2;
- a sample of ``random_gamma`` that underflows to 0: 0.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualrev import errors
from dualrev._jax.primitives import primitive
from dualrev.rules.special import incomplete_beta, incomplete_gamma
from dualrev.rules.special.incomplete_gamma import BERNOULLI, column, helper, horner
from dualrev.table.forms import elementwise
from dualrev.table.pushforward import pushforward

# ------------------------------------------------------------------------------------------------- gamma and its logarithm


def far_zeta(s: Array, q: Array) -> Array:
    """``ζ(s, q) = Σₖ (q+k)⁻ˢ`` for ``q ≫ s``: ``q¹⁻ˢ/(s-1) + q⁻ˢ/2 + ...``; no power underflows before its value does."""
    return jnp.power(q, 1 - s) * (1 / (s - 1) + 0.5 / q)


def is_far(s: Array, q: Array) -> Array:
    return q > 1e8 * s


@helper
def trigamma(x: Array) -> Array:
    """``ψ'(x) = ζ(2, x)``; for a negative ``x``, ``π²/sin²(πx) - ζ(2, 1-x)`` [DLMF, 5.15.6]."""
    two = jnp.full_like(x, 2)
    is_mirrored, far = x < 0, is_far(two, x)
    near = lax.zeta(two, jnp.where(is_mirrored, 1 - x, jnp.where(far, 1, x)))
    turn = jnp.where(is_mirrored, x - jnp.round(x), 0.5)
    mirrored = jnp.square(math.pi / jnp.sin(math.pi * turn)) - near
    return jnp.where(is_mirrored, mirrored, jnp.where(far, far_zeta(two, jnp.where(far, x, 1)), near))


@helper
def hurwitz(s: Array, q: Array) -> Array:
    """``ζ(s, q)``, for a whole ``s`` at negative ``q`` too.

    With ``r = q - ⌊q⌋`` the sum over all whole numbers is ``Σ (r+k)⁻ˢ = ζ(s, r) + (-1)ˢ ζ(s, 1-r)``; the part of it below ``q`` is
    ``(-1)ˢ ζ(s, 1-q)``.
    """
    is_mirrored, far = q <= 0, is_far(s, q)
    r = q - jnp.floor(q)
    first = lax.zeta(s, jnp.where(is_mirrored, r, jnp.where(far, 1, q)))
    others = lax.zeta(s, jnp.where(is_mirrored, 1 - r, 1)) - lax.zeta(s, jnp.where(is_mirrored, 1 - q, 1))
    sign = jnp.where(s % 2 == 0, 1, jnp.where(s % 2 == 1, -1, jnp.nan))
    mirrored = first + jnp.where(is_mirrored, sign, 1) * others
    return jnp.where(is_mirrored, mirrored, jnp.where(far, far_zeta(s, jnp.where(far, q, 1)), first))


@helper
def polygamma_slope(m: Array, x: Array) -> Array:
    """``ψ⁽ᵐ⁺¹⁾(x) = (-1)ᵐ (m+1)! ζ(m+2, x)``, the factorial from a table: by its logarithm it would lose digits."""
    with np.errstate(over="ignore"):
        factorials = jnp.asarray(np.array([float(math.factorial(k)) for k in range(171)]).astype(m.dtype))
    index = jnp.clip(m + 1, 0, 170).astype(jnp.int32)
    factorial = jnp.where(m > 169, jnp.inf, factorials[index])
    is_order = (m >= 0) & (m == jnp.floor(m))
    return jnp.where(is_order, jnp.where(m % 2 == 0, factorial, -factorial), jnp.nan) * hurwitz(m + 2, x)


def polygamma_by_order(_m: Array, _x: Array) -> Array:
    raise errors.no_derivative(
        "polygamma", "The order of polygamma is a whole number: there is no derivative by it.",
        "Keep the order constant (an integer, or jax.lax.stop_gradient of it); for zeta, which is defined between whole orders, "
        "the derivative by the order exists.")


@helper
def zeta_by_order(s: Array, q: Array) -> Array:
    """``∂ζ/∂s = -Σₖ log(q+k) (q+k)⁻ˢ``, its tail by the formula of Euler and Maclaurin [Johansson2015, eq. 5].

    With ``w = q+N``::

        ζ = Σ_(k<N) (q+k)⁻ˢ + w⁻ˢ (w/(s-1) + 1/2 + Σⱼ B₂ⱼ/(2j)! Pⱼ)        Pⱼ = s (s+1) ... (s+2j-2)/w²ʲ⁻¹

    and the derivative of ``Pⱼ`` is ``Pⱼ (1/s + 1/(s+1) + ... + 1/(s+2j-2))``.
    """
    is_defined = (s >= 1) & (q >= 0)
    s, q = jnp.where(is_defined, s, 2), jnp.where(is_defined, q, 1)
    inside = q < jnp.inf
    q = jnp.where(inside, q, 1)
    terms = 16
    q_, s_ = column(q, s)
    base = q_ + lax.broadcast(np.arange(terms).astype(q.dtype), q.shape)
    w = q + terms
    # Times w, so that no term underflows before the sum does.
    head = -jnp.sum(jnp.log(base) * jnp.power(base, 1 - s_) * (w[..., None] / base), -1)

    log_w, start = jnp.log(w), 1 / (s - 1)
    t = jnp.minimum(s, 8 * w)  # for larger orders the tail is negligible, and the products must not overflow
    product, harmonic = t / w, 1 / t
    series = slope = jnp.zeros_like(q)
    for j, bernoulli in enumerate(BERNOULLI, 1):
        c = bernoulli / math.factorial(2 * j)
        series, slope = series + c * product, slope + c * product * harmonic
        i = 2 * j - 1
        product = product * ((t + i) / w) * ((t + i + 1) / w)
        harmonic = harmonic + 1 / (t + i) + 1 / (t + i + 1)
    tail = jnp.power(w, 1 - s) * (slope - w * start * start - log_w * (w * start + 0.5 + series))
    return jnp.where(is_defined, jnp.where(inside, (head + tail) / w, 0), jnp.nan)


elementwise(lax.lgamma_p, lambda x: lax.digamma(x), cost="work")
elementwise(lax.digamma_p, lambda x: trigamma(x), cost="work")
elementwise(lax.polygamma_p, polygamma_by_order, lambda m, x: polygamma_slope(m, x), cost="work", linear_in=())
elementwise(lax.zeta_p, lambda s, q: zeta_by_order(s, q), lambda s, q: -s * hurwitz(s + 1, q), cost="work")

# ------------------------------------------------------------------------------------- incomplete functions, gamma samples

elementwise(lax.igamma_p, lambda a, x: incomplete_gamma.gamma_by_parameter(a, x), lambda a, x: incomplete_gamma.gamma_density(a, x),
            cost="work")
elementwise(lax.igammac_p, lambda a, x: -incomplete_gamma.gamma_by_parameter(a, x), lambda a, x: -incomplete_gamma.gamma_density(a, x),
            cost="work")
elementwise(lax.igamma_grad_a_p,
            lambda a, x: incomplete_gamma.gamma_by_parameter_twice(a, x),
            lambda a, x: incomplete_gamma.gamma_score(a, x), cost="work")
elementwise(lax.regularized_incomplete_beta_p,
            lambda a, b, x: incomplete_beta.beta_by_parameters(a, b, x)[0],
            lambda a, b, x: incomplete_beta.beta_by_parameters(a, b, x)[1],
            lambda a, b, x: incomplete_beta.beta_density(a, b, x), cost="work")


def random_gamma_push(t: Array, _key: Array, a: Array, *, out: Array, log_space: bool) -> Array:
    """The tangent of a sample at constant cumulative probability: implicit reparameterization [FigurnovEtAl2018]."""
    slope = incomplete_gamma.gamma_log_quantile_slope if log_space else incomplete_gamma.gamma_quantile_slope
    return lax.mul(t, slope(a, out))


pushforward(primitive("random_gamma"), random_gamma_push)

# ------------------------------------------------------------------------------------------------- error function's inverse


@helper
def erf_inv_slope(x: Array, y: Array) -> Array:
    """``√π/2 exp(ŷ²)`` with ``ŷ = y + δ``: near ±1, ``y`` has few correct digits, which a step ``δ`` of Newton's method restores.

    ``δ = (x - erf(y)) √π/2 exp(y²)``; near ±1 by ``erfc``, as ``x - erf(y) = ±(erfc(|y|) - (1 - |x|))``.
    """
    inside, at_end = jnp.abs(x) < 1, jnp.where(jnp.abs(x) == 1, jnp.inf, jnp.nan)
    x, y = jnp.where(inside, x, 0), jnp.where(inside, y, 0)
    slope = math.sqrt(math.pi) / 2 * jnp.exp(jnp.square(y))
    missing = jnp.where(jnp.abs(x) < 0.5, x - lax.erf(y), jnp.sign(x) * (lax.erfc(jnp.abs(y)) - (1 - jnp.abs(x))))
    delta = missing * slope
    return jnp.where(inside, slope * jnp.exp(delta * (2 * y + delta)), at_end)


elementwise(lax.erf_inv_p, lambda x, *, out: erf_inv_slope(x, out), cost="work")

# -------------------------------------------------------------------------------------------------------- Bessel functions


def hankel(order: int, terms: int) -> list[float]:
    """Coefficients of ``1/xᵏ`` in ``√(2πx) exp(-x) I(x)`` [DLMF, 10.40.1]."""
    found = [1.0]
    for k in range(1, terms):
        found.append(-found[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))
    return found


#: Coefficients of ``1/xᵏ⁺¹``; the constants cancel.
GAP = [p - q for p, q in zip(hankel(0, 24), hankel(1, 24), strict=True)][1:]


@helper
def bessel_gap(x: Array, i0e: Array, i1e: Array) -> Array:
    """``exp(-x) (I₀(x) - I₁(x))`` for ``x ≥ 0``: by its own series for large ``x``, where the difference would cancel."""
    is_far = x > 25
    inverse = 1 / jnp.where(is_far, x, 25)
    far = inverse * jnp.sqrt(inverse / (2 * math.pi)) * horner(inverse, GAP)
    return jnp.where(is_far, far, i0e - i1e)


@helper
def bessel_i0e_slope(x: Array, out: Array) -> Array:
    """``I₀' = I₁``, hence ``-sign(x) exp(-|x|) (I₀ - I₁)(|x|)``."""
    size = jnp.abs(x)
    return -jnp.sign(x) * bessel_gap(size, out, lax.bessel_i1e(size))


@helper
def bessel_i1e_slope(x: Array, out: Array) -> Array:
    """``I₁' = I₀ - I₁/x``, hence ``exp(-|x|) (I₀ - I₁ - I₁/|x|)(|x|)``, an even function; ``I₁(x)/x`` is 1/2 at 0."""
    is_tiny = jnp.abs(x) < jnp.finfo(x.dtype).eps
    ratio = jnp.where(is_tiny, 0.5 * (1 - jnp.abs(x)), out / jnp.where(is_tiny, 1, x))
    return bessel_gap(jnp.abs(x), lax.bessel_i0e(x), jnp.abs(out)) - ratio


elementwise(lax.bessel_i0e_p, lambda x, *, out: bessel_i0e_slope(x, out), cost="work")
elementwise(lax.bessel_i1e_p, lambda x, *, out: bessel_i1e_slope(x, out), cost="work")
