"""Indexing: ``x[...]``, and functions that take indices."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from dualrev._jax.source_lines import user_frame
from dualrev._jax.traces import Tracer
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, described, wrap
from dualrev.eager.graph.views import view
from dualrev.eager.ops.checks import first_outside
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.registry import both, method

#: Stands in a static index for an array, which is an operand.
_HERE = "array"


def _frozen(index: Any, ndim: int, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], list[Any], bool]:
    """An index as ``(static part, arrays in it, whether it only slices)``."""
    parts = index if isinstance(index, tuple) else (index,)
    static: list[Any] = []
    arrays: list[Any] = []
    slices = True
    at = 0
    for part in parts:
        if isinstance(part, slice):
            bounds = [None if b is None else int(b) for b in (part.start, part.stop, part.step)]
            if bounds[2] is not None and bounds[2] <= 0:
                raise ValueError("step must be greater than zero")
            static.append(("slice", *bounds))
            at += 1
        elif part is None or part is Ellipsis:
            static.append(part)
            if part is Ellipsis:
                at += ndim - sum(p is not None and p is not Ellipsis for p in parts)
        elif isinstance(part, (bool, np.bool_)):
            static.append(bool(part))
            slices = False
        elif isinstance(part, (int, np.integer)):
            if at >= ndim:
                raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to "
                                 "convert a 0-dim tensor to a number" if ndim == 0 else
                                 f"too many indices for tensor of dimension {ndim}")
            if not -shape[at] <= part < shape[at]:
                raise IndexError(f"index {int(part)} is out of bounds for dimension {at} with size {shape[at]}")
            static.append(int(part))
            at += 1
        else:
            if isinstance(part, str):
                raise TypeError("new(): invalid data type 'str'\nan index is made of whole numbers, slices, None, ..., and tensors")
            if isinstance(part, (float, dict)):
                raise IndexError("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
                                 f"(got {type(part).__name__})")
            array = array_of(part) if isinstance(part, Tensor) else jnp.asarray(part)
            if array.dtype == bool:
                if array.shape != shape[at: at + array.ndim]:
                    d = next((d for d, n in enumerate(array.shape) if (*shape, -1)[min(at + d, ndim)] != n), 0)
                    raise IndexError(f"The shape of the mask {list(array.shape)} at index {d} does not match the shape of the indexed "
                                     f"tensor {list(shape)} at index {at + d}")
                if isinstance(array, Tracer):
                    raise RuntimeError("an index that is a mask needs the value of a tensor that is being traced, at "
                                       f"{user_frame()}\nhow many entries it picks is known when the compiled program runs, not while "
                                       "it is compiled; use torch.where, or multiply by the mask")
                found = np.nonzero(np.asarray(array))
                static.extend([_HERE] * len(found))
                arrays.extend([jnp.asarray(f) for f in found])
                at += array.ndim
            elif array.dtype.kind not in "iu":
                raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
            else:
                if at < ndim and (wrong := first_outside(array, shape[at], -shape[at])) is not None:
                    raise IndexError(f"index {wrong} is out of bounds for dimension {at} with size {shape[at]}")
                static.append(_HERE)
                arrays.append(array)
                at += 1
            slices = False
    if at > ndim:
        raise IndexError(f"too many indices for tensor of dimension {ndim}")
    return tuple(static), arrays, slices


def _thawed(static: tuple[Any, ...], arrays: Any) -> Any:
    values = iter(arrays)
    return tuple([next(values) if p is _HERE or p == _HERE else slice(*p[1:]) if isinstance(p, tuple) else p for p in static])


_slice = family("Slice", lambda x, static: x[_thawed(static, ())])
_select = family("Select", lambda x, static: x[_thawed(static, ())])
_index = family("Index", lambda x, *rest: x[_thawed(rest[-1], rest[:-1])])


def _put_at(x: Any, value: Any, *rest: Any, adds: bool = False) -> Any:
    at = x.at[_thawed(rest[-1], rest[:-1])]
    value = value.astype(x.dtype) if hasattr(value, "astype") else value
    return at.add(value) if adds else at.set(value)


_set, _set_slice = family("IndexPut", _put_at), family("CopySlices", _put_at)
_add_at = family("IndexPut", lambda *a: _put_at(*a, adds=True))


@method
def __getitem__(self: Tensor, index: Any) -> Tensor:  # noqa: N807
    x = array_of(self)
    static, arrays, slices = _frozen(index, x.ndim, x.shape)
    if slices:
        return view((_select if any(type(p) is int for p in static) else _slice)(static), self)
    return apply(_index(static), (self, *arrays))


@method
def __setitem__(self: Tensor, index: Any, value: Any) -> None:  # noqa: N807
    x = array_of(self)
    static, arrays, slices = _frozen(index, x.ndim, x.shape)
    if slices and mode.grad and self._requires_grad and self._node is None and self._view is None:
        raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.\n" + described(self)
                           + "; change it under torch.no_grad(), or change a .clone()")
    change(self, (_set_slice if slices else _set)(static), (value, *arrays))


@method
def index_put_(self: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """Write, or add, values at indices."""
    static, arrays, _ = _frozen(tuple(indices), self.ndim, self.shape)
    return change(self, (_add_at if accumulate else _set)(static), (values, *arrays))


_narrow = family("Slice", lambda x, dim, start, length: x[(slice(None),) * dim + (slice(start, start + length),)])
_gather = family("Gather", lambda x, index, dim: jnp.take_along_axis(
    x[tuple([slice(0, n) if d != dim else slice(None) for d, n in enumerate(index.shape)])], index, dim))
_index_select = family("IndexSelect", lambda x, index, dim: jnp.take(x, index, dim))


def _scatter_at(index: Any, dim: int) -> tuple[Any, ...]:
    places = list(jnp.meshgrid(*[jnp.arange(n) for n in index.shape], indexing="ij"))
    places[dim] = index
    return tuple(places)


def _sources(index: Any, src: Any, x: Any) -> Any:
    src = jnp.asarray(src, x.dtype)
    return src if src.ndim == 0 else src[tuple([slice(0, n) for n in index.shape])]


_scatter = family("Scatter", lambda x, index, src, dim: x.at[_scatter_at(index, dim)].set(_sources(index, src, x)))
_scatter_add = family("ScatterAdd", lambda x, index, src, dim: x.at[_scatter_at(index, dim)].add(_sources(index, src, x)))
_index_add = family("IndexAdd", lambda x, index, src, dim: x.at[(slice(None),) * dim + (index,)].add(src))


@both
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:  # noqa: A002
    """A view of a range along a dimension."""
    return view(_narrow(dim_of(dim, input.ndim), start, length), input)


@both
def select(input: Tensor, dim: int, index: int) -> Tensor:  # noqa: A002
    """A view of one index along a dimension."""
    return input[(slice(None),) * dim_of(dim, input.ndim) + (index,)]


def _along(input: Tensor, dim: int, index: Tensor) -> int:  # noqa: A002
    """The dimension, if the indices are inside and have as many dimensions as the tensor."""
    d, places, shape = dim_of(dim, input.ndim), array_of(index), array_of(input).shape
    if places.ndim != len(shape):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor\n"
                           f"the shapes are {list(places.shape)} and {list(shape)}")
    wrong = first_outside(places, shape[d])
    if wrong is not None:
        raise RuntimeError(f"index {wrong} is out of bounds for dimension {d} with size {shape[d]}")
    return d


@both
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:  # noqa: A002
    """The entries at indices along a dimension."""
    return apply(_gather(_along(input, dim, index)), (input, index))


@both
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:  # noqa: A002
    """The slices at indices along a dimension."""
    d = dim_of(dim, input.ndim)
    wrong = first_outside(array_of(index), input.shape[d])
    if wrong is not None:
        raise IndexError(f"index out of range in self\nindex {wrong} along dimension {d}, which has size {input.shape[d]}")
    return apply(_index_select(d), (input, index))


def _to_write(src: Any, value: Any, reduce: str | None) -> Any:
    """The tensor or number to scatter."""
    if reduce is not None:
        raise NotImplementedError(f"scatter(): reduce={reduce!r} is not offered\nscatter_add adds")
    if (src is None) == (value is None):
        raise TypeError("scatter(): give src=, a tensor, or value=, a number, and not both")
    return value if src is None else src


@both
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:  # noqa: A002
    """A copy with values written at indices along a dimension."""
    return apply(_scatter(_along(input, dim, index)), (input, index, _to_write(src, value, reduce)))


@both
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:  # noqa: A002
    """A copy with values added at indices along a dimension."""
    return apply(_scatter_add(_along(input, dim, index)), (input, index, src))


@method
def scatter_(self: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """As ``scatter``, in place."""
    return change(self, _scatter(_along(self, dim, index)), (index, _to_write(src, value, reduce)))


@method
def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """As ``scatter_add``, in place."""
    return change(self, _scatter_add(_along(self, dim, index)), (index, src))


@method
def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """Add slices, times ``alpha``, at indices along a dimension, in place."""
    return change(self, _index_add(dim_of(dim, self.ndim)), (index, source if alpha == 1 else source * alpha))


@both
def masked_select(input: Tensor, mask: Tensor) -> Tensor:  # noqa: A002
    """The entries where the mask is true, in one dimension."""
    return input[mask]


@both
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:  # noqa: A002
    """The indices of nonzero entries, one in each row; with ``as_tuple``, one tensor for each dimension."""
    found = [jnp.asarray(i) for i in np.nonzero(np.asarray(array_of(input)))]
    return tuple([wrap(i) for i in found]) if as_tuple else wrap(jnp.stack(found, 1))
