"""Copies of a tensor with a part replaced: ``select_scatter`` and its kin; and copies of parts."""

from __future__ import annotations

from collections.abc import Sequence

from dualrev.eager.core.annotations import Dims
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.copies import clone
from dualrev.eager.ops.rearranged_parts import as_strided
from dualrev.eager.ops.registry import FUNCTIONS, both, function
from dualrev.eager.ops.shapes import diagonal


def _with(input: Tensor, part: Tensor, src: Tensor, what: str) -> None:  # noqa: A002
    """Write ``src`` into a view."""
    if part.shape != src.shape:
        raise RuntimeError(f"expected src to have a size equal to the {what} of self. src size = {list(src.shape)}, {what} size = "
                           f"{list(part.shape)}")
    part.copy_(src)


@both
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:  # noqa: A002
    """A copy with ``src`` in the place of one entry along a dimension.

    >>> from dualrev import eager as torch
    >>> torch.select_scatter(torch.zeros(2, 2), torch.ones(2), 0, 1)
    tensor([[0., 0.],
            [1., 1.]])
    """
    out = clone(input)
    _with(out, out.select(dim, index), src, "slice")
    return out


@both
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1  # noqa: A002
                  ) -> Tensor:
    """A copy with ``src`` in the place of a slice along a dimension."""
    out = clone(input)
    d = dim % out.ndim
    _with(out, out[(*[slice(None)] * d, slice(start, end, step))], src, "slice")
    return out


@both
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:  # noqa: A002
    """A copy with ``src`` on a diagonal."""
    out = clone(input)
    _with(out, diagonal(out, offset, dim1, dim2), src, "slice")
    return out


@both
def as_strided_scatter(input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int],  # noqa: A002
                       storage_offset: int | None = None) -> Tensor:
    """A copy with ``src`` in the places that ``as_strided`` takes."""
    out = clone(input)
    _with(out, as_strided(out, size, stride, storage_offset), src, "as_strided")
    return out


@both
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:  # noqa: A002
    """A copy of a part of one dimension."""
    return clone(FUNCTIONS["narrow"](input, dim, start, length))


@both
def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """``chunk``, of parts that may be changed in place."""
    return tuple([clone(part) for part in FUNCTIONS["chunk"](input, chunks, dim)])


@both
def unsafe_split(input: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:  # noqa: A002
    """``split``, into parts that may be changed in place."""
    return tuple([clone(part) for part in FUNCTIONS["split"](input, split_size, dim)])


@function
def unravel_index(indices: Tensor, shape: int | Dims) -> tuple[Tensor, ...]:
    """The indices into each dimension of a shape, of indices into all entries in one row.

    >>> from dualrev import eager as torch
    >>> torch.unravel_index(torch.tensor(5), (2, 3))
    (tensor(1), tensor(2))
    """
    if not isinstance(indices, Tensor) or indices.is_floating_point() or indices.is_complex():
        raise TypeError("expected 'indices' to be integer, but got "
                        f"{indices.dtype if isinstance(indices, Tensor) else type(indices).__name__}")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)  # type: ignore[arg-type]
    found = []
    for n in reversed(sizes):
        found.append(indices % n)
        indices = indices // n
    return tuple(reversed(found))
