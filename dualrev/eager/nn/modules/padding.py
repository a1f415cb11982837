"""Padding as layers."""

from __future__ import annotations

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.functions.sizes import tuple_of
from dualrev.eager.nn.modules.module import Module


class _Pad(Module):
    n = 1
    mode = "constant"

    def __init__(self, padding: Sizes):
        super().__init__()
        self.padding = tuple_of(padding, 2 * self.n)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _Constant(_Pad):
    def __init__(self, padding: Sizes, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _Zero(_Constant):
    def __init__(self, padding: Sizes):
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


def _layer(base: type[_Pad], name: str, n: int, text: str, mode: str = "constant") -> type[_Pad]:
    dims = ("a sequence", "an image", "a volume")[n - 1]
    return type(name, (base,), {"n": n, "mode": mode, "__module__": __name__, "__doc__": f"Pad {dims} {text}."})


ConstantPad1d, ConstantPad2d, ConstantPad3d = (_layer(_Constant, f"ConstantPad{n}d", n, "with a number") for n in (1, 2, 3))
ZeroPad1d, ZeroPad2d, ZeroPad3d = (_layer(_Zero, f"ZeroPad{n}d", n, "with zeros") for n in (1, 2, 3))
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (
    _layer(_Pad, f"ReflectionPad{n}d", n, "with its mirror image", "reflect") for n in (1, 2, 3))
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (
    _layer(_Pad, f"ReplicationPad{n}d", n, "with its last entries", "replicate") for n in (1, 2, 3))
CircularPad1d, CircularPad2d, CircularPad3d = (
    _layer(_Pad, f"CircularPad{n}d", n, "with the entries of the other end", "circular") for n in (1, 2, 3))
