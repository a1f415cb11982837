"""Parameters: ``torch.nn.parameter``."""

from __future__ import annotations

from typing import Any

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.creation import tensor, zeros


class Parameter(Tensor):
    """A tensor that a module lists among its parameters; it requires grad.

    >>> from dualrev import eager as torch
    >>> torch.nn.Parameter(torch.ones(1))
    Parameter containing:
    tensor([1.], requires_grad=True)
    """

    def __init__(self, data: Any = None, requires_grad: bool = True):
        super().__init__(Tensor(()) if data is None else data if isinstance(data, Tensor) else tensor(data),
                         requires_grad=requires_grad)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + Tensor.__repr__(self)


def zero_parameter(*shape: int, dtype: Any = None) -> Parameter:
    """A parameter of zeros, to be initialized."""
    return Parameter(zeros(*shape, dtype=dtype))
