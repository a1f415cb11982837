"""Indexing: ``x[...]``, and functions that take indices."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Number, Values
from dualrev.eager.core.evaluation import is_on_host
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import family
from dualrev.eager.graph.inplace import change, write
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.storage import Step
from dualrev.eager.graph.tensor import Index, Operand, Tensor, array_of, described, view_array, wrap
from dualrev.eager.graph.views import RecordedView, view
from dualrev.eager.ops.binary import is_operand
from dualrev.eager.ops.index_parts import HERE, WHOLE, Part, ReadIndex, Static
from dualrev.eager.ops.registry import both, method


def _thawed(static: Static, arrays: Iterable[jax.Array]) -> tuple[Any, ...]:
    values = iter(arrays)
    return tuple([next(values) if p == HERE else slice(*p[1:]) if isinstance(p, tuple) else p for p in static])


def _taken(x: jax.Array, starts: jax.Array, pattern: tuple[Any, ...]) -> jax.Array:
    """A part of an array: for each dimension the whole ("all"), one entry ("one"), or ``(length, step)`` from a start.

    None is a new dimension.
    """
    begins: list[Any] = []
    sizes: list[int] = []
    strides: list[int] = []
    shape: list[int] = []
    k = d = 0
    for p in pattern:
        if p is None:
            shape.append(1)
            continue
        n = x.shape[d]
        d += 1
        if p == "all":
            begins.append(jnp.zeros((), starts.dtype))
            sizes.append(n)
            strides.append(1)
            shape.append(n)
            continue
        begins.append(starts[k])
        k += 1
        length, step = (1, 1) if isinstance(p, str) else p
        sizes.append((length - 1) * step + 1 if length else 0)
        strides.append(step)
        if p != "one":
            shape.append(length)
    for n in x.shape[d:]:
        begins.append(jnp.zeros((), starts.dtype))
        sizes.append(n)
        strides.append(1)
        shape.append(n)
    part = jax.lax.dynamic_slice(x, begins, sizes)
    if any(s != 1 for s in strides):
        part = jax.lax.slice(part, [0] * len(sizes), sizes, strides)
    return part.reshape(shape)


_slice, _select = family("Slice", _taken), family("Select", _taken)
_ROW = _select(("one",))


def part_of(t: Tensor, static: Static) -> Tensor:
    """The view that numbers, slices and None show.  Where it starts is an operand: the operation is the same for all starts."""
    pattern: list[Part] = []
    starts: list[int] = []
    index: list[Any] = []
    shape = array_of(t).shape
    d = 0
    for p in static:
        if p is None:
            pattern.append(None)
            index.append(None)
            continue
        n = shape[d]
        d += 1
        if isinstance(p, int):
            start = p % n
            pattern.append("one")
            starts.append(start)
            index.append(start)
        else:
            start, stop, step = slice(*p[1:]).indices(n)  # type: ignore[index]
            length = len(range(start, stop, step))
            if length == n:
                pattern.append("all")
                index.append(slice(None))
            else:
                pattern.append((length, step))
                starts.append(min(start, n - length))
                index.append(slice(start, stop, step))
    op = (_select if "one" in pattern else _slice)(tuple(pattern))
    return view(op, t, tuple(starts), tuple(index))


_index = family("Index", lambda x, *rest: x[_thawed(rest[-1], rest[:-1])])
_pick = family("Select", lambda x, i, dim: jnp.take(x, i, dim, mode="clip"))


def _put_at(x: jax.Array, value: Number, *rest: Any, adds: bool = False) -> jax.Array:
    at = x.at[_thawed(rest[-1], rest[:-1])]
    value = value.astype(x.dtype) if hasattr(value, "astype") else value
    return at.add(value) if adds else at.set(value)


_set, _set_slice = family("IndexPut", _put_at), family("CopySlices", _put_at)
_add_at = family("IndexPut", lambda *a: _put_at(*a, adds=True))


def _shape_of(x: jax.Array, static: Static, arrays: Iterable[Values]) -> tuple[int, ...]:
    """The shape of what an index takes of an array."""
    zeros: list[Any] = [np.zeros(a.shape, np.int64) for a in arrays]
    return np.broadcast_to(np.int8(0), x.shape)[_thawed(static, zeros)].shape


def _viewed(t: Tensor, index: ReadIndex) -> Tensor:
    """What the numbers, slices and None of an index show of a tensor."""
    static = index.first()
    if static is not None:
        t = part_of(t, static)
    return t


def _row(t: Tensor, i: int) -> Tensor | None:
    """One entry of the first dimension, where nothing is recorded and numpy can read it; the most frequent index, as datasets are read.

    None where the general way is to be taken.
    """
    seen = t._view
    if seen is not None and seen.generation != seen.base._generation:
        return None
    if mode.grad and t._requires_grad:
        return None
    array: Any = t._storage.array if seen is None else view_array(t, seen)
    shape = array.shape
    if not shape:
        return None
    if type(array) is not np.ndarray:
        if not is_on_host(array):
            return None
        array = np.asarray(array)
        if seen is not None:
            seen.array = array  # it is read once
    n = shape[0]
    if not -n <= i < n:
        raise IndexError(f"index {i} is out of bounds for dimension 0 with size {n}")
    if i < 0:
        i += n
    at = (i, ...)
    part = array[at]
    made = None if mode.grad else "no_grad"
    result = wrap(part)
    result._storage, result._counter = t._storage, t._counter
    step = Step(_ROW, (i,), at)
    if seen is None:
        result._view = RecordedView(t, (step,), part, made)
    else:
        result._view = RecordedView(seen.base, (*seen.path, step), part, seen.made or made)
    if mode.inference:
        result._inference = True
    return result


@method
def __getitem__(self: Tensor, index: Index) -> Tensor:  # noqa: N807
    if type(index) is int and mode.handler is None:
        row = _row(self, index)
        if row is not None:
            return row
    read = ReadIndex(index, array_of(self).shape)
    if read.is_view:
        return part_of(self, tuple(read.static))
    t = _viewed(self, read)
    for dim, i in read.picks:
        t = apply(_pick(dim), (t, i))
    if read.arrays and mode.handler is None and not (mode.grad and t.requires_grad) and is_on_host(array_of(t)):
        found = wrap(np.asarray(array_of(t))[read.on_host()])
        found._inference = mode.inference
        return found
    return apply(_index(read.second()), (t, *read.arrays.values())) if read.arrays else t


@method
def __setitem__(self: Tensor, index: Index, value: Operand) -> None:  # noqa: N807
    x = array_of(self)
    if not is_operand(value):
        raise TypeError(f"can't assign a {type(value).__name__} to a torch.{dtypes.type_name(x.dtype)}Tensor")
    read = ReadIndex(index, x.shape)
    if read.mask is not None and read.mask != np.bool_ and not getattr(value, "shape", ()):
        raise RuntimeError("masked_fill_ only supports boolean masks, but got mask with dtype unsigned char")
    if read.is_view and mode.grad and self._requires_grad and self._node is None and self._view is None:
        raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.\n" + described(self)
                           + "; change it under torch.no_grad(), or change a .clone()")
    if _written_on_host(self, read, value):
        return
    if read.is_view:
        static = tuple(read.static)
        change(self, _set_slice(static), (_fitted(value, _shape_of(x, static, ()), False),))
        return
    static = (*[WHOLE] * read.picks[0][0], HERE) if read.picks else read.second()
    arrays = [read.picks[0][1]] if read.picks else list(read.arrays.values())
    values = [array_of(a) if isinstance(a, Tensor) else a for a in arrays]
    if len(read.picks) + bool(read.arrays) > 1:
        raise NotImplementedError("x[...] = value: an index with several tensors of unknown values\nwrite to one of them at a time")
    t = _viewed(self, read)
    shape = _shape_of(array_of(t), static, values)
    change(t, _set(static), (_fitted(value, shape, True), *arrays))


def _written_on_host(t: Tensor, read: ReadIndex, value: Operand) -> bool:
    """Write a value where nothing is recorded and all is on the host, in place where no other array shares the memory."""
    array: Any = t._storage.array
    given: Any = array_of(value) if isinstance(value, Tensor) else value
    if (t._view is not None or read.picks or mode.handler is not None or not is_on_host(array) or not (
            isinstance(given, (int, float, complex)) or is_on_host(given))
            or (mode.grad and (t.requires_grad or (isinstance(value, Tensor) and value.requires_grad)))
            or (t._inference and not mode.inference)):
        return False
    plain: Any = tuple([slice(*p[1:]) if isinstance(p, tuple) else p for p in read.static])
    example: Any = np.broadcast_to(np.int8(0), array.shape)[plain]
    given = _fitted(given, (example[read.on_host()] if read.arrays else example).shape, bool(read.arrays))
    # Besides the storage, this frame and the call refer to it.
    if type(array) is not np.ndarray or sys.getrefcount(array) > 3 or not array.flags.writeable or array.base is not None:
        array = np.array(array)
    if read.arrays:
        array[plain][read.on_host()] = given
    else:
        array[plain] = given
    write(t, array)
    return True


def _fitted(value: Any, shape: tuple[int, ...], has_tensors: bool) -> Any:
    """A value to be written into a shape, without leading dimensions of size 1.

    Raises:
      RuntimeError: it does not broadcast to the shape.
    """
    given = tuple(getattr(value, "shape", ()))
    short = given[next((d for d, n in enumerate(given) if n != 1), len(given)):]
    if len(short) > len(shape) or any(n not in (1, m) for n, m in zip(reversed(short), reversed(shape), strict=False)):
        if has_tensors:
            raise RuntimeError(f"shape mismatch: value tensor of shape {list(short)} cannot be broadcast to indexing result of shape "
                               f"{list(shape)}")
        if len(short) > len(shape):
            raise RuntimeError(f"expand(torch.FloatTensor{{{list(short)}}}, size={list(shape)}): the number of sizes provided "
                               f"({len(shape)}) must be greater or equal to the number of dimensions in the tensor ({len(short)})")
        d = next(d for d in range(1, len(short) + 1) if short[-d] not in (1, shape[-d]))
        raise RuntimeError(f"The expanded size of the tensor ({shape[-d]}) must match the existing size ({short[-d]}) at non-singleton "
                           f"dimension {len(shape) - d}.  Target sizes: {list(shape)}.  Tensor sizes: {list(short)}")
    return value if len(given) <= len(shape) else value.reshape(short)  # type: ignore[union-attr, return-value]


@method
def index_put_(self: Tensor, indices: Iterable[Tensor], values: Operand, accumulate: bool = False) -> Tensor:
    """Write, or add, values at indices."""
    read = ReadIndex(tuple([i.reshape(1) if isinstance(i, Tensor) and i.ndim == 0 else i for i in indices]), self.shape)
    return change(self, (_add_at if accumulate else _set)(read.second()), (values, *read.arrays.values()))


@both
def index_put(input: Tensor, indices: Iterable[Tensor], values: Operand, accumulate: bool = False) -> Tensor:  # noqa: A002
    """A copy with values written, or added, at indices."""
    read = ReadIndex(tuple([i.reshape(1) if isinstance(i, Tensor) and i.ndim == 0 else i for i in indices]), input.shape)
    return apply((_add_at if accumulate else _set)(read.second()), (input, values, *read.arrays.values()))
