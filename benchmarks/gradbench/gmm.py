"""The log-likelihood of a Gaussian mixture with a Wishart prior [SrajerEtAl2018, section 4.1].

    Σᵢ log Σₖ exp(αₖ + Σ qₖ - ½ |Qₖ (xᵢ - μₖ)|²) - n log Σₖ exp αₖ - ½ n d log 2π
      + K (N d log(γ/√2) - log Γ_d(N/2)) - Σₖ (½ γ² (|exp qₖ|² + |lₖ|²) - m Σ qₖ),       N = d + m + 1,

where Qₖ is lower triangular with the diagonal exp qₖ and, below it, lₖ column by column.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.gradbench.problem import Fields, Problem, objective

Parameters = dict[str, jax.Array]


def log_sum_exp(x: jax.Array) -> jax.Array:
    """log Σ exp x over the first axis."""
    largest = jnp.max(x, axis=0)
    return largest + jnp.log(jnp.sum(jnp.exp(x - largest), axis=0))


def transposed_factors(q: jax.Array, l: jax.Array) -> jax.Array:  # noqa: E741
    """Qₖᵀ for each k.  Its rows are pieces of l behind zeros and a diagonal, so that all of them are one concatenation."""
    k, d = q.shape
    diagonal = lax.split(jnp.exp(q), [1] * d, axis=1)
    below = lax.split(l, [d - 1 - j for j in range(d)], axis=1)
    pieces = [piece for j in range(d) for piece in (jnp.zeros((k, j)), diagonal[j], below[j])]
    return lax.concatenate(pieces, 1).reshape(k, d, d)


def log_likelihood(parameters: Parameters, x: jax.Array, gamma: jax.Array, m: int) -> jax.Array:
    alpha, mu, q, l = (parameters[name] for name in ("alpha", "mu", "q", "l"))  # noqa: E741
    (n, d), k = x.shape, len(alpha)
    factors = transposed_factors(q, l)
    # One product of matrices for all components: [Q, -Q μ] [x, 1], not Q (x - μ).
    shifts = -jnp.sum(factors * mu[:, :, None], axis=1)
    extended = jnp.concatenate([factors.transpose(0, 2, 1), shifts[:, :, None]], axis=2).reshape(k * d, d + 1)
    whitened = (extended @ jnp.concatenate([x, jnp.ones((n, 1))], axis=1).T).reshape(k, d, n)
    sum_q = jnp.sum(q, axis=1)
    terms = (alpha + sum_q)[:, None] - 0.5 * jnp.sum(whitened**2, axis=1)
    freedom = d + m + 1
    log_gamma_d = 0.25 * d * (d - 1) * math.log(math.pi) + sum(math.lgamma(0.5 * (freedom - j)) for j in range(d))
    prior = jnp.sum(0.5 * gamma**2 * (jnp.sum(jnp.exp(2 * q), axis=1) + jnp.sum(l**2, axis=1)) - m * sum_q)
    constant = k * (freedom * d * jnp.log(gamma / math.sqrt(2)) - log_gamma_d) - 0.5 * n * d * math.log(2 * math.pi)
    return jnp.sum(log_sum_exp(terms)) - n * log_sum_exp(alpha) + constant - prior


def read(fields: Fields) -> tuple[Any, ...]:
    d, k, n = (fields.integer(name, 1) for name in "dkn")
    shapes = {"alpha": (k,), "mu": (k, d), "q": (k, d), "l": (k, d * (d - 1) // 2)}
    parameters = {name: fields.array(name, *shape) for name, shape in shapes.items()}
    return parameters, fields.array("x", n, d), fields.number("gamma"), fields.integer("m")


PROBLEM = Problem(read, {"objective": objective(log_likelihood), "jacobian": lambda ad: ad.grad(log_likelihood)}, static=(3,))
