"""Operations applied entry by entry: one partial derivative for each operand.

Subgradients are jax's values, in both modes:

- ``abs`` at 0 has derivative 1 for real numbers and 0 for complex ones; ``sign`` has derivative 0 for real numbers, at 0 too, and for
  complex numbers rotates with its argument (at 0: derivative 0);
- ``max`` and ``min`` at a tie have derivative 1/2 by each operand; at NaN, 0;
- ``clamp`` at a bound has derivative 0 by the operand and by the bound; if the bounds cross, the upper bound is the result;
- ``rem`` is ``x - y trunc(x/y)`` with a constant quotient, at its jumps too;
- ``pow`` with an exponent 0 has derivative 0 by the base, at base 0 too, so that whole powers have the derivatives of polynomials at
  every order (with a float exponent jax has NaN there); by the exponent, base 0 gives 0 times ``out``;
- ``sqrt``, ``cbrt`` and ``rsqrt`` at 0 have infinite derivatives; ``nextafter`` has derivative 1 by its first operand.

Complex operands: the partials are those of holomorphic functions; ``abs``, ``sign``, ``real``, ``imag`` and ``conj``, which are
not, are stated by programs for tangents.

A partial reads ``out`` where that costs less than the operand, and a quotient is written with :func:`over` where the product
with a reciprocal would round twice.

Range: where a derivative is representable, intermediate results neither overflow nor underflow.  Half precision has so small a range
that partials are computed in single precision (:func:`single`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.new_primitives import entrywise_primitive
from dualrev._jax.primitives import Params, Primitive, add_any_p, primitive
from dualrev.linear.maps import Tangent, Tangents
from dualrev.rules.contract import cast_like
from dualrev.table.adjoints import BilinearRow
from dualrev.table.choosing import ByParameterRow
from dualrev.table.forms import by_kind, elementwise, linear, over
from dualrev.table.operations import Residuals, Site
from dualrev.table.partials import ElementwiseRow, Over, Partial, broadcast_entries, sum_broadcast
from dualrev.table.pushforward import PushforwardRow, pushforward
from dualrev.table.rows import AllBut, ZeroRow, register, rows


def is_complex(x: Array) -> bool:
    return x.dtype.kind == "c"


def number(x: Array, value: complex) -> np.ndarray:
    """``value`` in the dtype of ``x``, as a scalar that broadcasts."""
    return np.asarray(value, x.dtype)


def maybe(name: str, *partials: Partial | Over) -> None:
    """A row for a primitive that some releases of jax do not have."""
    found = primitive(name)
    if found is not None:
        elementwise(found, *partials)


def single(x: Array) -> Array:
    """``x``, in single precision where it is float16, whose square overflows at 256."""
    return lax.convert_element_type(x, np.float32) if x.dtype == np.float16 else x


def one_minus_square(x: Array) -> Array:
    """1 - x², without the cancellation that squaring first would bring near 1."""
    if (fused := primitive("one_minus_square")) is not None:
        return fused.bind(x)
    one = number(x, 1)
    return lax.mul(lax.sub(one, x), lax.add(one, x))


def gap(x: Array, *, outside: bool) -> Array:
    """1 - x², or x² - 1, of real numbers, with one rounding less: it is 2u - u² with u = 1 - |x|, which is exact near 1."""
    one = number(x, 1)
    u = lax.sub(one, lax.abs(x))
    pairs = (lax.add(u, u), lax.square(u)), (one, lax.square(x))
    near, far = [lax.sub(*reversed(pair)) if outside else lax.sub(*pair) for pair in pairs]
    return lax.select(lax.lt(lax.abs(x), number(x, 2)), near, far)


def one_plus_square(x: Array) -> Array:
    return lax.add(lax.square(x), number(x, 1))


def power(x: Array, exponent: int) -> Array:
    """x to a whole power."""
    return lax.integer_pow(x, exponent)


def times(x: Array, factor: float) -> Array:
    return lax.mul(x, number(x, factor))


# ------------------------------------------------------------------------------------------------------------ arithmetic

elementwise(lax.neg_p, -1)
elementwise(lax.add_p, 1, 1)
elementwise(add_any_p, 1, 1)
elementwise(lax.sub_p, 1, -1)
elementwise(lax.mul_p, lambda _, y: y, lambda x, _: x)


def factor_transpose(ct: Array, x: ShapedArray, y: Array) -> Array:
    """Products and sums over broadcast dimensions are computed in the wider dtype."""
    return cast_like(sum_broadcast(lax.mul(ct, lax.convert_element_type(y, ct.dtype)), x.shape), x)


if "out_dtype" in inspect.signature(lax.mul).parameters:
    # `out_dtype` is the dtype of the product, to which both operands are converted first.
    widening = BilinearRow(lax.mul_p, (factor_transpose, lambda ct, x, y: factor_transpose(ct, y, x)), cost="entrywise")
    register(ByParameterRow(rows[lax.mul_p], widening, lambda params: params["out_dtype"] is not None))
# d(x/y)/dy = -(x/y)/y: no power of y that could overflow.  The sign stands between the quotients, because the compiler makes
# x/(y·y) of (x/y)/y.
class Quotient(ElementwiseRow):
    """As any row of partials; where one divisor divides many entries, the cotangents are summed before they are divided by it."""

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        (ct,) = cotangents
        if ct is None or not _divides_many(site, ct):
            return super().pull(site, residuals, cotangents)
        y, out = residuals
        of_divisor = lax.neg(lax.div(sum_broadcast(lax.mul(ct, out), y.shape), y))
        return (sum_broadcast(lax.div(ct, y), site.in_avals[0].shape), of_divisor) if site.active[0] else (of_divisor,)


def _divides_many(site: Site, ct: Array) -> bool:
    """Products in half precision could overflow before they are divided; wide cotangents and those where zero wins have ways of their
    own."""
    plain = all(type(flag) is bool for flag in site.active) and not site.settings.zero_wins and ct.dtype.itemsize >= 4
    return plain and bool(site.active[1]) and bool(site.in_avals) and site.in_avals[1].shape != ct.shape


register(Quotient(lax.div_p, over(lambda _, y: y), lambda _, y, *, out: lax.div(lax.neg(out), y)))
# x - out is y times the quotient exactly, so that rounding finds the whole number that jax recomputes from x/y.
elementwise(lax.rem_p, 1, lambda x, y, *, out: lax.neg(lax.round(lax.div(lax.sub(x, out), y))), linear_in=())
elementwise(lax.square_p, lambda x: times(x, 2))
maybe("one_minus_square", lambda x: times(x, -2))
# A primitive, as the derivative of the formula would be NaN at 1: the product of u² = 0 and an infinite cotangent.
elementwise(gap_p := entrywise_primitive("gap", gap), lambda x, *, outside: times(x, 2 if outside else -2))


def integer_pow_partial(x: Array, *, y: int) -> Array:
    if y == 0:
        return lax.full_like(x, 0)
    return lax.full_like(x, 1) if y == 1 else times(x if y == 2 else power(single(x), y - 1), y)


elementwise(lax.integer_pow_p, integer_pow_partial)


def pow_by_base(x: Array, y: Array) -> Array:
    if np.issubdtype(y.dtype, np.integer):
        # The exponent stays an integer, so that 0 · x⁻¹ is never computed at exponent 0.
        is_zero = lax.eq(y, number(y, 0))
        safe = lax.select(is_zero, lax.full_like(y, 1), y)
        return lax.mul(lax.convert_element_type(y, x.dtype), lax.pow(x, lax.sub(safe, number(y, 1))))
    # At base 0 and exponent 0 the base is 1, so that 0 · x⁻¹ is never computed: whole exponents reach 0 at some order.
    shape = lax.broadcast_shapes(np.shape(x), np.shape(y))
    is_constant = lax.bitwise_and(lax.eq(x, number(x, 0)), lax.eq(y, number(y, 0)))
    base = broadcast_entries(x, shape)
    base = lax.select(is_constant, lax.full_like(base, 1), base)
    return lax.mul(y, lax.pow(base, lax.sub(y, number(y, 1))))


def pow_by_exponent(x: Array, _: Array, *, out: Array) -> Array:
    # At base 0 the logarithm is infinite and out is 0: with the logarithm of 1 the product is 0.
    return lax.mul(lax.log(lax.select(lax.eq(x, number(x, 0)), lax.full_like(x, 1), x)), out)


elementwise(lax.pow_p, pow_by_base, pow_by_exponent)


def horner(x: Array, coefficients: Sequence[Array | np.ndarray | None]) -> Tangent:
    """``Σ cₖ xᵏ`` by multiplications and additions; a coefficient of None is zero."""
    total = None
    for c in reversed(coefficients):
        total = None if total is None else lax.mul(total, x)
        total = total if c is None else c if total is None else lax.add(total, c)
    return total


def polynomial_program(ts: Sequence[Tangent], x: Array, *coefficients: Array) -> Array:
    t_x, *t_coefficients = ts
    t_out = horner(x, t_coefficients)
    if t_x is not None and len(coefficients) > 1:
        slope = horner(x, [times(c, k) for k, c in enumerate(coefficients)][1:])
        term = lax.mul(t_x, slope)  # type: ignore[arg-type]  # some coefficient is given
        t_out = term if t_out is None else lax.add(t_out, term)
    shape = lax.broadcast_shapes(*[np.shape(a) for a in (x, *coefficients)])
    return broadcast_entries(lax.full((), 0, x.dtype) if t_out is None else t_out, shape)


if (polynomial := primitive("polynomial")) is not None:
    pushforward(polynomial, polynomial_program, cost="entrywise", linear_in=AllBut(0))

# -------------------------------------------------------------------------------------------- exponentials and logarithms

elementwise(lax.exp_p, lambda _, *, out: out)
elementwise(lax.exp2_p, lambda _, *, out: times(out, math.log(2)))
# Not out + 1, which rounds to 0 where exp(x) is small.
elementwise(lax.expm1_p, lambda x, *, accuracy: lax.exp(x, accuracy=accuracy))
elementwise(lax.log_p, over(lambda x: x))
maybe("log2", over(lambda x: times(x, math.log(2))))
elementwise(lax.log1p_p, over(lambda x: lax.add(x, number(x, 1))))


def asks_for_accuracy(params: Params) -> bool:
    return params["accuracy"] not in (None, lax.AccuracyMode.DEFAULT)


def decay(x: Array, factor: float) -> Array:
    """``exp(-factor |x|)``; for complex numbers, with ``x`` or ``-x``, whichever has the positive real part, in place of ``|x|``."""
    if not is_complex(x):
        return lax.exp(times(lax.abs(x), -factor))
    is_left = lax.lt(lax.real(x), lax.full_like(lax.real(x), 0))
    return lax.exp(times(lax.select(is_left, lax.neg(x), x), -factor))


def logistic_partial(x: Array) -> Array:
    """``e/(1 + e)²`` with ``e = exp(-|x|)``: no digits cancel where the value is near 1."""
    e = decay(x, 1)
    return lax.div(e, lax.square(lax.add(e, number(x, 1))))


def tails(primitive: Primitive, plain: Partial, accurate: Partial) -> None:
    """State a partial that reads the output, and one that reads the operand, for calls with ``accuracy``.

    The former cancels in the tails, where the output is within rounding of 1; the latter computes an exponential, and makes the operand
    a residual.
    """
    register(ByParameterRow(ElementwiseRow(primitive, plain), ElementwiseRow(primitive, accurate), asks_for_accuracy))


tails(lax.logistic_p, lambda _, *, out: lax.mul(out, lax.sub(number(out, 1), out)), logistic_partial)

# ------------------------------------------------------------------------------------------------------------------ roots

# Not a tangent over 2 out: the compiler turns this quotient into half a reciprocal root, which is more exact.
elementwise(lax.sqrt_p, lambda _, *, out: lax.div(number(out, 0.5), out))
elementwise(lax.rsqrt_p, lambda x, *, out: lax.div(times(out, -0.5), x))
elementwise(lax.cbrt_p, over(lambda _, *, out: times(lax.square(out), 3)))

# --------------------------------------------------------------------------------------------------------- trigonometry

elementwise(lax.sin_p, lambda x, *, accuracy: lax.cos(x, accuracy=accuracy))
elementwise(lax.cos_p, lambda x, *, accuracy: lax.neg(lax.sin(x, accuracy=accuracy)))
elementwise(lax.tan_p, lambda _, *, out: one_plus_square(out))


def asin_partial(x: Array) -> Array:
    if is_complex(x):  # one root for each branch point: the product of the roots has the branch cuts of asin
        one = number(x, 1)
        return lax.mul(lax.rsqrt(lax.sub(one, x)), lax.rsqrt(lax.add(one, x)))
    return lax.rsqrt(gap_p.bind(x, outside=False))


elementwise(lax.asin_p, asin_partial)
elementwise(lax.acos_p, lambda x: lax.neg(asin_partial(x)))
elementwise(lax.atan_p, over(lambda x: one_plus_square(single(x))))


def atan2_partials(x: Array, y: Array) -> tuple[Array, Array]:
    """``y/(x² + y²)`` and ``x/(x² + y²)``: with the quotient ``q`` of the smaller by the larger, ``(1 or q)/(1 + q²)/larger``."""
    shape = lax.broadcast_shapes(np.shape(x), np.shape(y))
    x, y = broadcast_entries(single(x), shape), broadcast_entries(single(y), shape)
    is_steep = lax.gt(lax.abs(x), lax.abs(y))
    large, small = lax.select(is_steep, x, y), lax.select(is_steep, y, x)
    q, one = lax.div(small, large), lax.full_like(x, 1)
    scale = one_plus_square(q)
    by_x, by_y = (lax.div(lax.div(top, scale), large) for top in (lax.select(is_steep, q, one), lax.select(is_steep, one, q)))
    return by_x, by_y


elementwise(lax.atan2_p, lambda x, y: atan2_partials(x, y)[0], lambda x, y: lax.neg(atan2_partials(x, y)[1]))

# ------------------------------------------------------------------------------------------------------------- hyperbolic

elementwise(lax.sinh_p, lambda x: lax.cosh(x))
elementwise(lax.cosh_p, lambda x: lax.sinh(x))


def tanh_partial(x: Array) -> Array:
    """``4e/(1 + e)²`` with ``e = exp(-2|x|)``."""
    e = decay(x, 2)
    return lax.div(times(e, 4), lax.square(lax.add(e, number(x, 1))))


tails(lax.tanh_p, lambda _, *, out: one_minus_square(out), tanh_partial)


def asinh_partial(x: Array) -> Array:
    if is_complex(x):  # 1 + x² = (1 + ix)(1 - ix): one root for each branch point, as for asin
        one, ix = number(x, 1), lax.mul(x, number(x, 1j))
        return lax.mul(lax.rsqrt(lax.add(one, ix)), lax.rsqrt(lax.sub(one, ix)))
    # 1/sqrt(1 + x²) = s/sqrt(s² + (sx)²) for any s: a small one where x² would overflow.  As a constant it has no part in second
    # derivatives.
    half = int(jnp.finfo(x.dtype).maxexp) // 2
    is_large = lax.gt(lax.abs(x), number(x, 2.0 ** (half - 2)))
    s = lax.select(is_large, lax.full_like(x, 2.0 ** -(half + 1)), lax.full_like(x, 1))
    return lax.mul(s, lax.rsqrt(lax.add(lax.square(s), lax.square(lax.mul(s, x)))))


elementwise(lax.asinh_p, asinh_partial)


def acosh_partial(x: Array) -> Array:
    if is_complex(x):  # two roots and not one: the branch cut is that of acosh
        return lax.mul(lax.rsqrt(lax.sub(x, number(x, 1))), lax.rsqrt(lax.add(x, number(x, 1))))
    # For large x, x² - 1 is x² to all digits, and x² may overflow.  Below 1, where acosh is NaN, so is its derivative, also below -1.
    is_far = lax.gt(x, number(x, 2.0 ** (jnp.finfo(x.dtype).nmant // 2 + 2)))
    near = lax.rsqrt(gap_p.bind(lax.max(lax.select(is_far, lax.full_like(x, 2), x), number(x, 0)), outside=True))
    return lax.select(is_far, lax.div(number(x, 1), x), near)


elementwise(lax.acosh_p, acosh_partial)
elementwise(lax.atanh_p, over(one_minus_square))

# -------------------------------------------------------------------------------------------------------- error functions


def gaussian(x: Array, factor: float) -> Array:
    """``factor exp(-x²)``.

    Rounding ``x²`` alone would cost ``x²`` units in the last place: with half the digits of ``x`` in ``h``, ``h²`` is exact, and
    ``x² = h² + (x-h)(x+h)``, of which the second is small.
    """
    info = jnp.finfo(x.dtype)
    if info.bits < 32:
        return times(lax.exp(lax.neg(lax.square(x))), factor)
    far = number(x, math.ceil(math.sqrt(-math.log(float(info.smallest_subnormal)))))  # where the result is 0
    x = lax.clamp(lax.neg(far), x, far)
    high = lax.stop_gradient(lax.reduce_precision(x, info.nexp, (info.nmant - 1) // 2))
    low = lax.mul(lax.sub(high, x), lax.add(high, x))
    near = times(lax.exp(lax.neg(lax.square(high))), factor)
    return lax.add(near, lax.mul(near, lax.expm1(low)))  # and not near exp(low), where 1 + low + ... is rounded too


elementwise(lax.erf_p, lambda x: gaussian(x, 2 / math.sqrt(math.pi)))
elementwise(lax.erfc_p, lambda x: gaussian(x, -2 / math.sqrt(math.pi)))

# --------------------------------------------------------------------------------------------------- extrema and pieces


def share(x: Array, y: Array) -> Array:
    """1 where x > y, 1/2 at a tie, else 0."""
    larger = lax.gt(x, y)

    def entries(value: float) -> Array:
        return lax.full_like(larger, value, x.dtype)

    return lax.select(larger, entries(1), lax.select(lax.eq(x, y), entries(0.5), entries(0)))


elementwise(lax.max_p, lambda x, y: share(x, y), lambda x, y: share(y, x))
elementwise(lax.min_p, lambda x, y: share(y, x), lambda x, y: share(x, y))


def where_true(mask: Array, x: Array) -> Array:
    return lax.convert_element_type(mask, x.dtype)


elementwise(
    lax.clamp_p,
    lambda low, x, high: where_true(lax.bitwise_and(lax.gt(low, x), lax.lt(low, high)), x),
    lambda low, x, high: where_true(lax.bitwise_and(lax.gt(x, low), lax.lt(x, high)), x),
    lambda _, x, high: where_true(lax.lt(high, x), x),
)
elementwise(lax.nextafter_p, 1, None, linear_in=())


def abs_partial(x: Array) -> Array:
    return lax.select(lax.ge(x, lax.full_like(x, 0)), lax.full_like(x, 1), lax.full_like(x, -1))


def nonzero(x: Array) -> Array:
    return lax.select(lax.eq(x, number(x, 0)), lax.full_like(x, 1), x)


def complex_abs_program(t: Array, x: Array, *, out: Array) -> Array:
    """d|x| = Re(conj(x) dx) / |x|."""
    safe = nonzero(out)
    return lax.add(lax.mul(lax.div(lax.real(x), safe), lax.real(t)), lax.mul(lax.div(lax.imag(x), safe), lax.imag(t)))


def complex_sign_program(t: Array, x: Array, *, out: Array) -> Array:
    """d exp(iθ) = i exp(iθ) dθ with dθ = Im(conj(x/|x|) dx) / |x|."""
    turn = lax.div(lax.sub(lax.mul(lax.real(out), lax.imag(t)), lax.mul(lax.imag(out), lax.real(t))), nonzero(lax.abs(x)))
    return lax.mul(out, lax.complex(lax.full_like(turn, 0), turn))


by_kind(ElementwiseRow(lax.abs_p, abs_partial), PushforwardRow(lax.abs_p, complex_abs_program, cost="entrywise"))
by_kind(ZeroRow(lax.sign_p, "entrywise"), PushforwardRow(lax.sign_p, complex_sign_program, cost="entrywise"))

# ------------------------------------------------------------------------------------------------------- real and complex

# Adjoints are transposes for the pairing Re Σ t · ct, without conjugation, as in jax.
linear(lax.real_p, lambda ct, _: lax.complex(ct, lax.full_like(ct, 0)), cost="entrywise")
linear(lax.imag_p, lambda ct, _: lax.complex(lax.full_like(ct, 0), lax.neg(ct)), cost="entrywise")
linear(lax.complex_p, lambda ct, x, _: sum_broadcast(lax.real(ct), x.shape),
       lambda ct, _, y: sum_broadcast(lax.neg(lax.imag(ct)), y.shape), cost="entrywise")
linear(lax.conj_p, lambda ct, x: lax.conj(ct) if is_complex(x) else lax.real(ct), cost="entrywise")
