"""Indices into all entries in one row, indices that broadcast, and entries written where a mask is true."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.checks import first_outside, same_dtype
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.outputs import into
from dualrev.eager.ops.registry import both, method
from dualrev.eager.ops.selecting import gather

_take = Op("Take", lambda x, index: x.reshape(-1)[index])
_put = Op("Put", lambda x, index, source: x.reshape(-1).at[index.reshape(-1)].set(source.reshape(-1)).reshape(x.shape))
_put_add = Op("Put", lambda x, index, source: x.reshape(-1).at[index.reshape(-1)].add(source.reshape(-1)).reshape(x.shape))


def _flat(name: str, x: Tensor, index: Tensor) -> None:
    places, n = array_of(index), x.numel()
    if places.dtype not in (np.int64, dtypes.long_dtype()):
        raise RuntimeError(f"{name}(): Expected a long tensor for index, but got {dtypes.type_name(places.dtype)}")
    if (wrong := first_outside(places, n, -n)) is not None:
        raise IndexError(f"out of range: tried to access index {wrong} on a tensor of {n} elements.")


@both
def take(input: Tensor, index: Tensor) -> Tensor:  # noqa: A002
    """The entries at indices into all entries in one row."""
    _flat("take", input, index)
    return apply(_take, (input, index))


@both
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The entries at indices along a dimension, where the other dimensions broadcast; without one, at flat indices."""
    if array_of(indices).dtype not in (np.int64, dtypes.long_dtype()):
        raise RuntimeError("torch.take_along_dim(): dtype of indices should be Long but got "
                           f"{dtypes.type_name(array_of(indices).dtype)}")
    if dim is None:
        found = gather(input.reshape(-1), 0, indices.reshape(-1))
    else:
        if input.ndim != indices.ndim:
            raise RuntimeError("torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
                               f"{input.ndim} dimensions for input, and {indices.ndim} dimensions for indices")
        d = dim_of(dim, input.ndim)
        shapes = [(*t.shape[:d], 1, *t.shape[d + 1:]) for t in (input, indices)]
        both_shapes = np.broadcast_shapes(*shapes)
        wide = [t.expand(*both_shapes[:d], t.shape[d], *both_shapes[d + 1:]) for t in (input, indices)]
        found = gather(wide[0], d, wide[1])
    return found if out is None else into(out, array_of(found), "take_along_dim")


def _put_op(x: Tensor, index: Tensor, source: Tensor, accumulate: bool) -> Op:
    _flat("put_", x, index)
    same_dtype(array_of(x), array_of(source), "put_(): self and source expected to have the same dtype, but got self.dtype = {A} and "
               "source.dtype = {B}")
    if index.numel() != source.numel():
        raise IndexError(f"put_(): Expected source and index to have the same number of elements, but got source.numel() = "
                           f"{source.numel()}, index.numel() = {index.numel()}")
    return _put_add if accumulate else _put


@method
def put(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with entries written, or added, at indices into all entries in one row."""
    return apply(_put_op(self, index, source, accumulate), (self, index, source))


@method
def put_(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Write, or add, entries at indices into all entries in one row, in place."""
    return change(self, _put_op(self, index, source, accumulate), (index, source))


def _masked(x: jax.Array, mask: jax.Array, source: jax.Array) -> jax.Array:
    shape = jnp.broadcast_shapes(x.shape, mask.shape)
    x, mask = jnp.broadcast_to(x, shape), jnp.broadcast_to(mask, shape)
    which = jnp.cumsum(mask.reshape(-1)) - 1
    return jnp.where(mask, jnp.take(source.reshape(-1), jnp.maximum(which, 0), mode="clip").reshape(shape), x)


_masked_scatter = Op("MaskedScatter", _masked)


def _check_masked(x: Tensor, mask: Tensor, source: Tensor) -> None:
    if array_of(x).dtype != array_of(source).dtype:
        raise RuntimeError("masked_scatter_: expected self and source to have same dtypes but got "
                           f"{dtypes.type_name(array_of(x).dtype)} and {dtypes.type_name(array_of(source).dtype)}")
    values = array_of(mask)
    if values.dtype != np.bool_:
        raise RuntimeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {dtypes.type_name(values.dtype)}")
    if not isinstance(values, Tracer):
        n = int(np.sum(np.broadcast_to(np.asarray(values), np.broadcast_shapes(values.shape, x.shape))))
        if n > source.numel():
            raise RuntimeError("Number of elements of source < number of ones in mask")


@both
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:  # noqa: A002
    """A copy with the entries of another tensor, one after the other, where the mask is true."""
    _check_masked(input, mask, source)
    return apply(_masked_scatter, (input, mask, source))


@method
def masked_scatter_(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """As ``masked_scatter``, in place."""
    _check_masked(self, mask, source)
    return change(self, _masked_scatter, (mask, source))
