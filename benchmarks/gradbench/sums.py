"""The smallest problems: hello, lse and llsq."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gradbench.problem import Fields, Problem, objective

# -------------------------------------------------------------------------------------------------------------- hello


def square(x: jax.Array) -> jax.Array:
    return x * x


HELLO = Problem(lambda fields: (fields.number("x"),), {"square": objective(square), "double": lambda ad: ad.grad(square)})

# ---------------------------------------------------------------------------------------------------------------- lse


def log_sum_exp(x: jax.Array) -> jax.Array:
    largest = jnp.max(x)
    return largest + jnp.log(jnp.sum(jnp.exp(x - largest)))


LSE = Problem(lambda fields: (fields.array("x", None),),
              {"primal": objective(log_sum_exp), "gradient": lambda ad: ad.grad(log_sum_exp)})

# --------------------------------------------------------------------------------------------------------------- llsq

BLOCK = 16


def powers(t: jax.Array, n: int) -> jax.Array:
    """[j]: tʲ for j < n, each half of the rows from the other."""
    if n == 1:
        return jnp.ones((1, len(t)))
    half = powers(t, (n + 1) // 2)
    return jnp.concatenate([half, half[-1] * t * half])[:n]


def squares(x: jax.Array, n: int) -> jax.Array:
    """½ Σᵢ (sign tᵢ - Σⱼ xⱼ tᵢʲ)² at n points tᵢ from -1 to 1.

    A polynomial in t of many terms is one in t¹⁶ whose coefficients are polynomials of 16 terms: one product of matrices gives
    all of these.
    """
    t = 2 * jnp.arange(n) / (n - 1) - 1
    blocks = -(-len(x) // BLOCK)
    coefficients = jnp.pad(x, (0, blocks * BLOCK - len(x))).reshape(blocks, BLOCK)
    low = powers(t, BLOCK)
    high = powers(low[-1] * t, blocks)
    return 0.5 * jnp.sum((jnp.sign(t) - jnp.sum(high * (coefficients @ low), axis=0)) ** 2)


def read_squares(fields: Fields) -> tuple[Any, ...]:
    return fields.array("x", None), fields.integer("n", 1)


LLSQ = Problem(read_squares, {"primal": objective(squares), "gradient": lambda ad: ad.grad(squares)}, static=(1,))
