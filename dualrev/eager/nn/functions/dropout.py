"""Dropout: entries or channels set to zero at random."""

from __future__ import annotations

import math
import warnings

import jax.numpy as jnp

from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.sampling import draw

_DROP = Op("Dropout", lambda x, mask, p: jnp.where(mask, x / (1 - p), 0).astype(x.dtype))
#: What takes the place of dropped entries, with a scale and a shift that keep mean 0 and variance 1 [Klambauer17, section 3].
_ALPHA_DROP = Op("AlphaDropout", lambda x, mask, dropped, scale, shift: (jnp.where(mask, x, dropped) * scale + shift).astype(x.dtype))
#: Minus the limit of selu at minus infinity.
_ALPHA = 1.7580993408473766


def _checked(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _kept(shape: tuple[int, ...], p: float) -> Tensor:
    return wrap(draw("bernoulli", shape, jnp.bool_, 1 - p))


def _dropped(x: Tensor, shape: tuple[int, ...], p: float, training: bool, inplace: bool) -> Tensor:
    """Entries, or the parts that a mask of some shape stands for, set to zero."""
    _checked(p)
    if not training or p == 0:
        return x
    if p == 1 and not inplace:
        return x * 0.0
    mask = _kept(shape, p)
    return change(x, _DROP, (mask, p)) if inplace else apply(_DROP, (x, mask, p))


def _alpha_dropped(x: Tensor, shape: tuple[int, ...], p: float, training: bool, inplace: bool) -> Tensor:
    _checked(p)
    if not training or p == 0:
        return x
    if p == 1:
        return x.zero_() if inplace else x * 0.0
    scale = 1 / math.sqrt((_ALPHA ** 2 * p + 1) * (1 - p))
    more = (_kept(shape, p), -_ALPHA, scale, _ALPHA * scale * p)
    return change(x, _ALPHA_DROP, more) if inplace else apply(_ALPHA_DROP, (x, *more))


def _channels(x: Tensor) -> tuple[int, ...]:
    """The shape of a mask of (batch, channels, 1, ...)."""
    return (*x.shape[:2], *(1,) * (x.ndim - 2))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """Entries set to zero with probability ``p``, the others divided by ``1 - p``."""
    return _dropped(input, array_of(input).shape, p, training, inplace)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """Channels of (batch, channels, length), or of (channels, length), set to zero with probability ``p``."""
    _checked(p)
    if input.ndim not in (2, 3):
        raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input. Note that dropout1d exists to "
                           "provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional "
                           "batch dimension (i.e. 2D or 3D inputs).")
    shape = _channels(input) if input.ndim == 3 else (input.shape[0], 1)
    return _dropped(input, shape, p, training, inplace)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """Channels of (batch, channels, height, width) set to zero with probability ``p``."""
    _checked(p)
    if input.ndim not in (3, 4):
        warnings.warn(f"dropout2d: Received a {input.ndim}-D input to dropout2d, which is deprecated and will result in an error in a "
                      "future release. To retain the behavior and silence this warning, please use dropout instead.", stacklevel=2)
    if input.ndim == 3:
        warnings.warn("dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired - "
                      "input is interpreted as shape (N, C, L), where C is the channel dim.", stacklevel=2)
    return _dropped(input, _channels(input), p, training, inplace)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """Channels of (batch, channels, depth, height, width), or of one example, set to zero with probability ``p``."""
    _checked(p)
    if input.ndim not in (4, 5):
        warnings.warn(f"dropout3d: Received a {input.ndim}-D input to dropout3d, which is deprecated and will result in an error in a "
                      "future release. To retain the behavior and silence this warning, please use dropout instead.", stacklevel=2)
    shape = _channels(input) if input.ndim != 4 else (input.shape[0], 1, 1, 1)
    return _dropped(input, shape, p, training, inplace)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:  # noqa: A002
    """Entries set to the least value of selu with probability ``p``, then all scaled to mean 0 and variance 1."""
    return _alpha_dropped(input, array_of(input).shape, p, training, inplace)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:  # noqa: A002
    """As :func:`alpha_dropout`, for whole channels."""
    if input.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return _alpha_dropped(input, _channels(input), p, training, inplace)
