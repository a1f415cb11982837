"""Parameters: ``torch.nn.parameter``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.tensor import Operand, Tensor, described
from dualrev.eager.ops.creation import tensor, zeros


class Parameter(Tensor):
    """A tensor that a module lists among its parameters; it requires grad.

    >>> from dualrev import eager as torch
    >>> torch.nn.Parameter(torch.ones(1))
    Parameter containing:
    tensor([1.], requires_grad=True)
    """

    def __init__(self, data: Operand | None = None, requires_grad: bool = True):
        value = Tensor(()) if data is None else data if isinstance(data, Tensor) else tensor(data)
        if requires_grad and not value.is_floating_point() and not value.is_complex():
            raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients\n" + described(value)
                               + "; .float() gives a copy that can, and requires_grad=False makes a parameter that need not")
        super().__init__(value, requires_grad=requires_grad)

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


class _Uninitialized(Tensor):
    """A tensor whose shape is not known yet."""

    #: The class of the tensor once it has a shape.
    cls_to_become: type[Tensor] = Tensor

    def materialize(self, shape: Sequence[int], device: Device | None = None, dtype: DType | None = None) -> None:
        """Give it a shape; its values are to be set."""
        with no_grad():
            self.data = zeros(*shape, dtype=self.dtype if dtype is None else dtype)
        self.__class__ = self.cls_to_become  # type: ignore[assignment]

    @property
    def shape(self) -> Any:  # type: ignore[override]
        raise RuntimeError("Can't access the shape of an uninitialized parameter or buffer. This error usually happens in "
                           "`load_state_dict` when trying to load an uninitialized parameter into an initialized one. Call `forward` "
                           "to initialize the parameters before accessing their attributes.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def is_lazy(param: object) -> bool:
    """Whether this is a parameter or buffer without a shape."""
    return isinstance(param, _Uninitialized)


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape a layer learns from its first input."""

    cls_to_become = Parameter

    def __init__(self, requires_grad: bool = True, device: Device | None = None, dtype: DType | None = None):
        super().__init__(zeros(0, dtype=dtype), requires_grad)


class UninitializedBuffer(_Uninitialized):
    """A buffer whose shape a layer learns from its first input."""

    def __init__(self, requires_grad: bool = False, device: Device | None = None, dtype: DType | None = None,
                 persistent: bool = True):
        super().__init__(zeros(0, dtype=dtype), requires_grad=requires_grad)
        self.persistent = persistent


def zero_parameter(*shape: int, dtype: DType | None = None) -> Parameter:
    """A parameter of zeros, to be initialized."""
    return Parameter(zeros(*shape, dtype=dtype))
