"""Images sampled at the points of a grid, and grids of affine maps."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of


def _inside(x: jax.Array, n: int, padding: str, corners: bool) -> jax.Array:
    """Coordinates moved into the image, where the padding asks for it; the derivative is zero where they are cut off."""
    if padding == "zeros":
        return x
    if padding == "reflection":
        low, high = (0.0, n - 1.0) if corners else (-0.5, n - 0.5)
        if low == high:
            return jnp.zeros_like(x)
        x = jnp.where(x < low, low - x, x - low)
        flips = lax.stop_gradient(jnp.floor(x / (high - low)))
        rest = x - flips * (high - low)
        x = jnp.where(flips % 2 == 0, rest + low, high - rest)
    return jnp.where(x <= 0, 0, jnp.where(x >= n - 1, n - 1, x)).astype(x.dtype)


def _at(x: jax.Array, places: Sequence[jax.Array], padding: str) -> jax.Array:
    """The entries of (batch, channels, ...) at whole coordinates of (batch, points); zero outside."""
    inside = x.shape[2:]
    index: jax.Array = jnp.zeros(places[0].shape, dtypes.long_dtype())
    valid: jax.Array = jnp.ones(places[0].shape, bool)
    for place, n in zip(places, inside, strict=True):
        valid = valid & (place >= 0) & (place <= n - 1)
        index = index * n + jnp.clip(place, 0, n - 1).astype(dtypes.long_dtype())
    found = jnp.take_along_axis(x.reshape(*x.shape[:2], -1), index[:, None], 2)
    return jnp.where(valid[:, None], found, 0)


def _cubic(t: jax.Array) -> list[jax.Array]:
    """The weights of four neighbours [Key81, eq. 15], with the parameter -3/4."""
    a = -0.75

    def near(s: jax.Array) -> jax.Array:
        return ((a + 2) * s - (a + 3)) * s * s + 1

    def far(s: jax.Array) -> jax.Array:
        return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _sampled_of(x: jax.Array, grid: jax.Array, mode: str, padding: str, corners: bool) -> jax.Array:
    inside, n = x.shape[2:], x.ndim - 2
    flat = grid.reshape(grid.shape[0], -1, n)
    # The last coordinate of a point is that of the first dimension.
    points = [(flat[..., n - 1 - i] + 1) / 2 * (m - 1) if corners else ((flat[..., n - 1 - i] + 1) * m - 1) / 2
              for i, m in enumerate(inside)]
    if mode != "bicubic":
        points = [_inside(p, m, padding, corners) for p, m in zip(points, inside, strict=True)]
    if mode == "nearest":
        out = _at(x, [lax.stop_gradient(jnp.round(p)) for p in points], padding)
    else:
        lows = [lax.stop_gradient(jnp.floor(p)) for p in points]
        steps = [0, 1] if mode == "bilinear" else [-1, 0, 1, 2]
        fractions = [p - low for p, low in zip(points, lows, strict=True)]
        weights = [[1 - t, t] if mode == "bilinear" else _cubic(t) for t in fractions]
        out = jnp.zeros((*x.shape[:2], flat.shape[1]), x.dtype)
        for which in itertools.product(range(len(steps)), repeat=n):
            places = [low + steps[k] for low, k in zip(lows, which, strict=True)]
            if mode == "bicubic":
                places = [_inside(p, m, padding, corners) for p, m in zip(places, inside, strict=True)]
            weight = math.prod([w[k] for w, k in zip(weights, which, strict=True)][1:], start=weights[0][which[0]])
            out = out + _at(x, places, padding) * weight[:, None]
    return out.reshape(*x.shape[:2], *grid.shape[1:-1])


_sampled = {n: family(f"GridSampler{n}D", _sampled_of) for n in (2, 3)}


def _corners(given: bool | None) -> bool:
    if given is None:
        warnings.warn("Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please specify "
                      "align_corners=True if the old behavior is desired. See the documentation of grid_sample for details.",
                      stacklevel=3)
    return bool(given)


def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",  # noqa: A002
                align_corners: bool | None = None) -> Tensor:
    """Sample (batch, channels, ...) at points from -1 to 1, which the last dimension of ``grid`` lists as (x, y) or (x, y, z).

    ``mode``: "bilinear", "nearest" or "bicubic"; ``padding_mode`` says what stands outside: "zeros", "border" or "reflection".
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError("nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
                         f"'{padding_mode}'")
    corners = _corners(align_corners)
    if array_of(input).dtype != array_of(grid).dtype:
        raise RuntimeError("grid_sampler(): expected input and grid to have same dtype, but input has "
                           f"{array_of(input).dtype} and grid has {array_of(grid).dtype}")
    if input.shape[0] != grid.shape[0]:
        raise RuntimeError("grid_sampler(): expected grid and input to have same batch size, but got input with sizes "
                           f"{list(input.shape)} and grid with sizes {list(grid.shape)}")
    if grid.shape[-1] != input.ndim - 2:
        raise RuntimeError(f"grid_sampler(): expected grid to have size {input.ndim - 2} in last dimension, but got grid with sizes "
                           f"{list(grid.shape)}")
    if input.ndim not in (4, 5) or input.ndim != grid.ndim:
        wanted = f"{input.ndim}D" if input.ndim in (4, 5) else "4D or 5D"
        raise RuntimeError(f"grid_sampler(): expected {wanted} input and grid with same number of dimensions, but got input with sizes "
                           f"{list(input.shape)} and grid with sizes {list(grid.shape)}")
    if mode == "bicubic" and input.ndim == 5:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    return apply(_sampled[input.ndim - 2](mode, padding_mode, corners), (input, grid))


def _affine_of(theta: jax.Array, inside: tuple[int, ...], corners: bool) -> jax.Array:
    lines = [np.linspace(-1, 1, n) * (1 if corners else (n - 1) / n) if n > 1 else np.zeros(1) for n in inside]
    points = [*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(inside)]
    return jnp.einsum("...k,nik->n...i", jnp.asarray(np.stack(points, -1), theta.dtype), theta)


_affine = family("AffineGridGenerator", _affine_of)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The points of an image of a size, (batch, channels, ...), under affine maps of (batch, n, n + 1): a grid for ``grid_sample``."""
    corners = _corners(align_corners)
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    n = len(size) - 2
    if n not in (2, 3):
        raise NotImplementedError("affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size "
                                  f"{size}.")
    if theta.ndim != 3 or tuple(theta.shape[1:]) != (n, n + 1):
        raise ValueError(f"Expected a batch of {n}D affine matrices of shape Nx{n}x{n + 1} for size {size}. Got {theta.shape}.")
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    return apply(_affine(tuple([int(m) for m in size[2:]]), corners), (theta,))
