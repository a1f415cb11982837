"""Entries and parts along one dimension: ``narrow``, ``gather``, ``index_select``; and those that a mask takes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.checks import first_outside
from dualrev.eager.ops.dimensions import dim_of, of_vectors
from dualrev.eager.ops.index_parts import WHOLE
from dualrev.eager.ops.indexing import part_of
from dualrev.eager.ops.registry import FUNCTIONS, both

_gather = family("Gather", lambda x, index, dim: jnp.take_along_axis(
    x[tuple([slice(0, n) if d != dim else slice(None) for d, n in enumerate(index.shape)])], index, dim) if x.ndim else x)
_MASKED_SELECT = Op("MaskedSelect", lambda x, places: x.reshape(-1)[places])
_index_select = family("IndexSelect", lambda x, index, dim: of_vectors(
    lambda x, dim: jnp.take(x, index.reshape(-1), dim))(x, dim))


@both
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:  # noqa: A002
    """A view of a range along a dimension."""
    d = dim_of(dim, input.ndim)
    n = input.shape[d] if input.ndim else 0
    if not -n <= start <= n:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-n}, {n}], but got {start})")
    start = start + n if start < 0 else start
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if start + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return part_of(input, (*[WHOLE] * d, ("slice", start, start + length, None)))


@both
def select(input: Tensor, dim: int, index: int) -> Tensor:  # noqa: A002
    """A view of one index along a dimension."""
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    return input[(slice(None),) * dim_of(dim, input.ndim) + (index,)]


def along(input: Tensor, dim: int, index: Tensor) -> int:  # noqa: A002
    """The dimension, if the indices are inside and have as many dimensions as the tensor."""
    d, places, shape = dim_of(dim, input.ndim), array_of(index), array_of(input).shape
    if places.ndim != len(shape):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor\n"
                           f"the shapes are {list(places.shape)} and {list(shape)}")
    size = shape[d] if shape else 1
    wrong = first_outside(places, size)
    if wrong is not None:
        raise RuntimeError(f"index {wrong} is out of bounds for dimension {d} with size {size}")
    return d


@both
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:  # noqa: A002
    """The entries at indices along a dimension."""
    return apply(_gather(along(input, dim, index)), (input, index))


@both
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:  # noqa: A002
    """The slices at indices along a dimension."""
    d = dim_of(dim, input.ndim)
    size = input.shape[d] if input.ndim else 1
    if array_of(index).ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    if array_of(index).dtype not in (np.int32, np.int64):
        raise RuntimeError("index_select(): Expected dtype int32 or int64 for index")
    wrong = first_outside(array_of(index), size)
    if wrong is not None:
        raise IndexError(f"index out of range in self\nindex {wrong} along dimension {d}, which has size {size}")
    return apply(_index_select(d), (input, index))


@both
def masked_select(input: Tensor, mask: Tensor) -> Tensor:  # noqa: A002
    """The entries where the mask is true, in one dimension."""
    if array_of(mask).dtype != np.bool_:
        raise RuntimeError("masked_select: expected BoolTensor for mask\nmask.bool() converts it")
    a, b = FUNCTIONS["broadcast_tensors"](input, mask)
    if isinstance(array_of(b), Tracer):
        return a[b]  # which says what a mask without values cannot do
    places = wrap(np.flatnonzero(np.asarray(array_of(b))))
    places._counter = mask._counter  # a change of the mask counts
    return apply(_MASKED_SELECT, (a, places))


@both
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:  # noqa: A002
    """The indices of nonzero entries, one in each row; with ``as_tuple``, one tensor for each dimension."""
    array = np.asarray(array_of(input))
    if as_tuple:
        return tuple([wrap(i) for i in np.nonzero(np.atleast_1d(array))])
    return wrap(np.argwhere(array))
