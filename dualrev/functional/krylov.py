"""Linear systems whose matrix is given by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

#: Dimension of the space in which a cycle looks for the solution, and how many cycles there are at most.
RESTART, CYCLES = 40, 100

#: The solution, its residual, the norm of that and the one before, and how many cycles there were.
State: TypeAlias = tuple[jax.Array, jax.Array, jax.Array, jax.Array, int]


def gmres(matvec: Callable[[jax.Array], jax.Array], b: jax.Array) -> jax.Array:
    r"""The solution of :math:`A x = b` by restarted GMRES; NaN where it does not converge.

    Each cycle spans :math:`r, A r, A^2 r, \dots` by an orthonormal basis :math:`V` with :math:`A V_m = V_{m+1} H` and minimizes
    :math:`\|\beta e_1 - H y\|`; the correction is :math:`V_m y`.  It stops at a relative residual of :math:`100\,\epsilon`, and where a
    cycle gains nothing; what is then not within :math:`\sqrt\epsilon` has not converged.

    ``jax.scipy.sparse.linalg.gmres`` does the same with a tolerance that the user must know, does not say whether it converged, and has
    jax transpose ``matvec``, which not every residual allows.

    >>> import jax.numpy as jnp
    >>> gmres(lambda x: jnp.array([2.0, 4.0]) * x, jnp.array([2.0, 8.0])).round(3).tolist()
    [1.0, 2.0]

    Source: [SaadSchultz1986, alg. 4].
    """
    n, m = b.size, RESTART if is_symbolic_dim(b.size) else min(b.size, RESTART)
    eps = jnp.finfo(b.dtype).eps
    size = jnp.linalg.norm(b)

    def step(j: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        V, H = state
        w = matvec(V[j])
        h = V @ w  # rows that are not there yet are zero
        w = w - h @ V
        again = V @ w  # a second pass, as the first loses orthogonality to rounding
        w, h = w - again @ V, h + again
        length = jnp.linalg.norm(w)
        is_new = length > eps * jnp.linalg.norm(h)
        V = V.at[j + 1].set(jnp.where(is_new, w / jnp.where(is_new, length, 1), 0))
        return V, H.at[:, j].set(h.at[j + 1].set(jnp.where(is_new, length, 0)))

    def cycle(state: State) -> State:
        x, r, left, _, count = state
        first = jnp.zeros((m + 1, n), b.dtype).at[0].set(r / jnp.where(left > 0, left, 1))
        V, H = lax.fori_loop(0, m, step, (first, jnp.zeros((m + 1, m), b.dtype)))
        y = jnp.linalg.lstsq(H, jnp.zeros(m + 1, b.dtype).at[0].set(left))[0]
        x = x + y @ V[:m]
        r = b - matvec(x)
        return x, r, jnp.linalg.norm(r), left, count + 1

    def goes_on(state: State) -> jax.Array:
        _, _, left, before, count = state
        is_far: jax.Array = (left > 100 * eps * size) & (left < 0.99 * before) & (count < CYCLES)
        return is_far

    x, _, left, _, _ = lax.while_loop(goes_on, cycle, (jnp.zeros_like(b), b, size, jnp.full_like(size, jnp.inf), 0))
    return jnp.where(left <= jnp.sqrt(eps) * size, x, jnp.nan)
