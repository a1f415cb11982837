"""Concatenation of tensors along a dimension, and stacking along a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.checks import fitting
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.precision import widest_precision
from dualrev.eager.ops.registry import FUNCTIONS, alias, function, renamed

_cat = family("Cat", lambda *a: jnp.concatenate(fitting(a[:-1], a[-1]), a[-1]))
_stack = family("Stack", lambda *a: jnp.stack(a[:-1], a[-1]))


@function
@widest_precision
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate tensors along a dimension."""
    if isinstance(tensors, Tensor):
        raise TypeError("cat(): argument 'tensors' (position 1) must be tuple of Tensors, not Tensor\nput it into a list")
    tensors = list(tensors)
    if not tensors:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    for i, x in enumerate(tensors):
        if x.ndim == 0:
            raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    return apply(_cat(dim_of(dim, tensors[0].ndim)), tensors)


alias("concat", cat)
alias("concatenate", cat)


@function
@widest_precision
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Stack tensors of one shape along a new dimension."""
    tensors = list(tensors)
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    arrays: list[Any] = [array_of(x) for x in tensors]
    shape = arrays[0].shape
    for i, a in enumerate(arrays):
        if a.shape != shape:
            raise RuntimeError(f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                               f"{list(a.shape)} at entry {i}")
    d = dim_of(dim, len(shape) + 1)
    records = mode.handler is not None or mode.inference or (mode.grad and any(x.requires_grad for x in tensors))
    if not records and all(type(a) is np.ndarray and a.dtype == arrays[0].dtype for a in arrays):
        return wrap(np.stack(arrays, d))  # as batches are made: there is no program for each number of tensors
    return apply(_stack(d), tensors)


def _each(name: str, doc: str, fun: Callable[[Tensor], Tensor]) -> None:
    def of_each(*tensors: Any) -> Tensor | tuple[Tensor, ...]:
        given = tensors[0] if len(tensors) == 1 else tensors
        return tuple([fun(x) for x in given]) if isinstance(given, (tuple, list)) else fun(given)

    function(renamed(of_each, name, doc))


def _deeper(x: Tensor) -> Tensor:
    return x.reshape(1, 1, 1) if x.ndim == 0 else x.reshape(1, -1, 1) if x.ndim == 1 else x.unsqueeze(2) if x.ndim == 2 else x


_each("atleast_1d", "With one dimension, if it has none.", lambda x: x.reshape(1) if x.ndim == 0 else x)
_each("atleast_2d", "With two dimensions at least.", lambda x: x if x.ndim > 1 else x.reshape(1, -1))
_each("atleast_3d", "With three dimensions at least.", _deeper)


@function
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors horizontally."""
    given = [FUNCTIONS["atleast_1d"](t) for t in tensors]
    return cat(given, 0 if given[0].ndim == 1 else 1)


@function
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors vertically."""
    return cat([FUNCTIONS["atleast_2d"](t) for t in tensors], 0)


alias("row_stack", vstack)
