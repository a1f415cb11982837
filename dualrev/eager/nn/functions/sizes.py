"""Sizes of windows, one number for all dimensions or one for each."""

from __future__ import annotations

from typing import Any


def tuple_of(x: Any, n: int) -> tuple[int, ...]:
    """A size for each of ``n`` dimensions."""
    return (x,) * n if isinstance(x, int) else tuple(x)
