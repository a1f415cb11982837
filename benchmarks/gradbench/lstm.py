"""The loss of a diagonal LSTM of several layers [SrajerEtAl2018, section 4.4].

Each gate of a unit sees that unit alone: with h from the layer below and (h', c) the layer's state,

    f = σ(h w₀ + b₀), g = σ(h' w₁ + b₁), o = σ(h w₂ + b₂), z = tanh(h' w₃ + b₃);   c ← c f + g z;   h' ← o tanh c.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.gradbench.problem import Fields, Problem, objective

UNITS = 14


def loss(main: jax.Array, extra: jax.Array, state: jax.Array, sequence: jax.Array) -> jax.Array:
    """One scan for each layer: what it reads from the layer below is known for all times, and two of its four gates with it."""
    b = main.shape[1] // 4
    h = sequence[:-1] * extra[0]
    for (w, bias), (hidden, cell) in zip(main.reshape(-1, 2, 4, b), state.reshape(-1, 2, b), strict=True):
        forget, out = jax.nn.sigmoid(h * w[0] + bias[0]), jax.nn.sigmoid(h * w[2] + bias[2])

        def step(carry: Any, gates: Any, w: jax.Array = w, bias: jax.Array = bias) -> Any:
            (hidden, cell), (forget, out) = carry, gates
            keep, change = jax.nn.sigmoid(hidden * w[1] + bias[1]), jnp.tanh(hidden * w[3] + bias[3])
            cell = cell * forget + keep * change
            hidden = out * jnp.tanh(cell)
            return (hidden, cell), hidden

        _, h = lax.scan(step, (hidden, cell), (forget, out))
    y = h * extra[1] + extra[2]
    log_total = jnp.log(jnp.sum(jnp.exp(y), axis=1) + 2)
    return -jnp.sum(sequence[1:] * (y - log_total[:, None])) / y.size


def gradient(ad: Any) -> Any:
    def flat(main: jax.Array, extra: jax.Array, state: jax.Array, sequence: jax.Array) -> jax.Array:
        found = ad.grad(loss, argnums=(0, 1))(main, extra, state, sequence)
        return jnp.concatenate([part.ravel() for part in found])

    return flat


def read(fields: Fields) -> tuple[Any, ...]:
    main = fields.array("main_params", None, 4 * UNITS)
    return (main, fields.array("extra_params", 3, UNITS), fields.array("state", len(main), UNITS),
            fields.array("sequence", None, UNITS))


PROBLEM = Problem(read, {"objective": objective(loss), "jacobian": gradient})
