"""Pooling of windows whose steps are one of two lengths, at random [Graham2014]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.conversion import known
from dualrev.eager.ops.sampling import draw

_DIMS = {2: ("height", "width"), 3: ("time", "height", "width")}


def _starts(samples: np.ndarray, n_in: int, n_out: int, window: int) -> np.ndarray:
    """Where the windows start, of (batch, channels, windows): the last one ends at the end."""
    if n_out == 1:
        return np.full((*samples.shape, 1), n_in - window)
    step = samples.dtype.type(n_in - window) / samples.dtype.type(n_out - 1)
    places = np.arange(n_out, dtype=samples.dtype)
    starts = ((places + samples[..., None]) * step).astype(np.int64) - (samples[..., None] * step).astype(np.int64)
    starts[..., -1] = n_in - window
    return starts


def _places(samples: np.ndarray, shape: Sequence[int], sizes: Sequence[int], windows: Sequence[int]) -> np.ndarray:
    """The positions in the flattened input of the entries of each window, of (batch, channels, outputs, entries)."""
    n = len(shape)
    found: Any = np.zeros((*samples.shape[:-1], 1, 1), np.int64)
    # Random numbers of two dimensions stand in the order width, height.
    order = (1, 0) if n == 2 else range(n)
    for d, k in enumerate(order):
        at = _starts(samples[..., k], shape[d], sizes[d], windows[d])[..., None] + np.arange(windows[d])
        found = found[..., :, None, :, None] * shape[d] + at[..., None, :, None, :]
        found = found.reshape(*samples.shape[:-1], found.shape[-4] * found.shape[-3], -1)
    return found


def _largest_of(x: jax.Array, places: jax.Array, sizes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    n = len(sizes)
    flat = x.reshape(*x.shape[:x.ndim - n], 1, -1)
    values = jnp.take_along_axis(flat, places.reshape(*places.shape[:-2], 1, -1), -1).reshape(places.shape)
    values = values.reshape(*x.shape[:x.ndim - n], *places.shape[-2:])
    best = jnp.argmax(jax.lax.stop_gradient(values), -1)[..., None]
    shape = (*x.shape[:x.ndim - n], *sizes)
    return (jnp.take_along_axis(values, best, -1).reshape(shape),
            jnp.take_along_axis(places.reshape(values.shape), best, -1).reshape(shape))


_largest = {n: family(f"FractionalMaxPool{n}D", _largest_of, many=True, guards=(0, ~1)) for n in _DIMS}


def _whole(given: Any, n: int, name: str, what: str) -> tuple[int, ...]:
    found = (given,) * n if isinstance(given, int) else tuple(given)
    if len(found) != n:
        raise RuntimeError(f"{name}: {what} must either be a single Int or tuple of Ints\nit has {len(found)} numbers, not {n}")
    return found


def _pool(n: int) -> Callable[..., Any]:
    name = f"fractional_max_pool{n}d"

    def pool(input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,  # noqa: A002
             _random_samples: Tensor | None = None) -> Any:
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
        if input.ndim not in (n + 1, n + 2):
            raise RuntimeError(f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got {input.ndim}D tensor")
        shape = tuple(input.shape)[-n:]
        windows = _whole(kernel_size, n, name, "kernel_size")
        if output_size is None:
            ratios = (output_ratio,) * n if isinstance(output_ratio, (int, float)) else tuple(output_ratio)
            sizes = tuple([int(s * r) for s, r in zip(shape, ratios, strict=True)])
        else:
            sizes = _whole(output_size, n, name, "output_size")
        for word, s, size, window in zip(_DIMS[n], shape, sizes, windows, strict=True):
            if size + window - 1 > s:
                raise RuntimeError(f"{name}{'_out' if n == 3 else ''}(): pool {word} {window} too large relative to input {word} {s}")
        batch = (1, input.shape[0]) if input.ndim == n + 1 else tuple(input.shape)[:2]
        if _random_samples is None:
            samples = np.asarray(draw("rand", (*batch, n), array_of(input).dtype))
        else:
            samples = known(_random_samples, f"{name}()")
            if samples.ndim != 3:
                raise RuntimeError(f"Expect _random_samples to have 3 dimensions, got {samples.ndim}")
        samples = samples.astype(np.float64 if samples.dtype == np.float64 else np.float32)
        places = _places(samples, shape, sizes, windows)
        values, indices = apply(_largest[n](sizes), (input, wrap(places[0] if input.ndim == n + 1 else places)))
        return (values, indices) if return_indices else values

    pool.__name__ = pool.__qualname__ = name
    pool.__doc__ = (f"The largest entries of windows over {n} dimensions, whose number is ``output_size``, or ``output_ratio`` times "
                    "that of the entries; where they start is drawn at random.")
    return pool


fractional_max_pool2d, fractional_max_pool3d = _pool(2), _pool(3)


def _with_indices(pool: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    def with_indices(input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,  # noqa: A002
                     _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return pool(input, kernel_size, output_size, output_ratio, True, _random_samples)  # type: ignore[no-any-return]

    with_indices.__name__, with_indices.__doc__ = f"{pool.__name__}_with_indices", f"``{pool.__name__}`` with the positions."
    return with_indices


fractional_max_pool2d_with_indices, fractional_max_pool3d_with_indices = (
    _with_indices(pool) for pool in (fractional_max_pool2d, fractional_max_pool3d))
