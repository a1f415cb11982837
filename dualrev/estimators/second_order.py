"""Traces of Hessians and sums of pure derivatives of any order, from Taylor series along random directions."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dualrev._jax.trees import PyTree
from dualrev.estimators.directions import Distribution, Unravel, check_real, distribution_checked, draw, unraveling
from dualrev.functional import checks
from dualrev.functional.series import taylor


def hutchinson(fun: Callable[[PyTree], PyTree], *, samples: int = 1,
               distribution: Distribution = "rademacher") -> Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]:
    r"""An unbiased estimate of a Laplacian from second derivatives along random directions.

    .. math:: \Delta f = \operatorname{tr} H = \mathbb E\, v^T H v \approx \frac1k \sum_i v_i^T H v_i

    The variance is :math:`\frac2k \sum_{i \ne j} H_{ij}^2` for signs and :math:`\frac2k \lVert H \rVert_F^2` for normal directions.
    Each :math:`v^T H v` is twice the second coefficient of :math:`f(x + t v)`: a series of order 2, whatever the number of inputs.

    Args:
      fun: function of one argument, a pytree of real arrays; its result is any tree of arrays.
      samples: :math:`k`; the series run together.
      distribution: ``"rademacher"`` for signs, or ``"normal"``.

    Returns:
      A function of a random key and the argument, which returns ``(value, estimate)``, two trees like the result of ``fun``.

    Raises:
      ValueError: ``samples`` is less than 1, or another distribution.
      TypeError: an input is not real.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> value, laplacian = dr.estimators.hutchinson(lambda x: jnp.sum(x ** 2))(jax.random.key(0), jnp.ones(3))
    >>> float(laplacian)  # the Hessian is diagonal: signs make no error
    6.0

    Source: [Hutchinson1990].
    """
    call = "hutchinson"
    k = checks.check_count(call, "samples", samples)
    distribution_checked(distribution, call)

    def estimate(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_real(x, call)
        directions, unravel = draw(key, k, x, distribution)
        return _mean_along(fun, x, directions, unravel, 2, 1.0)

    return estimate


def stde(fun: Callable[[PyTree], PyTree], *, samples: int = 1, order: int = 2,
         replace: bool = False) -> Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]:
    r"""The stochastic Taylor derivative estimator: a sum of pure derivatives from a random choice of the coordinates.

    .. math:: \sum_{i=1}^n \frac{\partial^m f}{\partial x_i^m} \approx \frac nk \sum_{i \in S} \frac{\partial^m f}{\partial x_i^m}

    with :math:`k` coordinates :math:`S`; for :math:`m = 2`, the Laplacian.  Drawn without replacement, the variance is
    :math:`\frac{n^2}{k} (1 - \frac kn) \sigma^2`, with :math:`\sigma^2 = \frac{1}{n - 1} \sum_i (d_i - \bar d)^2` of the :math:`n`
    derivatives; none is left at :math:`k = n`.  With replacement it is :math:`\frac{n^2}{k} \frac{n - 1}{n} \sigma^2`.

    Args:
      fun: function of one argument, a pytree of real arrays; its result is any tree of arrays.
      samples: :math:`k`; the series run together.
      order: :math:`m`, at least 1.
      replace: whether a coordinate may be drawn more than once.

    Returns:
      A function of a random key and the argument, which returns ``(value, estimate)``, two trees like the result of ``fun``.

    Raises:
      ValueError: ``samples`` or ``order`` is less than 1, or more samples than coordinates without replacement.
      TypeError: an input is not real.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> value, total = dr.estimators.stde(lambda x: jnp.sum(x ** 3), samples=4, order=3)(jax.random.key(0), jnp.ones(4))
    >>> float(total)
    24.0

    Source: [ShiEtAl2024, eq. 13].
    """
    call = "stde"
    k = checks.check_count(call, "samples", samples)

    def estimate(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_real(x, call)
        n, dtype, unravel = unraveling(x)
        if k > n and not replace:
            raise ValueError(f"{call}: there are {n} coordinates to draw from; got samples={k}.  Draw fewer, or with replace=True")
        chosen = jax.random.choice(key, n, (k,), replace=replace)
        return _mean_along(fun, x, jax.nn.one_hot(chosen, n, dtype=dtype), unravel, order, float(n))

    return estimate


def _mean_along(fun: Callable[[PyTree], PyTree], x: PyTree, directions: jax.Array, unravel: Unravel, order: int,
                scale: float) -> tuple[PyTree, PyTree]:
    """The value, and ``scale`` times the mean of the derivatives of an order along some directions."""
    coefficients = jax.vmap(lambda v: taylor(fun, x, unravel(v), order))(directions)
    factor = scale * math.factorial(order)
    return (jax.tree.map(lambda c: c[0], coefficients[0]),
            jax.tree.map(lambda c: jnp.mean(c, 0) * jnp.asarray(factor, c.dtype), coefficients[order]))
