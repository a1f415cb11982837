"""Shapes: views in another shape or order of dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core.annotations import Dims, DType, Sizes
from dualrev.eager.core.dtypes import dtype as kind_of_number
from dualrev.eager.core.operation import Op, family
from dualrev.eager.core.size import Size
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.graph.views import view, views
from dualrev.eager.ops.bits import read_as
from dualrev.eager.ops.checks import expands
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.layout import can_view, strides_of
from dualrev.eager.ops.registry import alias, both, method


def shape_of(sizes: Sequence[Any]) -> tuple[int, ...]:
    """A shape given as numbers or as one sequence."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return tuple([s if isinstance(s, int) else int(s) for s in sizes])


def _full_shape(sizes: Sequence[int | Sequence[int]], array: jax.Array) -> tuple[int, ...]:
    shape = shape_of(sizes)
    known = math.prod([s for s in shape if s >= 0])
    if shape.count(-1) > 1:
        raise RuntimeError(f"only one dimension can be inferred\nthe shape {list(shape)} leaves {shape.count(-1)} open")
    if shape.count(-1) == 1 and known and array.size % known == 0:
        return tuple([array.size // known if s == -1 else s for s in shape])
    if -1 in shape or known != array.size:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {array.size}")
    return shape


_view = family("View", lambda x, shape: jnp.reshape(x, shape))
#: Of entries that no strides give in the new shape: PyTorch copies them.
_copied = family("UnsafeView", lambda x, shape: jnp.reshape(x, shape))
_transpose = family("Transpose", lambda x, a, b: jnp.swapaxes(x, a, b))
_T = Op("T", lambda x: x.T)
_permute = family("Permute", lambda x, dims: jnp.transpose(x, dims))
_expand = family("Expand", lambda x, shape: jnp.broadcast_to(x, shape))
_squeeze = family("Squeeze", lambda x, dims: jnp.squeeze(x, dims))
_diagonal = family("Diagonal", lambda x, k, a, b: jnp.diagonal(x, k, a, b))
_unsqueeze = family("Unsqueeze", lambda x, dim: jnp.expand_dims(x, dim))
split_op = family("Split", lambda x, bounds, dim: jnp.split(x, bounds, dim), many=True)
_unbind = family("Unbind", lambda x, dim: [jnp.take(x, i, dim) for i in range(x.shape[dim])], many=True)

Tensor.shape = property(lambda self: Size(array_of(self).shape))  # type: ignore[assignment]
Tensor.ndim = property(lambda self: len(array_of(self).shape))  # type: ignore[assignment]
Tensor.T = property(lambda self: view(_permute(tuple(range(self.ndim))[::-1]), self))  # type: ignore[assignment, misc]
Tensor.mT = property(lambda self: self.transpose(-2, -1))  # type: ignore[assignment, misc]
Tensor.H = property(lambda self: self.t() if not self.is_complex() else self.t().conj())  # type: ignore[assignment, misc]
Tensor.mH = property(lambda self: self.adjoint())  # type: ignore[assignment, misc]


@method
def size(self: Tensor, dim: int | None = None) -> Size | int:
    """The shape, or one of its sizes."""
    return self.shape if dim is None else self.shape[dim_of(dim, self.ndim)]


@both
def numel(input: Tensor) -> int:  # noqa: A002
    """The number of entries."""
    return array_of(input).size


@method
def dim(self: Tensor) -> int:
    """The number of dimensions."""
    return self.ndim


Tensor.nelement = Tensor.numel  # type: ignore[method-assign]
Tensor.ndimension = Tensor.dim  # type: ignore[method-assign]


def _view_of(self: Tensor, *sizes: Any, dtype: DType | None = None) -> Tensor:
    """The same entries in another shape, or their bits as numbers of another dtype, sharing the storage."""
    given = dtype if dtype is not None else sizes[0] if len(sizes) == 1 and isinstance(sizes[0], kind_of_number) else None
    if given is not None:
        return read_as(self, given)
    shape = _full_shape(sizes, array_of(self))
    if not can_view(self, shape):
        raise RuntimeError("view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
                           f"contiguous subspaces). Use .reshape(...) instead.\nthe shapes are {list(self.shape)} and {list(shape)}, "
                           f"the strides {strides_of(self)}")
    return view(_view(shape), self)


Tensor.view = _view_of  # type: ignore[assignment, method-assign]
Tensor.view_as = lambda self, other: self.view(other.shape)  # type: ignore[method-assign]
Tensor.reshape_as = lambda self, other: self.reshape(other.shape)  # type: ignore[method-assign]


@both
def reshape(input: Tensor, *sizes: int | Sequence[int]) -> Tensor:  # noqa: A002
    """The same entries in another shape: a view where strides give them, and a copy otherwise.

    >>> from dualrev import eager as torch
    >>> torch.arange(4.0).reshape(2, -1)
    tensor([[0., 1.],
            [2., 3.]])
    """
    return _reshaped(input, _full_shape(sizes, array_of(input)))


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return view(_view(shape), x) if can_view(x, shape) else apply(_copied(shape), (x,))


@both
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:  # noqa: A002
    """Merge several dimensions into one."""
    n = input.ndim
    if n == 0:
        return input.reshape(1)
    a, b = dim_of(start_dim, n), dim_of(end_dim, n)
    shape = input.shape
    return _reshaped(input, (*shape[:a], math.prod(shape[a: b + 1]), *shape[b + 1:]))


@both
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:  # noqa: A002
    """Split one dimension into several."""
    d, known = dim_of(dim, input.ndim), [s for s in sizes if s != -1]
    n = input.shape[d]
    if math.prod(known) != n if len(known) == len(sizes) else (not math.prod(known) or n % math.prod(known)):
        raise RuntimeError(f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} ({n}) in the input "
                           "tensor")
    return input.reshape(*input.shape[:d], *sizes, *input.shape[d + 1:])


@both
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:  # noqa: A002
    """Exchange two dimensions."""
    a, b = dim_of(dim0, input.ndim), dim_of(dim1, input.ndim)
    return view(_transpose(a, b) if input.ndim else _permute(()), input)


alias("swapaxes", transpose)
alias("swapdims", transpose)


@both
def t(input: Tensor) -> Tensor:  # noqa: A002
    """The transpose of a matrix."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D\n"
                           "x.mT or x.transpose(a, b) exchange two of more")
    return input if input.ndim < 2 else view(_T, input)


@both
def permute(input: Tensor, *dims: int | Sequence[int]) -> Tensor:  # noqa: A002
    """The dimensions in another order."""
    order = tuple([dim_of(d, input.ndim) for d in shape_of(dims)])
    if len(order) != input.ndim:
        raise RuntimeError("permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
                           f"ordering of dimensions i.e. input.dim() = {input.ndim} is not equal to len(dims) = {len(order)}")
    if len(set(order)) != len(order):
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return view(_permute(order), input)


@both
def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:  # noqa: A002
    """Move dimensions to other positions."""
    starts = [source] if isinstance(source, int) else list(source)
    ends = [destination] if isinstance(destination, int) else list(destination)
    if len(starts) != len(ends):
        raise RuntimeError(f"movedim: Invalid source or destination dims: source ({starts} dims) should contain the same number of "
                           f"dims as destination ({ends} dims)")
    starts, ends = [dim_of(d, input.ndim) for d in starts], [dim_of(d, input.ndim) for d in ends]
    for what, dims in (("source", starts), ("destination", ends)):
        if len({*dims}) < len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{what}` ({dims})")
    order = [d for d in range(input.ndim) if d not in starts]
    for end, start in sorted(zip(ends, starts, strict=True)):
        order.insert(end, start)
    return permute(input, *order)


alias("moveaxis", movedim)


@method
def expand(self: Tensor, *sizes: int | Sequence[int]) -> Tensor:
    """Dimensions of size 1 repeated without copying; -1 leaves a size as it is."""
    given = shape_of(sizes)
    old = (1,) * (len(given) - self.ndim) + tuple(self.shape)
    expands(given, old, array_of(self))
    return view(_expand(tuple([o if s == -1 else s for s, o in zip(given, old, strict=True)])), self)


@both
def broadcast_to(input: Tensor, *size: int | Sequence[int]) -> Tensor:  # noqa: A002
    """As ``expand``."""
    return input.expand(*shape_of(size))


Tensor.expand_as = lambda self, other: self.expand(*other.shape)  # type: ignore[method-assign]


@both
def squeeze(input: Tensor, dim: Dims = None) -> Tensor:  # noqa: A002
    """Remove dimensions of size 1."""
    given = range(input.ndim) if dim is None else [dim_of(d, input.ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    return view(_squeeze(tuple([d for d in given if d < input.ndim and input.shape[d] == 1])), input)


@both
def unsqueeze(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    """Insert a dimension of size 1."""
    return view(_unsqueeze(dim_of(dim, input.ndim + 1)), input)


@both
def split(input: Tensor, split_size: Sizes, dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """Split into parts of one size, or of given sizes, along a dimension."""
    d = dim_of(dim, input.ndim)
    n = input.shape[d]
    if isinstance(split_size, int):
        if split_size < 0:
            raise RuntimeError(f"split expects split_size be non-negative, but got split_size={split_size}")
        if split_size == 0 and n:
            raise RuntimeError(f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}")
        bounds = tuple(range(split_size, n, split_size or 1))
    else:
        if any(size < 0 for size in split_size):
            raise RuntimeError("split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes="
                               f"{list(split_size)}")
        if sum(split_size) != n:
            raise RuntimeError(f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {d}), "
                               f"but got split_sizes={list(split_size)}")
        bounds = tuple([sum(split_size[: i + 1]) for i in range(len(split_size) - 1)])
    return views(split_op(bounds, d), input)


@both
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """Split into a number of parts along a dimension."""
    if input.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    return split(input, max(1, -(-input.shape[dim_of(dim, input.ndim)] // chunks)), dim)


@both
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """The slices along a dimension, without it."""
    if input.ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    return views(_unbind(dim_of(dim, input.ndim)), input)


@method
def __iter__(self: Tensor) -> Iterator[Tensor]:  # noqa: N807
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))


@both
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:  # noqa: A002
    """A view of the diagonal."""
    return view(_diagonal(offset, dim1, dim2), input)


@both
def ravel(input: Tensor) -> Tensor:  # noqa: A002
    """All entries in one dimension."""
    return input.reshape(-1)


@both
def adjoint(input: Tensor) -> Tensor:  # noqa: A002
    """The transposed and conjugated matrix."""
    return input.transpose(-2, -1).conj() if input.is_complex() else input.transpose(-2, -1)
