"""Copies, tensors outside the graph, and filling in place."""

from __future__ import annotations

import jax.numpy as jnp

from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor
from dualrev.eager.graph.views import detached
from dualrev.eager.ops.arguments import memory_format
from dualrev.eager.ops.registry import both, method

CLONE = Op("Clone", lambda x: jnp.copy(x))


# ----------------------------------------------------------------------------------------------------- copies and cutting

@both
def clone(input: Tensor, *, memory_format: memory_format | None = None) -> Tensor:  # noqa: A002
    """A copy with a storage of its own; its derivative is the identity."""
    return apply(CLONE, (input,))


@both
def detach(input: Tensor) -> Tensor:  # noqa: A002
    """The same value outside the graph, sharing the storage: a change of one in place changes the other.

    >>> from dualrev import eager as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> x.detach().requires_grad
    False
    """
    return detached(input)


@method
def detach_(self: Tensor) -> Tensor:
    """Detach the tensor itself from the graph, in place."""
    if self._view is not None:
        raise RuntimeError("Can't detach views in-place. Use detach() instead.")
    self._node, self._slot, self._requires_grad = None, 0, False
    return self


_COPY = Op("Copy", lambda x, other: jnp.broadcast_to(other, x.shape).astype(x.dtype))
_ZERO = Op("Zero", lambda x: jnp.zeros_like(x))
_FILL = Op("Fill", lambda x, value: jnp.full_like(x, value))


@method
def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Replace the entries by those of another tensor, broadcast."""
    return change(self, _COPY, (src,))


@method
def fill_(self: Tensor, value: Operand) -> Tensor:
    """Make all entries equal to a number."""
    return change(self, _FILL, (value,))


@method
def zero_(self: Tensor) -> Tensor:
    """Make all entries zero."""
    return change(self, _ZERO, ())
