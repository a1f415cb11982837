"""The log-likelihood of a mixture of three Gaussians on the iris measurements."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.problems.scenario import Scenario, alone
from dualrev.problems.sources import SPECIES, iris

Parameters = dict[str, jax.Array]


def log_likelihood(parameters: Parameters) -> jax.Array:
    """log p(data) of a mixture with a full covariance for each component.

    A component's precision is QᵀQ with Q lower triangular, its diagonal given by logarithms, so that every parameter is free
    and no matrix is factored [SrajerEtAl2018, section 4.1]:

        log p(x) = logsumexp_k( log w_k + Σ log diag Q_k - ½ |Q_k (x - μ_k)|² ) - ½ d log 2π
    """
    flowers = jnp.asarray(iris()[0])
    means, log_diagonal = parameters["means"], parameters["log_diagonal"]
    components, d = means.shape
    rows, columns = np.tril_indices(d, -1)
    diagonal = np.arange(d)
    q = jnp.zeros((components, d, d), means.dtype)
    q = q.at[:, rows, columns].set(parameters["below_diagonal"]).at[:, diagonal, diagonal].set(jnp.exp(log_diagonal))
    whitened = jnp.einsum("kij,nkj->nki", q, flowers[:, None, :] - means[None])
    log_weights = jax.nn.log_softmax(parameters["weights"])
    log_terms = (log_weights + jnp.sum(log_diagonal, axis=1))[None] - 0.5 * jnp.sum(whitened**2, axis=2)
    return jnp.sum(jax.nn.logsumexp(log_terms, axis=1)) - 0.5 * len(flowers) * d * math.log(2 * math.pi)


def parameters() -> Parameters:
    """Equal weights, and each species' own mean and covariance: a point near the maximum, and not at it."""
    flowers, species = iris()
    groups = [flowers[species == k] for k in range(len(SPECIES))]
    q = np.stack([np.linalg.inv(np.linalg.cholesky(np.cov(group.T, bias=True))) for group in groups])
    d = flowers.shape[1]
    rows, columns = np.tril_indices(d, -1)
    diagonal = np.arange(d)
    return {
        "weights": jnp.zeros(len(groups)),
        "means": jnp.asarray(np.stack([group.mean(axis=0) for group in groups])),
        "log_diagonal": jnp.asarray(np.log(q[:, diagonal, diagonal])),
        "below_diagonal": jnp.asarray(q[:, rows, columns]),
    }


SCENARIOS = [
    Scenario(
        "Gaussian mixture", log_likelihood, alone(parameters), inputs=45, outputs=1, tags=("tour", "correctness", "compiled"),
        description="log-likelihood of three Gaussians with full covariances on Fisher's iris measurements, 150 flowers",
        citation="R. A. Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7 (1936) "
                 "179-188 [Fisher1936]",
    ),
]
