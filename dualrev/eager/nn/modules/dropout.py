"""Dropout as layers."""

from __future__ import annotations

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.module import Module


class _Dropout(Module):
    function = "dropout"

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return getattr(F, self.function)(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Entries set to zero at random, in training."""


class Dropout1d(_Dropout):
    """Channels of sequences set to zero at random, in training."""

    function = "dropout1d"


class Dropout2d(_Dropout):
    """Channels of images set to zero at random, in training."""

    function = "dropout2d"


class Dropout3d(_Dropout):
    """Channels of volumes set to zero at random, in training."""

    function = "dropout3d"


class AlphaDropout(_Dropout):
    """Entries set to the least value of selu at random, in training."""

    function = "alpha_dropout"


class FeatureAlphaDropout(_Dropout):
    """Channels set to the least value of selu at random, in training."""

    function = "feature_alpha_dropout"
