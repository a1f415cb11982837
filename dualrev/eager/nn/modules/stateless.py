"""Layers without parameters: activations, distances, shapes."""

from __future__ import annotations

from collections.abc import Sequence

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.from_functions import REQUIRED, keeps
from dualrev.eager.nn.modules.module import Module

ReLU = keeps(__name__, "ReLU", "relu", ("inplace", False))
ReLU6 = keeps(__name__, "ReLU6", "relu6", ("inplace", False))
LeakyReLU = keeps(__name__, "LeakyReLU", "leaky_relu", ("negative_slope", 0.01), ("inplace", False))
ELU = keeps(__name__, "ELU", "elu", ("alpha", 1.0), ("inplace", False))
GELU = keeps(__name__, "GELU", "gelu", ("approximate", "none"))
SiLU = keeps(__name__, "SiLU", "silu", ("inplace", False))
SELU = keeps(__name__, "SELU", "selu", ("inplace", False))
CELU = keeps(__name__, "CELU", "celu", ("alpha", 1.0), ("inplace", False))
GLU = keeps(__name__, "GLU", "glu", ("dim", -1))
Hardtanh = keeps(__name__, "Hardtanh", "hardtanh", ("min_val", -1.0), ("max_val", 1.0), ("inplace", False))
Hardswish = keeps(__name__, "Hardswish", "hardswish", ("inplace", False))
Hardsigmoid = keeps(__name__, "Hardsigmoid", "hardsigmoid", ("inplace", False))
LogSigmoid = keeps(__name__, "LogSigmoid", "logsigmoid")
Softsign = keeps(__name__, "Softsign", "softsign")
Tanhshrink = keeps(__name__, "Tanhshrink", "tanhshrink")
Mish = keeps(__name__, "Mish", "mish")
Sigmoid = keeps(__name__, "Sigmoid", "sigmoid")
Tanh = keeps(__name__, "Tanh", "tanh")
CosineSimilarity = keeps(__name__, "CosineSimilarity", "cosine_similarity", ("dim", 1), ("eps", 1e-8), shown=())
Softplus = keeps(__name__, "Softplus", "softplus", ("beta", 1.0), ("threshold", 20.0))
Softmax = keeps(__name__, "Softmax", "softmax", ("dim", None))
Softmin = keeps(__name__, "Softmin", "softmin", ("dim", None))
LogSoftmax = keeps(__name__, "LogSoftmax", "log_softmax", ("dim", None))
Softshrink = keeps(__name__, "Softshrink", "softshrink", ("lambd", 0.5), extra_repr=lambda self: str(self.lambd))
Hardshrink = keeps(__name__, "Hardshrink", "hardshrink", ("lambd", 0.5), extra_repr=lambda self: str(self.lambd))
Threshold = keeps(__name__, "Threshold", "threshold", ("threshold", REQUIRED), ("value", REQUIRED), ("inplace", False))
PairwiseDistance = keeps(__name__, "PairwiseDistance", "pairwise_distance", ("p", 2.0), ("eps", 1e-6), ("keepdim", False), shown=())


class RReLU(Module):
    """``functional.rrelu`` as a layer: random slopes in training."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False):
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class Softmax2d(Module):
    """The softmax over the channels, at each place of an image."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D (got {input.ndim}D input)")
        return F.softmax(input, -3)


class Identity(Module):
    """Its input."""

    def __init__(self, *_: object, **__: object):
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return input


class Unflatten(Module):
    """Split one dimension into several."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Flatten(Module):
    """Merge all dimensions but the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
