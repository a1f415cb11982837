"""What stands in ``x[...]``, read as PyTorch reads it."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

from dualrev._jax.source_lines import user_frame
from dualrev._jax.traces import Tracer
from dualrev.eager.core.annotations import Values
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.checks import first_outside

#: Stands in a static index for an array, which is an operand.
HERE = "array"
#: A part of an index without its arrays: a number, None, a place for an array, or the bounds of a slice.
Part: TypeAlias = int | str | tuple[object, ...] | None
Static: TypeAlias = tuple[Part, ...]
WHOLE = ("slice", None, None, None)
_NOT_AN_INDEX = ("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})")


class ReadIndex:
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
        return tuple([HERE if d in self.arrays else WHOLE for d in range(max(self.arrays) + 1)])

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
                # PyTorch numbers the dimensions with those of tensors first.
                raise IndexError(f"index {wrong} is out of bounds for dimension {len(self.arrays)} with size {size}")
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
