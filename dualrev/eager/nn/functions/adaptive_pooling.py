"""Pooling to a given size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor


def _bounds(n: int, size: int) -> list[tuple[int, int]]:
    return [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]


def _windows(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of each window, all of one length, and which of them count: short windows repeat their last entry."""
    bounds = _bounds(n, size)
    width = max(b - a for a, b in bounds)
    return (np.array([[min(a + i, b - 1) for i in range(width)] for a, b in bounds]),
            np.array([[a + i < b for i in range(width)] for a, b in bounds]))


def _means_of(x: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Means along one dimension after the other."""
    for d, size in enumerate(sizes):
        dim = x.ndim - len(sizes) + d
        n = x.shape[dim]
        if n % size == 0:
            x = jnp.mean(x.reshape(*x.shape[:dim], size, n // size, *x.shape[dim + 1:]), dim + 1)
            continue
        index, counts = _windows(n, size)
        values = jnp.where(counts, jnp.moveaxis(x, dim, -1)[..., index], 0)
        x = jnp.moveaxis(jnp.sum(values, -1) / jnp.asarray(counts.sum(1), x.dtype), -1, dim)
    return x


def _largest_of(x: jax.Array, sizes: tuple[int, ...]) -> list[jax.Array]:
    """The largest entries of the windows, and their positions in the flattened input, along one dimension after the other.

    The last dimension goes first, so that of equal entries the first in memory is taken.
    """
    n = len(sizes)
    inside = x.shape[x.ndim - n:]
    place = jnp.broadcast_to(jnp.arange(np.prod(inside, dtype=np.int64)).reshape(inside), x.shape)
    for d in reversed(range(n)):
        dim = x.ndim - n + d
        index, _ = _windows(inside[d], sizes[d])
        values, places = (jnp.moveaxis(jnp.moveaxis(y, dim, -1)[..., index], -2, dim) for y in (x, place))
        best = jnp.argmax(jax.lax.stop_gradient(values), -1)[..., None]
        x, place = (jnp.take_along_axis(y, best, -1)[..., 0] for y in (values, places))
    return [x, place]


_means = {n: family(f"AdaptiveAvgPool{n}D", _means_of) for n in (1, 2, 3)}
_largest = {n: family(f"AdaptiveMaxPool{n}D", _largest_of, many=True) for n in (1, 2, 3)}


def _sizes(name: str, n: int, x: Tensor, given: int | Sequence[int | None]) -> tuple[int, ...]:
    sizes = (given,) * n if isinstance(given, int) else tuple(given)
    if x.ndim not in (n + 1, n + 2):
        raise RuntimeError(f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got {list(x.shape)}")
    return tuple([x.shape[i - n] if s is None else s for i, s in enumerate(sizes)])


def adaptive_avg_pool1d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:  # noqa: A002
    """Means of windows of a sequence whose number is the output size."""
    return apply(_means[1](_sizes("adaptive_avg_pool1d", 1, input, output_size)), (input,))


def _mean_windows(name: str, n: int, x: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    sizes = _sizes(name, n, x, output_size)
    if all(size == 1 for size in sizes):
        return x.mean(tuple(range(-n, 0)), True)  # one node in PyTorch, too
    return apply(_means[n](sizes), (x,))


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:  # noqa: A002
    """Means of windows whose number is the output size."""
    return _mean_windows("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:  # noqa: A002
    """Means of windows of a volume whose number is the output size."""
    return _mean_windows("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: int | Sequence[int], return_indices: bool = False) -> Any:  # noqa: A002
    """The largest entries of windows of a sequence whose number is the output size."""
    values, places = apply(_largest[1](_sizes("adaptive_max_pool1d", 1, input, output_size)), (input,))
    return (values, places) if return_indices else values


def adaptive_max_pool2d(input: Tensor, output_size: int | Sequence[int | None], return_indices: bool = False) -> Any:  # noqa: A002
    """The largest entries of windows whose number is the output size."""
    values, places = apply(_largest[2](_sizes("adaptive_max_pool2d", 2, input, output_size)), (input,))
    return (values, places) if return_indices else values


def adaptive_max_pool3d(input: Tensor, output_size: int | Sequence[int | None], return_indices: bool = False) -> Any:  # noqa: A002
    """The largest entries of windows of a volume whose number is the output size."""
    values, places = apply(_largest[3](_sizes("adaptive_max_pool3d", 3, input, output_size)), (input,))
    return (values, places) if return_indices else values


def _with_indices(pool: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    def with_indices(input: Tensor, output_size: Any, return_indices: bool = True) -> tuple[Tensor, Tensor]:  # noqa: A002
        return pool(input, output_size, True)

    with_indices.__name__, with_indices.__doc__ = f"{pool.__name__}_with_indices", f"``{pool.__name__}`` with the positions."
    return with_indices


adaptive_max_pool1d_with_indices, adaptive_max_pool2d_with_indices, adaptive_max_pool3d_with_indices = (
    _with_indices(pool) for pool in (adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d))
