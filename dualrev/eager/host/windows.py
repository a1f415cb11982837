"""Primitives that look at windows of an array: convolutions, and reductions of windows.

Windows are a strided view of the padded array, with the positions of windows first and those inside a window last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualrev._jax.avals import ShapedArray
from dualrev.eager.host.moving import padding
from dualrev.eager.host.reducing import least
from dualrev.eager.host.registry import HostFunction, made

_Avals = Sequence[ShapedArray]


def _windows(shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]],
             spread: Sequence[int], dilation: Sequence[int], fill: Any) -> Callable[[Any], Any]:
    """A function that gives all windows of an array of this shape, ``(*positions, *sizes)``.

    ``spread`` is how far the entries of the array are moved apart, and ``dilation`` those of a window; between and around the entries
    stands ``fill``.
    """
    config = [(low, high, s - 1) for (low, high), s in zip(pads, spread, strict=True)]
    wide = [max(0, low + high + n + (n - 1) * between if n else low + high)
            for n, (low, high, between) in zip(shape, config, strict=True)]
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilation, strict=True)]
    counts = [max(0, (n - span) // s + 1) for n, span, s in zip(wide, spans, strides, strict=True)]
    pad = padding(config, shape, wide) if any(c != (0, 0, 0) for c in config) else None

    def windows(x: Any) -> Any:
        x = x if pad is None else pad(x, fill)
        steps = (*[t * s for t, s in zip(x.strides, strides, strict=True)], *[t * d for t, d in zip(x.strides, dilation, strict=True)])
        return np.lib.stride_tricks.as_strided(x, (*counts, *sizes), steps, writeable=False)

    return windows


@made("conv_general_dilated", cost=0.0)
def _convolution(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    """Patches of the input, as rows, times the kernel; for each group apart."""
    numbers = params["dimension_numbers"]
    lhs, rhs, out_spec = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    n_batch, n_in, *image = [ins[0].shape[d] for d in lhs]
    n_out, n_each, *kernel = [ins[1].shape[d] for d in rhs]
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    dtype = np.dtype(outs[0].dtype)
    work = np.dtype(np.float32) if dtype.itemsize < 4 and dtype.kind in "fV" else dtype
    if 0 in (*outs[0].shape, *ins[0].shape, *ins[1].shape):
        return None
    windows = _windows([n_batch, n_in, *image], [1, 1, *kernel], [1, 1, *params["window_strides"]],
                       [(0, 0), (0, 0), *params["padding"]], [1, 1, *params["lhs_dilation"]], [1, 1, *params["rhs_dilation"]],
                       work.type(0))
    n, k = len(image), math.prod(kernel)
    positions = [outs[0].shape[d] for d in out_spec[2:]]
    n_rows, parts = n_batch // batches * math.prod(positions), groups * batches
    back = np.argsort(out_spec)

    def convolved(x: Any, w: Any) -> Any:
        x, w = (np.transpose(a, spec).astype(work, copy=False) for a, spec in ((x, lhs), (w, rhs)))
        patches = windows(x).reshape(batches, n_batch // batches, groups, n_in // groups, *positions, *kernel)
        order = (0, 2, 1, *range(4, 4 + n), 3, *range(4 + n, 4 + 2 * n))
        rows = patches.transpose(order).reshape(parts, n_rows, n_each * k)
        found = np.matmul(rows, w.reshape(parts, n_out // parts, n_each * k).swapaxes(1, 2))
        found = found.reshape(parts, n_batch // batches, *positions, n_out // parts)
        found = found.transpose(1, 0, 2 + n, *range(2, 2 + n)).reshape(n_batch // batches, n_out, *positions)
        return found.transpose(back).astype(dtype, copy=False)

    return convolved


def _reduction(name: str, fun: Callable[..., Any], start: Callable[[np.dtype], Any]) -> None:
    @made(name, cost=0.0)
    def maker(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
        dtype = np.dtype(outs[0].dtype)
        if dtype.itemsize < 4 and dtype.kind in "fV":
            return None
        sizes = params["window_dimensions"]
        windows = _windows(ins[0].shape, sizes, params["window_strides"], params["padding"], params["base_dilation"],
                           params["window_dilation"], start(dtype))
        inside = tuple(range(len(sizes), 2 * len(sizes)))
        return lambda x: fun(windows(np.asarray(x)), inside, dtype=dtype)


_reduction("reduce_window_sum", np.add.reduce, lambda dtype: dtype.type(0))
_reduction("reduce_window_max", np.maximum.reduce, lambda dtype: least(dtype, True))
_reduction("reduce_window_min", np.minimum.reduce, lambda dtype: least(dtype, False))


def work_of(name: str, params: dict[str, Any], ins: _Avals, outs: _Avals) -> float:
    """About how many nanoseconds numpy takes for windows: their entries are copied, and multiplied or compared."""
    n_out = math.prod(outs[0].shape)
    if name != "conv_general_dilated":
        return 2.0 * n_out * math.prod(params["window_dimensions"])
    numbers = params["dimension_numbers"]
    n_features, *kernel = [ins[1].shape[d] for d in numbers.rhs_spec[1:]]
    n_out_features = outs[0].shape[numbers.out_spec[1]]
    patches = n_out // max(1, n_out_features) * n_features * params["feature_group_count"] * math.prod(kernel)
    return 1.5 * patches * params["batch_group_count"] + 0.02 * n_out * n_features * math.prod(kernel)
