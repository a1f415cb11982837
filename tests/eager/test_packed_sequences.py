"""Sequences of different lengths, and recurrent layers on them."""

from __future__ import annotations

from typing import Any

import pytest
from against_torch import fill, in_both, message

from dualrev import eager


def wave(t: Any, *shape: int) -> Any:
    n = 1
    for size in shape:
        n *= size
    return (t.arange(float(n)) * 1.3).reshape(shape).sin()


def test_padding_and_packing() -> None:
    def program(t: Any) -> list[Any]:
        rnn = t.nn.utils.rnn
        given = [t.arange(3.0), t.arange(5.0), t.arange(1.0)]
        for x in given:
            x.requires_grad_()
        left = rnn.pad_sequence(given, True, 7.0, padding_side="left")
        left.pow(2).sum().backward()
        packed = rnn.pack_sequence(given, enforce_sorted=False)
        x = t.arange(24.0).reshape(4, 3, 2)
        sorted_, other = rnn.pack_padded_sequence(x, [4, 2, 1]), rnn.pack_padded_sequence(x, t.tensor([1, 4, 2]), enforce_sorted=False)
        return [left, given[1].grad, rnn.pad_sequence([t.ones(2, 3), t.ones(4, 3)]), list(packed), rnn.unpack_sequence(packed),
                list(rnn.pad_packed_sequence(packed, True, -1.0, 6)), list(sorted_[:2]), list(other),
                list(rnn.pad_packed_sequence(other)),
                rnn.invert_permutation(t.tensor([2, 0, 1])), str(packed.double().data.dtype), packed.is_cuda]

    in_both(program)


def test_wrong_lengths_are_refused() -> None:
    def program(t: Any) -> list[str]:
        rnn, x = t.nn.utils.rnn, t.ones(4, 3, 2)
        packed = rnn.pack_padded_sequence(x, [4, 2, 1])
        return [message(lambda: rnn.pack_sequence([t.ones(1), t.ones(2)])), message(lambda: rnn.pack_padded_sequence(x, [4, 2])),
                message(lambda: rnn.pack_padded_sequence(x, [4, 2, 0])), message(lambda: rnn.pad_sequence([])),
                message(lambda: rnn.pad_packed_sequence(packed, total_length=3), ValueError)]

    in_both(program)


@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "bidirectional": True, "proj_size": 2}], ids=["one", "projected"])
def test_packed_lstm(settings: dict[str, Any]) -> None:
    def program(t: Any) -> list[Any]:
        layer = fill(t, t.nn.LSTM(3, 4, **settings))
        x = wave(t, 4, 5, 3).requires_grad_()
        packed = t.nn.utils.rnn.pack_padded_sequence(x, [2, 4, 1, 3, 4], enforce_sorted=False)
        out, state = layer(packed)
        (out.data.pow(2).sum() + state[1].sin().sum()).backward()
        again, _ = layer(packed, state)
        return [list(out), state, x.grad, [p.grad for p in layer.parameters()], again.data, layer(x)[0], repr(layer)]

    in_both(program)


def test_packed_gru_and_rnn() -> None:
    def program(t: Any) -> list[Any]:
        outs: list[Any] = []
        for kind, settings in (("GRU", {"bidirectional": True, "batch_first": True, "bias": False}), ("RNN", {"nonlinearity": "relu"})):
            layer = fill(t, getattr(t.nn, kind)(3, 4, **settings))
            x = wave(t, 4, 4, 3)
            packed = t.nn.utils.rnn.pack_padded_sequence(x, [4, 4, 2, 1], batch_first=kind == "GRU")
            out, state = layer(packed)
            outs += [out.data, out.batch_sizes, state]
        return outs

    in_both(program)


def test_refusals_of_recurrent_layers() -> None:
    def program(t: Any) -> list[str]:
        return [message(lambda: t.nn.GRU(3, 4, proj_size=2), ValueError), message(lambda: t.nn.LSTM(3, 4, proj_size=5), ValueError),
                message(lambda: t.nn.LSTM(3, 0), ValueError),
                message(lambda: t.nn.LSTM(3, 4)(t.ones(2, 2, 3), (t.ones(1, 2, 3), t.ones(1, 2, 4))))]

    in_both(program)
    with pytest.raises(AssertionError):
        eager.nn.utils.rnn.PackedSequence(eager.ones(1))
