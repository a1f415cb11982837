"""Reductions and cumulative operations.

Subgradients are those of jax: in a reduction, entries that tie for a maximum or minimum get equal shares; in a cumulative one
each comparison of equal entries gives one half to each, so that the shares follow the tree in which entries are combined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding

from dualrev._jax.avals import typeof
from dualrev._jax.sharding import cotangent_sharding, explicit_sharding
from dualrev.table.axes import kept, reduced
from dualrev.table.forms import linear
from dualrev.table.pushforward import Saves, pushforward


def expand(x: Array, shape: Sequence[int], axes: Sequence[int], sharding: NamedSharding | None = None) -> Array:
    """``x`` repeated along ``axes``, which a reduction of an array of ``shape`` removed."""
    return lax.broadcast_in_dim(x, tuple(shape), tuple(i for i in range(len(shape)) if i not in axes), out_sharding=sharding)


def where(mask: Array, t: Array) -> Array:
    """``t`` where ``mask`` holds, else zero."""
    return lax.select(mask, t, lax.full_like(t, 0))


# --------------------------------------------------------------------------------------------------------------- sums

linear(lax.reduce_sum_p, lambda ct, x, *, axes: expand(ct, x.shape, axes, cotangent_sharding(x)),
       axes=lambda x, *, axes: reduced(x.ndim, axes))
linear(lax.cumsum_p, lambda ct, _, *, axis, reverse: lax.cumsum(ct, axis, not reverse),
       axes=lambda x, *, axis: kept(x.ndim, [axis]))


# ----------------------------------------------------------------------------------------------------------- products


def other_factors(x: Array) -> Array:
    """For each entry along the first axis, the product of all the others.

    Products up and down a binary tree, without a division: exact where entries are zero, and of linear work.
    """
    n = x.shape[0]
    if n <= 1:
        return lax.full_like(x, 1)
    half = (n + 1) // 2
    if n % 2:
        x = lax.pad(x, lax.full_like(x, 1, shape=()), [(0, 1, 0), *[(0, 0, 0)] * (x.ndim - 1)])
    first, second = lax.slice_in_dim(x, 0, half), lax.slice_in_dim(x, half, 2 * half)
    rest = other_factors(lax.mul(first, second))
    others = lax.concatenate([lax.mul(second, rest), lax.mul(first, rest)], 0)
    return lax.slice_in_dim(others, 0, n) if n % 2 else others


def reduce_prod_push(t: Array, x: Array, *, axes: tuple[int, ...]) -> Array:
    """``Σᵢ tᵢ Πⱼ﹦ᵢ xⱼ`` without the factor ``i``."""
    kept = [i for i in range(x.ndim) if i not in axes]
    rows = lax.transpose(x, (*axes, *kept))
    moved_shape = rows.shape
    n = 1
    for i in axes:
        n *= x.shape[i]
    others = other_factors(lax.reshape(rows, (n, *(x.shape[i] for i in kept))))
    back = [(*axes, *kept).index(i) for i in range(x.ndim)]
    return lax.reduce_sum(lax.mul(t, lax.transpose(lax.reshape(others, moved_shape), back)), axes)


pushforward(lax.reduce_prod_p, reduce_prod_push)


def recurrence(a: Array, b: Array, axis: int, reverse: bool) -> Array:
    """``y`` with ``y[i] = a[i] y[i-1] + b[i]`` along ``axis`` (``y[i+1]`` when reversed), in a logarithmic number of steps."""

    def then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        (a1, b1), (a2, b2) = first, second
        return lax.mul(a1, a2), lax.add(lax.mul(a2, b1), b2)

    return lax.associative_scan(then, (a, b), reverse, axis)[1]


def scanned(combine: Callable[[Array, Array], Array]) -> Saves:
    """The operation itself as an associative scan, which has its steps in common with the scan of the tangents.

    The primitive is often a windowed reduction, which has none in common (and takes quadratic work on a CPU for ``cumlogsumexp``).
    """
    return lambda x, *, axis, reverse: (lax.associative_scan(combine, x, reverse, axis), ())


def previous(x: Array, start: float, axis: int, reverse: bool) -> Array:
    """``x[i-1]`` along ``axis`` (``x[i+1]`` when reversed), and ``start`` where there is none."""
    shift = (-1, 1, 0) if reverse else (1, -1, 0)
    return lax.pad(x, lax.full_like(x, start, shape=()), [shift if i == axis else (0, 0, 0) for i in range(x.ndim)])


def cumprod_push(t: Array, x: Array, *, out: Array, axis: int, reverse: bool) -> Array:
    """``out[i] = x[i] out[i-1]``, hence ``ṫ[i] = x[i] ṫ[i-1] + out[i-1] t[i]``."""
    return recurrence(x, lax.mul(previous(out, 1, axis, reverse), t), axis, reverse)


pushforward(lax.cumprod_p, cumprod_push, saves=scanned(lax.mul))


def log_add_exp(x: Array, y: Array) -> Array:
    """``log(exp(x) + exp(y))``; the sum of equal infinities is that infinity."""
    difference = lax.sub(x, y)
    is_same = lax.ne(difference, difference)
    gap = lax.abs(lax.select(is_same, lax.full_like(x, 0), difference))
    return lax.select(is_same, lax.add(x, y), lax.add(lax.max(x, y), lax.log1p(lax.exp(lax.neg(gap)))))


def ratio(x: Array, out: Array) -> Array:
    """``exp(x - out)``, which is 1 where both are the same infinity."""
    difference = lax.sub(x, out)
    is_same = lax.bitwise_and(lax.eq(x, out), lax.ne(difference, difference))
    return lax.exp(lax.select(is_same, lax.full_like(x, 0), difference))


def cumlogsumexp_push(t: Array, x: Array, *, out: Array, axis: int, reverse: bool) -> Array:
    """``exp(out[i]) = exp(out[i-1]) + exp(x[i])``, hence ``ṫ[i] = exp(out[i-1] - out[i]) ṫ[i-1] + exp(x[i] - out[i]) t[i]``.

    Both factors are at most 1, so nothing overflows.
    """
    decay = ratio(previous(out, -jnp.inf, axis, reverse), out)
    return recurrence(decay, lax.mul(ratio(x, out), t), axis, reverse)


def cumlogsumexp_scanned(x: Array, *, axis: int, reverse: bool) -> tuple[Array, tuple[()]]:
    if jnp.issubdtype(x.dtype, jnp.complexfloating):  # the branch of the logarithm is the one that jax chooses
        return lax.cumlogsumexp_p.bind(x, axis=axis, reverse=reverse), ()
    return lax.associative_scan(log_add_exp, x, reverse, axis), ()


pushforward(lax.cumlogsumexp_p, cumlogsumexp_push, saves=cumlogsumexp_scanned)


# --------------------------------------------------------------------------------------------------- maxima and minima


def reduce_chosen(t: Array, x: Array, *, out: Array, axes: tuple[int, ...]) -> Array:
    """The mean of the tangents of the entries that equal the result."""
    # Negated, as x - max x is common: if both read one broadcast maximum, XLA stores it, and no longer vectorizes their exp.
    chosen = lax.eq(lax.neg(x), expand(lax.neg(out), x.shape, axes, explicit_sharding(typeof(x))))
    # Counted in integers: a low precision cannot represent large counts.
    count = lax.convert_element_type(lax.reduce_sum(lax.convert_element_type(chosen, jnp.int32), axes), x.dtype)
    return lax.div(lax.reduce_sum(where(chosen, t), axes), count)


pushforward(lax.reduce_max_p, reduce_chosen)
pushforward(lax.reduce_min_p, reduce_chosen)


def cumulative_choice(choose: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """The push of a cumulative maximum or minimum."""

    def share(x: Array, y: Array, chosen: Array) -> Array:
        some = lax.select(lax.eq(x, y), lax.full_like(x, 0.5), lax.full_like(x, 1))
        return lax.select(lax.eq(x, chosen), some, lax.full_like(x, 0))

    def then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        (x, t), (y, u) = first, second
        chosen = choose(x, y)
        return chosen, lax.add(lax.mul(share(x, y, chosen), t), lax.mul(share(y, x, chosen), u))

    def push(t: Array, x: Array, *, axis: int, reverse: bool) -> Array:
        return lax.associative_scan(then, (x, t), reverse, axis)[1]

    return push


pushforward(lax.cummax_p, cumulative_choice(lax.max), saves=scanned(lax.max))
pushforward(lax.cummin_p, cumulative_choice(lax.min), saves=scanned(lax.min))
