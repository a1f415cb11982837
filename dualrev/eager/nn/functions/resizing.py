"""Padding, and resizing by repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.functions.sizes import tuple_of

_pad = family("ConstantPadNd", lambda x, pads, value: jnp.pad(x, pads, constant_values=value))


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:  # noqa: A002
    """Pad with one number; ``pad`` lists (before, after) from the last dimension on."""
    if mode != "constant":
        raise NotImplementedError(f"pad with mode='{mode}'\nonly 'constant' is there; concatenate slices instead")
    pads = [(0, 0)] * (input.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    return apply(_pad(tuple(pads), value), (input,))


def _nearest_of(x: Any, sizes: tuple[int, ...]) -> Any:
    for i, size in enumerate(sizes):
        dim = x.ndim - len(sizes) + i
        x = jnp.take(x, jnp.arange(size) * x.shape[dim] // size, dim)
    return x


_nearest = family("UpsampleNearest", _nearest_of)


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest") -> Tensor:  # noqa: A002
    """Resize (batch, channels, ...) by repeating entries."""
    if mode != "nearest":
        raise NotImplementedError(f"interpolate with mode='{mode}'\nonly 'nearest' is there; torch.lift takes jax.image.resize")
    n = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("only one of size or scale_factor should be defined" if size is not None
                         else "either size or scale_factor should be defined")
    if size is not None:
        sizes = tuple_of(size, n)
    else:
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * n
        sizes = tuple([int(s * f) for s, f in zip(input.shape[2:], factors, strict=True)])
    return apply(_nearest(sizes), (input,))
