"""Derivatives of the incomplete gamma function by its parameter, and functions that those of the incomplete beta function need as well.

Both functions are tails of a distribution with a density ``p`` of the logarithm (gamma) or the logit (beta) of the variable, and
``p`` is log-concave.  Measured from the limit of integration, towards the tail that does not contain the mode, the tail is ::

    D ∫_0^∞ exp(φ(u)) du        φ(0) = 0, φ' ≤ 0, φ'' ≤ 0

with ``D`` the density at the limit.  The derivative by a parameter puts the derivative of ``log D + φ`` under the integral, which has
one sign there: no terms cancel.  With ``u = w v`` and ``φ(w) ≈ -1`` the integrand minus ``exp(-v)`` has one sign on either side of
``v = 1``, so that one set of nodes suffices for all parameters: those of the double exponential rule for the half line,
``v = exp(τ - exp(-τ))`` [TakahasiMori1974], 121 for gamma and 181 for beta in double precision.  Higher derivatives are those of
the sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

#: For larger ``a``, Stirling's series in ``1/a`` is exact to double precision.
LARGE = 10.0
#: Bernoulli's numbers B₂, B₄, ..., B₂₄.
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138,
             -236364091 / 2730)


R = TypeVar("R")


def helper(function: Callable[..., R]) -> Callable[..., R]:
    """A compiled function of arrays of one shape and dtype; low precisions are computed in single precision."""

    @jax.jit
    @functools.wraps(function)
    def run(*args: Array) -> R:
        dtype = args[0].dtype
        if jnp.finfo(dtype).bits < 32:
            args = tuple(lax.convert_element_type(x, jnp.float32) for x in args)
        args = tuple(jnp.broadcast_to(x, jnp.broadcast_shapes(*(x.shape for x in args))) for x in args)
        out = function(*args)
        return jax.tree_util.tree_map(lambda x: lax.convert_element_type(x, dtype), out)

    return run


def horner(x: Array, coefficients: Sequence[float]) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


# ------------------------------------------------------------------------------------------------ differences, without loss


def exp_rest(z: Array) -> Array:
    """``exp(z) - 1 - z`` for ``|z| ≤ 1``."""
    return z * z * horner(z, [1 / math.factorial(k) for k in range(2, 21)])


def log_rest(z: Array, one_plus_z: Array | None = None) -> Array:
    """``log(1 + z) - z``, where ``1 + z`` may be given.

    For a small ``z``, with ``r = z/(2+z)``: ``log(1+z) = 2 atanh(r)`` and ``z - 2r = r z``, hence ``2r³(1/3 + r²/5 + ...) - r z``.
    """
    is_small = (z > -0.6) & (z < 1)
    small = jnp.where(is_small, z, 0)
    r = small / (2 + small)
    series = 2 * r * r * r * horner(r * r, [1 / (2 * k + 3) for k in range(18)]) - r * small
    argument = jnp.where(is_small, 1, 1 + z if one_plus_z is None else one_plus_z)
    return jnp.where(is_small, series, jnp.log(argument) - z)


def log_ratio(difference: Array, x: Array, y: Array) -> Array:
    """``log(x/y)`` for positive numbers whose ``difference = x - y`` is known."""
    is_near = jnp.abs(difference) < y / 4
    return jnp.where(is_near, jnp.log1p(jnp.where(is_near, difference / y, 0)), jnp.log(jnp.where(is_near, 1, x / y)))


def log_minus_digamma(a: Array) -> Array:
    """``log(a) - ψ(a) = 1/(2a) + Σ B₂ₖ/(2k a²ᵏ)``."""
    is_large = a >= LARGE
    large, small = jnp.where(is_large, a, LARGE), jnp.where(is_large, 1, a)
    inverse = 1 / large
    series = [b / (2 * k) for k, b in enumerate(BERNOULLI[:9], 1)]
    return jnp.where(is_large, inverse * (0.5 + inverse * horner(inverse * inverse, series)), jnp.log(small) - lax.digamma(small))


def stirling_rest(a: Array) -> Array:
    """``log Γ(a) - (a - 1/2) log(a) + a - log(2π)/2 = Σ B₂ₖ/(2k (2k-1) a²ᵏ⁻¹)``, for a large ``a``."""
    inverse = 1 / a
    return inverse * horner(inverse * inverse, [b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI[:9], 1)])


#: One integral, or several of one integrand.
Integral = TypeVar("Integral", Array, tuple[Array, Array])


def half_line(integrand: Callable[[Array], Integral], w: Array, density: int) -> Integral:
    """``∫_0^∞ integrand(u) du`` of decaying functions of scale ``w``: a loop over nodes, in constant memory."""
    dtype = w.dtype
    density = density if dtype == jnp.float64 else density // 2
    tau = np.arange(-15 * density // 4, 15 * density // 4 + 1) / density
    v = np.exp(tau - np.exp(-tau))
    weights = v * (1 + np.exp(-tau)) / density

    def add(total: Integral, node: tuple[Array, Array]) -> tuple[Integral, None]:
        point, weight = node
        return jax.tree_util.tree_map(lambda s, term: s + weight * term, total, integrand(w * point)), None

    start = jax.tree_util.tree_map(lambda x: jnp.zeros_like(w), jax.eval_shape(integrand, w))
    total, _ = lax.scan(add, start, (v.astype(dtype), weights.astype(dtype)))  # type: ignore[arg-type]  # steps read tracers
    return jax.tree_util.tree_map(lambda s: s * w, total)


def column(*xs: Array) -> list[Array]:
    return [x[..., None] for x in xs]


# ------------------------------------------------------------------------------------------------------------------- gamma


@helper
def gamma_density(a: Array, x: Array) -> Array:
    """``p(x; a) = xᵃ⁻¹ exp(-x)/Γ(a)``.

    For a large ``a`` by deviations from the mode [Loader2000]: with ``c = a-1``, ``δ = (x-c)/c`` and Stirling's series for
    ``Γ(a) = c Γ(c)``, ``p = exp(-c (δ - log(1+δ)) - rest(c))/sqrt(2πc)``; no terms of size ``a log(a)`` cancel.
    """
    is_large = a >= LARGE + 1
    c = jnp.where(is_large, a - 1, LARGE)
    # For large x the density is 0, and its exponent must not overflow.
    inside = is_large & (x > 0)
    ratio = jnp.minimum(jnp.where(inside, x, 1) / c, 1e4)
    large = jnp.exp(c * log_rest(jnp.where(ratio < 1e4, (x - c) / c, 1e4), ratio) - stirling_rest(c)) / jnp.sqrt(2 * math.pi * c)
    large = jnp.where(x > 0, large, jnp.where(x == 0, 0, jnp.nan))

    small = jnp.where(is_large, 1, a)
    far = -2 * math.floor(math.log(float(jnp.finfo(x.dtype).tiny)))
    root = jnp.exp(-0.5 * jnp.minimum(x, far))  # in halves, so that it does not underflow before the power is taken
    power = jnp.power(jnp.minimum(x, far), small - 1)
    direct = small * jnp.exp(-lax.lgamma(small + 1)) * (root * power) * root
    direct = jnp.where(small > 0, direct, jnp.where(small == 0, 0, jnp.nan))
    return jnp.where(jnp.isnan(a) | (x < 0), jnp.nan, jnp.where(is_large, large, direct))


def gamma_series(a: Array, x: Array, log_x: Array, order: int) -> Array:
    """``∂ᵏP/∂aᵏ / (xᵃ/Γ(a+1))`` for ``x ≤ 1`` [DLMF, 8.7.1].

    ``P = xᵃ/Γ(a+1) · T`` with ``T = Σₙ (-x)ⁿ/n! · a/(a+n)``, and the first factor's derivative is itself times
    ``L = log(x) - ψ(a+1)``.
    """
    n = np.arange(1, 19)
    signed = np.array([(-1) ** k / math.factorial(k) for k in n])
    a_, x_ = column(a, x)
    m, factorials = (lax.broadcast(row.astype(x.dtype), a.shape) for row in (n, signed))
    terms = jnp.power(x_, m) * factorials
    L = log_x - lax.digamma(a + 1)
    T = 1 + jnp.sum(terms * a_ / (a_ + m), -1)
    T1 = jnp.sum(terms * m / jnp.square(a_ + m), -1)
    if order == 1:
        return L * T + T1
    T2 = -2 * jnp.sum(terms * m / ((a_ + m) * jnp.square(a_ + m)), -1)
    return (L * L - lax.polygamma(jnp.full_like(a, 1), a + 1)) * T + 2 * L * T1 + T2


def gamma_tail(a: Array, x: Array, order: int) -> Array:
    """``∂ᵏP/∂aᵏ / (x p(x; a))`` for ``x > 1``.

    With ``σ = 1`` for the upper tail (``x > a``) and ``-1`` for the lower, ``t = x exp(σu)``: the tail is
    ``x p ∫ exp(φ) du`` with ``φ = σ(a - x)u - x(exp(σu) - 1 - σu)``, and ``∂/∂a log(integrand) = log(t) - ψ(a)``.
    """
    sigma = jnp.where(x > a, 1, -1).astype(x.dtype)
    slope = sigma * (x - a)
    w = lax.stop_gradient(2 / (slope + jnp.sqrt(slope * slope + 2 * x)))
    score = log_ratio(x - a, x, a) + log_minus_digamma(a)
    curvature = lax.polygamma(jnp.full_like(a, 1), a) if order == 2 else jnp.zeros_like(a)

    def integrand(u: Array) -> Array:
        z = jnp.minimum(sigma * u, 80)  # where the integrand is 0
        is_small = u <= 1
        rest = jnp.where(is_small, exp_rest(jnp.where(is_small, z, 0)), jnp.expm1(z) - z)
        factor = score + z if order == 1 else jnp.square(score + z) - curvature
        return jnp.exp(-slope * u - x * rest) * factor

    return -sigma * half_line(integrand, w, 16)


def gamma_slope(a: Array, x: Array, order: int) -> Array:
    """``∂ᵏP/∂aᵏ``."""
    inside = (x > 0) & (x < jnp.inf) & (a > 0)
    is_small = inside & (x <= 1)
    safe_a, small, large = jnp.where(inside, a, 1), jnp.where(is_small, x, 1), jnp.where(inside & ~is_small, x, 2)
    series = jnp.power(small, safe_a) * jnp.exp(-lax.lgamma(safe_a + 1)) * gamma_series(safe_a, small, jnp.log(small), order)
    tail = large * gamma_density(safe_a, large) * gamma_tail(safe_a, large, order)
    at_end = jnp.where((a > 0) & ((x == 0) | (x == jnp.inf)), 0, jnp.nan)
    return jnp.where(inside, jnp.where(is_small, series, tail), at_end)


def gamma_log_quantile(a: Array, x: Array, log_x: Array) -> Array:
    """``-∂P/∂a / (x p(x; a))``, for positive ``a`` and a positive ``x`` that may underflow."""
    is_small = x <= 1
    small, large = jnp.where(is_small, x, 1), jnp.where(is_small, 2, x)
    series = gamma_series(a, small, jnp.where(is_small, log_x, 0), 1) * jnp.exp(small) / a
    return -jnp.where(is_small, series, gamma_tail(a, large, 1))


@helper
def gamma_by_parameter(a: Array, x: Array) -> Array:
    """``∂P(a, x)/∂a`` of the regularized lower incomplete gamma function."""
    return gamma_slope(a, x, 1)


@helper
def gamma_by_parameter_twice(a: Array, x: Array) -> Array:
    """``∂²P(a, x)/∂a²``."""
    return gamma_slope(a, x, 2)


@helper
def gamma_score(a: Array, x: Array) -> Array:
    """``∂/∂x ∂P/∂a = p(x; a) (log(x) - ψ(a))``."""
    inside = (x > 0) & (x < jnp.inf) & (a > 0)
    safe_a, safe = jnp.where(inside, a, 1), jnp.where(inside, x, 1)
    out = gamma_density(safe_a, safe) * (log_ratio(safe - safe_a, safe, safe_a) + log_minus_digamma(safe_a))
    at_end = jnp.where((x == 0) & (a <= 1), -jnp.inf, jnp.where((x == 0) | (x == jnp.inf), 0, jnp.nan))
    return jnp.where(inside, out, jnp.where(a > 0, at_end, jnp.nan))


@helper
def gamma_quantile_slope(a: Array, x: Array) -> Array:
    """``dx/da`` where ``P(a, x)`` is constant: ``-∂P/∂a / p(x; a)`` [FigurnovEtAl2018]."""
    inside = (x > 0) & (a > 0)
    safe_a, safe = jnp.where(inside, a, 1), jnp.where(inside, x, 1)
    return jnp.where(inside, safe * gamma_log_quantile(safe_a, safe, jnp.log(safe)), jnp.where(x == 0, 0, jnp.nan))


@helper
def gamma_log_quantile_slope(a: Array, log_x: Array) -> Array:
    """``d log(x)/da`` where ``P(a, x)`` is constant; ``x`` itself may underflow."""
    return gamma_log_quantile(a, jnp.exp(log_x), log_x)
