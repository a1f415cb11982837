"""Products of a tangent (or cotangent) with a partial derivative, also those of the option ``zero_wins``.

With ``zero_wins`` the product of 0 and infinity is 0, and so is that of a zero tangent and nan: an input without a tangent has no
influence, however steep the function.  A zero factor times a nan tangent is nan.  All other products are plain ones, so that their
derivative is that of a product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.options.settings import Settings

#: A product of two arrays, or a quotient.
Product: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


def combiner(is_over: bool, settings: Settings) -> Product:
    """How a tangent is combined with a partial, or with the reciprocal of one."""
    if settings.zero_wins:
        return quotient if is_over else product
    return lax.div if is_over else lax.mul


def product(t: jax.Array, factor: jax.Array) -> jax.Array:
    """``t · factor``."""
    t, factor = _alike(t, factor)
    lost = _or(_and(_is_zero(t), _not(_is_finite(factor))), _and(_is_zero(factor), _is_infinite(t)))
    return lax.mul(_blank(lost, t, 0), _blank(lost, factor, 0))


def quotient(t: jax.Array, divisor: jax.Array) -> jax.Array:
    """``t / divisor``."""
    t, divisor = _alike(t, divisor)
    is_steep = _or(_is_zero(divisor), _not(_is_finite(divisor)))
    lost = _or(_and(_is_zero(t), is_steep), _and(_is_infinite(divisor), _is_infinite(t)))
    return lax.div(_blank(lost, t, 0), _blank(lost, divisor, 1))


def contraction(times: Product, t: jax.Array, factor: jax.Array) -> jax.Array:
    """``times(t, factor)``, bilinear: a sum of products.

    Where both are finite it is computed as it stands.  Otherwise the finite entries are contracted, and of the rest only how many
    nonzero products meet an infinity, and of what sign: all of one sign give that infinity, others nan.
    """

    def careful(t: jax.Array, factor: jax.Array) -> jax.Array:
        one, two = lax.stop_gradient(t), lax.stop_gradient(factor)
        main = times(_blank(_not(_is_finite(t)), t, 0), _blank(_not(_is_finite(factor)), factor, 0))
        infinite_t, infinite_factor = _indicator(_is_infinite(one), one), _indicator(_is_infinite(two), two)
        sign_t, sign_factor = _sign(one), _sign(two)
        finite_sign_t = lax.sub(sign_t, lax.mul(sign_t, infinite_t))
        signs = lax.add(times(lax.mul(sign_t, infinite_t), sign_factor), times(finite_sign_t, lax.mul(sign_factor, infinite_factor)))
        count = lax.add(times(infinite_t, lax.abs(sign_factor)), times(lax.abs(finite_sign_t), infinite_factor))
        nan_t, nan_factor = _indicator(lax.ne(one, one), one), _indicator(lax.ne(two, two), two)
        bad = lax.add(times(nan_t, lax.full_like(two, 1)), times(lax.abs(sign_t), nan_factor))
        bad = lax.add(bad, lax.sub(count, lax.abs(signs)))
        extreme = lax.select(lax.gt(lax.abs(bad), lax.full_like(lax.abs(bad), 0)), lax.full_like(main, np.nan),
                             lax.mul(lax.full_like(main, np.inf), signs))
        return lax.select(_is_zero(lax.add(lax.abs(count), lax.abs(bad))), main, extreme)

    t, factor = _array(t, factor), _array(factor, t)
    if jnp.iscomplexobj(t) or jnp.iscomplexobj(factor):  # infinities of complex numbers have no sign to count
        return times(t, factor)
    finite = lax.bitwise_and(_all(_is_finite(t)), _all(_is_finite(factor)))
    found: jax.Array = lax.cond(finite, times, careful, t, factor)
    return found


def _alike(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, y = _array(x, y), _array(y, x)
    shape = lax.broadcast_shapes(x.shape, y.shape)

    def spread(a: jax.Array) -> jax.Array:
        return a if a.shape == shape else lax.broadcast_in_dim(a, shape, tuple(range(len(shape) - a.ndim, len(shape))))

    return spread(x), spread(y)


def _array(x: jax.Array, like: jax.Array) -> jax.Array:
    """``x`` as an array: a literal of a program has no shape and, in some releases, no dtype."""
    return x if hasattr(x, "shape") else lax.full((), x, like.dtype)


def _is_zero(x: jax.Array) -> jax.Array:
    return lax.eq(x, lax.full_like(x, 0))


def _is_finite(x: jax.Array) -> jax.Array:
    return lax.bitwise_and(lax.is_finite(lax.real(x)), lax.is_finite(lax.imag(x))) if jnp.iscomplexobj(x) else lax.is_finite(x)


def _is_infinite(x: jax.Array) -> jax.Array:
    size = lax.abs(x)
    return lax.eq(size, lax.full_like(size, np.inf))


def _blank(where: jax.Array, x: jax.Array, value: float) -> jax.Array:
    return lax.select(where, lax.full_like(x, value), x)


def _indicator(mask: jax.Array, like: jax.Array) -> jax.Array:
    return lax.convert_element_type(mask, like.dtype)


def _sign(x: jax.Array) -> jax.Array:
    """-1, 0 or 1; nan counts as 0 here."""
    return _blank(lax.ne(x, x), lax.sign(x), 0)


def _all(mask: jax.Array) -> jax.Array:
    return lax.reduce_and(mask, tuple(range(mask.ndim)))


_and, _or, _not = lax.bitwise_and, lax.bitwise_or, lax.bitwise_not
