"""Entries combined at places of an array: sums, means, products, extremes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes

Places = tuple[Any, ...]


def reduced(x: jax.Array, places: Places, src: jax.Array, reduce: str, include_self: bool) -> jax.Array:
    """The entries at places combined with sources, and with what stands there unless ``include_self`` is false."""
    neutral: Any = {"sum": 0, "mean": 0, "prod": 1}.get(reduce)
    if neutral is None:
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        least, most = (-jnp.inf, jnp.inf) if is_float else (jnp.iinfo(x.dtype).min, jnp.iinfo(x.dtype).max)
        neutral = least if reduce == "amax" else most
    hits = jnp.zeros(x.shape, dtypes.long_dtype()).at[places].add(1)
    start = x if include_self else jnp.where(hits > 0, jnp.asarray(neutral, x.dtype), x)
    if reduce == "sum":
        return start.at[places].add(src)
    if reduce == "mean":
        total, count = start.at[places].add(src), jnp.maximum(hits + include_self * (hits > 0), 1)
        return total // count.astype(x.dtype) if x.dtype.kind in "iu" else total / count.astype(x.dtype)
    if reduce == "prod":
        return _products(start, places, src)
    still, given = jax.lax.stop_gradient(start), jax.lax.stop_gradient(src)
    best = still.at[places].max(given) if reduce == "amax" else still.at[places].min(given)
    if x.dtype.kind in "iub":
        return best
    # All that are equal to the result share the gradient.
    equal = jax.lax.stop_gradient(x) == best
    mine = equal & (include_self | (hits == 0))
    theirs = given == best[places]
    n = equal.astype(x.dtype).at[places].add(theirs.astype(x.dtype))
    share = (jnp.where(mine, start, 0).at[places].add(jnp.where(theirs, src, 0))) / jnp.maximum(n, 1)
    return jnp.where(jnp.isfinite(best), best + (share - jax.lax.stop_gradient(share)), best)


def _products(start: jax.Array, places: Places, src: jax.Array) -> jax.Array:
    """Products at places.  Zeros are counted apart, so that the derivative at a single zero is the product of the others."""
    if not jnp.issubdtype(start.dtype, jnp.inexact):
        return start.at[places].multiply(src)
    still, given = jax.lax.stop_gradient(start), jax.lax.stop_gradient(src)
    value = still.at[places].multiply(given)
    mine, theirs = still == 0, given == 0
    zeros = mine.astype(dtypes.long_dtype()).at[places].add(theirs.astype(dtypes.long_dtype()))
    others = jnp.where(mine, 1, still).at[places].multiply(jnp.where(theirs, 1, given))
    # The product without one factor: of those that are not zero where no other is, of all others where this one is the only zero.
    rest = jnp.where(mine, jnp.where(zeros == 1, others, 0), jnp.where(zeros == 0, others / jnp.where(mine, 1, still), 0))
    at = others[places]
    n = zeros[places]
    rest_src = jnp.where(theirs, jnp.where(n == 1, at, 0), jnp.where(n == 0, at / jnp.where(theirs, 1, given), 0))
    change = (rest * (start - still)).at[places].add(rest_src * (src - given))
    return value + change
