"""The reduction of a loss: its mean, its sum, or neither."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp


def reduced(x: jax.Array, reduction: str) -> jax.Array:
    """The losses of the entries, reduced."""
    if reduction == "mean":
        return jnp.mean(x)
    if reduction == "sum":
        return jnp.sum(x)
    if reduction == "none":
        return x
    raise ValueError(f"{reduction} is not a valid value for reduction")


def reduction_of(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """The reduction, where two older arguments may say it."""
    if size_average is None and reduce is None:
        return reduction
    found = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce args will be deprecated, please use reduction='{found}' instead.", stacklevel=4)
    return found
