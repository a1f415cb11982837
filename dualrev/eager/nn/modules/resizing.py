"""Resizing, folding and the exchange of resolution for channels as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.from_functions import REQUIRED, keeps
from dualrev.eager.nn.modules.module import Module

PixelShuffle = keeps(__name__, "PixelShuffle", "pixel_shuffle", ("upscale_factor", REQUIRED))
PixelUnshuffle = keeps(__name__, "PixelUnshuffle", "pixel_unshuffle", ("downscale_factor", REQUIRED))
ChannelShuffle = keeps(__name__, "ChannelShuffle", "channel_shuffle", ("groups", REQUIRED))
_WINDOWS = (("kernel_size", REQUIRED), ("dilation", 1), ("padding", 0), ("stride", 1))
Unfold = keeps(__name__, "Unfold", "unfold", *_WINDOWS)
Fold = keeps(__name__, "Fold", "fold", ("output_size", REQUIRED), *_WINDOWS)


class Upsample(Module):
    """Resize (batch, channels, ...) to a size, or by a factor."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
                 align_corners: bool | None = None, recompute_scale_factor: bool | None = None):
        super().__init__()
        self.size, self.mode, self.align_corners, self.recompute_scale_factor = size, mode, align_corners, recompute_scale_factor
        given: Any = scale_factor
        self.scale_factor: Any = tuple([float(f) for f in given]) if isinstance(given, (tuple, list)) else (
            float(given) if given else None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        given = f"scale_factor={self.scale_factor!r}" if self.scale_factor is not None else f"size={self.size!r}"
        return f"{given}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Resize images by repetition of entries."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None):
        super().__init__(size, scale_factor)


class UpsamplingBilinear2d(Upsample):
    """Resize images with bilinear weights and aligned corners."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None):
        super().__init__(size, scale_factor, "bilinear", align_corners=True)
