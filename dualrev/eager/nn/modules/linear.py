"""Linear and bilinear layers, and activations with parameters."""

from __future__ import annotations

import math

from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn import init
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter, zero_parameter
from dualrev.eager.ops import creation as make


class Linear(Module):
    """``x @ weight.T + bias``.

    >>> from dualrev import eager as torch
    >>> torch.nn.Linear(3, 2)
    Linear(in_features=3, out_features=2, bias=True)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Device | None = None,
                 dtype: DType | None = None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = zero_parameter(out_features, in_features, dtype=dtype)
        self.register_parameter("bias", zero_parameter(out_features, dtype=dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """``x1 @ weight[k] @ x2 + bias[k]`` for each output ``k``."""

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, device: Device | None = None,
                 dtype: DType | None = None):
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got {in1_features}")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = zero_parameter(out_features, in1_features, in2_features, dtype=dtype)
        self.register_parameter("bias", zero_parameter(out_features, dtype=dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.in1_features)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}")


class PReLU(Module):
    """``x``, or a learned multiple of it where it is negative."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Device | None = None, dtype: DType | None = None):
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(make.full((num_parameters,), init, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
