"""What a person writes who knows the program: peers for a derivative that a library finds by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def lstm_gradient(xs: jax.Array, hidden: int) -> Any:
    """The gradient of ``mean(h²)`` of a long short-term memory over ``xs (length, batch, features)``, by its weights.

    The step's gates are kept; on the way back the cotangents of the gates are stacked, and contracted with their inputs over time
    and batch once, after the loop.
    """
    length, batch, features = xs.shape

    def gradient(weights: dict[str, jax.Array]) -> dict[str, jax.Array]:
        def forward(state: Any, x: jax.Array) -> Any:
            h, c = state
            i, f, g, o = jnp.split(x @ weights["input"] + h @ weights["again"] + weights["bias"], 4, axis=-1)
            i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
            new = f * c + i * g
            t = jnp.tanh(new)
            return (o * t, new), (h, c, i, f, g, o, t)

        def backward(cts: Any, kept: Any) -> Any:
            h_ct, c_ct = cts
            _, c, i, f, g, o, t = kept
            h_ct = h_ct + 2 / (length * batch * hidden) * o * t
            c_ct = c_ct + h_ct * o * (1 - t * t)
            by_gate = c_ct * g * i * (1 - i), c_ct * c * f * (1 - f), c_ct * i * (1 - g * g), h_ct * t * o * (1 - o)
            gates = jnp.concatenate(by_gate, -1)
            return (gates @ weights["again"].T, c_ct * f), gates

        zero = jnp.zeros((batch, hidden), xs.dtype)
        _, kept = lax.scan(forward, (zero, zero), xs)
        _, gates = lax.scan(backward, (zero, zero), kept, reverse=True)
        flat = gates.reshape(-1, 4 * hidden)
        return {"input": xs.reshape(-1, features).T @ flat, "again": kept[0].reshape(-1, hidden).T @ flat, "bias": flat.sum(0)}

    return gradient
