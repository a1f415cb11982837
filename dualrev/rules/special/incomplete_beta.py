"""Derivatives of the incomplete beta function by its parameters, from the integral of the tail.

The functions that the incomplete gamma function needs as well are in :mod:`dualrev.rules.special.incomplete_gamma`.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax

from dualrev.rules.special.incomplete_gamma import (
    LARGE,
    exp_rest,
    half_line,
    helper,
    log_minus_digamma,
    log_ratio,
    log_rest,
    stirling_rest,
)


def beta_weight(a: Array, b: Array, x: Array, y: Array) -> Array:
    """``D = xᵃ yᵇ/B(a, b)`` with ``y = 1-x``, for positive ``a, b, x, y``.

    For large parameters by deviations from the mode ``a/(a+b)`` [Loader2000]: with ``δ = (xb - ya)/a`` and ``ε = -(xb - ya)/b``
    ``D = sqrt(ab/(2πn)) exp(rest(n) - rest(a) - rest(b) - a (δ - log(1+δ)) - b (ε - log(1+ε)))``, ``n = a+b``.
    """
    n, gap = a + b, x * b - y * a
    p = jnp.stack([n, a, b])
    is_series = p >= LARGE
    small = jnp.where(is_series, 1, p)
    # log Γ(a) = log Γ(a+1) - log(a): the former has no pole at 0.
    log_gamma = lax.lgamma(jnp.where(p < 2 * LARGE, p, 1) + 1)
    direct = log_gamma - (small + 0.5) * jnp.log(small) + small - math.log(2 * math.pi) / 2
    rest = jnp.where(is_series, stirling_rest(jnp.where(is_series, p, LARGE)), direct)
    is_large = (a >= LARGE) | (b >= LARGE)
    deviation = p[1:] * log_rest(jnp.stack([gap / a, -gap / b]), jnp.stack([x * (n / a), y * (n / b)]))
    exponent = jnp.where(is_large, rest[0] - rest[1] - rest[2] + deviation[0] + deviation[1], 0)
    large = jnp.sqrt(a / n * b / (2 * math.pi)) * jnp.exp(exponent)
    constant = jnp.exp(jnp.where(is_large, 0, log_gamma[0] - log_gamma[1] - log_gamma[2])) * (a / n * b)
    return jnp.where(is_large, large, constant * jnp.power(x, jnp.where(is_large, 1, a)) * jnp.power(y, jnp.where(is_large, 1, b)))


def beta_exponent(a: Array, b: Array, x: Array, y: Array, u: Array) -> tuple[Array, Array, Array]:
    """``φ(u)``, ``log(x/t)`` and ``log((1-t)/y)``, where ``logit(t) = logit(x) - u``.

    ``t = x/R`` and ``1-t = y exp(u)/R`` for ``R = x + y exp(u)``, hence ``φ = bu - n log(R) = -(ay - bx)u - n (log(R) - yu)``.
    ``R = 1 + y (exp(u) - 1)``, or ``R = exp(u) (1 + x (exp(-u) - 1))``: whichever has the smaller factor.
    """
    upper = x > 0.5
    factor, sign = jnp.where(upper, y, x), jnp.where(upper, 1, -1).astype(u.dtype)
    s = sign * u
    inside = jnp.minimum(s, 80)  # beyond, the logarithm is linear
    z = factor * jnp.expm1(inside)
    is_small = u <= 1
    small = jnp.where(is_small, s, 0)
    z_rest = log_rest(z)
    log_part = jnp.where(z < 1, z + z_rest, jnp.log1p(z)) + (s - inside)
    rest = jnp.where(is_small, factor * exp_rest(small) + z_rest, log_part - factor * s)
    return (-(a * y - b * x) * u - (a + b) * rest, jnp.where(upper, log_part, u + log_part), jnp.where(upper, u - log_part, -log_part))


def beta_scale(a: Array, b: Array, x: Array, y: Array) -> Array:
    """``w`` with ``φ(w) ≈ -1``: by Newton's method, from the parabola that touches φ at 0."""
    slope, n = a * y - b * x, a + b
    w = 2 / (slope + jnp.sqrt(slope * slope + 2 * n * x * y))

    def step(_: Array, w: Array) -> Array:
        phi, _fall, _rise = beta_exponent(a, b, x, y, w)
        derivative = b - n / (1 + x / y * jnp.exp(-w))
        return jnp.maximum(w - (phi + 1) / derivative, w / 8)

    return lax.fori_loop(0, 4, step, w)


def beta_tail(a: Array, b: Array, x: Array, y: Array, by_a: Array, by_b: Array) -> tuple[Array, Array]:
    """``∂I/∂a`` and ``∂I/∂b`` over ``D``, for ``x ≤ a/(a+b)``, given those of ``log D``."""
    w = beta_scale(*(lax.stop_gradient(value) for value in (a, b, x, y)))

    def integrand(u: Array) -> tuple[Array, Array]:
        phi, fall, rise = beta_exponent(a, b, x, y, u)
        density = jnp.exp(phi)
        return density * (by_a - fall), density * (by_b + rise)

    return half_line(integrand, w, 24)


def exchanged(where: Array, *pairs: tuple[Array, Array]) -> list[Array]:
    """Each pair, exchanged where ``where`` holds."""
    return [value for p, q in pairs for value in (jnp.where(where, q, p), jnp.where(where, p, q))]


@helper
def beta_by_parameters(a: Array, b: Array, x: Array) -> tuple[Array, Array]:
    """``∂I/∂a`` and ``∂I/∂b`` of the regularized incomplete beta function ``I(x; a, b)``.

    By ``I(x; a, b) = 1 - I(y; b, a)`` the tail is the one that does not contain the mode.  Two cases are reduced to it, with
    ``n = a+b`` [DLMF, 8.17.20-21]:

    - ``a < 1``: the tail is nearly the whole integral.  ``I(a, b) = I(a+1, b) + D(a, b)/a``: both have slopes of one sign;
    - a small ``ay``, hence a small ``b``: φ is constant and then falls steeply.  ``I(a, b) = I(a, b+1) - D(a, b)/b``.
    """
    is_defined = (a > 0) & (b > 0) & (x >= 0) & (x <= 1)
    inside = is_defined & (x > 0) & (x < 1) & (a < jnp.inf) & (b < jnp.inf)
    a, b, x = jnp.where(inside, a, 1), jnp.where(inside, b, 1), jnp.where(inside, x, 0.5)
    y = 1 - x
    first = x * b > y * a
    a, b, x, y = exchanged(first, (a, b), (x, y))

    shifted_a = a < 1
    a1 = jnp.where(shifted_a, a + 1, a)
    shifted_b = a1 * y < 1 / 16
    b1 = jnp.where(shifted_b, b + 1, b)
    # D for the first shift, for the second, and for the tail that remains.
    over_a, over_b, weight = beta_weight(jnp.stack([a, a1, a1]), jnp.stack([b, b, b1]), *(jnp.stack([z] * 3) for z in (x, y)))
    over_a, over_b = jnp.where(shifted_a, over_a / a, 0), jnp.where(shifted_b, over_b / b, 0)
    # Their logarithmic derivatives log(x) - ψ(p) + ψ(n) = log(xn/p) + (log(p) - ψ(p)) - (log(n) - ψ(n)), three by a and three by b.
    p, n = jnp.stack([a1, a1, a1, b, b1, b1]), jnp.stack([a + b, a1 + b, a1 + b1] * 2)
    gaps = [x * b - y * a, x * b - y * a1, x * b1 - y * a1]
    difference = jnp.stack([gaps[0] - (a1 - a), *gaps[1:], -gaps[0], -gaps[1] - (b1 - b), -gaps[2]])
    rest = log_minus_digamma(jnp.concatenate([p, n[:3]]))
    by_a, by_b = jnp.split(log_ratio(difference, jnp.stack([x] * 3 + [y] * 3) * n, p), 2)
    by_a, by_b = by_a + rest[:3] - rest[6:], by_b + rest[3:6] - rest[6:]

    second = gaps[2] > 0
    tail = beta_tail(*exchanged(second, (a1, b1), (x, y), (by_a[2], by_b[2])))
    weight = jnp.where(second, -weight, weight)
    tail_a, tail_b = exchanged(second, tail)
    slopes = exchanged(first, (over_a * by_a[0] - over_b * by_a[1] + weight * tail_a,
                               over_a * by_b[0] - over_b * by_b[1] + weight * tail_b))
    sign = jnp.where(inside, jnp.where(first, -1, 1), jnp.where(is_defined, 0, jnp.nan)).astype(x.dtype)
    return sign * slopes[0], sign * slopes[1]


@helper
def beta_density(a: Array, b: Array, x: Array) -> Array:
    """``∂I/∂x = xᵃ⁻¹ (1-x)ᵇ⁻¹/B(a, b)``."""
    is_defined = (a > 0) & (b > 0) & (x >= 0) & (x <= 1)
    inside = is_defined & (x > 0) & (x < 1)
    a_, b_, x_ = jnp.where(is_defined, a, 1), jnp.where(is_defined, b, 1), jnp.where(inside, x, 0.5)
    power, other = jnp.where(x == 0, a_, b_), jnp.where(x == 0, b_, a_)
    at_end = jnp.where(power > 1, 0, jnp.where(power == 1, other, jnp.inf))
    return jnp.where(inside, beta_weight(a_, b_, x_, 1 - x_) / x_ / (1 - x_), jnp.where(is_defined, at_end, jnp.nan))
