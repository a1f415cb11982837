"""Networks, in an array namespace."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.scenarios.building import drawn, portable
from dualrev.problems.scenario import Scenario

Weights = Any


def cross_entropy(xp: Any, scores: Any, labels: Any) -> Any:
    rows = np.arange(scores.shape[0])
    return xp.mean(xp.logsumexp(scores, -1) - scores[rows, labels])


def mlp_scores(xp: Any, x: Any, layers: Weights) -> Any:
    for layer in layers[:-1]:
        x = xp.tanh(x @ layer["weights"] + layer["bias"])
    return x @ layers[-1]["weights"] + layers[-1]["bias"]


def mlp_loss(xp: Any, layers: Weights, x: Any, labels: Any) -> Any:
    return cross_entropy(xp, mlp_scores(xp, x, layers), labels)


def _layers(*widths: int) -> Weights:
    rng = np.random.default_rng(0)
    return [{"weights": drawn(rng, n, m), "bias": np.zeros(m, "float32")} for n, m in pairwise(widths)]


def mlp(batch: int, *widths: int, tags: Iterable[str] = ()) -> Scenario:
    """The cross-entropy of layers; 784-512-10 is the size of handwritten digits."""

    def draw() -> tuple[Any, ...]:
        data = np.random.default_rng(1)
        x = data.standard_normal((batch, widths[0])).astype("float32")
        return _layers(*widths), x, data.integers(0, widths[-1], batch)

    return portable(f"network {'-'.join(map(str, widths))}", mlp_loss, draw, inputs=sum(n * m + m for n, m in pairwise(widths)),
                    outputs=1, tags=tags)


def mlp_outputs(*widths: int, tags: Iterable[str] = ()) -> Scenario:
    """The scores of one input, by that input."""
    return portable(f"network's outputs, {'-'.join(map(str, widths))}", mlp_scores,
                    lambda: (drawn(np.random.default_rng(1), 1, widths[0])[0], _layers(*widths)), inputs=widths[0], outputs=widths[-1],
                    tags=tags)


# -------------------------------------------------------------------------------------------------------------- images


def lenet_loss(xp: Any, weights: Weights, x: Any) -> Any:
    """Two convolutions with means over squares of four, two layers."""
    for kernel in weights[:2]:
        x = xp.halve(xp.tanh(xp.conv(x, kernel)))
    return xp.mean((xp.tanh(x.reshape((x.shape[0], -1)) @ weights[2]) @ weights[3]) ** 2)


def lenet(batch: int, name: str = "convolutional network", tags: Iterable[str] = ()) -> Scenario:
    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        weights = [drawn(rng, 5, 5, 1, 8), drawn(rng, 5, 5, 8, 16), drawn(rng, 784, 64), drawn(rng, 64, 10)]
        return weights, drawn(np.random.default_rng(1), batch, 28, 28, 1)

    return portable(name, lenet_loss, draw, inputs=25 * 8 + 25 * 8 * 16 + 784 * 64 + 64 * 10, outputs=1, tags=tags)


def batch_norm(xp: Any, x: Any, scale: Any, shift: Any) -> Any:
    centred = x - xp.mean(x, axis=(0, 1, 2), keepdims=True)
    return centred / xp.sqrt(xp.mean(centred**2, axis=(0, 1, 2), keepdims=True) + 1e-5) * scale + shift


def residual_loss(xp: Any, w: Weights, x: Any) -> Any:
    """The basic block of ResNet-18: two convolutions with batch normalization, and the input added."""
    inside = xp.relu(batch_norm(xp, xp.conv(x, w["kernel1"]), w["scale1"], w["shift1"]))
    outside = xp.relu(batch_norm(xp, xp.conv(inside, w["kernel2"]), w["scale2"], w["shift2"]) + x)
    return xp.mean(outside**2)


def residual_block(batch: int, size: int, channels: int, name: str = "ResNet-18 block", tags: Iterable[str] = ()) -> Scenario:
    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        weights: dict[str, Any] = {}
        for n in (1, 2):
            weights[f"kernel{n}"] = drawn(rng, 3, 3, channels, channels) / np.float32(np.sqrt(3 * channels))
            weights[f"scale{n}"], weights[f"shift{n}"] = np.ones(channels, "float32"), np.zeros(channels, "float32")
        return weights, np.random.default_rng(1).standard_normal((batch, size, size, channels)).astype("float32")

    return portable(name, residual_loss, draw, inputs=2 * (9 * channels**2 + 2 * channels), outputs=1, tags=tags)


# --------------------------------------------------------------------------------------------------------- transformer


def layer_norm(xp: Any, x: Any, scale: Any, shift: Any) -> Any:
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    return centred / xp.sqrt(xp.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * scale + shift


def attention(xp: Any, x: Any, layer: Weights, is_masked: Any) -> Any:
    q, k, v = (xp.einsum("btd,dhe->bthe", x, layer[name]) for name in "qkv")
    scores = xp.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(q.shape[-1])
    weights = xp.softmax(xp.where(is_masked, -math.inf, scores))
    return xp.einsum("bqhe,hed->bqd", xp.einsum("bhqk,bkhe->bqhe", weights, v), layer["project"])


def transformer_loss(xp: Any, layers: Weights, x: Any, target: Any, is_masked: Any) -> Any:
    """Pre-norm blocks of causal attention and a GELU network, and a squared error."""
    for layer in layers:
        x = x + attention(xp, layer_norm(xp, x, layer["scale1"], layer["shift1"]), layer, is_masked)
        hidden = xp.gelu(layer_norm(xp, x, layer["scale2"], layer["shift2"]) @ layer["up"] + layer["up_bias"])
        x = x + hidden @ layer["down"] + layer["down_bias"]
    return xp.mean((x - target) ** 2)


def transformer(depth: int, batch: int = 4, length: int = 64, width: int = 128, heads: int = 4, name: str = "",
                tags: Iterable[str] = ()) -> Scenario:
    def draw() -> tuple[Any, ...]:
        rng, data = np.random.default_rng(0), np.random.default_rng(1)
        ones, zeros, inside = np.ones(width, "float32"), np.zeros(width, "float32"), width // heads
        layers = [
            {
                **{name: drawn(rng, width, heads, inside) for name in "qkv"},
                "project": drawn(rng, heads, inside, width) / np.float32(np.sqrt(inside)),
                "up": drawn(rng, width, 4 * width), "up_bias": np.zeros(4 * width, "float32"),
                "down": drawn(rng, 4 * width, width), "down_bias": zeros,
                "scale1": ones, "shift1": zeros, "scale2": ones, "shift2": zeros,
            }
            for _ in range(depth)
        ]
        x, target = (data.standard_normal((batch, length, width)).astype("float32") for _ in range(2))
        return layers, x, target, ~np.tril(np.ones((length, length), bool))

    return portable(name or f"{depth}-layer transformer block", transformer_loss, draw, inputs=depth * (12 * width**2 + 9 * width),
                    outputs=1, tags=tags)


# ----------------------------------------------------------------------------------------------------------- recurrent


def sequence(length: int, batch: int, features: int) -> np.ndarray:
    return drawn(np.random.default_rng(1), length, batch, features) * np.float32(np.sqrt(length))


def lstm_loss(xp: Any, weights: Weights, xs: Any, start: Any) -> Any:
    """Long short-term memory over a sequence of vectors, and the mean of the squares of its states."""

    def step(carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, g, o = xp.split(x @ weights["input"] + h @ weights["again"] + weights["bias"], 4)
        c = xp.sigmoid(f) * c + xp.sigmoid(i) * xp.tanh(g)
        h = xp.sigmoid(o) * xp.tanh(c)
        return (h, c), h

    return xp.mean(xp.scan(step, (start, start), xs, xs.shape[0])[1] ** 2)


def gru_loss(xp: Any, weights: Weights, xs: Any, start: Any) -> Any:
    """Gated recurrent units, with the reset applied after the product."""

    def step(h: Any, x: Any) -> Any:
        r, z, n = xp.split(x @ weights["input"] + weights["bias"], 3)
        again_r, again_z, again_n = xp.split(h @ weights["again"], 3)
        new = xp.tanh(n + xp.sigmoid(r + again_r) * again_n)
        update = xp.sigmoid(z + again_z)
        h = (1 - update) * new + update * h
        return h, h

    return xp.mean(xp.scan(step, start, xs, xs.shape[0])[1] ** 2)


def recurrent(kind: str, length: int, batch: int, features: int, hidden: int, tags: Iterable[str] = ()) -> Scenario:
    loss, gates = {"LSTM": (lstm_loss, 4), "GRU": (gru_loss, 3)}[kind]

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        weights = {"input": drawn(rng, features, gates * hidden), "again": drawn(rng, hidden, gates * hidden),
                   "bias": np.zeros(gates * hidden, "float32")}
        return weights, sequence(length, batch, features), np.zeros((batch, hidden), "float32")

    return portable(f"{kind} {length} x {batch}, {features}-{hidden}", loss, draw, inputs=gates * hidden * (features + hidden + 1),
                    outputs=1, steps=length, tags=tags)


#: Long short-term memories that are compared with what a person writes: steps, batch, features, units.
LSTM_SIZES = (100, 1, 32, 64), (100, 8, 64, 128), (200, 16, 128, 256), (100, 32, 128, 256)

SCENARIOS = [
    mlp(128, 784, 512, 10, tags=("libraries", "compiled")),
    mlp(4, 8, 8, 3, tags=("correctness",)),
    mlp_outputs(64, 256, 256, 10, tags=("jacobian",)),
    lenet(32, tags=("libraries", "second order", "guards")),
    lenet(2, "convolutional network, 2 images", tags=("correctness",)),
    residual_block(4, 16, 32, tags=("libraries", "guards")),
    residual_block(2, 4, 3, "ResNet-18 block, 3 channels", tags=("correctness",)),
    transformer(1, tags=("libraries", "guards")),
    transformer(3, tags=("compiled", "residuals")),
    transformer(2, 2, 5, 8, 2, "2-layer transformer block, 8 wide", tags=("correctness",)),
    *[recurrent("LSTM", *size, tags=("libraries", "loops", "guards") if size == LSTM_SIZES[1] else ("loops",)) for size in LSTM_SIZES],
    recurrent("LSTM", 50, 8, 32, 64, tags=("second order",)),
    recurrent("LSTM", 5, 2, 3, 4, tags=("correctness",)),
    recurrent("GRU", 100, 8, 64, 128, tags=("libraries", "guards")),
    recurrent("GRU", 5, 2, 3, 4, tags=("correctness",)),
]
