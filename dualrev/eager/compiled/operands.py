"""The operands of a compiled step: values of its inputs, and arguments that stand for the same tensor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.compiled.watching import Given, Settings, setting
from dualrev.eager.core.annotations import Number
from dualrev.eager.core.evaluation import wide
from dualrev.eager.graph.storage import Storage
from dualrev.eager.graph.tensor import Tensor, wrap

R = TypeVar("R")


def storage_in(x: Any) -> Storage:
    """The storage that holds the value of an input now."""
    return x.storage if x.owner is None else x.owner._grad._storage


def value_in(x: Given | tuple[Settings, str]) -> Number:
    return storage_in(x).array if isinstance(x, Given) else setting(*x)


#: The references to an array that one storage alone holds, as counted in the functions below.
_ALONE = 3


def own(storage: Storage) -> Any:
    """The value of a storage, to be donated: a copy where something else refers to it."""
    x = storage.array
    return x if sys.getrefcount(x) <= _ALONE else np.array(x)


def spare_for(t: Tensor, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Memory for a new gradient: that of the old one, unless something else refers to it; fresh pages take time."""
    g = t._grad
    if g is not None and g._view is None and sys.getrefcount(g) <= _ALONE and sys.getrefcount(g._storage) <= _ALONE:
        x = g._storage.array
        if sys.getrefcount(x) <= _ALONE and x.shape == shape and x.dtype == dtype:
            return x
    with wide():
        return jnp.empty(shape, dtype)


def itself(x: R) -> R:
    return x


def twins(leaves: Sequence[object]) -> tuple[int, ...]:
    """For each argument, the first place where the same tensor is given."""
    first: dict[int, int] = {}
    return tuple([first.setdefault(id(x), k) if isinstance(x, Tensor) else k for k, x in enumerate(leaves)])


def like_given(x: jax.Array, given: object) -> jax.Array | Tensor:
    """A tracer as what was given: an array, or a tensor that requires grad as that did."""
    if not isinstance(given, Tensor):
        return x
    t = wrap(x)
    t._requires_grad = given._requires_grad
    return t
