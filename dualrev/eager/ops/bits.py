"""The bits of numbers read as numbers of another dtype: ``x.view(torch.int32)``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import DType
from dualrev.eager.core.caches import caches
from dualrev.eager.core.dtypes import numpy_of
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.graph.views import REINTERPRETATIONS, Reinterpretation, detached, view


def _same_size(x: jax.Array, new: np.dtype) -> jax.Array:
    """Real numbers of the same size, or of whole multiples of it: the last dimension is split or merged."""
    if x.dtype == np.bool_:
        x = x.astype(np.uint8)
    to = np.dtype(np.uint8) if new == np.bool_ else new
    if x.dtype != to:
        k = to.itemsize // x.dtype.itemsize
        if k > 1:
            x = x.reshape(*x.shape[:-1], x.shape[-1] // k, k)
        n = x.ndim
        x = jax.lax.bitcast_convert_type(x, to)
        if x.ndim > n:
            x = x.reshape(*x.shape[:-2], -1)
    return x.astype(np.bool_) if new == np.bool_ else x


def _read_as(x: jax.Array, new: np.dtype) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        pairs = jnp.stack([jnp.real(x), jnp.imag(x)], -1)
        x = pairs.reshape(*x.shape[:-1], -1) if x.ndim else pairs
    if new.kind != "c":
        return _same_size(x, new)
    parts = _same_size(x, np.dtype(np.float32 if new == np.complex64 else np.float64))
    return jax.lax.complex(parts[..., 0::2], parts[..., 1::2])


@caches.memoized
def _op(old: np.dtype, new: np.dtype) -> Op:
    op = Op("View", lambda x: _read_as(x, new).reshape(_shape(x.shape, old, new)))

    def places(at: Any) -> Any:
        if new.itemsize > old.itemsize:
            k = new.itemsize // old.itemsize
            return at[..., ::k] // k
        k = old.itemsize // new.itemsize
        return at if k == 1 else (at[..., None] * k + np.arange(k)).reshape(*at.shape[:-1], -1)

    REINTERPRETATIONS[op] = Reinterpretation(lambda x: _read_as(x, old).reshape(_shape(x.shape, new, old)), places)
    return op


def _shape(shape: tuple[int, ...], old: np.dtype, new: np.dtype) -> tuple[int, ...]:
    if old.itemsize == new.itemsize:
        return shape
    return (*shape[:-1], shape[-1] * old.itemsize // new.itemsize)


def read_as(x: Tensor, dtype: DType) -> Tensor:
    """The bits of a tensor as numbers of another dtype, sharing the storage; the last dimension takes more or fewer entries.

    Raises:
      RuntimeError: the sizes of entries differ, and the tensor has no dimension, or one that the sizes do not divide.
    """
    old, new = array_of(x).dtype, numpy_of(dtype)
    if old == new:
        return x.view(x.shape)
    names = f"to view {dtypes.type_name(old)} as {dtypes.type_name(new)} (different element sizes)"
    if old.itemsize != new.itemsize and not x.ndim:
        raise RuntimeError(f"self.dim() cannot be 0 {names}")
    if new.itemsize > old.itemsize and x.shape[-1] % (new.itemsize // old.itemsize):
        raise RuntimeError(f"self.size(-1) must be divisible by {new.itemsize // old.itemsize} {names}, but got {x.shape[-1]}")
    return view(_op(old, new), detached(x))
