"""Programs to differentiate, free of any differentiation library: functions of one pytree, and their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.problems import brusselator, lstm, mixture, network


@dataclass(frozen=True)
class Program:
    """A scalar function of one pytree of arrays, and a point."""

    name: str
    function: Callable[[Any], jax.Array]
    make_inputs: Callable[[], Any]


def _draw(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]), "float32")


# ------------------------------------------------------------------------------------------------------------ compiled


def brusselator_loss(state: dict[str, jax.Array]) -> jax.Array:
    """Half the squared norm of the rate: its gradient is one pull of the rate."""
    moving = brusselator.right_hand_side(state)
    return 0.5 * (jnp.sum(moving["u"] ** 2) + jnp.sum(moving["v"] ** 2))


BATCH, INPUTS, HIDDEN, CLASSES = 128, 784, 512, 10


def wide_network_loss(layers: list[dict[str, jax.Array]]) -> jax.Array:
    """The cross-entropy of two layers at the sizes of handwritten digits."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((BATCH, INPUTS)), "float32")
    labels = jnp.asarray(rng.integers(0, CLASSES, BATCH))
    hidden, output = layers
    x = jnp.tanh(x @ hidden["weights"] + hidden["bias"])
    log_p = jax.nn.log_softmax(x @ output["weights"] + output["bias"])
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


def wide_network_layers() -> list[dict[str, jax.Array]]:
    rng = np.random.default_rng(0)
    return [{"weights": _draw(rng, n, m), "bias": jnp.zeros(m)} for n, m in ((INPUTS, HIDDEN), (HIDDEN, CLASSES))]


LAYERS, SEQUENCES, LENGTH, WIDTH, HEADS = 3, 4, 64, 128, 4


def _layer_norm(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.var(x, axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + shift


def _attention(x: jax.Array, layer: dict[str, jax.Array]) -> jax.Array:
    q, k, v = jnp.moveaxis(jnp.einsum("btd,dche->btche", x, layer["qkv"]), 2, 0)
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) / np.sqrt(q.shape[-1])
    causal = np.tril(np.ones((x.shape[1], x.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
    return jnp.einsum("bhqk,bkhe,hed->bqd", weights, v, layer["project"])


def transformer_loss(layers: list[dict[str, jax.Array]]) -> jax.Array:
    """Three pre-norm blocks of causal attention and a GELU network, and a squared error."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((SEQUENCES, LENGTH, WIDTH)), "float32")
    target = jnp.asarray(rng.standard_normal((SEQUENCES, LENGTH, WIDTH)), "float32")
    for layer in layers:
        x = x + _attention(_layer_norm(x, layer["scale1"], layer["shift1"]), layer)
        hidden = jax.nn.gelu(_layer_norm(x, layer["scale2"], layer["shift2"]) @ layer["up"] + layer["up_bias"])
        x = x + hidden @ layer["down"] + layer["down_bias"]
    return jnp.mean((x - target) ** 2)


def transformer_layers() -> list[dict[str, jax.Array]]:
    rng = np.random.default_rng(0)
    return [
        {
            "qkv": _draw(rng, WIDTH, 3, HEADS, WIDTH // HEADS),
            "project": _draw(rng, HEADS, WIDTH // HEADS, WIDTH) / np.sqrt(WIDTH // HEADS).astype("float32"),
            "up": _draw(rng, WIDTH, 4 * WIDTH),
            "up_bias": jnp.zeros(4 * WIDTH),
            "down": _draw(rng, 4 * WIDTH, WIDTH),
            "down_bias": jnp.zeros(WIDTH),
            **{f"{name}{n}": fill(WIDTH) for n in (1, 2) for name, fill in (("scale", jnp.ones), ("shift", jnp.zeros))},
        }
        for _ in range(LAYERS)
    ]


COMPILED = (
    Program("Gaussian mixture, iris", mixture.log_likelihood, mixture.parameters),
    Program("Brusselator rate, 16 x 16", brusselator_loss, lambda: brusselator.state(16)),
    Program("Brusselator rate, 512 x 512", brusselator_loss, lambda: brusselator.state(512)),
    Program("two-layer network, iris", network.loss, network.layers),
    Program("two-layer network, 784-512-10", wide_network_loss, wide_network_layers),
    Program("LSTM scan, 8 units", lstm.loss, lstm.parameters),
    Program("LSTM scan, 128 units", lstm.loss, lambda: lstm.parameters(128)),
    Program("3-layer transformer block", transformer_loss, transformer_layers),
)

# --------------------------------------------------------------------------------------------------------------- loops


def sequence(length: int, batch: int, features: int) -> jax.Array:
    return _draw(np.random.default_rng(1), length, batch, features) * np.float32(np.sqrt(length))


def lstm_layer(length: int, batch: int, features: int, hidden: int) -> Program:
    """A layer of long short-term memory over a sequence of vectors."""

    def loss(weights: dict[str, jax.Array]) -> jax.Array:
        xs = sequence(length, batch, features)

        def step(carry: Any, x: jax.Array) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(x @ weights["input"] + h @ weights["again"] + weights["bias"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = jnp.zeros((batch, hidden), "float32")
        return jnp.mean(lax.scan(step, (start, start), xs)[1] ** 2)

    def weights() -> dict[str, jax.Array]:
        rng = np.random.default_rng(0)
        return {"input": _draw(rng, features, 4 * hidden), "again": _draw(rng, hidden, 4 * hidden),
                "bias": jnp.zeros(4 * hidden, "float32")}

    return Program(f"LSTM {length} x {batch}, {features}-{hidden}", loss, weights)


def recurrent_loss(layers: list[dict[str, jax.Array]]) -> jax.Array:
    """Three recurrent layers, one above the other, over 100 steps of a batch of 16."""
    xs = _draw(np.random.default_rng(1), 100, 16, 64) * 10

    def step(states: Any, x: jax.Array) -> Any:
        found = []
        for layer, h in zip(layers, states, strict=True):
            x = jnp.tanh(x @ layer["input"] + h @ layer["again"] + layer["bias"])
            found.append(x)
        return found, x

    return jnp.mean(lax.scan(step, [jnp.zeros((16, 64), "float32")] * 3, xs)[1] ** 2)


def recurrent_layers() -> list[dict[str, jax.Array]]:
    rng = np.random.default_rng(0)
    return [{"input": _draw(rng, 64, 64), "again": _draw(rng, 64, 64), "bias": jnp.zeros(64, "float32")} for _ in range(3)]


def nested_loss(weights: jax.Array) -> jax.Array:
    """A scan in a scan: 20 times 20 steps."""

    def inner(h: jax.Array, x: jax.Array) -> Any:
        return jnp.tanh(h @ weights + x), None

    def outer(h: jax.Array, x: jax.Array) -> Any:
        h, _ = lax.scan(inner, h, jnp.stack([x] * 20))
        return h, h

    xs = _draw(np.random.default_rng(1), 20, 16, 64) * 4
    return jnp.mean(lax.scan(outer, jnp.zeros((16, 64), "float32"), xs)[1] ** 2)


def ode_loss(weights: list[jax.Array]) -> jax.Array:
    """200 steps of the fourth-order Runge-Kutta method, with a network of two layers for the right-hand side."""

    def rate(y: jax.Array) -> jax.Array:
        return jnp.tanh(y @ weights[0]) @ weights[1]

    def step(y: jax.Array, _: Any) -> Any:
        k1 = rate(y)
        k2 = rate(y + 0.005 * k1)
        k3 = rate(y + 0.005 * k2)
        k4 = rate(y + 0.01 * k3)
        return y + 0.01 / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jnp.sum(lax.scan(step, _draw(np.random.default_rng(1), 8, 16), None, length=200)[0] ** 2)


def ode_weights() -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [_draw(rng, 16, 64), _draw(rng, 64, 16)]


#: Steps, batch, features, units.
LSTM_SIZES = (100, 1, 32, 64), (100, 8, 64, 128), (200, 16, 128, 256), (100, 32, 128, 256)

LOOPS = (
    *[lstm_layer(*size) for size in LSTM_SIZES],
    Program("three recurrent layers", recurrent_loss, recurrent_layers),
    Program("scan in a scan", nested_loss, lambda: _draw(np.random.default_rng(0), 64, 64)),
    Program("ODE, 200 steps", ode_loss, ode_weights),
)


def repeated(steps: int, is_known: bool) -> Program:
    """A state of 256 numbers that goes round, a number of times that a scan knows and a while loop does not."""

    def step(weights: jax.Array, h: jax.Array) -> jax.Array:
        return jnp.tanh(h @ weights) + 0.1 * h

    def by_scan(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        weights, h, _ = inputs
        return jnp.sum(lax.scan(lambda h, _: (step(weights, h), None), h, None, length=steps)[0])

    def by_while(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        weights, h, n = inputs
        return jnp.sum(lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, step(weights, c[1])), (0, h))[1])

    def inputs() -> Any:
        rng = np.random.default_rng(0)
        return _draw(rng, 256, 256), _draw(rng, 256) * 16, jnp.int32(steps)

    return Program(f"{steps:,} steps", by_scan if is_known else by_while, inputs)


# --------------------------------------------------------------------------------------------- second order, residuals


def dense_loss(weights: list[jax.Array]) -> jax.Array:
    """Four layers, 256 wide, batch 128."""
    x = _draw(np.random.default_rng(1), 128, 256)
    for w in weights[:-1]:
        x = jnp.tanh(x @ w)
    return jnp.mean((x @ weights[-1]) ** 2)


def dense_weights() -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [*(_draw(rng, 256, 256) for _ in range(3)), _draw(rng, 256, 10)]


def convolutional_loss(weights: list[jax.Array]) -> jax.Array:
    """Two convolutions with means over squares of four, two layers: a batch of 32 images of 28 x 28."""
    x = _draw(np.random.default_rng(1), 32, 28, 28, 1)
    for kernel in weights[:2]:
        x = jnp.tanh(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
        x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return jnp.mean((jnp.tanh(x.reshape(32, -1) @ weights[2]) @ weights[3]) ** 2)


def convolutional_weights() -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [_draw(rng, 5, 5, 1, 8), _draw(rng, 5, 5, 8, 16), _draw(rng, 784, 64), _draw(rng, 64, 10)]


SECOND_ORDER = (
    Program("dense network", dense_loss, dense_weights),
    Program("convolutional network", convolutional_loss, convolutional_weights),
    lstm_layer(50, 8, 32, 64),
)


def ten_sines(x: jax.Array) -> jax.Array:
    for _ in range(10):
        x = jnp.sin(x)
    return jnp.sum(x)


RESIDUALS = (
    Program("ten sines of a million numbers", ten_sines, lambda: _draw(np.random.default_rng(0), 10**6)),
    Program("dense network", dense_loss, dense_weights),
    Program("3-layer transformer block", transformer_loss, transformer_layers),
)

# ------------------------------------------------------------------------------------------------------------- tracing


def deep_loss(layers: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """An unrolled network."""
    x = jnp.ones((8, 16))
    for weights, bias in layers:
        x = jnp.tanh(x @ weights + bias)
    return jnp.sum(x**2)


def deep_layers(depth: int = 200) -> list[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(0)
    return [(_draw(rng, 16, 16), jnp.zeros(16)) for _ in range(depth)]


TRACED = (Program("200-layer unrolled network", deep_loss, deep_layers),)

# ----------------------------------------------------------------------------------------------------------- un-jitted


def small_network_loss(inputs: Any) -> jax.Array:
    """Two layers, 64 wide, batch 32: the time is that of the library, not of the arithmetic."""
    x, (w1, b1, w2, b2) = inputs
    hidden = jnp.tanh(x @ w1 + b1)
    return jnp.mean((hidden @ w2 + b2) ** 2)


def small_network() -> Any:
    rng = np.random.default_rng(0)
    return _draw(rng, 32, 64), (_draw(rng, 64, 64), jnp.zeros(64), _draw(rng, 64, 64), jnp.zeros(64))


def ten_operations(x: jax.Array) -> jax.Array:
    """A scalar function of ten operations."""
    y = jnp.sin(x) * x
    z = jnp.exp(-y) + jnp.tanh(x)
    return jnp.log(z * z + 1.0) - y * z


EAGER = (
    Program("two-layer network, 64 wide, batch 32", small_network_loss, small_network),
    Program("scalar function of 10 operations", ten_operations, lambda: jnp.float32(0.7)),
)


def chain(length: int) -> Callable[[jax.Array], jax.Array]:
    """``length`` operations, each on the result of the one before."""
    def function(x: jax.Array) -> jax.Array:
        for _ in range(length):
            x = lax.sin(x)
        return x

    return function
