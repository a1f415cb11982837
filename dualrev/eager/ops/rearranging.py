"""Entries repeated, reversed, rolled or rotated; triangles and diagonals of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.joining import cat
from dualrev.eager.ops.registry import both, method
from dualrev.eager.ops.shapes import shape_of

_repeat = family("Repeat", lambda x, sizes: jnp.tile(x, sizes))
_flip = family("Flip", lambda x, dims: jnp.flip(x, dims) if x.ndim else x)
_roll = family("Roll", lambda x, shifts, dims: jnp.roll(x, shifts, dims))
_tril = family("Tril", lambda x, k: jnp.tril(x, k))
_triu = family("Triu", lambda x, k: jnp.triu(x, k))
_diag = family("Diag", lambda x, k: jnp.diag(x, k))
_repeat_each = family("RepeatInterleave", lambda x, n, dim: jnp.repeat(x, n, dim))
_repeat_places = family("RepeatInterleave", lambda x, places, dim: jnp.take(x, jnp.asarray(places, jnp.int32), dim))
_tile = family("Repeat", lambda x, dims: jnp.tile(x, dims))
_rot = family("Rot90", lambda x, k, dims: jnp.rot90(x, k, dims))
_diff = family("Diff", lambda x, n, dim: jnp.diff(x, n, dim))


@method
def repeat(self: Tensor, *sizes: int | Sequence[int]) -> Tensor:
    """Repeat the tensor along each dimension."""
    counts = shape_of(sizes)
    if len(counts) < self.ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor\nthere are "
                           f"{len(counts)} for {self.ndim}")
    return apply(_repeat(counts), (self,))


@both
def repeat_interleave(input: Tensor, repeats: int | Tensor | None = None, dim: int | None = None, *,  # noqa: A002
                      output_size: int | None = None) -> Tensor:
    """Repeat each entry; with a tensor of counts, each by its own count, ``output_size`` in total.

    A tensor of counts alone gives the number of each entry, so often.
    """
    if repeats is None:
        counts = np.asarray(array_of(input))
        if counts.ndim != 1:
            raise RuntimeError("repeat_interleave only accept 1D vector as repeat")
        if counts.dtype not in (np.int32, np.int64):
            raise RuntimeError("repeats has to be Long or Int tensor")
        return wrap(np.repeat(np.arange(counts.size), counts))
    if isinstance(repeats, Tensor) and repeats.numel() == 1:
        repeats = repeats.item()
    if isinstance(repeats, Tensor):
        times = tuple(repeats.tolist())
        size = input.numel() if dim is None else input.shape[dim_of(dim, input.ndim)]
        if len(times) != size:
            raise RuntimeError("repeats must have the same size as input along dim, but got repeats.size(0) = "
                               f"{len(times)} and input.size({0 if dim is None else dim}) = {size}")
        places = [i for i, n in enumerate(times) for _ in range(n)]
        flat = input.reshape(-1) if dim is None else input
        return apply(_repeat_places(tuple(places), 0 if dim is None else dim_of(dim, input.ndim)), (flat,))
    return apply(_repeat_each(repeats, dim), (input,))


@both
def flip(input: Tensor, *dims: int | Sequence[int]) -> Tensor:  # noqa: A002
    """Reverse the order of entries along dimensions."""
    found = tuple([dim_of(d, input.ndim) for d in shape_of(dims)])
    for d in found:
        if found.count(d) > 1:
            raise RuntimeError(f"dim {d} appears multiple times in the list of dims")
    return apply(_flip(found), (input,))


@both
def roll(input: Tensor, shifts: Sizes, dims: Sizes | None = None) -> Tensor:  # noqa: A002
    """Shift entries along dimensions, cyclically."""
    counts = [1 if isinstance(x, int) else len(x) for x in (shifts, () if dims is None else dims)]
    if dims is not None and counts[0] != counts[1]:
        raise RuntimeError(f"shifts and dimensions must align. shifts: {counts[0]}, dims:{counts[1]}")
    for d in [dims] if isinstance(dims, int) else dims or ():
        dim_of(d, input.ndim)
    return apply(_roll(shifts if isinstance(shifts, int) else tuple(shifts), dims if dims is None or isinstance(dims, int)
                       else tuple(dims)), (input,))


def _matrix(name: str, x: Tensor) -> Tensor:
    if x.ndim < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
    return x


@both
def tril(input: Tensor, diagonal: int = 0) -> Tensor:  # noqa: A002
    """The lower triangle of a matrix."""
    return apply(_tril(diagonal), (_matrix("tril", input),))


@both
def triu(input: Tensor, diagonal: int = 0) -> Tensor:  # noqa: A002
    """The upper triangle of a matrix."""
    return apply(_triu(diagonal), (_matrix("triu", input),))


@both
def diag(input: Tensor, diagonal: int = 0) -> Tensor:  # noqa: A002
    """The diagonal of a matrix, or a matrix with this diagonal."""
    if input.ndim not in (1, 2):
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D\nof several matrices: x.diagonal(dim1=-2, dim2=-1)")
    return apply(_diag(diagonal), (input,))


@both
def tile(input: Tensor, *dims: int | Sequence[int]) -> Tensor:  # noqa: A002
    """Repeat the tensor along each dimension."""
    return apply(_tile(tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else dims), (input,))


@both
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:  # noqa: A002
    """Rotate by a quarter turn, ``k`` times."""
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    if len({dim_of(d, input.ndim) for d in dims}) < 2:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    return apply(_rot(k, tuple(dims)), (input,))


@both
def fliplr(input: Tensor) -> Tensor:  # noqa: A002
    """The columns in reverse."""
    return input.flip(1)


@both
def flipud(input: Tensor) -> Tensor:  # noqa: A002
    """The rows in reverse."""
    return input.flip(0)


@both
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:  # noqa: A002
    """Differences of neighbours along a dimension, after prepending and appending tensors."""
    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    d = dim_of(dim, input.ndim)
    parts = [x for x in (prepend, input, append) if x is not None]
    return apply(_diff(n, d), (input if len(parts) == 1 else cat(parts, d),))
