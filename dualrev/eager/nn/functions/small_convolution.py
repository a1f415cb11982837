"""Convolutions with few output positions, as one matrix product.

XLA's convolution on CPUs takes ten times as long where the kernel hardly fits into the image, as in the last blocks of a ResNet.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp

#: The largest number of output positions.
PLACES = 64


def is_small(image: tuple[int, ...], kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether a convolution is computed as a matrix product."""
    if groups != 1 or isinstance(padding, str) or jax.default_backend() != "cpu" or math.prod(kernel) == 1:
        return False
    sizes = _sizes(image, kernel, stride, padding, dilation)
    return min(sizes) > 0 and math.prod(sizes) <= PLACES


def _sizes(image: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True)]


def small_of(x: Any, w: Any, *rest: Any) -> Any:
    """The patches of the input, as columns, times the kernel."""
    *bias, stride, padding, dilation, _ = rest
    kernel, n = w.shape[2:], len(stride)
    sizes = _sizes(x.shape[2:], kernel, stride, padding, dilation)
    x = jnp.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    patches = []
    for offsets in itertools.product(*[range(k) for k in kernel]):
        starts = [o * d for o, d in zip(offsets, dilation, strict=True)]
        stops = [a + s * (size - 1) + 1 for a, s, size in zip(starts, stride, sizes, strict=True)]
        patches.append(x[(slice(None), slice(None), *[slice(*part) for part in zip(starts, stops, stride, strict=True)])])
    columns = jnp.stack(patches, 2)
    out = jnp.moveaxis(jnp.tensordot(w.reshape(*w.shape[:2], -1), columns, ((1, 2), (1, 2))), 0, 1)
    return out + bias[0].reshape(-1, *(1,) * n) if bias else out
