"""Padding with a number, or with entries of the tensor itself."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.precision import full_precision

_pad = family("ConstantPadNd", lambda x, value, pads: lax.pad(x, jnp.asarray(value).astype(x.dtype), [(a, b, 0) for a, b in pads]))


def _indices(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """The index of each entry of a padded dimension of size ``n``."""
    i = np.arange(-before, n + after)
    if mode == "reflect":
        return np.where(i < 0, -i, np.where(i >= n, 2 * (n - 1) - i, i))
    if mode == "circular":  # what negative numbers cut is gone before it starts again
        low, high = max(-before, 0), n - max(-after, 0)
        return low + (i - low) % (high - low)
    return np.clip(i, 0, n - 1)


def _taken_of(x: jax.Array, pads: tuple[tuple[int, int], ...], mode: str) -> jax.Array:
    for k, (before, after) in enumerate(pads):
        dim = x.ndim - len(pads) + k
        if before or after:
            x = jnp.take(x, _indices(x.shape[dim], before, after, mode), dim)
    return x


_taken = {mode: family(f"{name}PadNd", _taken_of) for mode, name in (
    ("reflect", "Reflection"), ("replicate", "Replication"), ("circular", "Circular"))}


#: Padding with entries of the input is computed in float32 under ``autocast``.
_single = full_precision(apply)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:  # noqa: A002
    """Pad the last dimensions; ``pad`` lists (before, after) from the last dimension on, and negative numbers cut.

    ``mode``: "constant" pads with a number; "reflect" mirrors at the last entry, "replicate" repeats it, "circular" starts again at
    the other end.

    >>> from dualrev import eager as torch
    >>> torch.nn.functional.pad(torch.tensor([[1, 2, 3]]), (2, 1), mode="reflect")
    tensor([[3, 2, 1, 2, 3, 2]])
    """
    if len(pad) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(pad) // 2 > input.ndim:
        raise RuntimeError("Padding length should be less than or equal to two times the input dimension but got padding length "
                           f"{len(pad)} and input of dimension {input.ndim}")
    pads = [(int(pad[i]), int(pad[i + 1])) for i in range(len(pad) - 2, -1, -2)]
    if mode != "constant" and mode not in _taken:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    sizes = input.shape[input.ndim - len(pads):]
    if mode == "constant":
        lead = input.ndim - len(pads)
        if any(n + a + b < 0 for n, (a, b) in zip(sizes, pads, strict=True)):
            raise RuntimeError(f"narrow(): length must be non-negative.\nthe sizes {list(sizes)} are cut by {pads}")
        return apply(_pad((*[(0, 0)] * lead, *pads)), (input, 0.0 if value is None else value))
    if value is not None and value != 0:
        raise RuntimeError(f"Padding mode \"{mode}\" doesn't take in value argument")
    if not pads or input.ndim not in (len(pads) + 1, len(pads) + 2) or len(pads) > 3:
        raise NotImplementedError(f"Padding size {len(pad)} is not supported for {input.ndim}D input tensor.")
    for i, (n, (a, b)) in enumerate(zip(sizes, pads, strict=True)):
        dim = input.ndim - len(pads) + i
        if mode == "reflect" and (a >= n or b >= n):
            raise RuntimeError("Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
                               f"({a}, {b}) at dimension {dim} of input {list(input.shape)}")
        if mode == "circular" and (a > n or b > n):
            raise RuntimeError("Padding value causes wrapping around more than once.")
    return (apply if mode == "circular" else _single)(_taken[mode](tuple(pads), mode), (input,))
