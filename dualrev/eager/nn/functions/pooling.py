"""Pooling: the largest entry or the mean of windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn.functions.sizes import tuple_of
from dualrev.eager.ops.checks import first_outside


def out_size(n: int, k: int, s: int, p: int, d: int, ceil: bool) -> int:
    """The number of windows along a dimension; with ``ceil`` also one that ends outside, if it starts inside the input."""
    rest = n + 2 * p - d * (k - 1) - 1
    count = (-(-rest // s) if ceil else rest // s) + 1
    return count - 1 if ceil and (count - 1) * s >= n + p else count


def _pads(x: jax.Array, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
          ceil: bool) -> list[tuple[int, int]]:
    """How much is padded before and after each dimension, so that the windows cover all of it."""
    pads = []
    for n, k, s, p, d in zip(x.shape[x.ndim - len(kernel):], kernel, stride, padding, dilation, strict=True):
        end = (out_size(n, k, s, p, d, ceil) - 1) * s + d * (k - 1) + 1
        pads.append((p, max(end - n - p, p)))
    return [(0, 0)] * (x.ndim - len(kernel)) + pads


def _lowest(dtype: np.dtype) -> np.ndarray:
    # A value of numpy's is known also while a program is traced: jax then takes the window's own primitive, which it can differentiate.
    return np.asarray(-jnp.inf if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo(dtype).min, dtype)


def _max_of(x: jax.Array, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
            ceil: bool) -> jax.Array:
    lead = (1,) * (x.ndim - len(kernel))
    return lax.reduce_window(x, _lowest(x.dtype), lax.max, lead + kernel, lead + stride,
                             _pads(x, kernel, stride, padding, dilation, ceil),
                             window_dilation=None if dilation == (1,) * len(kernel) else lead + dilation)


def _argmax_of(x: jax.Array, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
               ceil: bool) -> list[jax.Array]:
    """The largest entries, and their positions in the flattened input; the first of several."""
    n, inside = len(kernel), x.shape[x.ndim - len(kernel):]
    sizes = [out_size(*given, ceil) for given in zip(inside, kernel, stride, padding, dilation, strict=True)]
    wide = lax.pad(x, _lowest(x.dtype), [(a, b, 0) for a, b in _pads(x, kernel, stride, padding, dilation, ceil)])
    patches, places = [], []
    for offsets in itertools.product(*[range(k) for k in kernel]):
        starts = [o * d for o, d in zip(offsets, dilation, strict=True)]
        parts = [slice(a, a + s * (m - 1) + 1, s) for a, s, m in zip(starts, stride, sizes, strict=True)]
        patches.append(wide[(..., *parts)])
        where = np.zeros(sizes, np.int64)
        for i, (a, s, m, p) in enumerate(zip(starts, stride, sizes, padding, strict=True)):
            where = where * inside[i] + np.reshape(a + s * np.arange(m) - p, [m if j == i else 1 for j in range(n)])
        places.append(where)
    stacked = jnp.stack(patches, -1)
    best = jnp.argmax(lax.stop_gradient(stacked), -1)[..., None]
    table = jnp.broadcast_to(jnp.asarray(np.stack(places, -1)), stacked.shape)
    return [jnp.take_along_axis(values, best, -1)[..., 0] for values in (stacked, table)]


def _mean_of(x: jax.Array, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil: bool, with_pad: bool,
             divisor: int | None) -> jax.Array:
    lead, ones = (1,) * (x.ndim - len(kernel)), (1,) * len(kernel)
    pads = _pads(x, kernel, stride, padding, ones, ceil)
    total = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, lead + kernel, lead + stride, pads)
    if divisor is not None or not (ceil or (any(padding) and not with_pad)):
        return total / (divisor or math.prod(kernel))
    counts: Any = 1.0
    for i, (n, k, s, p) in enumerate(zip(x.shape[len(lead):], kernel, stride, padding, strict=True)):
        start = np.arange(total.shape[len(lead) + i]) * s - p
        stop = np.minimum(start + k, n + p)
        size = stop - start if with_pad else np.minimum(stop, n) - np.maximum(start, 0)
        counts = counts * size.reshape([-1 if j == i else 1 for j in range(len(kernel))])
    return total / jnp.asarray(counts, x.dtype)


_max = {n: family(f"MaxPool{n}DWithIndices", _max_of) for n in (1, 2, 3)}
_argmax = {n: family(f"MaxPool{n}DWithIndices", _argmax_of, many=True) for n in (1, 2, 3)}
_mean = {n: family(f"AvgPool{n}D", _mean_of) for n in (1, 2, 3)}


def _check(n: int, name: str, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
           dilation: tuple[int, ...], ceil: bool) -> None:
    """Refuse windows that do not fit."""
    if x.ndim not in (n + 1, n + 2):
        if n == 1:
            raise RuntimeError(f"{name}() Expected 2D or 3D input tensor, but got {list(x.shape)}")
        raise RuntimeError(f"non-empty {n + 1}D or {n + 2}D (batch mode) tensor expected for input\n{name} got {list(x.shape)}")
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if p > (d * (k - 1) + 1) // 2 and name == "max_pool1d":
            raise RuntimeError(f"max_pool1d() padding should be at most half of kernel size, but got padding={p} and kernel_size={k}")
        if p > (d * (k - 1) + 1) // 2:
            raise RuntimeError(f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                               f"dilation={d}")
    sizes = [out_size(*given, ceil) for given in zip(x.shape[-n:], kernel, stride, padding, dilation, strict=True)]
    if min(sizes) < 1:
        if name == "max_pool1d":
            raise RuntimeError(f"max_pool1d() Invalid computed output size: {sizes[0]}")
        channels = f"{x.shape[-n - 1]}" + "x1" * (n == 1)
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        raise RuntimeError(f"Given input size: ({channels}x{'x'.join(map(str, x.shape[-n:]))}). Calculated output size: "
                           f"({channels}x{'x'.join(map(str, sizes))}). Output size is too small\nthe windows span {spans}")


def _largest(n: int, x: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes, ceil_mode: bool,
             return_indices: bool) -> Any:
    """The largest entry of each window over the last ``n`` dimensions."""
    k, pads, holes = (tuple_of(value, n) for value in (kernel_size, padding, dilation))
    steps = k if stride is None or stride == () else tuple_of(stride, n)
    _check(n, f"max_pool{n}d" + "_with_indices" * return_indices, x, k, steps, pads, holes, ceil_mode)
    return apply((_argmax if return_indices else _max)[n](k, steps, pads, holes, ceil_mode), (x,))


def _means(n: int, x: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool, count_include_pad: bool,
           divisor_override: int | None = None) -> Tensor:
    """The mean of each window over the last ``n`` dimensions."""
    k, pads = tuple_of(kernel_size, n), tuple_of(padding, n)
    steps = k if stride is None or stride == () else tuple_of(stride, n)
    _check(n, f"avg_pool{n}d", x, k, steps, pads, (1,) * n, ceil_mode)
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    return apply(_mean[n](k, steps, pads, ceil_mode, count_include_pad, divisor_override), (x,))


def max_pool1d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,  # noqa: A002
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest entry of each window of a sequence; with ``return_indices``, also its position."""
    return _largest(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,  # noqa: A002
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest entry of each window; with ``return_indices``, also its position in the flattened image."""
    return _largest(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,  # noqa: A002
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest entry of each window of a volume; with ``return_indices``, also its position in the flattened volume."""
    return _largest(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _with_indices(n: int) -> Callable[..., Any]:
    def pool(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,  # noqa: A002
             ceil_mode: bool = False, return_indices: bool = True) -> tuple[Tensor, Tensor]:
        return _largest(n, input, kernel_size, stride, padding, dilation, ceil_mode, True)

    pool.__name__, pool.__doc__ = f"max_pool{n}d_with_indices", f"``max_pool{n}d`` with the positions."
    return pool


max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices = (_with_indices(n) for n in (1, 2, 3))


def avg_pool1d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,  # noqa: A002
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window of a sequence."""
    return _means(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,  # noqa: A002
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window."""
    return _means(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,  # noqa: A002
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window of a volume."""
    return _means(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# ------------------------------------------------------------------------------------------------------------- norms, unpooling

def _powers(pool: Callable[..., Tensor], n: int, x: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None,
            ceil_mode: bool) -> Tensor:
    """PyTorch's formula: the sign is that of the sum of powers."""
    total = pool(x.pow(norm_type), kernel_size, stride, 0, ceil_mode)
    return (total.sign() * total.abs().relu() * math.prod(tuple_of(kernel_size, n))).pow(1.0 / norm_type)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False) -> Tensor:  # noqa: A002
    """The norm of each window of a sequence."""
    return _powers(avg_pool1d, 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False) -> Tensor:  # noqa: A002
    """The norm of each window."""
    return _powers(avg_pool2d, 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False) -> Tensor:  # noqa: A002
    """The norm of each window of a volume."""
    return _powers(avg_pool3d, 3, input, norm_type, kernel_size, stride, ceil_mode)


def _unpooled_of(x: jax.Array, index: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    lead = x.shape[: x.ndim - len(sizes)]
    rows, places = x.reshape(math.prod(lead), -1), index.reshape(math.prod(lead), -1)
    out = jnp.zeros((rows.shape[0], math.prod(sizes)), x.dtype).at[jnp.arange(rows.shape[0])[:, None], places].set(rows)
    return out.reshape(*lead, *sizes)


_unpooled = family("MaxUnpool", _unpooled_of)


def _unpool(n: int) -> Callable[..., Tensor]:
    def unpool(input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,  # noqa: A002
               output_size: Sequence[int] | None = None) -> Tensor:
        k, pads = tuple_of(kernel_size, n), tuple_of(padding, n)
        steps = k if stride is None else tuple_of(stride, n)
        sizes = tuple([(m - 1) * s - 2 * p + j for m, s, p, j in zip(input.shape[-n:], steps, pads, k, strict=True)])
        if output_size is not None:
            given = tuple(output_size)[-n:]
            if any(not size - s < m < size + s for m, size, s in zip(given, sizes, steps, strict=True)):
                raise ValueError(f"invalid output_size \"{list(given)}\" (dim 0 must be between "
                                 f"{sizes[0] - steps[0]} and {sizes[0] + steps[0]})")
            sizes = given
        wrong = first_outside(array_of(indices), math.prod(sizes))
        if wrong is not None:
            raise RuntimeError(f"Found an invalid max index: {wrong} (output volumes are of size {'x'.join(map(str, sizes))})")
        return apply(_unpooled(sizes), (input, indices))

    unpool.__name__, unpool.__doc__ = f"max_unpool{n}d", f"Entries back at their positions: the partial inverse of ``max_pool{n}d``."
    return unpool


max_unpool1d, max_unpool2d, max_unpool3d = (_unpool(n) for n in (1, 2, 3))
