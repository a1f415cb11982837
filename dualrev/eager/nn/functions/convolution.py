"""Convolutions and their transposes."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn.functions.sizes import tuple_of
from dualrev.eager.nn.functions.small_convolution import is_small, small_of
from dualrev.eager.ops.checks import same_dtype
from dualrev.eager.ops.precision import low_precision


def _conv_of(x: jax.Array, w: jax.Array, *rest: Any) -> jax.Array:
    *bias, stride, padding, dilation, groups = rest
    letters = "DHW"[-(x.ndim - 2):]
    out = lax.conv_general_dilated(x, w, stride, padding if isinstance(padding, str) else [(p, p) for p in padding],
                                   rhs_dilation=dilation, feature_group_count=groups,
                                   dimension_numbers=("NC" + letters, "OI" + letters, "NC" + letters))
    return out + bias[0].reshape(-1, *(1,) * len(letters)) if bias else out


_conv = family("Convolution", _conv_of)
_small_conv = family("Convolution", small_of, light=True)


class Convolution(Protocol):
    """A convolution over some dimensions."""

    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,  # noqa: A002
                 padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1) -> Tensor: ...


class TransposedConvolution(Protocol):
    """The transpose of a convolution over some dimensions."""

    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,  # noqa: A002
                 padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1) -> Tensor: ...


def _convolve(n: int) -> Convolution:
    def conv(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes | str = 0,  # noqa: A002
             dilation: Sizes = 1, groups: int = 1) -> Tensor:
        if input.ndim == n + 1:
            return conv(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
        if input.ndim != n + 2:
            raise RuntimeError(f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to conv{n}d, but got input of size: "
                               f"{list(input.shape)}")
        if input.shape[1] != weight.shape[1] * groups:
            raise RuntimeError(f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
                               f"{weight.shape[1] * groups} channels, but got {input.shape[1]} channels instead")
        same_dtype(array_of(input), array_of(weight if bias is None else bias), "Input type ({}) and " + (
            "weight" if bias is None else "bias") + " type ({}) should be the same")
        if not isinstance(padding, str):
            sizes = [s + 2 * p for s, p in zip(input.shape[2:], tuple_of(padding, n), strict=True)]
            spans = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], tuple_of(dilation, n), strict=True)]
            if any(s < k for s, k in zip(sizes, spans, strict=True)):
                raise RuntimeError(f"Calculated padded input size per channel: ({' x '.join(map(str, sizes))}). Kernel size: "
                                   f"({' x '.join(map(str, spans))}). Kernel size can't be greater than actual input size")
        pads = padding.upper() if isinstance(padding, str) else tuple_of(padding, n)
        steps, holes = tuple_of(stride, n), tuple_of(dilation, n)
        small = is_small(tuple(input.shape[2:]), tuple(weight.shape[2:]), steps, pads, holes, groups)
        op = (_small_conv if small else _conv)(steps, pads, holes, groups)
        return apply(op, (input, weight) if bias is None else (input, weight, bias))

    conv.__name__, conv.__doc__ = f"conv{n}d", f"Convolution over {n} dimension{'s' * (n > 1)} of (batch, channels, ...)."
    return low_precision(conv)


conv1d, conv2d, conv3d = _convolve(1), _convolve(2), _convolve(3)


def _transposed_of(x: jax.Array, w: jax.Array, *rest: Any) -> jax.Array:
    # The transpose of a convolution is a convolution of the dilated input with the flipped kernel, its channels exchanged.
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


def _transpose(n: int) -> TransposedConvolution:
    def conv(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,  # noqa: A002
             output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1) -> Tensor:
        if input.ndim == n + 1:
            return conv(input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation).squeeze(0)
        if input.ndim != n + 2:
            raise RuntimeError(f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to conv_transpose{n}d, but got input of "
                               f"size: {list(input.shape)}")
        if input.shape[1] != weight.shape[0]:
            raise RuntimeError(f"Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
                               f"{weight.shape[0]} channels, but got {input.shape[1]} channels instead")
        steps, extra, spread = tuple_of(stride, n), tuple_of(output_padding, n), tuple_of(dilation, n)
        if any(e >= max(s, d) for e, s, d in zip(extra, steps, spread, strict=True)):
            raise RuntimeError("output padding must be smaller than either stride or dilation, but got "
                               f"output_padding={extra}, stride={steps}, dilation={spread}")
        op = _transposed(steps, tuple_of(padding, n), extra, spread, groups)
        return apply(op, (input, weight) if bias is None else (input, weight, bias))

    conv.__name__ = f"conv_transpose{n}d"
    conv.__doc__ = f"The transpose of a convolution over {n} dimension{'s' * (n > 1)}: a step for each input, not for each output."
    return low_precision(conv)


conv_transpose1d, conv_transpose2d, conv_transpose3d = _transpose(1), _transpose(2), _transpose(3)


# PyTorch saves the bias too.
_conv_tbc = family("ConvTbc", lambda x, w, b, pad: b + lax.conv_general_dilated(
    x, w, (1,), [(pad, pad)], dimension_numbers=("WNC", "WIO", "WNC")), guards=(0, 1, 2))


@low_precision
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:  # noqa: A002
    """Convolution of sequences of (length, batch, channels); the weight is (kernel, channels, channels of the result)."""
    if input.ndim != 3:
        raise RuntimeError("Input must have 3 dims: time, batch, in_channel")
    if weight.ndim != 3:
        raise RuntimeError("Weight tensor must have 3 dims: kernel_width, in_channels, out_channels.")
    if bias.ndim != 1:
        raise RuntimeError("Bias must be 1-D")
    if input.shape[2] != weight.shape[1]:
        raise RuntimeError("Input dim 2 (input channels) is not == dim 1 in the weight tensor\n"
                           f"they are {input.shape[2]} and {weight.shape[1]}")
    if weight.shape[2] != bias.shape[0]:
        raise RuntimeError("Bias size must equal dim 2 in the weight tensor (output channels).\n"
                           f"they are {bias.shape[0]} and {weight.shape[2]}")
    return apply(_conv_tbc(int(pad)), (input, weight, bias))
