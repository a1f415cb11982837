"""Pooling as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.functions.sizes import tuple_of
from dualrev.eager.nn.modules.from_functions import REQUIRED, Keeps, keeps
from dualrev.eager.nn.modules.module import Module


class _Windows(Keeps):
    """Windows do not overlap where no stride is given."""

    stride: Any

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        if self.stride is None:
            self.stride = self.kernel_size


_START = (("kernel_size", REQUIRED), ("stride", None), ("padding", 0))
_LARGEST = (*_START, ("dilation", 1), ("return_indices", False), ("ceil_mode", False))
_SHOWN = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
MaxPool1d = keeps(__name__, "MaxPool1d", "max_pool1d", *_LARGEST, base=_Windows, shown=_SHOWN)
MaxPool2d = keeps(__name__, "MaxPool2d", "max_pool2d", *_LARGEST, base=_Windows, shown=_SHOWN)
MaxPool3d = keeps(__name__, "MaxPool3d", "max_pool3d", *_LARGEST, base=_Windows, shown=_SHOWN)
_MEANS = (*_START, ("ceil_mode", False), ("count_include_pad", True), ("divisor_override", None))
AvgPool2d = keeps(__name__, "AvgPool2d", "avg_pool2d", *_MEANS, base=_Windows, shown=_SHOWN[:3])
AvgPool3d = keeps(__name__, "AvgPool3d", "avg_pool3d", *_MEANS, base=_Windows, shown=_SHOWN[:3])
_NORMS = (("norm_type", REQUIRED), ("kernel_size", REQUIRED), ("stride", None), ("ceil_mode", False))
LPPool1d = keeps(__name__, "LPPool1d", "lp_pool1d", *_NORMS)
LPPool2d = keeps(__name__, "LPPool2d", "lp_pool2d", *_NORMS)
LPPool3d = keeps(__name__, "LPPool3d", "lp_pool3d", *_NORMS)
AdaptiveAvgPool1d = keeps(__name__, "AdaptiveAvgPool1d", "adaptive_avg_pool1d", ("output_size", REQUIRED))
AdaptiveAvgPool2d = keeps(__name__, "AdaptiveAvgPool2d", "adaptive_avg_pool2d", ("output_size", REQUIRED))
AdaptiveAvgPool3d = keeps(__name__, "AdaptiveAvgPool3d", "adaptive_avg_pool3d", ("output_size", REQUIRED))
_ADAPTIVE = (("output_size", REQUIRED), ("return_indices", False))
AdaptiveMaxPool1d = keeps(__name__, "AdaptiveMaxPool1d", "adaptive_max_pool1d", *_ADAPTIVE, shown=("output_size",))
AdaptiveMaxPool2d = keeps(__name__, "AdaptiveMaxPool2d", "adaptive_max_pool2d", *_ADAPTIVE, shown=("output_size",))
AdaptiveMaxPool3d = keeps(__name__, "AdaptiveMaxPool3d", "adaptive_max_pool3d", *_ADAPTIVE, shown=("output_size",))


class AvgPool1d(_Windows):
    """``functional.avg_pool1d`` as a layer."""

    function = "avg_pool1d"
    names: tuple[str, ...] = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    defaults: tuple[object, ...] = (REQUIRED, None, 0, False, True)
    shown = _SHOWN[:3]

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        for name in self.shown:
            setattr(self, name, tuple_of(getattr(self, name), 1))


class _MaxUnpool(Module):
    n = 1

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0):
        super().__init__()
        self.kernel_size, self.padding = tuple_of(kernel_size, self.n), tuple_of(padding, self.n)
        self.stride = self.kernel_size if stride is None else tuple_of(stride, self.n)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Any:  # noqa: A002
        unpool = getattr(F, f"max_unpool{self.n}d")
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The partial inverse of ``MaxPool1d``."""


class MaxUnpool2d(_MaxUnpool):
    """The partial inverse of ``MaxPool2d``."""

    n = 2


class MaxUnpool3d(_MaxUnpool):
    """The partial inverse of ``MaxPool3d``."""

    n = 3


class _Fractional(Module):
    """Windows that start at random places."""

    dims = 2

    def __init__(self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
                 _random_samples: Tensor | None = None):
        super().__init__()
        name, n = type(self).__name__, self.dims
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output size, or a pooling ratio")
        if output_size is not None and output_ratio is not None:
            raise ValueError("only one of output_size and output_ratio may be specified")
        self.kernel_size, self.return_indices = tuple_of(kernel_size, n), return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else tuple_of(output_size, n)
        self.output_ratio = (output_ratio,) * n if isinstance(output_ratio, (int, float)) else output_ratio
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:  # noqa: A002
        pool = F.fractional_max_pool2d if self.dims == 2 else F.fractional_max_pool3d
        return pool(input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples)


class FractionalMaxPool2d(_Fractional):
    """``functional.fractional_max_pool2d`` as a layer."""


class FractionalMaxPool3d(_Fractional):
    """``functional.fractional_max_pool3d`` as a layer."""

    dims = 3
