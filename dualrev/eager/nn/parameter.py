"""Parameters: ``torch.nn.parameter``."""

from __future__ import annotations

from dualrev.eager.core.annotations import DType
from dualrev.eager.graph.tensor import Operand, Tensor
from dualrev.eager.ops.creation import tensor, zeros


class Parameter(Tensor):
    """A tensor that a module lists among its parameters; it requires grad.

    >>> from dualrev import eager as torch
    >>> torch.nn.Parameter(torch.ones(1))
    Parameter containing:
    tensor([1.], requires_grad=True)
    """

    def __init__(self, data: Operand | None = None, requires_grad: bool = True):
        super().__init__(Tensor(()) if data is None else data if isinstance(data, Tensor) else tensor(data),
                         requires_grad=requires_grad)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + Tensor.__repr__(self)


class Buffer(Tensor):
    """A tensor that a module registers as a buffer when it is assigned to an attribute.

    >>> from dualrev import eager as torch
    >>> m = torch.nn.Module()
    >>> m.mean = torch.nn.Buffer(torch.zeros(1))
    >>> [name for name, _ in m.named_buffers()]
    ['mean']
    """

    def __init__(self, data: Operand | None = None, *, persistent: bool = True):
        super().__init__(Tensor(()) if data is None else data if isinstance(data, Tensor) else tensor(data))
        self.persistent = persistent


def zero_parameter(*shape: int, dtype: DType | None = None) -> Parameter:
    """A parameter of zeros, to be initialized."""
    return Parameter(zeros(*shape, dtype=dtype))
