"""Sliding windows of images as columns, and columns added up to images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.functions.pooling import out_size
from dualrev.eager.nn.functions.sizes import tuple_of


def _counts(image: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...],
            stride: tuple[int, ...]) -> list[int]:
    """The number of windows along each dimension."""
    return [out_size(n, k, s, p, d, False) for n, k, d, p, s in zip(image, kernel, dilation, padding, stride, strict=True)]


def _parts(counts: list[int], kernel: tuple[int, ...], dilation: tuple[int, ...], stride: tuple[int, ...]
           ) -> Iterator[tuple[slice, ...]]:
    """For each entry of a window, where all windows have it in the padded image."""
    for offsets in itertools.product(*[range(k) for k in kernel]):
        yield tuple([slice(o * d, o * d + s * (m - 1) + 1, s) for o, d, s, m in zip(offsets, dilation, stride, counts, strict=True)])


def _unfolded_of(x: jax.Array, kernel: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...], stride: tuple[int, ...]
                 ) -> jax.Array:
    counts = _counts(x.shape[-2:], kernel, dilation, padding, stride)
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(p, p) for p in padding])
    patches = jnp.stack([x[(..., *part)] for part in _parts(counts, kernel, dilation, stride)], -3)
    return patches.reshape(*x.shape[:-3], x.shape[-3] * math.prod(kernel), math.prod(counts))


def _folded_of(x: jax.Array, image: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...],
               stride: tuple[int, ...]) -> jax.Array:
    counts = _counts(image, kernel, dilation, padding, stride)
    channels = x.shape[-2] // math.prod(kernel)
    x = x.reshape(*x.shape[:-2], channels, math.prod(kernel), *counts)
    out = jnp.zeros((*x.shape[:-3], *[n + 2 * p for n, p in zip(image, padding, strict=True)]), x.dtype)
    for i, part in enumerate(_parts(counts, kernel, dilation, stride)):
        out = out.at[(..., *part)].add(x[..., i, :, :])
    return out[(..., *[slice(p, p + n) for n, p in zip(image, padding, strict=True)])]


_unfolded, _folded = family("Im2Col", _unfolded_of), family("Col2Im", _folded_of)


def unfold(input: Tensor, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:  # noqa: A002
    """The windows of (batch, channels, height, width) as columns: (batch, channels * window, windows)."""
    if input.ndim not in (3, 4):
        raise RuntimeError(f"Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
                           f"but got: {list(input.shape)}")
    k, d, p, s = (tuple_of(value, 2) for value in (kernel_size, dilation, padding, stride))
    counts = _counts(input.shape[-2:], k, d, p, s)
    if min(counts) < 1:
        raise RuntimeError(f"Given input with spatial size ({input.shape[-2]}, {input.shape[-1]}), kernel_size=({k[0]}, {k[1]}), "
                           f"dilation=({d[0]}, {d[1]}), padding=({p[0]}, {p[1]}), calculated shape of the array of "
                           f"sliding blocks as ({counts[0]}, {counts[1]}), but its components must be at least one.")
    return apply(_unfolded(k, d, p, s), (input,))


def fold(input: Tensor, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:  # noqa: A002
    """Columns added up to (batch, channels, height, width): the transpose of :func:`unfold`."""
    if input.ndim not in (2, 3):
        raise RuntimeError(f"Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for "
                           f"input, but got: {list(input.shape)}")
    size, k, d, p, s = (tuple_of(value, 2) for value in (output_size, kernel_size, dilation, padding, stride))
    if input.shape[-2] % math.prod(k):
        raise RuntimeError("Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got input.size(1)="
                           f"{input.shape[-2]} and kernel_size=({k[0]}, {k[1]}).")
    counts = _counts(size, k, d, p, s)
    if input.shape[-1] != math.prod(counts):
        raise RuntimeError(f"Given output_size=({size[0]}, {size[1]}), kernel_size=({k[0]}, {k[1]}), dilation=({d[0]}, {d[1]}), "
                           f"padding=({p[0]}, {p[1]}), stride=({s[0]}, {s[1]}), expected size of input's dimension 2 to match the "
                           f"calculated number of sliding blocks {counts[0]} * {counts[1]} = {math.prod(counts)}, but got "
                           f"input.size(2)={input.shape[-1]}.")
    return apply(_folded(size, k, d, p, s), (input,))
