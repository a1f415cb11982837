"""Pooling: the largest entry or the mean of windows."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.functions.sizes import tuple_of


def _pool_of(x: Any, kernel: Any, stride: Any, padding: Any, kind: str, dilation: Any = None, ceil: bool = False) -> Any:
    lead = (1,) * (x.ndim - len(kernel))
    pads = [(0, 0)] * len(lead) + [(p, p) for p in padding]
    if kind == "max":
        dilation = dilation or (1,) * len(kernel)
        if ceil:
            # Padding for one more window, where it would start inside the input.
            for i, (k, s, p, d) in enumerate(zip(kernel, stride, padding, dilation, strict=True)):
                n = x.shape[len(lead) + i]
                left = (n + 2 * p - d * (k - 1) - 1) % s
                more = s - left if left and (n + 2 * p - d * (k - 1) - 1) // s * s + s < n + p else 0
                pads[len(lead) + i] = (p, p + more)
        low = -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
        return lax.reduce_window(x, jnp.asarray(low, x.dtype), lax.max, lead + kernel, lead + stride, pads,
                                 window_dilation=None if dilation == (1,) * len(kernel) else lead + dilation)
    total = lax.reduce_window(x, jnp.zeros((), x.dtype), lax.add, lead + kernel, lead + stride, pads)
    size = 1
    for k in kernel:
        size *= k
    return total / size


def _windows_fit(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any = None) -> None:
    n = len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation or (1,) * n, strict=True)]
    if any(s + 2 * p < k for s, p, k in zip(x.shape[-n:], padding, spans, strict=True)):
        sizes = [(s + 2 * p - k) // d + 1 for s, p, k, d in zip(x.shape[-n:], padding, spans, stride, strict=True)]
        channels = "x".join(map(str, x.shape[-n - 1: -n]))
        raise RuntimeError(f"Given input size: ({channels}x{'x'.join(map(str, x.shape[-n:]))}). Calculated output size: "
                           f"({channels}x{'x'.join(map(str, sizes))}). Output size is too small\nthe windows span {spans}")


_max_pool, _avg_pool = family("MaxPool2DWithIndices", _pool_of), family("AvgPool2D", _pool_of)


def _largest(n: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Tensor:
    """The largest entry of each window over the last ``n`` dimensions."""
    k, pads, holes = (tuple_of(value, n) for value in (kernel_size, padding, dilation))
    steps = k if stride is None else tuple_of(stride, n)
    _windows_fit(x, k, steps, pads, holes)
    return apply(_max_pool(k, steps, pads, "max", holes, ceil_mode), (x,))


def _means(n: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any) -> Tensor:
    """The mean of each window over the last ``n`` dimensions."""
    k = tuple_of(kernel_size, n)
    return apply(_avg_pool(k, k if stride is None else tuple_of(stride, n), tuple_of(padding, n), "mean"), (x,))


def max_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,  # noqa: A002
               ceil_mode: bool = False) -> Tensor:
    """The largest entry of each window."""
    return _largest(2, input, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:  # noqa: A002
    """The mean of each window."""
    return _means(2, input, kernel_size, stride, padding)


def _adaptive_of(x: Any, sizes: tuple[int, ...]) -> Any:
    for d, size in enumerate(sizes):
        dim = x.ndim - len(sizes) + d
        n = x.shape[dim]
        bounds = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        x = jnp.concatenate([jnp.mean(lax.slice_in_dim(x, a, b, axis=dim), dim, keepdims=True) for a, b in bounds], dim)
    return x


_adaptive = family("AdaptiveAvgPool2D", _adaptive_of)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:  # noqa: A002
    """Means of windows whose number is the output size."""
    sizes = tuple_of(output_size, 2) if not isinstance(output_size, int) else (output_size, output_size)
    return apply(_adaptive(tuple([input.shape[i - 2] if s is None else s for i, s in enumerate(sizes)])), (input,))


def max_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,  # noqa: A002
               ceil_mode: bool = False) -> Tensor:
    """The largest entry of each window of a sequence."""
    return _largest(1, input, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:  # noqa: A002
    """The mean of each window of a sequence."""
    return _means(1, input, kernel_size, stride, padding)


def adaptive_avg_pool1d(input: Tensor, output_size: int) -> Tensor:  # noqa: A002
    """Means of windows of a sequence whose number is the output size."""
    return apply(_adaptive((output_size,)), (input,))
