"""The operators of Python on tensors: ``x + y``, ``x ** 2``, ``-x``, ``x < y``."""

from __future__ import annotations

from collections.abc import Callable

from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops import binary
from dualrev.eager.ops.binary import OPERANDS, OPS, check_divisor, is_operand


def _operator(op: Op, checks: bool = False) -> Callable[[Tensor, object], Tensor]:
    def run(self: Tensor, other: object) -> Tensor:
        if isinstance(other, OPERANDS) or is_operand(other):
            if checks:
                check_divisor(self, other)
            return apply(op, (self, other))
        return NotImplemented

    return run


#: The names in the graph of operators with a number on the left, and what PyTorch saves for them: it multiplies by the
#: reciprocal.
_REFLECTED: dict[str, tuple[str, tuple[int, ...] | None]] = {"sub": ("Rsub:1", None), "div": ("Mul", ())}


def _swapped(name: str) -> Callable[[Tensor, object], Tensor]:
    """The operator for a tensor on the right: it comes first in the graph, as PyTorch has it."""
    op = OPS[name]
    if name in ("add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor"):
        return _operator(op)
    new, guards = _REFLECTED.get(name, (op.name, None))
    return _operator(Op(new, lambda x, y: op.fun(y, x), guards=guards))


def _in_place(op: Op) -> Callable[[Tensor, object], Tensor]:
    def run(self: Tensor, other: object) -> Tensor:
        return change(self, op, (other,)) if is_operand(other) else NotImplemented

    return run


for _name, _symbol in dict(add="add", sub="sub", mul="mul", div="truediv", floor_divide="floordiv", remainder="mod").items():
    setattr(Tensor, f"__{_symbol}__", _operator(OPS[_name], _name in ("floor_divide", "remainder")))
    setattr(Tensor, f"__r{_symbol}__", _swapped(_name))
    setattr(Tensor, f"__i{_symbol}__", _in_place(OPS[_name]))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _operator(OPS[_name]))
_BITS = dict(bitwise_and="and", bitwise_or="or", bitwise_xor="xor", bitwise_left_shift="lshift", bitwise_right_shift="rshift")
for _name, _symbol in _BITS.items():
    setattr(Tensor, f"__{_symbol}__", _operator(OPS[_name]))
    setattr(Tensor, f"__r{_symbol}__", _swapped(_name))
Tensor.__hash__ = object.__hash__  # type: ignore[method-assign]
Tensor.__neg__ = lambda self: self.neg()  # type: ignore[attr-defined, method-assign]
Tensor.__pos__ = lambda self: self  # type: ignore[assignment, method-assign, return-value]
Tensor.__abs__ = lambda self: self.abs()  # type: ignore[attr-defined, method-assign]


def _inverted(self: Tensor) -> Tensor:
    if array_of(self).dtype.kind not in "biu":
        raise TypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return self.bitwise_not()


Tensor.__invert__ = _inverted  # type: ignore[assignment, method-assign]
Tensor.__pow__ = lambda self, exponent: self.pow(exponent) if is_operand(exponent) else NotImplemented  # type: ignore[attr-defined, method-assign]
Tensor.__rpow__ = lambda self, base: binary.pow(base, self)  # type: ignore[arg-type, method-assign]
Tensor.__ipow__ = lambda self, exponent: self.pow_(exponent)  # type: ignore[attr-defined, method-assign]
