"""Recurrent layers, with PyTorch's names, layouts and order of gates.

A layer in one direction is one operation: a scan over time.  The products of the inputs with the weights are computed before it, for
all times at once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, wrap
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn import init
from dualrev.eager.nn.functions.packing import PackedSequence, lengths_of, packed, padded
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.ops import creation as make
from dualrev.eager.ops.joining import cat, stack
from dualrev.eager.ops.precision import low_precision

_State: TypeAlias = tuple[jax.Array, ...]
_Step: TypeAlias = Callable[[_State, jax.Array, jax.Array], _State]
_Map: TypeAlias = Callable[[jax.Array], jax.Array]

# ------------------------------------------------------------------------------------------------------------------- cells
# Each takes the state, the product of the input with its weights, and that of the hidden state with its weights.


def _lstm(state: _State, x: jax.Array, h: jax.Array) -> _State:
    i, f, g, o = jnp.split(x + h, 4, -1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(state: _State, x: jax.Array, h: jax.Array) -> _State:
    (xr, xz, xn), (hr, hz, hn) = jnp.split(x, 3, -1), jnp.split(h, 3, -1)
    new = jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
    z = jax.nn.sigmoid(xz + hz)
    return ((1 - z) * new + z * state[0],)


#: For each kind: the cell, the number of gates, the number of tensors of the state.
KINDS: dict[str, tuple[_Step, int, int]] = dict(
    lstm=(_lstm, 4, 2), gru=(_gru, 3, 1), tanh=(lambda s, x, h: (jnp.tanh(x + h),), 1, 1),
    relu=(lambda s, x, h: (jnp.where(x + h > 0, x + h, 0),), 1, 1))


def _products(weights: Sequence[jax.Array]) -> tuple[_Map, _Map]:
    """The linear maps from inputs and hidden states to the gates."""
    w, u, *biases = weights
    b, c = biases or (0, 0)
    return (lambda x: x @ w.T + b), (lambda h: h @ u.T + c)


def _layer_of(x: jax.Array, *rest: Any) -> list[jax.Array]:
    """The scan; with ``lengths``, each sequence of the batch keeps its state outside its length."""
    *arrays, kind, backwards, projects, has_lengths = rest
    cell, _, n = KINDS[kind]
    lengths = arrays.pop() if has_lengths else None
    projection = arrays.pop() if projects else None
    of_x, of_h = _products(arrays[n:])

    def step(state: _State, given: tuple[jax.Array, jax.Array]) -> tuple[_State, jax.Array]:
        gates, time = given
        new = cell(state, gates, of_h(state[0]))
        if projection is not None:
            new = new[0] @ projection.T, *new[1:]
        if lengths is not None:
            new = tuple([jnp.where((time < lengths)[:, None], a, b) for a, b in zip(new, state, strict=True)])
        return new, new[0]

    state, out = lax.scan(step, tuple(arrays[:n]), (of_x(x), jnp.arange(x.shape[0])), reverse=backwards)
    return [out, *state]


def _cell_of(x: jax.Array, *rest: Any) -> list[jax.Array]:
    *arrays, kind = rest
    cell, _, n = KINDS[kind]
    of_x, of_h = _products(arrays[n:])
    return list(cell(tuple(arrays[:n]), of_x(x), of_h(arrays[0])))


_layer, CELL = family("Rnn", _layer_of, many=True), family("RnnCell", _cell_of, many=True)


def check_input(name: str, x: Tensor, size: int) -> None:
    if x.shape[-1] != size:
        raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {size}, got {x.shape[-1]}\n"
                           f"the input of the {name} has shape {list(x.shape)}")


#: The kinds of layers that ``autocast`` computes in the narrower dtype.
_NARROW = ("tanh", "relu", "lstm")
low = low_precision(apply)


class _Recurrent(Module):
    """Base class of layers and cells, with their parameters."""

    kind = "tanh"

    def _add(self, suffix: str, input_size: int, bias: bool, dtype: DType | None, proj_size: int = 0) -> None:
        gates = KINDS[self.kind][1] * self.hidden_size
        shapes: list[tuple[str, tuple[int, ...]]] = [
            ("weight_ih", (gates, input_size)), ("weight_hh", (gates, proj_size or self.hidden_size)),
            *([("bias_ih", (gates,)), ("bias_hh", (gates,))] if bias else []),
            *([("weight_hr", (proj_size, self.hidden_size))] if proj_size else [])]
        for name, shape in shapes:
            self.register_parameter(name + suffix, Parameter(make.zeros(*shape, dtype=dtype)))

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size else 0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _weights(self, suffix: str) -> list[Tensor]:
        names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.bias else ()),
                 *(("weight_hr",) if getattr(self, "proj_size", 0) else ()))
        return [self.get_parameter(name + suffix) for name in names]


# ------------------------------------------------------------------------------------------------------------------ layers

class RNNBase(_Recurrent):
    """Base class of the recurrent layers."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Device | None = None,
                 dtype: DType | None = None):
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError("dropout should be a number in range [0, 1] representing the probability of an element being zeroed")
        if hidden_size <= 0:
            raise ValueError("hidden_size must be greater than zero")
        if num_layers <= 0:
            raise ValueError("num_layers must be greater than zero")
        if proj_size and self.kind != "lstm":
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable projections")
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if dropout > 0 and num_layers == 1:
            warnings.warn("dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers "
                          f"greater than 1, but got dropout={dropout} and num_layers={num_layers}", stacklevel=3)
        self.proj_size = proj_size
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        directions = ("", "_reverse") if bidirectional else ("",)
        self._suffixes = [[f"_l{k}{d}" for d in directions] for k in range(num_layers)]
        for k, suffixes in enumerate(self._suffixes):
            for suffix in suffixes:
                self._add(suffix, input_size if k == 0 else (proj_size or hidden_size) * len(directions), bias, dtype, proj_size)
        self.reset_parameters()

    def flatten_parameters(self) -> None:
        """Nothing: for compatibility."""

    def _start(self, x: Tensor, hx: Tensor | Sequence[Tensor] | None, batched: bool) -> list[Tensor]:
        """The initial state, each tensor of (layers * directions, batch, hidden)."""
        n, count = KINDS[self.kind][2], sum(map(len, self._suffixes))
        shapes = [(count, x.shape[1], size) for size in (self.proj_size or self.hidden_size, self.hidden_size)[:n]]
        if hx is None:
            return [make.zeros(*shape, dtype=x.dtype) for shape in shapes]
        given: list[Any] = list(hx) if n > 1 else [hx]
        given = given if batched else [h.unsqueeze(1) for h in given]
        for i, (h, shape) in enumerate(zip(given, shapes, strict=True)):
            if tuple(h.shape) != shape:
                name = "hidden" if n == 1 else f"hidden[{i}]"
                raise RuntimeError(f"Expected {name} size {shape}, got {list(h.shape)}\n"
                                   "it is (layers * directions, batch, hidden), whatever batch_first says")
        return given

    def forward(self, input: Any, hx: Tensor | Sequence[Tensor] | None = None) -> tuple[Any, Any]:  # noqa: A002
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.ndim not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.ndim}D instead")
        check_input(type(self).__name__, input, self.input_size)
        batched = input.ndim == 3
        x = input.unsqueeze(1) if not batched else input.transpose(0, 1) if self.batch_first else input
        x, state = self._run(x, self._start(x, hx, batched), ())
        state = state if batched else [h.squeeze(1) for h in state]
        out = x.squeeze(1) if not batched else x.transpose(0, 1) if self.batch_first else x
        return out, tuple(state) if len(state) > 1 else state[0]

    def _packed(self, given: PackedSequence, hx: Tensor | Sequence[Tensor] | None) -> tuple[PackedSequence, Any]:
        """Packed sequences are padded for the scan, which goes along each up to its length."""
        data, sizes, order, back = given
        check_input(type(self).__name__, data, self.input_size)
        lengths = lengths_of(sizes)
        x = padded(data, lengths)
        start = self._start(x, hx, True)
        if hx is not None and order is not None:
            start = [h.index_select(1, order) for h in start]
        x, state = self._run(x, start, (wrap(lengths),))
        if back is not None:
            state = [h.index_select(1, back) for h in state]
        return PackedSequence(packed(x, lengths), sizes, order, back), tuple(state) if len(state) > 1 else state[0]

    def _run(self, x: Tensor, start: list[Tensor], lengths: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """All layers on (time, batch, features): the output, and the state at the end."""
        ends: list[list[Tensor]] = []
        for k, suffixes in enumerate(self._suffixes):
            outs = []
            for d, suffix in enumerate(suffixes):
                op = _layer(self.kind, d == 1, bool(self.proj_size), bool(lengths))
                run = low if self.kind in _NARROW else apply
                out, *end = run(op, (x, *[h[len(ends)] for h in start], *self._weights(suffix), *lengths))
                outs.append(out)
                ends.append(end)
            x = outs[0] if len(outs) == 1 else cat(outs, -1)
            if self.dropout and k + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, [stack(h) for h in zip(*ends, strict=True)]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}" + (f", proj_size={self.proj_size}" if self.proj_size else "")
        for name, default in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


class LSTM(RNNBase):
    """Long short-term memory: ``output, (h, c) = lstm(input, (h0, c0))``.

    >>> from dualrev import eager as torch
    >>> out, (h, c) = torch.nn.LSTM(3, 4, num_layers=2)(torch.ones(5, 1, 3))
    >>> out.shape, h.shape
    (torch.Size([5, 1, 4]), torch.Size([2, 1, 4]))
    """

    kind = "lstm"


class GRU(RNNBase):
    """Gated recurrent units: ``output, h = gru(input, h0)``."""

    kind = "gru"


class RNN(RNNBase):
    """The plain recurrence ``h = tanh(W x + b + U h + c)``; ``nonlinearity`` may be "relu"."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", *args: Any, **kwargs: Any):
        check_nonlinearity(nonlinearity)
        object.__setattr__(self, "kind", nonlinearity)
        super().__init__(input_size, hidden_size, num_layers, *args, **kwargs)
        self.nonlinearity = nonlinearity


def check_nonlinearity(nonlinearity: str) -> None:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")


# ------------------------------------------------------------------------------------------------------------------- cells


