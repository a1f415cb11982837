"""Whether a pattern misses an entry: a product with a random vector, compared with what the pattern allows.

If no entry is missing, ``J v`` of the function equals that of the matrix that was recovered with the pattern.  A missing entry that is
not zero changes its row of the product for almost every ``v``.  Rows that differ are then pulled one by one to name their columns.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dualrev import errors
from dualrev.sparse.colouring.positions import Positions

#: So many rows, and columns of each, are named.
MOST_NAMED = 8


def vector(n: int, seed: int = 0) -> np.ndarray:
    """Entries of modulus between 1 and 2 and random sign: none hides what it is multiplied by."""
    random = np.random.default_rng(seed)
    found: np.ndarray = random.uniform(1.0, 2.0, n) * random.choice([-1.0, 1.0], n)
    return found


def check(name: str, positions: Positions, values: jax.Array, v: jax.Array, product: jax.Array,
          row: Callable[[int], jax.Array]) -> None:
    """Raise an error that names rows and columns of missing entries.

    ``values``: the entries that were recovered; ``product``: ``J v`` of the function; ``row(i)``: row ``i`` of its derivative.
    """
    eps = float(jnp.finfo(values.dtype).eps)
    wide = np.complex128 if jnp.iscomplexobj(values) else np.float64
    terms = np.asarray(values).astype(wide) * np.asarray(v).astype(wide)[positions.columns]
    expected = np.asarray(product).astype(wide)
    m, _ = positions.shape
    recovered = np.zeros(m, wide)
    np.add.at(recovered, positions.rows, terms)
    scale = np.bincount(positions.rows, weights=np.abs(terms), minlength=m) + np.abs(expected)
    differs = np.flatnonzero(np.abs(recovered - expected) > np.sqrt(eps) * scale)  # False where something is not a number
    if not len(differs):
        return
    named = []
    for i in differs[:MOST_NAMED].tolist():
        allowed = np.zeros(positions.shape[1], bool)
        allowed[positions.columns[positions.indptr[i]: positions.indptr[i + 1]]] = True
        missing = np.flatnonzero((np.asarray(row(i)).astype(wide) != 0) & ~allowed)
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        named.append(f"row {i}: columns {', '.join(map(str, missing[:MOST_NAMED].tolist()))}{more}")
    more = f"; and {len(differs) - MOST_NAMED} more rows" if len(differs) > MOST_NAMED else ""
    raise errors.PatternError(
        f"{name}: the pattern that was given misses entries that are not zero (rows are elements of the outputs, columns of the "
        f"inputs): {'; '.join(named)}{more}. Add them, or leave out pattern= to have the pattern detected.")
