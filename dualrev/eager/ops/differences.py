"""Derivatives of sampled functions: ``gradient``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.creation import tensor
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.joining import cat
from dualrev.eager.ops.registry import function

#: What a spacing of all dimensions is.
_NUMBERS = (int, float, complex)


def _along(x: Tensor, d: int, part: slice) -> Tensor:
    return x[(*[slice(None)] * d, part)]


def _derivative(x: Tensor, d: int, steps: Any, order: int) -> Tensor:
    """By differences of second order inside, and of order ``order`` at both ends; ``steps`` are a number or the distances of points."""
    if not isinstance(steps, Tensor):
        inside = (_along(x, d, slice(2, None)) - _along(x, d, slice(0, -2))) / (2 * steps)
        first = last = steps
        near_first, near_last = steps, steps
    else:
        shape = [-1 if k == d else 1 for k in range(x.ndim)]
        before, after = steps[:-1].reshape(shape), steps[1:].reshape(shape)
        # The parabola through three points.
        inside = (_along(x, d, slice(0, -2)) * (-after / (before * (before + after)))
                  + _along(x, d, slice(1, -1)) * ((after - before) / (before * after))
                  + _along(x, d, slice(2, None)) * (before / (after * (before + after))))
        first, last = steps[0], steps[-1]
        near_first, near_last = (steps[1], steps[-2]) if steps.shape[0] > 1 else (first, last)
    if order == 1:
        start = (_along(x, d, slice(1, 2)) - _along(x, d, slice(0, 1))) / first
        end = (_along(x, d, slice(-1, None)) - _along(x, d, slice(-2, -1))) / last
    else:
        n = x.shape[d]
        a, b, c = (_along(x, d, slice(k, k + 1)) for k in range(3))
        start = (a * (-(2 * first + near_first) / (first * (first + near_first))) + b * ((first + near_first) / (first * near_first))
                 - c * (first / (near_first * (first + near_first))))
        a, b, c = (_along(x, d, slice(n - k, n - k + 1)) for k in (1, 2, 3))
        end = (a * ((2 * last + near_last) / (last * (last + near_last))) - b * ((last + near_last) / (last * near_last))
               + c * (last / (near_last * (last + near_last))))
    return cat([start, inside, end], d)


@function
def gradient(input: Tensor, *, spacing: Any = 1, dim: int | Sequence[int] | None = None, edge_order: int = 1  # noqa: A002
             ) -> tuple[Tensor, ...]:
    """The derivative of a sampled function along each dimension, by central differences.

    Args:
      input: the values.
      spacing: the distance between samples, for all dimensions or each; or the coordinates of the samples of each.
      dim: the dimensions, by default all.
      edge_order: the order of the differences at both ends, 1 or 2.

    Raises:
      RuntimeError: a dimension has not more samples than ``edge_order``, or there is not one spacing for each dimension.

    >>> from dualrev import eager as torch
    >>> torch.gradient(torch.tensor([1.0, 4.0, 9.0]))
    (tensor([3., 4., 5.]),)
    """
    one = spacing if isinstance(spacing, _NUMBERS) else None
    given = list(spacing) if isinstance(spacing, (tuple, list)) or (isinstance(spacing, Tensor) and spacing.ndim > 1) else (
        [spacing] if isinstance(spacing, Tensor) else None)
    dims = list(range(input.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    dims = [dim_of(d, input.ndim) for d in dims]
    if one is not None:
        given = [one] * len(dims)
    if given is None or len(given) != len(dims):
        raise RuntimeError("torch.gradient expected spacing to be unspecified, a scalar, or a list of length equal to "
                           f"'self.dim() = {input.ndim}', but got a list of length {len(given or ())}")
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    x = input if input.is_floating_point() or input.is_complex() else input.float()
    found = []
    for d, steps in zip(dims, given, strict=True):
        if x.shape[d] < edge_order + 1:
            raise RuntimeError("torch.gradient expected each dimension size to be at least edge_order+1")
        points = tensor(np.asarray(steps)) if not isinstance(steps, (Tensor, *_NUMBERS)) else steps
        found.append(_derivative(x, d, points[1:] - points[:-1] if isinstance(points, Tensor) and points.ndim else points, edge_order))
    return tuple(found)

