"""The determinant by expansion by minors, each minor computed once.

The minors of the first r rows are numbered by the set of their r columns, as bits.  Row r enters by one product for each column c
that is not yet in the set, with the sign of the columns behind c that are.  Adding bit c moves a set's minor by 2ᶜ places: all
columns' moves are one product of a row and a matrix of moved minors.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.gradbench.problem import Fields, Problem, objective

MOST = 20


def signs(ell: int) -> np.ndarray:
    """[c, s]: the sign of column c behind the other columns of the set s, or 0 where c is none of it."""
    sets, columns = np.arange(2**ell), np.arange(ell)[:, None]
    behind = np.bitwise_count(sets >> columns) - 1
    return np.where((sets >> columns) & 1, 1.0 - 2.0 * (behind & 1), 0.0)


def determinant(a: jax.Array, ell: int) -> jax.Array:
    factors = signs(ell)

    def row(minors: jax.Array, entries: jax.Array) -> Any:
        moved = jnp.stack([factors[c] * jnp.roll(minors, 2**c) for c in range(ell)])
        return entries @ moved, None

    start = jnp.zeros(2**ell).at[0].set(1.0)
    return lax.scan(row, start, a.reshape(ell, ell))[0][-1]


def read(fields: Fields) -> tuple[Any, ...]:
    ell = fields.integer("ell", 1, MOST)
    return fields.array("A", ell * ell), ell


PROBLEM = Problem(read, {"primal": objective(determinant), "gradient": lambda ad: ad.grad(determinant)}, static=(1,))
