"""Programs in jax alone: scans of several outputs, while loops, and what its own figures are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.scenarios.building import drawn
from dualrev.problems import brusselator, lstm
from dualrev.problems.scenario import Scenario, alone


def _draw(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(drawn(rng, *shape))


# --------------------------------------------------------------------------------------------------------------- loops


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


def repeated(steps: int, tags: Iterable[str] = ()) -> Scenario:
    """A state of 256 numbers that goes round, a number of times that a while loop does not know, and a scan does."""

    def step(weights: jax.Array, h: jax.Array) -> jax.Array:
        return jnp.tanh(h @ weights) + 0.1 * h

    def by_scan(inputs: tuple[jax.Array, jax.Array], _: jax.Array) -> jax.Array:
        weights, h = inputs
        return jnp.sum(lax.scan(lambda h, _: (step(weights, h), None), h, None, length=steps)[0])

    def by_while(inputs: tuple[jax.Array, jax.Array], n: jax.Array) -> jax.Array:
        weights, h = inputs
        return jnp.sum(lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, step(weights, c[1])), (0, h))[1])

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        return (_draw(rng, 256, 256), _draw(rng, 256) * 16), jnp.int32(steps)

    return Scenario(f"{steps:,} steps", by_while, draw, oracle=by_scan, inputs=257 * 256, outputs=1, tags=tags)


# ------------------------------------------------------------------------------------------------------------- straight


def brusselator_loss(state: dict[str, jax.Array]) -> jax.Array:
    """Half the squared norm of the rate: its gradient is one pull of the rate."""
    moving = brusselator.right_hand_side(state)
    return 0.5 * (jnp.sum(moving["u"] ** 2) + jnp.sum(moving["v"] ** 2))


def brusselator_rate(x: jax.Array) -> jax.Array:
    """The rate of both substances, in one array."""
    moving = brusselator.right_hand_side({"u": x[0], "v": x[1]})
    return jnp.stack([moving["u"], moving["v"]])


def dense_loss(weights: list[jax.Array]) -> jax.Array:
    """Four layers, 256 wide, batch 128."""
    x = _draw(np.random.default_rng(1), 128, 256)
    for w in weights[:-1]:
        x = jnp.tanh(x @ w)
    return jnp.mean((x @ weights[-1]) ** 2)


def dense_weights() -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [*(_draw(rng, 256, 256) for _ in range(3)), _draw(rng, 256, 10)]


def ten_sines(x: jax.Array) -> jax.Array:
    for _ in range(10):
        x = jnp.sin(x)
    return jnp.sum(x)


def deep_loss(layers: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """An unrolled network."""
    x = jnp.ones((8, 16))
    for weights, bias in layers:
        x = jnp.tanh(x @ weights + bias)
    return jnp.sum(x**2)


def deep_layers(depth: int = 200) -> list[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(0)
    return [(_draw(rng, 16, 16), jnp.zeros(16)) for _ in range(depth)]


def small_network_loss(inputs: Any) -> jax.Array:
    """Two layers, 64 wide, batch 32: the time is that of the library, not of the arithmetic."""
    x, (w1, b1, w2, b2) = inputs
    hidden = jnp.tanh(x @ w1 + b1)
    return jnp.mean((hidden @ w2 + b2) ** 2)


def small_network() -> Any:
    rng = np.random.default_rng(0)
    return _draw(rng, 32, 64), (_draw(rng, 64, 64), jnp.zeros(64), _draw(rng, 64, 64), jnp.zeros(64))


def message_passing(nodes: int, edges: int, width: int, tags: Iterable[str] = ()) -> Scenario:
    """A network on a random graph: three rounds of messages along edges, summed where they arrive."""

    def loss(layers: list[dict[str, jax.Array]], x: jax.Array, senders: jax.Array, receivers: jax.Array) -> jax.Array:
        for layer in layers:
            messages = jax.nn.relu(jnp.concatenate([x[senders], x[receivers]], axis=1) @ layer["message"])
            arrived = jax.ops.segment_sum(messages, receivers, num_segments=nodes)
            x = x + jnp.tanh(jnp.concatenate([x, arrived], axis=1) @ layer["update"])
        return jnp.mean(x**2)

    def draw() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        layers = [{"message": drawn(rng, 2 * width, width), "update": drawn(rng, 2 * width, width)} for _ in range(3)]
        return layers, drawn(rng, nodes, width), rng.integers(0, nodes, edges), rng.integers(0, nodes, edges)

    return Scenario(f"message passing, {nodes} nodes", loss, draw, inputs=3 * 4 * width**2, outputs=1, tags=tags)


def chain(length: int) -> Callable[[jax.Array], jax.Array]:
    """``length`` operations, each on the result of the one before."""
    def function(x: jax.Array) -> jax.Array:
        for _ in range(length):
            x = lax.sin(x)
        return x

    return function


SCENARIOS = [
    Scenario("Brusselator rate, 64 x 64", brusselator_loss, alone(lambda: brusselator.state(64)), inputs=2 * 64**2, outputs=1,
             tags=("libraries",)),
    Scenario("Brusselator rate, 16 x 16", brusselator_loss, alone(lambda: brusselator.state(16)), inputs=2 * 16**2, outputs=1,
             tags=("compiled",)),
    Scenario("Brusselator rate, 512 x 512", brusselator_loss, alone(lambda: brusselator.state(512)), inputs=2 * 512**2, outputs=1,
             tags=("compiled",)),
    Scenario("Brusselator rate, 8 x 8", brusselator_rate, alone(lambda: np.random.default_rng(0).uniform(size=(2, 8, 8))), inputs=128,
             outputs=128, tags=("jacobian", "correctness")),
    Scenario("LSTM scan, 128 units", lstm.loss, alone(lambda: lstm.parameters(128)), inputs=81_432, outputs=1, steps=127,
             tags=("compiled", "guards")),
    message_passing(256, 1024, 32, tags=("guards",)),
    message_passing(6, 10, 3, tags=("correctness",)),
    Scenario("three recurrent layers", recurrent_loss, alone(recurrent_layers), inputs=3 * (2 * 64**2 + 64), outputs=1, steps=100,
             tags=("loops", "correctness")),
    Scenario("scan in a scan", nested_loss, alone(lambda: drawn(np.random.default_rng(0), 64, 64)), inputs=64**2, outputs=1, steps=20,
             tags=("loops", "correctness")),
    repeated(64, tags=("while", "correctness")),
    repeated(1024, tags=("while",)),
    repeated(100_000, tags=("while",)),
    Scenario("dense network", dense_loss, alone(dense_weights), inputs=3 * 256**2 + 2560, outputs=1,
             tags=("second order", "residuals")),
    Scenario("ten sines of a million numbers", ten_sines, alone(lambda: drawn(np.random.default_rng(0), 10**6)), inputs=10**6,
             outputs=1, tags=("residuals",)),
    Scenario("200-layer unrolled network", deep_loss, alone(deep_layers), inputs=200 * (16**2 + 16), outputs=1, tags=("tracing",)),
    Scenario("two-layer network, 64 wide, batch 32", small_network_loss, alone(small_network), inputs=32 * 64 + 2 * (64**2 + 64),
             outputs=1, tags=("un-jitted", "correctness")),
]
