"""Dimensions as users give them, counted from the front."""

from __future__ import annotations

from typing import Any


def dim_of(dim: int, ndim: int) -> int:
    """A dimension counted from the front.

    Raises:
      IndexError: there is no such dimension.
    """
    bound = max(ndim, 1)
    if not -bound <= dim < bound:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], but got {dim})")
    return dim % bound


def dims_of(dim: Any, ndim: int) -> tuple[int, ...] | None:
    """Dimensions counted from the front; None is all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return None
    if isinstance(dim, (list, tuple)):
        return tuple([dim_of(d, ndim) for d in dim])
    return (dim_of(dim, ndim),)
