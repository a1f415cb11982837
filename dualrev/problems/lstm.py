"""The loss of an LSTM that reads a text and foretells each next character."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.problems.scenario import Scenario, alone
from dualrev.problems.sources import text

HIDDEN = 8

Parameters = dict[str, jax.Array]
Pair = tuple[jax.Array, jax.Array]


def loss(parameters: Parameters) -> jax.Array:
    """The mean cross-entropy, in nats for each character.

    [HochreiterSchmidhuber1997], with the forget gate of [GersEtAl2000]:

        i, f, o = σ(gates), g = tanh(gate);   c ← f c + i g;   h ← o tanh(c)
    """
    characters = jnp.asarray(text()[0])
    hidden = parameters["recurrent"].shape[0]

    def step(carry: Pair, pair: Pair) -> tuple[Pair, jax.Array]:
        h, c = carry
        seen, following = pair
        gates = parameters["input"][seen] + h @ parameters["recurrent"] + parameters["bias"]
        i, f, g, o = jnp.split(gates, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        log_p = jax.nn.log_softmax(h @ parameters["output"] + parameters["output_bias"])
        return (h, c), -log_p[following]

    start = jnp.zeros(hidden, parameters["bias"].dtype)
    _, losses = lax.scan(step, (start, start), (characters[:-1], characters[1:]))
    return jnp.mean(losses)


def parameters(hidden: int = HIDDEN) -> Parameters:
    """Weights drawn with the variance 1 / (number of units), the forget gates open, other biases zero."""
    draw = np.random.default_rng(1997)
    alphabet = text()[1]
    bias = np.zeros(4 * hidden)
    bias[hidden : 2 * hidden] = 1
    return {
        "input": jnp.asarray(draw.normal(size=(alphabet, 4 * hidden)) / np.sqrt(hidden)),
        "recurrent": jnp.asarray(draw.normal(size=(hidden, 4 * hidden)) / np.sqrt(hidden)),
        "bias": jnp.asarray(bias),
        "output": jnp.asarray(draw.normal(size=(hidden, alphabet)) / np.sqrt(hidden)),
        "output_bias": jnp.zeros(alphabet),
    }


SCENARIOS = [
    Scenario(
        "LSTM scan", loss, alone(parameters), inputs=1272, outputs=1, steps=127, tags=("tour", "correctness", "compiled"),
        description="cross-entropy of an LSTM with 8 units that foretells each character of the first stanza of Jabberwocky",
        citation="S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997) 1735-1780",
    ),
]
