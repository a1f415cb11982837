"""Whether tensors are equal, or nearly so."""

from __future__ import annotations

import jax.numpy as jnp

from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.registry import both

_close = family("Isclose", lambda a, b, *how: jnp.isclose(a, b, *how))


@both
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:  # noqa: A002
    """Where entries are equal within tolerances."""
    return apply(_close(rtol, atol, equal_nan), (input, other))


_EQUAL = Op("Equal", lambda x, y: jnp.array_equal(x, y))


@both
def equal(input: Tensor, other: Tensor) -> bool:  # noqa: A002
    """Whether two tensors have the same shape and entries."""
    return bool(array_of(apply(_EQUAL, (input, other))))


@both
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:  # noqa: A002
    """Whether all entries are equal within tolerances."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())
