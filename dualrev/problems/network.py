"""The loss of a network of two layers that tells the three species of iris apart."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.problems.scenario import Scenario, alone
from dualrev.problems.sources import SPECIES, iris

HIDDEN = 16

Layers = list[dict[str, jax.Array]]


def loss(layers: Layers) -> jax.Array:
    """The mean cross-entropy over all flowers; measurements are standardized, the hidden layer is tanh."""
    measured, species = iris()
    x = jnp.asarray((measured - measured.mean(axis=0)) / measured.std(axis=0))
    hidden, output = layers
    x = jnp.tanh(x @ hidden["weights"] + hidden["bias"][None])
    log_p = jax.nn.log_softmax(x @ output["weights"] + output["bias"][None])
    return -jnp.mean(jnp.take_along_axis(log_p, jnp.asarray(species)[:, None], axis=1))


def layers() -> Layers:
    """Weights drawn with the variance 1 / (number of inputs), biases zero."""
    draw = np.random.default_rng(1986)
    sizes = (iris()[0].shape[1], HIDDEN, len(SPECIES))
    return [
        {"weights": jnp.asarray(draw.normal(size=(n, m)) / np.sqrt(n)), "bias": jnp.zeros(m)}
        for n, m in pairwise(sizes)
    ]


SCENARIOS = [
    Scenario(
        "two-layer network", loss, alone(layers), inputs=131, outputs=1, tags=("tour", "correctness", "compiled"),
        description="cross-entropy of a network with 16 hidden tanh units that tells the three species of iris apart",
        citation="D. Rumelhart, G. Hinton, R. Williams, Learning representations by back-propagating errors, Nature 323 (1986) 533-536",
    ),
]
