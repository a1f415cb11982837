"""Dropout."""

from __future__ import annotations

import jax.numpy as jnp

from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.sampling import draw

_DROP = Op("Dropout", lambda x, mask, p: jnp.where(mask, x / (1 - p), 0).astype(x.dtype))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """Entries set to zero with probability ``p``, the others divided by ``1 - p``."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    if inplace:
        kept = wrap(draw("bernoulli", array_of(input).shape, jnp.bool_, 1 - p))
        return change(input, _DROP, (kept, p))
    if p == 1:
        return input * 0.0
    mask = wrap(draw("bernoulli", array_of(input).shape, jnp.bool_, 1 - p))
    return apply(_DROP, (input, mask, p))
