"""Writing at indices along a dimension: ``scatter``, ``index_add`` and their kin."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Scalar
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor, array_of
from dualrev.eager.ops.checks import first_outside, same_dtype
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.registry import both, method
from dualrev.eager.ops.scatter_reductions import Places, reduced
from dualrev.eager.ops.selecting import along


def _scatter_at(index: jax.Array, dim: int) -> Places:
    if not index.ndim:
        return ()
    places = list(jnp.meshgrid(*[jnp.arange(n) for n in index.shape], indexing="ij"))
    places[dim] = index
    return tuple(places)


def _slices_at(index: jax.Array, dim: int) -> Places:
    return (*(slice(None),) * dim, index.reshape(-1))


def _sources(index: jax.Array, src: Any, x: jax.Array) -> jax.Array:
    src = jnp.asarray(src, x.dtype)
    return src if src.ndim == 0 else src[tuple([slice(0, n) for n in index.shape])]


# ----------------------------------------------------------------------------------------------------------- reductions


_scatter = family("Scatter", lambda x, index, src, dim: x.at[_scatter_at(index, dim)].set(_sources(index, src, x)))
_scatter_add = family("ScatterAdd", lambda x, index, src, dim: x.at[_scatter_at(index, dim)].add(_sources(index, src, x)))
_scatter_reduce = family("ScatterReduce", lambda x, index, src, dim, reduce, own: reduced(
    x, _scatter_at(index, dim), jnp.broadcast_to(_sources(index, src, x), index.shape), reduce, own))


def _index_add_of(x: jax.Array, index: jax.Array, src: jax.Array, *rest: Any) -> jax.Array:
    *alpha, dim = rest
    src = src * alpha[0] if alpha else src
    return _with_dims(lambda y: y.at[_slices_at(index, dim)].add(src.reshape(-1) if x.ndim == 0 else src), x)


_index_add = family("IndexAdd", _index_add_of)
_index_copy = family("IndexCopy", lambda x, index, src, dim: _with_dims(
    lambda y: y.at[_slices_at(index, dim)].set(src.reshape(-1) if x.ndim == 0 else src), x))
_index_fill = family("IndexFill", lambda x, index, value, dim: _with_dims(
    lambda y: y.at[_slices_at(index, dim)].set(jnp.asarray(value).astype(x.dtype)), x))
_index_reduce = family("IndexReduce", lambda x, index, src, dim, reduce, own: _with_dims(
    lambda y: reduced(y, _slices_at(index, dim), src.reshape(-1) if x.ndim == 0 else src, reduce, own), x))


def _with_dims(fun: Any, x: jax.Array) -> jax.Array:
    """The function of an array that has a dimension at least."""
    return fun(x) if x.ndim else fun(x.reshape(1)).reshape(())


def _scatter_op(input: Tensor, dim: int, index: Tensor, src: Operand | None, value: Scalar | None,  # noqa: A002
                reduce: str | None) -> tuple[Op, tuple[Operand, ...]]:
    """The operation, and the indices and the tensor or number to scatter."""
    if (src is None) == (value is None):
        raise TypeError("scatter(): give src=, a tensor, or value=, a number, and not both")
    given: Any = value if src is None else src
    d = along(input, dim, index)
    if isinstance(given, Tensor):
        _check_scatter("scatter", input, d, index, given)
    if reduce is None:
        return _scatter(d), (index, given)
    names = {"add": "sum", "multiply": "prod"}
    if reduce not in names:
        raise RuntimeError("reduce argument must be either add or multiply.")
    return _scatter_reduce(d, names[reduce], True), (index, given)


def _check_scatter(name: str, x: Tensor, dim: int, index: Tensor, src: Tensor) -> None:
    a, b, i = array_of(x), array_of(src), array_of(index)
    if i.size == 0:
        return
    if a.dtype != b.dtype:
        raise RuntimeError(f"{name}(): Expected self.dtype to be equal to src.dtype")
    if any(n > m for n, m in zip(i.shape, b.shape, strict=True)) or any(
            n > m for d, (n, m) in enumerate(zip(i.shape, a.shape, strict=True)) if d != dim):
        raise RuntimeError(f"Expected index {list(i.shape)} to be no larger than self {list(a.shape)} apart from dimension {dim} and "
                           f"to be no larger size than src {list(b.shape)}")


@both
def scatter(input: Tensor, dim: int, index: Tensor, src: Operand | None = None, *, value: Scalar | None = None,  # noqa: A002
            reduce: str | None = None) -> Tensor:
    """A copy with values written at indices along a dimension; added, or multiplied, with ``reduce="add"`` or ``"multiply"``."""
    op, rest = _scatter_op(input, dim, index, src, value, reduce)
    return apply(op, (input, *rest))


@method
def scatter_(self: Tensor, dim: int, index: Tensor, src: Operand | None = None, *, value: Scalar | None = None,
             reduce: str | None = None) -> Tensor:
    """As ``scatter``, in place."""
    return change(self, *_scatter_op(self, dim, index, src, value, reduce))


def _add_op(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Op:
    d = along(x, dim, index)
    _check_scatter("scatter", x, d, index, src)
    return _scatter_add(d)


@both
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:  # noqa: A002
    """A copy with values added at indices along a dimension."""
    return apply(_add_op(input, dim, index, src), (input, index, src))


@method
def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """As ``scatter_add``, in place."""
    return change(self, _add_op(self, dim, index, src), (index, src))


_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _reduce_op(x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool) -> Op:
    reduce = {"max": "amax", "min": "amin"}.get(reduce, reduce)
    if reduce not in _REDUCTIONS:
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    d = along(x, dim, index)
    _check_scatter("scatter", x, d, index, src)
    return _scatter_reduce(d, reduce, bool(include_self))


@both
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:  # noqa: A002
    """A copy with values combined at indices along a dimension, by "sum", "prod", "mean", "amax" or "amin".

    >>> from dualrev import eager as torch
    >>> torch.zeros(2).scatter_reduce(0, torch.tensor([0, 0, 1]), torch.tensor([1.0, 2.0, 3.0]), "sum")
    tensor([3., 3.])
    """
    return apply(_reduce_op(input, dim, index, src, reduce, include_self), (input, index, src))


@method
def scatter_reduce_(self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """As ``scatter_reduce``, in place."""
    return change(self, _reduce_op(self, dim, index, src, reduce, include_self), (index, src))


# -------------------------------------------------------------------------------------------------------- whole slices

def _slices(name: str, x: Tensor, dim: int, index: Tensor, source: Tensor | None = None) -> int:
    """The dimension, if the indices are a vector of whole numbers inside, and as many as the slices of the source."""
    d, places = dim_of(dim, x.ndim), array_of(index)
    if places.ndim > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, but got dim: {places.ndim} with type: "
                         f"{dtypes.type_name(places.dtype)} and size: {list(places.shape)}")
    if places.dtype not in (np.int64, np.int32):
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index but got: {dtypes.type_name(places.dtype)}")
    size = x.shape[d] if x.ndim else 1
    if (wrong := first_outside(places, size, -size if name == "index_fill_" else 0)) is not None:
        raise (RuntimeError if name == "index_add" else IndexError)(
            f"index {wrong} is out of bounds for dimension {d} with size {size}")
    if source is not None:
        same_dtype(array_of(x), array_of(source), f"{name}(): self ({{A}}) and source ({{B}}) must have the same scalar type")
        n = source.shape[d] if source.ndim else 1
        if name == "index_copy_" and n != places.size:
            raise IndexError(f"{name}(): Number of indices ({places.size}) should be equal to source.size(dim) ({n})")
        if name == "index_copy_" and x.ndim and (source.ndim != x.ndim or _without(x, d) != _without(source, d)):
            raise RuntimeError(f"{name}(): Source/destination tensor must have same slice shapes. Destination slice shape: "
                               f"{_without(x, d)} at dimension {d} and source slice shape: {_without(source, d)} at dimension {d}.")
        if name != "index_copy_" and (source.ndim != x.ndim or _without(x, d) != _without(source, d)):
            raise RuntimeError("source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = "
                               f"{list(x.shape)} source.shape = {list(source.shape)}")
        if n != places.size:
            raise RuntimeError(f"{name.rstrip('_')}_(): Number of indices ({places.size}) should be equal to source.size(dim): "
                               f"({n}), for dim: {d}")
    return d


def _without(x: Tensor, d: int) -> str:
    return " ".join(str(n) for k, n in enumerate(x.shape) if k != d)


@both
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:  # noqa: A002
    """A copy with slices, times ``alpha``, added at indices along a dimension."""
    op = _index_add(_slices("index_add", input, dim, index, source))
    return apply(op, (input, index, source, *(() if alpha == 1 else (alpha,))))


@method
def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """Add slices, times ``alpha``, at indices along a dimension, in place."""
    op = _index_add(_slices("index_add", self, dim, index, source))
    return change(self, op, (index, source, *(() if alpha == 1 else (alpha,))))


@both
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:  # noqa: A002
    """A copy with slices written at indices along a dimension."""
    return apply(_index_copy(_slices("index_copy_", input, dim, index, source)), (input, index, source))


@method
def index_copy_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Write slices at indices along a dimension, in place."""
    return change(self, _index_copy(_slices("index_copy_", self, dim, index, source)), (index, source))


def _filling(value: Operand) -> Operand:
    if isinstance(value, Tensor) and value.ndim:
        raise RuntimeError(f"index_fill_ only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s).")
    return value


@both
def index_fill(input: Tensor, dim: int, index: Tensor, value: Operand) -> Tensor:  # noqa: A002
    """A copy with a number in the slices at indices along a dimension."""
    return apply(_index_fill(_slices("index_fill_", input, dim, index)), (input, index, _filling(value)))


@method
def index_fill_(self: Tensor, dim: int, index: Tensor, value: Operand) -> Tensor:
    """Write a number into the slices at indices along a dimension, in place."""
    return change(self, _index_fill(_slices("index_fill_", self, dim, index)), (index, _filling(value)))


def _index_reduce_op(x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool) -> Op:
    if reduce not in _REDUCTIONS[1:]:
        raise RuntimeError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    return _index_reduce(_slices("index_reduce", x, dim, index, source), reduce, bool(include_self))


@both
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:  # noqa: A002
    """A copy with slices combined at indices along a dimension, by "prod", "mean", "amax" or "amin"."""
    return apply(_index_reduce_op(input, dim, index, source, reduce, include_self), (input, index, source))


@method
def index_reduce_(self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """As ``index_reduce``, in place."""
    return change(self, _index_reduce_op(self, dim, index, source, reduce, include_self), (index, source))
