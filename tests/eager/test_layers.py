"""Layers: recurrent, attention, normalization, transposed convolution, activations; clipping, initialization, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from against_torch import fill, in_both, message

from dualrev import eager as torch

pytestmark = pytest.mark.thorough

#: A layer, and the shape of its input.
LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = dict(
    transposed=(lambda nn: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (1, 4, 3, 2)),
    transposed_dilated=(lambda nn: nn.ConvTranspose2d(2, 3, (2, 3), dilation=(1, 2), bias=False), (2, 2, 3, 3)),
    transposed_1d=(lambda nn: nn.ConvTranspose1d(2, 3, 3, 2), (2, 2, 4)),
    group_norm=(lambda nn: nn.GroupNorm(2, 4), (2, 4, 3)),
    instance_norm=(lambda nn: nn.InstanceNorm2d(2, affine=True), (2, 2, 3, 2)),
    rms_norm=(lambda nn: nn.RMSNorm(4), (2, 3, 4)),
    batch_norm_1d=(lambda nn: nn.BatchNorm1d(3), (4, 3)),
    batch_norm_sequence=(lambda nn: nn.BatchNorm1d(3), (2, 3, 4)),
    max_pool_1d=(lambda nn: nn.MaxPool1d(3, 2, 1), (1, 2, 8)),
    avg_pool_1d=(lambda nn: nn.AvgPool1d(2), (1, 2, 6)),
    max_pool=(lambda nn: nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True), (1, 1, 7, 8)),
    max_pool_ceil=(lambda nn: nn.MaxPool2d(2, ceil_mode=True), (1, 1, 5, 4)),
    avg_pool=(lambda nn: nn.AvgPool2d((3, 2), 2, (1, 0)), (1, 2, 5, 6)),
    adaptive_1d=(lambda nn: nn.AdaptiveAvgPool1d(3), (1, 2, 7)),
    upsample=(lambda nn: nn.Upsample(scale_factor=2), (1, 1, 2, 3)),
    prelu=(lambda nn: nn.PReLU(3), (2, 3, 2)),
    unflatten=(lambda nn: nn.Unflatten(1, (2, 3)), (2, 6)),
    glu=(lambda nn: nn.GLU(), (3, 4)),
    **{name: (lambda nn, name=name: getattr(nn, name)(), (7,)) for name in (  # type: ignore[misc]
        "SiLU", "Tanh", "Sigmoid", "LeakyReLU", "ELU", "Softplus", "SELU", "CELU", "Hardtanh", "Hardswish", "Hardsigmoid", "LogSigmoid",
        "Softsign", "Tanhshrink", "Mish", "ReLU6", "GELU")},
    **{name: (lambda nn, name=name: getattr(nn, name)(dim=0), (3, 2))  # type: ignore[misc]
       for name in ("Softmax", "LogSoftmax", "Softmin")},
)


def made(t: Any, *shape: int) -> Any:
    return ((t.arange(float(np.prod(shape))).reshape(shape) * 0.71).sin() * 4).requires_grad_()


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    make, shape = LAYERS[name]

    def program(t: Any) -> list[Any]:
        model = fill(t, make(t.nn))
        x = made(t, *shape)
        y = model(x)
        (y * y.detach().cos()).sum().backward()
        return [y, x.grad, [p.grad for p in model.parameters()], list(model.state_dict()), repr(model)]

    in_both(program, 2e-5)


@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "bias": False}],
                         ids=["one", "two layers both ways", "batch first"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(name: str, settings: dict[str, Any]) -> None:
    def program(t: Any) -> list[Any]:
        layer = fill(t, getattr(t.nn, name)(3, 2, **settings))
        x = made(t, 4, 2, 3)
        out, state = layer(x)
        again, end = layer(x, state) if not settings.get("batch_first") else (out, state)
        ends = list(end) if name == "LSTM" else [end]
        ((again * again.detach().cos()).sum() + sum(e.sum() for e in ends)).backward()
        alone = layer(x[0].detach())[0]
        grads = [(n, p.grad) for n, p in layer.named_parameters()]
        return [out, again, ends, alone, x.grad, grads, list(layer.state_dict()), repr(layer)]

    in_both(program, 2e-5)


def test_recurrent_cells_and_what_does_not_fit() -> None:
    def program(t: Any) -> list[Any]:
        x = made(t, 2, 3)
        cells = [fill(t, t.nn.LSTMCell(3, 2)), fill(t, t.nn.GRUCell(3, 2)), fill(t, t.nn.RNNCell(3, 2, nonlinearity="relu"))]
        h, c = cells[0](x)
        h, c = cells[0](x, (h, c))
        outs = [h, c, cells[1](x, cells[1](x)), cells[2](x)]
        sum(o.sum() for o in outs).backward()
        lstm = t.nn.LSTM(3, 2)
        return [outs, x.grad, [p.grad for cell in cells for p in cell.parameters()],
                message(lambda: t.nn.RNN(3, 2, nonlinearity="sin"), ValueError),
                message(lambda: lstm(t.ones(4, 2, 5)))]

    in_both(program, 2e-5)
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 2, 2\), got \[1, 3, 2\]"):
        torch.nn.GRU(3, 2)(torch.ones(4, 2, 3), torch.ones(1, 3, 2))


def test_attention() -> None:
    def program(t: Any) -> list[Any]:
        q, k = made(t, 2, 3, 4), made(t, 2, 5, 4)
        results: list[Any] = []
        for causal in (False, True):
            out = t.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=causal)
            results += [out, *t.autograd.grad(out.cos().sum(), [q, k])]
        layer = fill(t, t.nn.MultiheadAttention(4, 2, batch_first=True))
        padding = t.tensor([[False] * 4 + [True], [False] * 5])
        out, weights = layer(q, k, k, key_padding_mask=padding, attn_mask=t.zeros(3, 5))
        (out.cos().sum() + weights.sin().sum()).backward()
        results += [out, weights, q.grad, k.grad, [p.grad for p in layer.parameters()], list(layer.state_dict())]
        encoder = t.nn.TransformerEncoderLayer(4, 2, 3, 0.0, batch_first=True)
        encoder = fill(t, t.nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False))
        out = encoder(q, mask=t.tensor(np.triu(np.ones((3, 3), bool), 1)))
        return [*results, out, t.autograd.grad(out.sin().sum(), q), list(encoder.state_dict())]

    in_both(program, 1e-4)


def test_gradients_are_clipped() -> None:
    def program(t: Any) -> list[Any]:
        found: list[Any] = []
        for clip in (lambda p: t.nn.utils.clip_grad_norm_(p, 1.5), lambda p: t.nn.utils.clip_grad_norm_(p, 0.5, norm_type=float("inf")),
                     lambda p: t.nn.utils.clip_grad_norm_(p, 1e3), lambda p: t.nn.utils.clip_grad_value_(p, 0.7)):
            a, b, unused = made(t, 2, 3), made(t, 4), made(t, 1)
            ((a * a).sum() + (b ** 3).sum()).backward()
            found += [clip([a, b, unused]) or 0.0, a.grad, b.grad, unused.grad]
        layer = t.nn.Linear(2, 3)
        t.nn.utils.vector_to_parameters(t.arange(9.0), layer.parameters())
        a.grad[0, 0] = float("nan")
        return [*found, layer.weight, layer.bias, t.nn.utils.parameters_to_vector(layer.parameters()),
                message(lambda: t.nn.utils.clip_grad_norm_([a], 1.0, error_if_nonfinite=True))]

    in_both(program)


def test_initialization() -> None:
    torch.manual_seed(0)
    w = torch.empty(40, 50)
    for fill_in, low, high, std in ((torch.nn.init.uniform_, 0, 1, 0.29), (torch.nn.init.normal_, -6, 6, 1.0),
                                    (torch.nn.init.xavier_uniform_, -0.26, 0.26, 0.149), (torch.nn.init.xavier_normal_, -1, 1, 0.149),
                                    (torch.nn.init.kaiming_uniform_, -0.35, 0.35, 0.2), (torch.nn.init.kaiming_normal_, -1, 1, 0.2),
                                    (torch.nn.init.trunc_normal_, -2, 2, 0.88)):
        x = fill_in(w).numpy()
        assert fill_in(w) is w and low <= x.min() and x.max() <= high and np.std(x) == pytest.approx(std, rel=0.06)
    q = torch.nn.init.orthogonal_(w).numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(40), atol=1e-5)
    assert torch.nn.init.eye_(torch.empty(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]

    def program(t: Any) -> list[Any]:
        return [message(lambda: t.nn.init.xavier_uniform_(t.ones(3)), ValueError),
                [t.nn.init.calculate_gain(n) for n in ("relu", "tanh")],
                t.nn.init.constant_(t.ones(2), 3.0), t.nn.init.zeros_(t.ones(2)), t.nn.init.ones_(t.zeros(2))]

    in_both(program)


def test_datasets_and_batches() -> None:
    def program(t: Any) -> list[Any]:
        data = t.utils.data
        x, y = t.arange(14.0).reshape(7, 2), t.arange(7)
        rows = data.TensorDataset(x, y)

        class Squares(data.Dataset):  # type: ignore[misc, name-defined]
            def __len__(self) -> int:
                return 5

            def __getitem__(self, i: int) -> Any:
                return {"x": t.full((2,), float(i)), "square": i * i, "name": str(i)}

        class Stream(data.IterableDataset):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Any:
                return iter([1.5, 2.5, 3.5])

        batches = [*data.DataLoader(rows, batch_size=3), *data.DataLoader(rows, batch_size=3, drop_last=True),
                   *data.DataLoader(data.Subset(rows, [4, 1]), 2)]
        mixed = list(data.DataLoader(Squares(), 2))
        parts = data.random_split(rows, [0.5, 0.5])
        shuffled = data.DataLoader(rows, 2, shuffle=True)
        seen = sorted(int(i) for _, ys in shuffled for i in ys)
        return [batches, [len(b) for b in mixed], mixed[1]["x"], mixed[1]["square"], mixed[2]["name"], [len(p) for p in parts],
                sorted(int(p[i][1]) for p in parts for i in range(len(p))), seen, len(shuffled), rows[2],
                len(data.ConcatDataset([rows, rows])), [b.tolist() for b in data.DataLoader(Stream(), 2)],
                data.ConcatDataset([rows, rows])[9],
                message(lambda: data.TensorDataset(x, y[:2]), AssertionError), message(lambda: data.DataLoader(rows, 0), ValueError),
                message(lambda: data.random_split(rows, [1, 2]), ValueError)]

    in_both(program)
