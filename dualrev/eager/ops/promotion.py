"""Broadcasting and promotion of two operands, as PyTorch has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Number


def broadcasting(fun: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of two arrays, promoted as PyTorch does; shapes that do not broadcast are refused in its words."""
    def checked(x: Number, y: Number) -> jax.Array:
        a, b = getattr(x, "shape", ()), getattr(y, "shape", ())
        n = max(len(a), len(b))
        sizes = list(enumerate(zip((1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b, strict=True)))
        for i, (m, k) in reversed(sizes):
            if m != k and 1 not in (m, k):
                raise RuntimeError(f"The size of tensor a ({m}) must match the size of tensor b ({k}) at non-singleton dimension {i}\n"
                                   f"the shapes are {list(a)} and {list(b)}")
        return fun(*promoted(x, y))

    return checked


def promoted(x: Number, y: Number) -> tuple[Number, Number]:
    """Two operands, promoted where PyTorch's promotion differs from jax's.

    A Python float makes an integer tensor the default float, and a tensor without dimensions does not widen one with dimensions.
    """
    return _fitted(x, y), _fitted(y, x)


def _alike(kind: str, other: str) -> bool:
    """Whether both are real floats, of which numpy calls narrow ones V, or both complex."""
    return (kind == "c") == (other == "c") and other in "fcV"


def _fitted(a: Any, b: Any) -> Number:
    """One operand, promoted beside the other."""
    if not hasattr(a, "dtype"):
        return a
    kind, is_number = a.dtype.kind, isinstance(b, float) or (getattr(b, "weak_type", False) and b.dtype.kind == "f")
    if kind in "biu" and is_number:
        return a.astype(dtypes.get_default_dtype().numpy)
    if kind in "biu" and getattr(getattr(b, "dtype", None), "kind", "b") in "fcV":
        return a.astype(b.dtype)
    if kind in "iu" and getattr(b, "ndim", 0) > a.ndim == 0 and not getattr(a, "weak_type", False) and b.dtype.kind in "iu":
        return a.astype(b.dtype)
    if kind in "fcV" and getattr(b, "ndim", 0) > a.ndim == 0 and not getattr(a, "weak_type", False) and _alike(kind, b.dtype.kind):
        return a.astype(b.dtype)
    return a
