"""Detection of NaN in the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dualrev.eager.graph.node import Node
from dualrev.eager.graph.tensor import Tensor, array_of


def check_nan(node: Node, cts: Sequence[Any]) -> None:
    """Raise if a gradient that a node returned has a NaN.

    Raises:
      RuntimeError: names the operation, and the line that ran it forward.
    """
    for i, ct in enumerate(cts):
        if ct is None:
            continue
        array = array_of(ct) if isinstance(ct, Tensor) else ct
        if jnp.issubdtype(array.dtype, jnp.inexact) and bool(jnp.isnan(array).any()):
            line = node.line()
            raise RuntimeError(f"Function '{node.name()}' returned nan values in its {i}th output.\n"
                               + (f"the operation ran forward at {line}" if line else "the operation's line is not known"))
