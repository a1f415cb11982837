"""Gradients without a backward pass, from pushes along random directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from dualrev._jax.trees import PyTree
from dualrev.estimators.directions import Distribution, check_real, distribution_checked, draw
from dualrev.functional import checks
from dualrev.functional.api import jvp


def forward_gradient(fun: Callable[[PyTree], jax.Array], *, samples: int = 1, distribution: Distribution = "normal",
                     combine: Literal["mean", "projection"] = "mean") -> Callable[[jax.Array, PyTree], tuple[jax.Array, PyTree]]:
    r"""An unbiased estimate of a gradient from pushes along random directions, with no backward pass and nothing stored.

    With directions :math:`v_1, \dots, v_k` whose entries have mean 0 and variance 1,

    .. math:: g = \frac1k \sum_i (\nabla f \cdot v_i)\, v_i, \qquad \mathbb E\, g = \nabla f, \qquad
              \mathbb E\, \lVert g - \nabla f \rVert^2 = \frac{n + c}{k} \lVert \nabla f \rVert^2

    for :math:`n` inputs, with :math:`c = 1` for normal directions and :math:`c = -1` for signs.  ``combine="projection"`` projects the
    gradient onto the span of :math:`k \le n` normal directions, :math:`g = \frac nk V (V^T V)^{-1} V^T \nabla f`, whose variance is
    smaller, :math:`(\frac nk - 1) \lVert \nabla f \rVert^2`, and none at :math:`k = n`.

    Args:
      fun: real scalar function of one argument, a pytree of real arrays.
      samples: :math:`k`; the pushes run together.
      distribution: ``"normal"``, or ``"rademacher"`` for signs.
      combine: ``"mean"``, or ``"projection"`` onto the span, for normal directions only.

    Returns:
      A function of a random key and the argument, which returns ``(value, estimate)``.

    Raises:
      ValueError: ``samples`` is less than 1, or more than the inputs for a projection; another distribution or way to combine.
      TypeError: an input is not real, or the output is not a real scalar.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> estimate = dr.estimators.forward_gradient(lambda x: jnp.sum(x ** 2), samples=3, combine="projection")
    >>> value, gradient = estimate(jax.random.key(0), jnp.ones(3))
    >>> [round(float(g), 4) for g in gradient]  # as many directions as inputs: no error is left
    [2.0, 2.0, 2.0]

    Source: [BaydinEtAl2022, def. 1]; the projection [FlugelEtAl2024].
    """
    call = "forward_gradient"
    k = checks.check_count(call, "samples", samples)
    distribution_checked(distribution, call)
    if combine not in ("mean", "projection"):
        raise ValueError(f"{call}: combine must be 'mean' or 'projection'; got {combine!r}")
    if combine == "projection" and distribution != "normal":
        raise ValueError(f"{call}: a projection takes distribution='normal': only the span of normal directions favours no axis, which "
                         f"makes the estimate unbiased; got {distribution!r}")

    def estimate(key: jax.Array, x: PyTree) -> tuple[jax.Array, PyTree]:
        check_real(x, call)
        directions, unravel = draw(key, k, x, distribution)
        n = directions.shape[1]
        if combine == "projection" and k > n:
            raise ValueError(f"{call}: a projection takes at most as many directions as there are inputs, {n}; got samples={k}")

        def push(v: jax.Array) -> tuple[jax.Array, jax.Array]:
            value, slope = jvp(fun, (x,), (unravel(v),))
            if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
                raise TypeError(f"{call} takes a function with a real scalar output; got shape {jnp.shape(value)} of dtype "
                                f"{jnp.result_type(value).name}")
            return value, slope

        values, slopes = jax.vmap(push)(directions)
        slopes = slopes.astype(directions.dtype)
        if combine == "projection":
            # V (VᵀV)⁻¹ s for the slopes s = Vᵀ∇f is the solution of least norm of Vᵀg = s.
            found = jnp.linalg.lstsq(directions, slopes)[0] * jnp.asarray(n / k, slopes.dtype)
        else:
            found = slopes @ directions / jnp.asarray(k, slopes.dtype)
        return values[0], unravel(found)

    return estimate
