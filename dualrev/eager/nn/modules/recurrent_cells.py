"""Recurrent cells: one step of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.recurrent import CELL, KINDS, _Recurrent, check_nonlinearity, low
from dualrev.eager.ops import creation as make


class _Cell(_Recurrent):
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Device | None = None, dtype: DType | None = None):
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._add("", input_size, bias, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Tensor | Sequence[Tensor] | None = None) -> Any:  # noqa: A002
        if input.ndim not in (1, 2):
            raise ValueError(f"{type(self).__name__}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {input.shape[-1]} expected {self.input_size}")
        n = KINDS[self.kind][2]
        given = [make.zeros(*input.shape[:-1], self.hidden_size, dtype=input.dtype) for _ in range(n)] if hx is None else (
            list(hx) if n > 1 else [hx])
        run = low if self.kind in ("tanh", "relu") else apply
        state = run(CELL(self.kind), (input, *given, *self._weights("")))
        return tuple(state) if n > 1 else state[0]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class LSTMCell(_Cell):
    """One step of an LSTM: ``h, c = CELL(input, (h, c))``."""

    kind = "lstm"


class GRUCell(_Cell):
    """One step of a GRU: ``h = CELL(input, h)``."""

    kind = "gru"


class RNNCell(_Cell):
    """One step of a plain recurrence: ``h = CELL(input, h)``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Device | None = None,
                 dtype: DType | None = None):
        check_nonlinearity(nonlinearity)
        object.__setattr__(self, "kind", nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity
