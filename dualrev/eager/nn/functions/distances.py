"""Distances and angles between vectors, and vectors of length one."""

from __future__ import annotations

import jax
import numpy as np

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.reductions import norm_of


def normalize(input: Tensor, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """Divide by the norm along a dimension."""
    found = input / input.norm(p, dim, keepdim=True).clamp(min=eps).expand_as(input)
    return found if out is None else out.copy_(found)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along a dimension."""
    return (x1 * x2).sum(dim) / (x1.norm(2, dim).clamp(min=eps) * x2.norm(2, dim).clamp(min=eps))


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The norms of ``x1 - x2 + eps`` along the last dimension."""
    return (x1 - x2 + eps).norm(p, -1, keepdim)


def _pairs_of(x: jax.Array, p: float) -> jax.Array:
    first, second = np.triu_indices(x.shape[0], 1)
    return norm_of(x[first] - x[second], p, (1,), False)


_pdist = family("Pdist", _pairs_of)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:  # noqa: A002
    """The distances of all pairs of rows, in the order (0, 1), (0, 2), ..."""
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    return apply(_pdist(p), (input,))
