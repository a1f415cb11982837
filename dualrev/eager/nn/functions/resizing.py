"""Resizing of images and other grids, and the exchange of resolution for channels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.functions.adaptive_pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

#: The number of spatial dimensions of the modes that take only one.
_DIMENSIONS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}


def _positions(n: int, size: int, scale: float | None, corners: bool, cubic: bool) -> np.ndarray:
    """Where the entries of the output stand in the input, as real indices."""
    i = np.arange(size, dtype=np.float64)
    if corners:
        return i * ((n - 1) / (size - 1) if size > 1 else 0.0)
    place = (i + 0.5) * (1 / scale if scale else n / size) - 0.5
    return place if cubic else np.maximum(place, 0)


def _keys(t: np.ndarray, a: float) -> np.ndarray:
    """The kernel of cubic convolution [Key81, eq. 15], with the parameter ``a``."""
    t = np.abs(t)
    return np.where(t <= 1, ((a + 2) * t - (a + 3)) * t * t + 1, np.where(t < 2, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a, 0))


def _smooth(n: int, size: int, scale: float | None, corners: bool, cubic: bool) -> np.ndarray:
    """The weights of an antialiasing filter, whose width grows with the step: a matrix of (output, input)."""
    step = ((n - 1) / (size - 1) if size > 1 else 0.0) if corners else 1 / scale if scale else n / size
    support = (2 if cubic else 1) * max(step, 1.0)
    weights = np.zeros((size, n))
    for i in range(size):
        centre = step * (i + 0.5)
        low, high = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), n)
        t = (np.arange(low, high) - centre + 0.5) / max(step, 1.0)
        w = _keys(t, -0.5) if cubic else np.maximum(1 - np.abs(t), 0)
        weights[i, low: high] = w / w.sum()
    return weights


@functools.lru_cache(256)
def _taps(n: int, size: int, scale: float | None, mode: str, corners: bool) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """The entries that each entry of the output is made of: indices, with weights."""
    if mode in ("nearest", "nearest-exact"):
        # PyTorch computes in float32, and its rounding decides which entry is taken.
        step = np.float32(1 / scale) if scale else np.float32(n) / np.float32(size)
        i = np.arange(size, dtype=np.float32) + np.float32(0.5 if mode == "nearest-exact" else 0)
        return [(np.minimum(np.floor(i * step).astype(np.int64), n - 1), None)]
    cubic = mode == "bicubic"
    place = _positions(n, size, scale, corners, cubic)
    low = np.floor(place).astype(np.int64)
    t = place - low
    if cubic:
        return [(np.clip(low + k, 0, n - 1), _keys(t - k, -0.75)) for k in (-1, 0, 1, 2)]
    low = np.minimum(low, n - 1)
    return [(low, 1 - t), (np.minimum(low + 1, n - 1), t)]


def _resized_of(x: jax.Array, sizes: tuple[int, ...], scales: tuple[float | None, ...], mode: str, corners: bool,
                antialias: bool) -> jax.Array:
    """One dimension after the other."""
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        dim = x.ndim - len(sizes) + i
        n = x.shape[dim]
        if antialias:
            weights = jnp.asarray(_smooth(n, size, scale, corners, mode == "bicubic"), x.dtype)
            x = jnp.moveaxis(jnp.tensordot(x, weights, ((dim,), (1,))), -1, dim)
            continue
        shape = [size if d == dim else 1 for d in range(x.ndim)]
        parts = [jnp.take(x, index, dim) if w is None else jnp.take(x, index, dim) * jnp.asarray(w.reshape(shape), x.dtype)
                 for index, w in _taps(n, size, scale, mode, corners)]
        x = functools.reduce(jnp.add, parts)
    return x


_NAMES = {"nearest": "Nearest{}D", "nearest-exact": "NearestExact{}D", "linear": "Linear1D", "bilinear": "Bilinear2D",
          "bicubic": "Bicubic2D", "trilinear": "Trilinear3D"}
_resized = {(mode, n): family("Upsample" + name.format(n), _resized_of) for mode, name in _NAMES.items() for n in (1, 2, 3)}


def interpolate(input: Tensor, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None,  # noqa: A002
                mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Resize (batch, channels, ...) to a size, or by a factor.

    ``mode``: "nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic" or "area", which takes means.  With
    ``align_corners`` the first and the last entries stay where they are.
    """
    if mode in ("nearest", "area", "nearest-exact") and align_corners is not None:
        raise ValueError("align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | trilinear")
    n, inside = input.ndim - 2, input.shape[2:]
    sizes, scales = _wanted(size, scale_factor, list(inside), n)
    if recompute_scale_factor and size is not None:
        raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    if antialias and not (mode in ("bilinear", "bicubic") and input.ndim == 4):
        raise ValueError("Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor as input")
    if n not in (1, 2, 3) or mode not in (*_NAMES, "area") or (mode == "bicubic" and n != 2):
        raise NotImplementedError(f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {input.ndim}D) for the modes: nearest "
                                  f"| linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact (got {mode})")
    if n != _DIMENSIONS.get(mode, n):
        raise NotImplementedError(f"Got {input.ndim}D input, but {mode} mode needs {_DIMENSIONS[mode] + 2}D input")
    if any(s <= 0 for s in (*sizes, *inside)):
        raise RuntimeError(f"Input and output sizes should be greater than 0, but got input ({', '.join(map(str, inside))}) output "
                           f"({', '.join(map(str, sizes))})")
    if mode == "area":
        if n == 1:
            return adaptive_avg_pool1d(input, sizes[0])
        return (adaptive_avg_pool2d if n == 2 else adaptive_avg_pool3d)(input, sizes)
    given = (None,) * n if recompute_scale_factor else scales
    return apply(_resized[mode, n](sizes, given, mode, bool(align_corners), antialias), (input,))


def _wanted(size: Sizes | None, scale_factor: float | Sequence[float] | None, inside: list[int], n: int
            ) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The sizes of the output, and the factors if these were given."""
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    hint = "Please provide input tensor in (N, C, d1, d2, ...,dK) format and "
    if size is not None:
        if not isinstance(size, int) and len(size) != n:
            raise ValueError("Input and output must have the same number of spatial dimensions, but got input with spatial dimensions "
                             f"of {inside} and output size of {size}. {hint}output size in (o1, o2, ...,oK) format.")
        return (size,) * n if isinstance(size, int) else tuple([int(s) for s in size]), (None,) * n
    if scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if isinstance(scale_factor, (list, tuple)) and len(scale_factor) != n:
        raise ValueError("Input and scale_factor must have the same number of spatial dimensions, but got input with spatial "
                         f"dimensions of {inside} and scale_factor of shape {scale_factor}. {hint}scale_factor in "
                         "(s1, s2, ...,sK) format.")
    factors: tuple[Any, ...] = tuple(scale_factor) if isinstance(scale_factor, (list, tuple)) else (scale_factor,) * n
    return tuple([math.floor(s * f) for s, f in zip(inside, factors, strict=True)]), tuple([float(f) for f in factors])


def upsample(input: Tensor, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None,  # noqa: A002
             mode: str = "nearest", align_corners: bool | None = None) -> Tensor:
    """As :func:`interpolate`, of which older programs use this name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None) -> Tensor:  # noqa: A002
    """``interpolate`` by repetition of entries."""
    return interpolate(input, size, scale_factor)


def upsample_bilinear(input: Tensor, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None) -> Tensor:  # noqa: A002
    """Bilinear ``interpolate``, with aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


# --------------------------------------------------------------------------------------------------- resolution and channels

def _shuffled_of(x: jax.Array, r: int) -> jax.Array:
    *lead, c, h, w = x.shape
    x = x.reshape(*lead, c // (r * r), r, r, h, w)
    return jnp.moveaxis(x, (-4, -3), (-3, -1)).reshape(*lead, c // (r * r), h * r, w * r)


def _unshuffled_of(x: jax.Array, r: int) -> jax.Array:
    *lead, c, h, w = x.shape
    x = x.reshape(*lead, c, h // r, r, w // r, r)
    return jnp.moveaxis(x, (-3, -1), (-4, -3)).reshape(*lead, c * r * r, h // r, w // r)


_shuffled, _unshuffled = family("PixelShuffle", _shuffled_of), family("PixelUnshuffle", _unshuffled_of)
_channels = family("ChannelShuffle", lambda x, groups: jnp.swapaxes(
    x.reshape(x.shape[0], groups, -1, *x.shape[2:]), 1, 2).reshape(x.shape))


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:  # noqa: A002
    """Groups of ``r * r`` channels as images of ``r`` times the resolution."""
    if input.ndim < 3:
        raise RuntimeError(f"pixel_shuffle expects input to have at least 3 dimensions, but got input with {input.ndim} dimension(s)")
    if upscale_factor <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {upscale_factor}")
    if input.shape[-3] % upscale_factor ** 2:
        raise RuntimeError("pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, but "
                           f"input.size(-3)={input.shape[-3]} is not divisible by {upscale_factor ** 2}")
    return apply(_shuffled(upscale_factor), (input,))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:  # noqa: A002
    """Images as ``r * r`` channels of lower resolution: the inverse of :func:`pixel_shuffle`."""
    if input.ndim < 3:
        raise RuntimeError(f"pixel_unshuffle expects input to have at least 3 dimensions, but got input with {input.ndim} dimension(s)")
    if downscale_factor <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {downscale_factor}")
    for name, size, dim in (("height", input.shape[-2], -2), ("width", input.shape[-1], -1)):
        if size % downscale_factor:
            raise RuntimeError(f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but input.size({dim})={size} is "
                               f"not divisible by {downscale_factor}")
    return apply(_unshuffled(downscale_factor), (input,))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:  # noqa: A002
    """The channels of (batch, channels, ...) in another order: the first of each group, then the second, ..."""
    if input.ndim < 3:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(input.shape)}")
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if input.shape[1] % groups:
        raise RuntimeError("Number of channels must be divisible by groups. Got "
                           f"{input.shape[1]} channels and {groups} groups.")
    return apply(_channels(groups), (input,))
