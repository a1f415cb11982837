"""Convolutions and their transposes as layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.annotations import Device, DType, Sizes
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn import init
from dualrev.eager.nn.functions.sizes import tuple_of
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import zero_parameter

_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    n = 2
    padding: Any

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
                 dilation: Sizes = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Device | None = None,
                 dtype: DType | None = None):
        super().__init__()
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string '{padding}', should be one of {{'same', 'valid'}}")
            if padding == "same" and any(s != 1 for s in tuple_of(stride, self.n)):
                raise ValueError("padding='same' is not supported for strided convolutions")
        if padding_mode not in _MODES:
            raise ValueError("padding_mode must be one of {'zeros', 'reflect', 'replicate', 'circular'}, but "
                             f"got padding_mode='{padding_mode}'")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = (tuple_of(x, self.n) for x in (kernel_size, stride, dilation))
        self.padding = padding if isinstance(padding, str) else tuple_of(padding, self.n)
        self.output_padding, self.padding_mode = (0,) * self.n, padding_mode
        self.weight = zero_parameter(*self._channels(), *self.kernel_size, dtype=dtype)
        self.register_parameter("bias", zero_parameter(out_channels, dtype=dtype) if bias else None)
        self.reset_parameters()

    def _channels(self) -> tuple[int, int]:
        return self.out_channels, self.in_channels // self.groups

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight[0].numel()
            init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[self.n]
        if self.padding_mode != "zeros":
            wide = F.pad(input, self._sides(), self.padding_mode)
            return conv(wide, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return conv(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _sides(self) -> list[int]:
        """The padding before and after, from the last dimension on."""
        if isinstance(self.padding, str):
            spans = [d * (k - 1) if self.padding == "same" else 0 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for span in reversed(spans) for side in (span // 2, span - span // 2)]
        return [p for p in reversed(self.padding) for _ in range(2)]

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.n:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.n:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        text += "" if self.bias is not None else ", bias=False"
        return text + ("" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode}")


class Conv1d(_ConvNd):
    """Convolution of (batch, channels, length)."""

    n = 1


class Conv2d(_ConvNd):
    """Convolution of (batch, channels, height, width)."""


class Conv3d(_ConvNd):
    """Convolution of (batch, channels, depth, height, width)."""

    n = 3


class _ConvTransposeNd(_ConvNd):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
                 output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1, padding_mode: str = "zeros",
                 device: Device | None = None, dtype: DType | None = None):
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype=dtype)
        self.output_padding = tuple_of(output_padding, self.n)

    def _channels(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels // self.groups

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:  # noqa: A002
        conv = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[self.n]
        extra = self.output_padding if output_size is None else self._extra(input, list(output_size))
        return conv(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _extra(self, x: Tensor, wanted: list[int]) -> tuple[int, ...]:
        """The output padding that gives a size."""
        lead = x.ndim - self.n
        wanted = wanted[lead:] if len(wanted) == x.ndim else wanted
        if len(wanted) != self.n:
            raise ValueError(f"ConvTranspose{self.n}D: for {x.ndim}D input, output_size must have {self.n} or {x.ndim} elements (got "
                             f"{len(wanted)})")
        least = [(m - 1) * s - 2 * p + d * (k - 1) + 1 for m, s, p, d, k in zip(
            x.shape[lead:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)]
        most = [m + s - 1 for m, s in zip(least, self.stride, strict=True)]
        if any(not a <= m <= b for a, m, b in zip(least, wanted, most, strict=True)):
            raise ValueError(f"requested an output size of {tuple(wanted)}, but valid sizes range from {least} to {most} (for an input "
                             f"of {x[(0,) * lead].size()})")
        return tuple([m - a for a, m in zip(least, wanted, strict=True)])


class ConvTranspose1d(_ConvTransposeNd):
    """The transpose of a convolution of (batch, channels, length)."""

    n = 1


class ConvTranspose2d(_ConvTransposeNd):
    """The transpose of a convolution of (batch, channels, height, width)."""


class ConvTranspose3d(_ConvTransposeNd):
    """The transpose of a convolution of (batch, channels, depth, height, width)."""

    n = 3
