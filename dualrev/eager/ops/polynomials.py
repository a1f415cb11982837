"""Orthogonal polynomials, by their recurrences; and the scaled complementary error function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor, array_of
from dualrev.eager.ops.creation import tensor
from dualrev.eager.ops.unary import floating

#: For each family: the polynomial of degree 1, and that of degree k + 1 of those of degrees k and k - 1.
_RECURRENCES: dict[str, tuple[Callable[[Any], Any], Callable[..., Any]]] = {
    "chebyshev_polynomial_t": (lambda x: x, lambda k, x, p, q: 2 * x * p - q),
    "chebyshev_polynomial_u": (lambda x: 2 * x, lambda k, x, p, q: 2 * x * p - q),
    "chebyshev_polynomial_v": (lambda x: 2 * x - 1, lambda k, x, p, q: 2 * x * p - q),
    "chebyshev_polynomial_w": (lambda x: 2 * x + 1, lambda k, x, p, q: 2 * x * p - q),
    "hermite_polynomial_h": (lambda x: 2 * x, lambda k, x, p, q: 2 * x * p - 2 * k * q),
    "hermite_polynomial_he": (lambda x: x, lambda k, x, p, q: x * p - k * q),
    "laguerre_polynomial_l": (lambda x: 1 - x, lambda k, x, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1)),
    "legendre_polynomial_p": (lambda x: x, lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1)),
}
#: Those of the interval from 0 to 1.
_SHIFTED = tuple(name for name in _RECURRENCES if name.startswith("chebyshev"))


def _values(x: jax.Array, n: jax.Array, name: str, highest: int) -> jax.Array:
    kind = x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else dtypes.get_default_dtype().numpy
    x, n = jnp.broadcast_arrays(x.astype(kind), n)
    first, following = _RECURRENCES[name.removeprefix("shifted_")]
    at = 2 * x - 1 if name.startswith("shifted_") else x
    q, p = jnp.ones_like(at), first(at)
    out = jnp.where(n < 0, 0, jnp.where(n < 1, q, p))
    for k in range(1, highest):
        q, p = p, following(k, at, p, q)
        out = jnp.where(n >= k + 1, p, out)
    return out.astype(kind)


_polynomial = family("SpecialPolynomial", _values)


def polynomial(name: str) -> Callable[[Operand, Operand], Tensor]:
    """The polynomials of a family, of each entry and degree."""
    def of(input: Operand, n: Operand) -> Tensor:  # noqa: A002
        x, degree = [a if isinstance(a, Tensor) else tensor(a) for a in (input, n)]
        degrees = np.asarray(array_of(degree))
        return apply(_polynomial(name, max(int(degrees.max(initial=0)), 0)), (x, degree.detach()))

    of.__name__ = of.__qualname__ = name
    of.__doc__ = f"{name} of each entry, of degree ``n``, by its recurrence."
    return of


NAMES = (*_RECURRENCES, *[f"shifted_{name}" for name in _SHIFTED])


def _erfcx(x: jax.Array) -> jax.Array:
    # Beyond 5, where the exponential grows and erfc vanishes: the continued fraction.
    far = x > 5
    near = jnp.where(far, 0, x)
    away = jnp.where(far, x, 6)
    tail = away
    for k in range(60, 0, -1):
        tail = away + (k / 2) / tail
    return jnp.where(far, 1 / (math.sqrt(math.pi) * tail), jnp.exp(near * near) * special.erfc(near))


_scaled = family("SpecialErfcx", floating(_erfcx))


def erfcx(input: Tensor) -> Tensor:  # noqa: A002
    """``exp(x**2) erfc(x)``."""
    return apply(_scaled(), (input,))
