"""Indexing: ``x[...]``, and functions that take indices."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.source_lines import user_frame
from dualrev._jax.traces import Tracer
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
from dualrev.eager.ops.checks import first_outside
from dualrev.eager.ops.registry import both, method

#: Stands in a static index for an array, which is an operand.
_HERE = "array"
#: A part of an index without its arrays: a number, None, a place for an array, or the bounds of a slice.
Part: TypeAlias = int | str | tuple[object, ...] | None
Static: TypeAlias = tuple[Part, ...]
WHOLE = ("slice", None, None, None)
_NOT_AN_INDEX = ("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})")


class _Index:
    """An index, read as PyTorch reads it: first numbers, slices and None, then all tensors at once.

    ``static`` is the first step; ``picks`` are tensors without dimensions whose value is not known yet, each with the dimension that it
    takes one entry of; ``arrays`` are the others, by the dimensions of what the first steps give.
    """

    def __init__(self, index: object, shape: tuple[int, ...]):
        self.shape = shape
        self.static: list[Part] = []
        self.picks: list[tuple[int, jax.Array]] = []
        self.arrays: dict[int, Values | Tensor] = {}
        #: Whether all tensors are masks, and one that is not of bools.
        self.mask: np.dtype | None = None
        self._at = self._out = 0
        parts = _parts(index)
        self._specified = sum(_dims_of(part) for part in parts)
        if self._specified > len(shape):
            if not shape and len(parts) == 1:
                raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to "
                                 "convert a 0-dim tensor to a number")
            raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
        for part in parts:
            self._read(part)

    @property
    def is_view(self) -> bool:
        """Whether the result shares the storage: no tensor is in the index, or only known numbers."""
        return not self.picks and not self.arrays

    def first(self) -> Static | None:
        """The first step, or None where it changes nothing."""
        return None if all(p == WHOLE for p in self.static) else tuple(self.static)

    def on_host(self) -> tuple[Any, ...]:
        """The step that takes all tensors, as numpy writes it."""
        arrays = {d: np.asarray(array_of(a) if isinstance(a, Tensor) else a) for d, a in self.arrays.items()}
        return tuple([arrays.get(d, slice(None)) for d in range(max(arrays) + 1)])

    def second(self) -> Static:
        """The static part of the step that takes all tensors."""
        return tuple([_HERE if d in self.arrays else WHOLE for d in range(max(self.arrays) + 1)])

    def _keep(self, n: int = 1) -> None:
        """Go on over dimensions that stay whole."""
        self.static += [WHOLE] * n
        self._at += n
        self._out += n

    def _read(self, part: object) -> None:
        if isinstance(part, slice):
            bounds = [None if b is None else int(b) for b in (part.start, part.stop, part.step)]  # type: ignore[arg-type]
            if bounds[2] is not None and bounds[2] <= 0:
                raise ValueError("step must be greater than zero")
            self.static.append(("slice", *bounds))
            self._at += 1
            self._out += 1
        elif part is None:
            self.static.append(None)
            self._out += 1
        elif part is Ellipsis:
            self._keep(len(self.shape) - self._specified)
            self._specified = len(self.shape)  # a second one stands for no dimension
        elif isinstance(part, (bool, np.bool_)):
            self._flag(bool(part))
        elif isinstance(part, (int, np.integer)):
            self._number(int(part))
        elif isinstance(part, str):
            raise TypeError("new(): invalid data type 'str'\nan index is made of whole numbers, slices, None, ..., and tensors")
        elif isinstance(part, (float, dict)):
            raise IndexError(_NOT_AN_INDEX.format(type(part).__name__))
        else:
            self._array(_as_array(part), part)

    def _number(self, i: int) -> None:
        size = self.shape[self._at]
        if not -size <= i < size:
            raise IndexError(f"index {i} is out of bounds for dimension {self._at} with size {size}")
        self.static.append(i)
        self._at += 1

    def _flag(self, flag: bool) -> None:
        """A bool is a mask over a new dimension of size 1."""
        self.static.append(None)
        self.arrays[self._out] = np.arange(int(flag))
        self._out += 1

    def _array(self, array: jax.Array, part: Any) -> None:
        if array.dtype in (np.bool_, np.uint8):
            if array.ndim == 0 and not isinstance(array, Tracer):
                self._flag(bool(array))
            else:
                self._mask(array, part)
        elif array.dtype not in (np.int32, np.int64):
            raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
        elif array.ndim == 0 and isinstance(array, Tracer):
            self.picks.append((self._out, array))
            self.static.append(WHOLE)
            self._at += 1
        elif array.ndim == 0:
            self._number(int(array))
        else:
            size = self.shape[self._at]
            if (wrong := first_outside(array, size, -size)) is not None:
                raise IndexError(f"index {wrong} is out of bounds for dimension {self._at} with size {size}")
            self.arrays[self._out] = part if isinstance(part, Tensor) else array  # a tensor's changes in place are watched
            self._keep()

    def _mask(self, mask: jax.Array, part: Any) -> None:
        if isinstance(mask, Tracer):
            raise RuntimeError(f"an index that is a mask needs the value of a tensor that is being traced, at {user_frame()}\nhow many "
                               "entries it picks is known when the compiled program runs, not while it is compiled; use torch.where, "
                               "or multiply by the mask")
        for d, n in enumerate(mask.shape):
            if self.shape[self._at + d] != n:
                raise IndexError(f"The shape of the mask {list(mask.shape)} at index {d} does not match the shape of the indexed "
                                 f"tensor {list(self.shape)} at index {self._at + d}")
        self.mask = mask.dtype
        found = np.nonzero(np.asarray(mask))
        self.arrays.update({self._out + d: places for d, places in enumerate(found)})
        if isinstance(part, Tensor):
            places = self.arrays[self._out] = wrap(found[0])
            places._counter = part._counter  # a change of the mask counts
        self._keep(mask.ndim)


def _parts(index: object) -> tuple[object, ...]:
    """The parts of an index.  A list that holds more than numbers is read as a tuple, as PyTorch does with short ones."""
    if isinstance(index, tuple):
        return index
    if isinstance(index, list) and len(index) < 32 and any(
            p is None or p is Ellipsis or isinstance(p, (slice, list, tuple, Tensor)) for p in index):
        return tuple(index)
    return (index,)


def _as_array(part: Any) -> Any:
    if isinstance(part, Tensor):
        return array_of(part)
    array = np.asarray([_as_array(p) if isinstance(p, Tensor) else p for p in part] if isinstance(part, (list, range)) else part)
    if array.size == 0 and isinstance(part, (list, range)):
        array = array.astype(np.int64)
    if array.dtype == object:
        raise IndexError(_NOT_AN_INDEX.format(type(part).__name__))
    return array


def _dims_of(part: object) -> int:
    """The dimensions of the tensor that a part takes."""
    if part is None or part is Ellipsis or isinstance(part, (bool, np.bool_)):
        return 0
    if isinstance(part, Tensor) and array_of(part).dtype in (np.bool_, np.uint8):
        return array_of(part).ndim
    return np.ndim(part) if isinstance(part, (list, np.ndarray)) and np.asarray(part).dtype == np.bool_ else 1


def _thawed(static: Static, arrays: Iterable[jax.Array]) -> tuple[Any, ...]:
    values = iter(arrays)
    return tuple([next(values) if p == _HERE else slice(*p[1:]) if isinstance(p, tuple) else p for p in static])


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


def _viewed(t: Tensor, index: _Index) -> Tensor:
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
    read = _Index(index, array_of(self).shape)
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
    read = _Index(index, x.shape)
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
    static = (*[WHOLE] * read.picks[0][0], _HERE) if read.picks else read.second()
    arrays = [read.picks[0][1]] if read.picks else list(read.arrays.values())
    values = [array_of(a) if isinstance(a, Tensor) else a for a in arrays]
    if len(read.picks) + bool(read.arrays) > 1:
        raise NotImplementedError("x[...] = value: an index with several tensors of unknown values\nwrite to one of them at a time")
    t = _viewed(self, read)
    shape = _shape_of(array_of(t), static, values)
    change(t, _set(static), (_fitted(value, shape, True), *arrays))


def _written_on_host(t: Tensor, read: _Index, value: Operand) -> bool:
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
    read = _Index(tuple([i.reshape(1) if isinstance(i, Tensor) and i.ndim == 0 else i for i in indices]), self.shape)
    return change(self, (_add_at if accumulate else _set)(read.second()), (values, *read.arrays.values()))


@both
def index_put(input: Tensor, indices: Iterable[Tensor], values: Operand, accumulate: bool = False) -> Tensor:  # noqa: A002
    """A copy with values written, or added, at indices."""
    read = _Index(tuple([i.reshape(1) if isinstance(i, Tensor) and i.ndim == 0 else i for i in indices]), input.shape)
    return apply((_add_at if accumulate else _set)(read.second()), (input, values, *read.arrays.values()))
