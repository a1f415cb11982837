"""Dimensions as users give them, counted from the front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from dualrev.eager.core.annotations import Dims


def dim_of(dim: int, ndim: int) -> int:
    """A dimension counted from the front.

    Raises:
      IndexError: there is no such dimension.
    """
    bound = max(ndim, 1)
    if not -bound <= dim < bound:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], but got {dim})")
    return dim % bound


def dims_of(dim: Dims, ndim: int) -> tuple[int, ...] | None:
    """Dimensions counted from the front; None is all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return None
    dims = tuple([dim_of(d, ndim) for d in (dim if isinstance(dim, (list, tuple)) else (dim,))])
    return dims if ndim else None


def of_vectors(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function ``(x, dim, ...)`` of arrays, for which an array without dimensions is a vector of one entry."""
    def of(x: jax.Array, dim: int | None, *rest: Any) -> Any:
        if x.ndim or dim is None:
            return fun(x, dim, *rest)
        return jax.tree.map(lambda y: y.reshape(()), fun(x.reshape(1), dim, *rest))

    return of
