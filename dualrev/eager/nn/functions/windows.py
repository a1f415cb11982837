"""Functions of windows other than convolution: its transpose, pooling, resizing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812


def _transposed_of(x: Any, w: Any, *rest: Any) -> Any:
    # The transpose of a convolution is one of a dilated input with the kernel turned round, its channels exchanged.
    *bias, stride, padding, extra, dilation, groups = rest
    n = x.ndim - 2
    letters = "DHW"[-n:]
    pads = [(d * (k - 1) - p, d * (k - 1) - p + e) for k, p, e, d in zip(w.shape[2:], padding, extra, dilation, strict=True)]
    w = jnp.flip(w, range(2, w.ndim)).reshape(groups, w.shape[0] // groups, *w.shape[1:])
    w = jnp.swapaxes(w, 1, 2).reshape(-1, w.shape[1], *w.shape[3:])
    out = lax.conv_general_dilated(x, w, (1,) * n, pads, lhs_dilation=stride, rhs_dilation=dilation, feature_group_count=groups,
                                   dimension_numbers=("NC" + letters, "OI" + letters, "NC" + letters))
    return out + bias[0].reshape(-1, *(1,) * n) if bias else out


_transposed = family("Convolution", _transposed_of)


def _transpose(n: int) -> Callable[..., Tensor]:
    def conv(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,  # noqa: A002
             groups: int = 1, dilation: Any = 1) -> Tensor:
        if input.ndim == n + 1:
            return conv(input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation).squeeze(0)
        if input.ndim != n + 2:
            raise RuntimeError(f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to conv_transpose{n}d, but got input of "
                               f"size: {list(input.shape)}")
        if input.shape[1] != weight.shape[0]:
            raise RuntimeError(f"Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
                               f"{weight.shape[0]} channels, but got {input.shape[1]} channels instead")
        steps, extra, spread = F._tuple(stride, n), F._tuple(output_padding, n), F._tuple(dilation, n)
        if any(e >= max(s, d) for e, s, d in zip(extra, steps, spread, strict=True)):
            raise RuntimeError("output padding must be smaller than either stride or dilation, but got "
                               f"output_padding={extra}, stride={steps}, dilation={spread}")
        op = _transposed(steps, F._tuple(padding, n), extra, spread, groups)
        return apply(op, (input, weight) if bias is None else (input, weight, bias))

    conv.__name__ = f"conv_transpose{n}d"
    conv.__doc__ = f"The transpose of a convolution over {n} dimension{'s' * (n > 1)}: a step for each input, not for each output."
    return conv


conv_transpose1d, conv_transpose2d, conv_transpose3d = _transpose(1), _transpose(2), _transpose(3)


def _pool_of(x: Any, kernel: Any, stride: Any, padding: Any, kind: str, dilation: Any = None, ceil: bool = False) -> Any:
    lead = (1,) * (x.ndim - len(kernel))
    pads = [(0, 0)] * len(lead) + [(p, p) for p in padding]
    if kind == "max":
        dilation = dilation or (1,) * len(kernel)
        if ceil:
            # Room for one more window, where one would begin inside what is there.
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
    k, pads, holes = (F._tuple(value, n) for value in (kernel_size, padding, dilation))
    steps = k if stride is None else F._tuple(stride, n)
    _windows_fit(x, k, steps, pads, holes)
    return apply(_max_pool(k, steps, pads, "max", holes, ceil_mode), (x,))


def _means(n: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any) -> Tensor:
    """The mean of each window over the last ``n`` dimensions."""
    k = F._tuple(kernel_size, n)
    return apply(_avg_pool(k, k if stride is None else F._tuple(stride, n), F._tuple(padding, n), "mean"), (x,))


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
    """Means of windows, so many that the output has a size."""
    sizes = F._tuple(output_size, 2) if not isinstance(output_size, int) else (output_size, output_size)
    return apply(_adaptive(tuple([input.shape[i - 2] if s is None else s for i, s in enumerate(sizes)])), (input,))


def max_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,  # noqa: A002
               ceil_mode: bool = False) -> Tensor:
    """The largest entry of each window of a sequence."""
    return _largest(1, input, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:  # noqa: A002
    """The mean of each window of a sequence."""
    return _means(1, input, kernel_size, stride, padding)


def adaptive_avg_pool1d(input: Tensor, output_size: int) -> Tensor:  # noqa: A002
    """Means of windows of a sequence, so many that the output has a size."""
    return apply(_adaptive((output_size,)), (input,))


def _nearest_of(x: Any, sizes: tuple[int, ...]) -> Any:
    for i, size in enumerate(sizes):
        dim = x.ndim - len(sizes) + i
        x = jnp.take(x, jnp.arange(size) * x.shape[dim] // size, dim)
    return x


_nearest = family("UpsampleNearest", _nearest_of)


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest") -> Tensor:  # noqa: A002
    """The entries of (batch, channels, ...) repeated, so that it has a size."""
    if mode != "nearest":
        raise NotImplementedError(f"interpolate with mode='{mode}'\nonly 'nearest' is there; torch.lift takes jax.image.resize")
    n = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("only one of size or scale_factor should be defined" if size is not None
                         else "either size or scale_factor should be defined")
    if size is not None:
        sizes = F._tuple(size, n)
    else:
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * n
        sizes = tuple([int(s * f) for s, f in zip(input.shape[2:], factors, strict=True)])
    return apply(_nearest(sizes), (input,))


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along a dimension."""
    return (x1 * x2).sum(dim) / (x1.norm(2, dim).clamp(min=eps) * x2.norm(2, dim).clamp(min=eps))
