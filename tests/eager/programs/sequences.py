"""Whole programs: networks for sequences and words."""

from __future__ import annotations

import math
from typing import Any

from programs.starting import fill, trained, waves


def recurrent_from_scratch(t: Any) -> list[Any]:
    """A recurrent network written out, with clipping of gradients."""
    n, h = 6, 5
    w = {name: (waves(t, *shape, k=k) * 0.4).requires_grad_() for name, shape, k in (
        ("xh", (n, h), 1.0), ("hh", (h, h), 2.0), ("hq", (h, n), 3.0))}
    b, q = t.zeros(h, requires_grad=True), t.zeros(n, requires_grad=True)
    params = [*w.values(), b, q]
    text = (t.arange(24) * 5 % n).reshape(2, 12)
    found = []
    for _ in range(3):
        state, loss = t.zeros(2, h), t.tensor(0.0)
        for i in range(text.shape[1] - 1):
            x = t.nn.functional.one_hot(text[:, i], n).float()
            state = t.tanh(x @ w["xh"] + state @ w["hh"] + b)
            loss = loss + t.nn.functional.cross_entropy(state @ w["hq"] + q, text[:, i + 1])
        loss.backward()
        norm = t.nn.utils.clip_grad_norm_(params, 1.0)
        with t.no_grad():
            for p in params:
                p -= 0.5 * p.grad
                p.grad.zero_()
        found += [loss.item(), norm.item()]
    return found


def gated_units(t: Any) -> list[Any]:
    """GRU and LSTM over words, whose last states are classified."""
    class Reader(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words = t.nn.Embedding(9, 4, padding_idx=0)
            self.gru = t.nn.GRU(4, 5, batch_first=True, bidirectional=True)
            self.lstm = t.nn.LSTM(10, 6, num_layers=2, batch_first=True)
            self.out = t.nn.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            y, _ = self.gru(self.words(x))
            _, (h, _) = self.lstm(y)
            return self.out(h[-1])

    model = fill(t, Reader())
    x, y = (t.arange(28) * 5 % 9).reshape(4, 7), t.tensor([0, 1, 1, 0])
    return trained(t, model, t.optim.Adam(model.parameters(), lr=0.02), lambda: t.nn.functional.cross_entropy(model(x), y))


def small_gpt(t: Any) -> list[Any]:
    """A decoder of two blocks with causal attention written out, trained, and asked for the likeliest next words."""
    nn, functional = t.nn, t.nn.functional
    words, width, heads, block = 11, 8, 2, 6

    class Attention(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.register_buffer("mask", t.tril(t.ones(block, block)).view(1, 1, block, block))

        def forward(self, x: Any) -> Any:
            b, n, c = x.size()
            q, k, v = (z.view(b, n, heads, c // heads).transpose(1, 2) for z in self.qkv(x).split(width, dim=2))
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.mask[:, :, :n, :n] == 0, float("-inf"))
            y = functional.softmax(scores, dim=-1) @ v
            return self.project(y.transpose(1, 2).contiguous().view(b, n, c))

    class Block(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.attention, self.second = nn.LayerNorm(width), Attention(), nn.LayerNorm(width)
            self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.first(x))
            return x + self.feed(self.second(x))

    class Decoder(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(words, width), nn.Embedding(block, width)
            self.blocks = nn.ModuleList([Block() for _ in range(2)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
            self.head.weight = self.words.weight  # one matrix for both

        def forward(self, x: Any) -> Any:
            h = self.words(x) + self.places(t.arange(x.shape[1]))
            for part in self.blocks:
                h = part(h)
            return self.head(self.norm(h))

    model = fill(t, Decoder())
    with t.no_grad():
        for p in model.parameters():
            p.mul_(0.3)
    text = t.arange(28) * 3 % words
    x = t.stack([text[i: i + block] for i in (0, 5, 9)])
    y = t.stack([text[i + 1: i + 1 + block] for i in (0, 5, 9)])
    # The gradient of a key's bias is zero but for rounding, which Adam would make as large as the others.
    found = trained(t, model, t.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
                    lambda: functional.cross_entropy(model(x).view(-1, words), y.view(-1)))
    seen = text[None, :2]
    for _ in range(5):
        logits = model(seen[:, -block:])[:, -1, :] / 0.8
        best, _ = t.topk(logits, 3)
        logits[logits < best[:, [-1]]] = -float("inf")
        seen = t.cat([seen, functional.softmax(logits, dim=-1).argmax(-1, keepdim=True)], dim=1)
    return [*found, seen, len(list(model.parameters()))]


def encoder_of_transformers(t: Any) -> list[Any]:
    """Encoder layers of ``nn`` with a padding mask."""
    layer = t.nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, dropout=0.0, batch_first=True)
    model = fill(t, t.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    with t.no_grad():
        for p in model.parameters():
            p.mul_(0.3)
    x = waves(t, 2, 5, 8)
    mask = t.tensor([[False] * 5, [False] * 3 + [True] * 2])
    return trained(t, model, t.optim.SGD(model.parameters(), lr=0.05), lambda: (model(x, src_key_padding_mask=mask)[:, 0] ** 2).mean())


def words_by_negative_samples(t: Any) -> list[Any]:
    """Embeddings from pairs of words and words drawn against them, with a row-wise product."""
    inside, outside = fill(t, t.nn.Embedding(12, 4)), fill(t, t.nn.Embedding(12, 4))
    centre, near = t.tensor([1, 5, 7]), t.tensor([2, 4, 8])
    far = (t.arange(9) * 5 % 12).reshape(3, 3)

    def loss() -> Any:
        c = inside(centre)
        good = t.nn.functional.logsigmoid((c * outside(near)).sum(1))
        bad = t.nn.functional.logsigmoid(-t.bmm(outside(far), c.unsqueeze(2)).squeeze(2)).sum(1)
        return -(good + bad).mean()

    model = t.nn.ModuleList([inside, outside])
    return trained(t, model, t.optim.Adagrad(model.parameters(), lr=0.1), loss)
