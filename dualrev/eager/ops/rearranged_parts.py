"""Parts and arrangements of tensors: splits at places, windows, strides, diagonals of new matrices, blocks and columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.core.size import Size
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.graph.views import view, views
from dualrev.eager.ops.checks import broadcast
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.joining import cat
from dualrev.eager.ops.registry import FUNCTIONS, both, function, method
from dualrev.eager.ops.shapes import split, split_op
from dualrev.eager.ops.strides import places_of

# ---------------------------------------------------------------------------------------------------------------- splits


@both
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """Split into parts of given sizes along a dimension."""
    return split(input, tuple(split_sizes), dim)


@both
def tensor_split(input: Tensor, indices_or_sections: Sizes | Tensor, dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """Split into a number of nearly equal parts, or at indices, along a dimension."""
    if input.ndim == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    d = dim_of(dim, input.ndim)
    n = input.shape[d]
    given: Any = indices_or_sections.tolist() if isinstance(indices_or_sections, Tensor) else indices_or_sections
    if isinstance(given, int):
        if given <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {given}")
        small, larger = divmod(n, given)
        bounds = tuple([small * i + min(i, larger) for i in range(1, given)])
        return views(split_op(bounds, d), input)
    places = [slice(None, i).indices(n)[1] for i in given]
    return tuple([input.narrow(d, a, max(b - a, 0)) for a, b in zip((0, *places), (*places, n), strict=True)])


def _split_along(name: str, x: Tensor, given: Any, dim: int, least: int) -> tuple[Tensor, ...]:
    if x.ndim < least:
        raise RuntimeError(f"torch.{name} requires a tensor with at least {least} dimension, but got a "
                           f"tensor with {x.ndim} dimensions!")
    if isinstance(given, int) and (given == 0 or x.shape[dim] % given):
        raise RuntimeError(f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension {x.shape[dim]} is "
                           f"not divisible by the split_size {given}!")
    return tensor_split(x, given, dim)


@both
def hsplit(input: Tensor, indices_or_sections: Sizes) -> tuple[Tensor, ...]:  # noqa: A002
    """Split into parts side by side."""
    return _split_along("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1, 1)


@both
def vsplit(input: Tensor, indices_or_sections: Sizes) -> tuple[Tensor, ...]:  # noqa: A002
    """Split into parts one above the other."""
    return _split_along("vsplit", input, indices_or_sections, 0, 2)


@both
def dsplit(input: Tensor, indices_or_sections: Sizes) -> tuple[Tensor, ...]:  # noqa: A002
    """Split along the third dimension."""
    return _split_along("dsplit", input, indices_or_sections, 2, 3)


# --------------------------------------------------------------------------------------------------------------- joining

@function
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors along the third dimension."""
    return cat([FUNCTIONS["atleast_3d"](t) for t in tensors], 2)


@function
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors horizontally; vectors are columns."""
    return cat([t.reshape(-1, 1) if t.ndim < 2 else t for t in tensors], 1)


@function
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to one shape."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    broadcast(*[array_of(t) for t in given])
    shape = np.broadcast_shapes(*[tuple(t.shape) for t in given])
    return tuple([t.expand(*shape) for t in given])


@function
def broadcast_shapes(*shapes: Sizes) -> Size:
    """The shape that tensors of these shapes broadcast to."""
    given = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    found = [1] * max([len(s) for s in given], default=0)
    for i, shape in enumerate(given):
        for d in range(-1, -len(shape) - 1, -1):
            if shape[d] < 0:
                raise RuntimeError(f"Trying to create tensor with negative dimension ({shape[d]}): ({shape[d]})")
            if shape[d] in (1, found[d]):
                continue
            if found[d] != 1:
                raise RuntimeError(f"Attempting to broadcast a dimension of length {shape[d]} at {d}! Mismatching argument at index "
                                   f"{i} had {shape}; but expected shape should be broadcastable to {found}")
            found[d] = shape[d]
    return Size(found)


@function
def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with the tensors, of two dimensions at most, along its diagonal."""
    for i, t in enumerate(tensors):
        if t.ndim > 2:
            raise RuntimeError(f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {t.ndim} dimensions")
    return apply(_block_diag, tensors)


def _blocks(*arrays: jax.Array) -> jax.Array:
    arrays = tuple([jnp.atleast_2d(x) for x in arrays])
    kind = jnp.result_type(*arrays) if arrays else jnp.float32
    width, rows, at = sum([x.shape[1] for x in arrays]), [], 0
    for x in arrays:
        rows.append(jnp.pad(x.astype(kind), ((0, 0), (at, width - at - x.shape[1]))))
        at += x.shape[1]
    return jnp.concatenate(rows, 0)


_block_diag = Op("BlockDiag", _blocks)


# ------------------------------------------------------------------------------------------------------------- diagonals

def _embedded(x: jax.Array, offset: int, a: int, b: int) -> jax.Array:
    n = x.shape[-1] + abs(offset)
    places = jnp.arange(x.shape[-1])
    matrix = jnp.zeros((*x.shape[:-1], n, n), x.dtype).at[..., places + max(-offset, 0), places + max(offset, 0)].set(x)
    return jnp.moveaxis(matrix, (-2, -1), (a, b))


_embed = family("DiagEmbed", _embedded)


@both
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:  # noqa: A002
    """Matrices, in two dimensions of the result, with the last dimension on their diagonals."""
    a, b = dim_of(dim1, input.ndim + 1), dim_of(dim2, input.ndim + 1)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return apply(_embed(offset, a, b), (input,))


@both
def diagflat(input: Tensor, offset: int = 0) -> Tensor:  # noqa: A002
    """A matrix with all entries on a diagonal."""
    return input.reshape(-1).diag(offset)


# ----------------------------------------------------------------------------------------------------- windows and strides

def _windows(x: jax.Array, dim: int, size: int, step: int) -> jax.Array:
    if x.ndim == 0:
        return x.reshape(1)
    starts = np.arange(0, x.shape[dim] - size + 1, step)
    return jnp.moveaxis(jnp.take(x, starts[:, None] + np.arange(size), dim), dim + 1, -1)


_unfold = family("Unfold", _windows)


@method
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of a size along a dimension, in steps; their entries stand in a last dimension."""
    d = dim_of(dimension, self.ndim)
    n = self.shape[d] if self.ndim else 1
    if size < 0:
        raise RuntimeError(f"size is {size} but must be >= 0")
    if size > n:
        raise RuntimeError(f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    return view(_unfold(d, size, step), self)


def _strided(x: jax.Array, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> jax.Array:
    places = np.full(size, offset, np.int64)
    for d, (n, s) in enumerate(zip(size, stride, strict=True)):
        places += (np.arange(n) * s).reshape([-1 if k == d else 1 for k in range(len(size))])
    return x.reshape(-1)[places]


_as_strided = family("AsStrided", _strided)


@both
def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:  # noqa: A002
    """A view of the storage of a tensor, whose entries stand ``stride`` apart."""
    if len(size) != len(stride):
        raise RuntimeError("mismatch in length of strides and shape")
    if any(s < 0 for s in stride):
        raise RuntimeError("as_strided: Negative strides are not supported at the moment, got strides: "
                           f"[{', '.join(map(str, stride))}]")
    offset = input.storage_offset() if storage_offset is None else int(storage_offset)
    base = input if input._view is None else input._view.base
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else -1
    if last >= base.numel():
        itemsize = array_of(base).dtype.itemsize
        raise RuntimeError(f"setStorage: sizes [{', '.join(map(str, size))}], strides [{', '.join(map(str, stride))}], storage offset "
                           f"{offset}, and itemsize {itemsize} requiring a storage size of {(last + 1) * itemsize} are out of bounds "
                           f"for storage of size {base.nbytes}")
    if base is not input and input.numel():
        places = places_of(input).ravel()
        first = int(places[0])
        if first <= offset and last < first + places.size and np.array_equal(places, np.arange(first, first + places.size)):
            base, offset = input, offset - first  # the part that the tensor itself shows is enough
    return view(_as_strided(tuple(size), tuple(stride), offset), base)
