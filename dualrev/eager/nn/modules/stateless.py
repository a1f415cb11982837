"""Layers without parameters: activations, pooling, dropout, shapes."""

from __future__ import annotations

from collections.abc import Sequence

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.functions.sizes import tuple_of
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.ops import creation as make


class _Keeps(Module):
    """Base class of layers whose settings are the arguments of a function."""

    names: tuple[str, ...] = ()
    defaults: tuple[object, ...] = ()

    def __init__(self, *args: object, **kwargs: object):
        super().__init__()
        values = dict(zip(self.names, self.defaults, strict=True))
        if len(args) > len(self.names) or set(kwargs) - set(self.names):
            raise TypeError(f"{type(self).__name__}() takes {', '.join(self.names) or 'no arguments'}")
        values.update(zip(self.names, args, strict=False))
        values.update(kwargs)
        if values.get("kernel_size", 0) is None:
            raise TypeError(f"{type(self).__name__}.__init__() missing 1 required positional argument: 'kernel_size'")
        if values.get("stride", 0) is None:
            values["stride"] = values["kernel_size"]  # windows do not overlap
        for name, value in values.items():
            setattr(self, name, value)

    def forward(self, *tensors: Tensor) -> Tensor:
        return getattr(F, self.function)(*tensors, *[getattr(self, name) for name in self.names])

    function = ""

    def extra_repr(self) -> str:
        # PyTorch shows inplace only where it is true.
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.names if name != "inplace" or self.inplace)


def _keeps(class_name: str, function: str, *arguments: tuple[str, object]) -> type[_Keeps]:
    return type(class_name, (_Keeps,), {"function": function, "names": tuple([n for n, _ in arguments]), "__module__": __name__,
                                        "defaults": tuple([d for _, d in arguments]),
                                        "__doc__": f"``functional.{function}`` as a layer."})


ReLU = _keeps("ReLU", "relu", ("inplace", False))
ReLU6 = _keeps("ReLU6", "relu6", ("inplace", False))
LeakyReLU = _keeps("LeakyReLU", "leaky_relu", ("negative_slope", 0.01), ("inplace", False))
ELU = _keeps("ELU", "elu", ("alpha", 1.0), ("inplace", False))
GELU = _keeps("GELU", "gelu", ("approximate", "none"))
SiLU = _keeps("SiLU", "silu", ("inplace", False))
SELU = _keeps("SELU", "selu", ("inplace", False))
CELU = _keeps("CELU", "celu", ("alpha", 1.0), ("inplace", False))
GLU = _keeps("GLU", "glu", ("dim", -1))
Hardtanh = _keeps("Hardtanh", "hardtanh", ("min_val", -1.0), ("max_val", 1.0), ("inplace", False))
Hardswish = _keeps("Hardswish", "hardswish", ("inplace", False))
Hardsigmoid = _keeps("Hardsigmoid", "hardsigmoid", ("inplace", False))
LogSigmoid = _keeps("LogSigmoid", "logsigmoid")
Softsign = _keeps("Softsign", "softsign")
Tanhshrink = _keeps("Tanhshrink", "tanhshrink")
Mish = _keeps("Mish", "mish")
Sigmoid = _keeps("Sigmoid", "sigmoid")
Tanh = _keeps("Tanh", "tanh")
CosineSimilarity = _keeps("CosineSimilarity", "cosine_similarity", ("dim", 1), ("eps", 1e-8))
Softplus = _keeps("Softplus", "softplus", ("beta", 1.0), ("threshold", 20.0))
Softmax = _keeps("Softmax", "softmax", ("dim", -1))
Softmin = _keeps("Softmin", "softmin", ("dim", -1))
LogSoftmax = _keeps("LogSoftmax", "log_softmax", ("dim", -1))
_LARGEST = (("kernel_size", None), ("stride", None), ("padding", 0), ("dilation", 1), ("ceil_mode", False))
MaxPool1d = _keeps("MaxPool1d", "max_pool1d", *_LARGEST)
MaxPool2d = _keeps("MaxPool2d", "max_pool2d", *_LARGEST)
AvgPool2d = _keeps("AvgPool2d", "avg_pool2d", ("kernel_size", None), ("stride", None), ("padding", 0))
AdaptiveAvgPool1d = _keeps("AdaptiveAvgPool1d", "adaptive_avg_pool1d", ("output_size", 1))
AdaptiveAvgPool2d = _keeps("AdaptiveAvgPool2d", "adaptive_avg_pool2d", ("output_size", 1))


class AvgPool1d(_Keeps):
    """``functional.avg_pool1d`` as a layer."""

    function = "avg_pool1d"
    names: tuple[str, ...] = ("kernel_size", "stride", "padding")
    defaults: tuple[object, ...] = (None, None, 0)

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        for name in self.names:
            setattr(self, name, tuple_of(getattr(self, name), 1))


class Identity(Module):
    """Its input."""

    def __init__(self, *_: object, **__: object):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Upsample(Module):
    """Resize by repeating entries."""

    def __init__(self, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None, mode: str = "nearest"):
        super().__init__()
        self.size, self.mode = size, mode
        self.scale_factor = float(scale_factor) if isinstance(scale_factor, int) else scale_factor

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, self.size, self.scale_factor, self.mode)

    def extra_repr(self) -> str:
        given = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{given}, mode='{self.mode}'"


class Unflatten(Module):
    """Split one dimension into several."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Flatten(Module):
    """Merge all dimensions but the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Dropout(Module):
    """Entries set to zero at random, in training."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout2d(Dropout):
    """Channels set to zero at random, in training."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * F.dropout(make.ones(*x.shape[:2], *(1,) * (x.ndim - 2), dtype=x.dtype), self.p)
