"""Checks of dtypes, shapes and indices, whose errors are in PyTorch's words."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from dualrev.eager.core.dtypes import cpp_name, type_name
from dualrev.eager.core.evaluation import is_on_host


def same_dtype(a: jax.Array, b: jax.Array, message: str) -> None:
    """Refuse two arrays of different dtypes; the message is formatted with both."""
    if a.dtype != b.dtype:
        raise RuntimeError(message.format(cpp_name(a.dtype), cpp_name(b.dtype), A=type_name(a.dtype), B=type_name(b.dtype))
                           + "\nconvert one: x.to(y.dtype), x.float(), model.double()")


def square(a: jax.Array, name: str) -> jax.Array:
    """The argument, if it is a square matrix or a batch of them."""
    if a.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.\nthe shape is {list(a.shape)}")
    if a.shape[-1] != a.shape[-2]:
        raise RuntimeError(f"{name}: A must be batches of square matrices, but they are {a.shape[-2]} by {a.shape[-1]} matrices")
    return a


def broadcast(*arrays: jax.Array) -> None:
    """Refuse shapes that do not broadcast, naming the first two that differ."""
    shapes = [getattr(x, "shape", ()) for x in arrays]
    n = max(map(len, shapes))
    for i in range(n - 1, -1, -1):
        sizes = [s[i - n + len(s)] for s in shapes if i - n + len(s) >= 0]
        known = [k for k in sizes if k != 1]
        if any(k != known[0] for k in known):
            other = next(k for k in known if k != known[0])
            raise RuntimeError(f"The size of tensor a ({known[0]}) must match the size of tensor b ({other}) at non-singleton "
                               f"dimension {i}\nthe shapes are {', '.join(str(list(s)) for s in shapes)}")


def first_outside(index: jax.Array, size: int, low: int = 0, ignore: int | None = None) -> int | None:
    """The first index outside ``low`` to ``size - 1``, except ``ignore``, or None; jax itself would clamp it.

    Indices that are traced, or on another device than the CPU, are not checked.
    """
    if not is_on_host(index) or index.size == 0:
        return None
    values = np.asarray(index)
    least, most = values.min(), values.max()
    if low <= least and most < size:
        return None
    wrong = values[(values != ignore) & ((values < low) | (values >= size))]
    return int(wrong[0]) if wrong.size else None


def fitting(arrays: Sequence[jax.Array], dim: int) -> list[jax.Array]:
    """The arrays to concatenate along a dimension, if they fit, without those of shape ``(0,)``, which PyTorch ignores."""
    first = next((x for x in arrays if x.shape != (0,)), arrays[0])
    for i, x in enumerate(arrays):
        if x.ndim != first.ndim and x.shape != (0,):
            raise RuntimeError(f"Tensors must have same number of dimensions: got {first.ndim} and {x.ndim}\n"
                               f"the shapes are {[list(a.shape) for a in arrays]}")
        for d in range(x.ndim):
            if d != dim and x.shape[d] != first.shape[d]:
                raise RuntimeError(f"Sizes of tensors must match except in dimension {dim}. Expected size {first.shape[d]} but got "
                                   f"size {x.shape[d]} for tensor number {i} in the list.\nthe shapes are "
                                   f"{[list(a.shape) for a in arrays]}")
    return [x for x in arrays if x.ndim == first.ndim]


def expands(given: Sequence[int], old: Sequence[int], array: jax.Array) -> None:
    """Refuse sizes to which an array cannot be broadcast."""
    if len(given) < array.ndim:
        raise RuntimeError(f"expand({type_name(array.dtype)}Tensor{{{list(array.shape)}}}, size={list(given)}): the "
                           f"number of sizes provided ({len(given)}) must be greater or equal to the number of dimensions in the "
                           f"tensor ({array.ndim})")
    for i, (s, o) in reversed(list(enumerate(zip(given, old, strict=True)))):
        if o not in (1, s) and s != -1:
            raise RuntimeError(f"The expanded size of the tensor ({s}) must match the existing size ({o}) at non-singleton dimension "
                               f"{i}.  Target sizes: {list(given)}.  Tensor sizes: {list(array.shape)}")
