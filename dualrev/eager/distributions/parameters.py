"""Parameters of distributions: broadcast together, computed when first asked for, on one scale or another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.evaluation import kept
from dualrev.eager.core.modes import enable_grad
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.checks import broadcast
from dualrev.eager.ops.creation import tensor
from dualrev.eager.ops.sampling import draw

Value: TypeAlias = Tensor | float


def shape_of(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that several broadcast to."""
    return tuple(np.broadcast_shapes(*[tuple(s) for s in shapes]))


def broadcast_all(*values: Value) -> tuple[Tensor, ...]:
    """Tensors and numbers as tensors of one shape; a number takes the dtype of the first tensor.

    Raises:
      ValueError: something is neither.
    """
    if not all(isinstance(v, (Tensor, int, float)) for v in values):
        raise ValueError("Input arguments must all be instances of Number, torch.Tensor or objects implementing __torch_function__.")
    first = next((v for v in values if isinstance(v, Tensor)), None)
    dtype = dtypes.get_default_dtype() if first is None else first.dtype
    tensors = [v if isinstance(v, Tensor) else tensor(v, dtype=dtype) for v in values]
    broadcast(*[array_of(t) for t in tensors])
    shape = shape_of(*[t.shape for t in tensors])
    return tuple([t if t.shape == shape else t.expand(shape) for t in tensors])


class lazy_property:
    """A property that is computed once, when it is first asked for."""

    def __init__(self, wrapped: Callable[[Any], Any]):
        self.wrapped = wrapped
        functools.update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, obj_type: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value


def limits(t: Tensor) -> Any:
    """The limits of a tensor's dtype."""
    return jnp.finfo(array_of(t).dtype)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities from their logarithms, or from log odds."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities whose logarithms are finite."""
    eps = float(limits(probs).eps)
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The logarithms of probabilities, or log odds."""
    probs = clamp_probs(probs)
    return probs.log() - (-probs).log1p() if is_binary else probs.log()


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """The sum over the last dimensions."""
    return value.sum(tuple(range(-dims, 0))) if dims else value


def drawn_like(t: Tensor, shape: Sequence[int], kind: str = "randn") -> Tensor:
    """Random numbers of a tensor's dtype."""
    return wrap(draw(kind, shape, array_of(t).dtype))


def filled_like(t: Tensor, shape: Sequence[int], value: float) -> Tensor:
    """A number in the dtype of a tensor."""
    return wrap(kept(np.full(tuple(shape), value, array_of(t).dtype)))
