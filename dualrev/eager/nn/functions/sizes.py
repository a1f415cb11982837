"""Sizes of windows, one number for all dimensions or one for each."""

from __future__ import annotations

from dualrev.eager.core.annotations import Sizes


def tuple_of(x: Sizes, n: int) -> tuple[int, ...]:
    """A size for each of ``n`` dimensions."""
    return (x,) * n if isinstance(x, int) else tuple(x)
