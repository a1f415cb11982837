"""Ranges of numbers, identity matrices, indices of triangles, grids and combinations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.core.dtypes import numpy_of
from dualrev.eager.graph.tensor import Operand, Tensor, array_of
from dualrev.eager.ops.arguments import OPTIONS, OUT, taking
from dualrev.eager.ops.creation import dtype_for, finished
from dualrev.eager.ops.joining import stack
from dualrev.eager.ops.registry import function


def _number(x: Operand) -> Any:
    return x.item() if isinstance(x, (Tensor, np.generic, np.ndarray)) else x


def _check_steps(start: float, end: float, step: float) -> None:
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if not all(math.isfinite(x) for x in (start, end)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError(f"upper bound and lower bound inconsistent with step sign\nfrom {start} to {end} by {step}")


@function
@taking(f"Number end, *, {OUT}", f"Number start, Number end, *, {OPTIONS}", f"Number start, Number end, Number step = 1, *, {OUT}")
def arange(end: Any, start: Any = 0, step: Any = 1, *, out: Tensor | None = None, dtype: DType | None = None,
           device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """Numbers in equal steps from ``start`` up to, and without, ``end``.

    >>> from dualrev import eager as torch
    >>> torch.arange(3), torch.arange(1, 2, step=0.5)
    (tensor([0, 1, 2]), tensor([1.0000, 1.5000]))
    """
    start, end, step = map(_number, (start, end, step))
    _check_steps(start, end, step)
    kind = dtype_for(dtype, out, dtypes.get_default_dtype() if any(isinstance(x, float) for x in (start, end, step)) else dtypes.int64)
    n = math.ceil((end - start) / step)
    # Each entry is computed from its index in double precision, as PyTorch's are.
    values = (start + step * np.arange(n)).astype(kind)
    return finished(values, requires_grad, device, out, "arange")


@function
@taking(f"Number start, Number end, Number step = 1, *, {OUT}")
def range(start: Any, end: Any, step: Any = 1, *, out: Tensor | None = None, dtype: DType | None = None,  # noqa: A001
          device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """Numbers in equal steps from ``start`` to ``end``, inclusive."""
    start, end, step = map(_number, (start, end, step))
    _check_steps(start, end, step)
    values = start + step * np.arange(math.floor((end - start) / step) + 1)
    return finished(values.astype(dtype_for(dtype, out)), requires_grad, device, out, "range")


def _ends(name: str, start: Operand, end: Operand, steps: int) -> tuple[Any, Any, Any]:
    """The ends as numbers, and the default dtype."""
    for x in (start, end):
        if isinstance(x, Tensor) and x.ndim:
            raise RuntimeError(f"{name} only supports 0-dimensional start and end tensors, but got {'start' if x is start else 'end'} "
                               f"with {x.ndim} dimension(s).")
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    start, end = _number(start), _number(end)
    return start, end, dtypes.complex64 if isinstance(start, complex) or isinstance(end, complex) else None


def _between(start: Operand, end: Operand, steps: int) -> np.ndarray:
    """Numbers in equal steps in double precision: the first half computed from the start, the second from the end."""
    step = (end - start) / max(steps - 1, 1)
    places = np.arange(steps)
    return np.where(places < steps / 2, start + step * places, end - step * (steps - 1 - places))


def _four(rest: str) -> tuple[str, ...]:
    """The signatures with the ends as tensors or as numbers."""
    return tuple([f"{a} start, {b} end, {rest}, *, {OUT}" for b, a in itertools.product(("Tensor", "Number"), repeat=2)])


@function
@taking(*_four("int steps"))
def linspace(start: Operand, end: Operand, steps: int, *, out: Tensor | None = None, dtype: DType | None = None,
             device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """``steps`` numbers in equal steps from ``start`` to ``end``."""
    start, end, kind = _ends("linspace", start, end, steps)
    values = _between(start, end, int(steps))
    return finished(values.astype(dtype_for(dtype, out, kind)), requires_grad, device, out, "linspace")


@function
@taking(*_four("int steps, float base = 10.0"))
def logspace(start: Operand, end: Operand, steps: int, base: Operand = 10.0, *, out: Tensor | None = None, dtype: DType | None = None,
             device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """``base`` to the powers that ``linspace`` gives."""
    start, end, kind = _ends("logspace", start, end, steps)
    values = np.power(_number(base), _between(start, end, int(steps)))
    return finished(values.astype(dtype_for(dtype, out, kind)), requires_grad, device, out, "logspace")


@function
@taking(f"int n, *, {OUT}", f"int n, int m, *, {OUT}")
def eye(n: int, m: int | None = None, *, out: Tensor | None = None, dtype: DType | None = None, device: Device | None = None,
        requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal."""
    for name, size in (("n", n), ("m", 0 if m is None else m)):
        if size < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {int(size)}")
    array = np.eye(int(n), None if m is None else int(m), dtype=dtype_for(dtype, out))
    return finished(array, requires_grad, device, out, "eye")


_INDICES = f"int row, int col, int offset = 0, *, {OPTIONS}"


def _indices(name: str, found: Callable[[int, int, int], tuple[np.ndarray, np.ndarray]], row: int, col: int, offset: int,
             dtype: DType | None, device: Device | None, requires_grad: bool) -> Tensor:
    for what, size in (("row", row), ("col", col)):
        if size < 0:
            raise RuntimeError(f"{what} must be non-negative, got{size}")
    kind = numpy_of(dtype or dtypes.int64)
    if kind.kind != "i":
        raise NotImplementedError(f'"{name}" not implemented for \'{dtypes.type_name(kind)}\'\nindices are torch.int64 or torch.int32')
    return finished(np.stack(found(int(row), int(offset), int(col))).astype(kind), requires_grad, device)


@function
@taking(_INDICES)
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Device | None = None,
                 requires_grad: bool = False) -> Tensor:
    """The rows and columns of the lower triangle of a matrix."""
    return _indices("tril_indices", np.tril_indices, row, col, offset, dtype, device, requires_grad)


@function
@taking(_INDICES)
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Device | None = None,
                 requires_grad: bool = False) -> Tensor:
    """The rows and columns of the upper triangle of a matrix."""
    return _indices("triu_indices", np.triu_indices, row, col, offset, dtype, device, requires_grad)


@function
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of a grid."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    if not given:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    _all_tensors(given)
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for t in given:
        if t.ndim > 1:
            raise RuntimeError(f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: one of shape {list(t.shape)}")
    sizes = [t.numel() for t in given]
    grids = [t.reshape(*[-1 if i == k else 1 for i, _ in enumerate(given)]).expand(*sizes) for k, t in enumerate(given)]
    return tuple([g.transpose(0, 1) for g in grids] if indexing == "xy" and len(given) > 1 else grids)


def _all_tensors(given: Sequence[object]) -> None:
    for i, x in enumerate(given):
        if not isinstance(x, Tensor):
            raise TypeError(f"expected Tensor as element {i} in argument 0, but got {type(x).__name__}")


@function
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """The Cartesian product of vectors, one combination in each row."""
    grids = meshgrid(*tensors)
    return tensors[0] if len(tensors) == 1 else stack([g.reshape(-1) for g in grids], 1)


@function
@taking("Tensor input, int r = 2, bool with_replacement = False")
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:  # noqa: A002
    """The combinations of ``r`` entries of a vector, one in each row."""
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if not r:
        return finished(np.zeros(0, array_of(input).dtype))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = np.asarray(list(choose(np.arange(input.shape[0]), r)), np.int64).reshape(-1, r)
    return stack([input.take(finished(column)) for column in places.T], 1)


@function
@taking("Tensor x, int N = None, bool increasing = False")
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of each entry of a vector, in columns."""
    if x.ndim != 1:
        raise RuntimeError(f"x must be a one-dimensional tensor\nits shape is {list(x.shape)}")
    powers = np.arange(x.shape[0] if N is None else N)
    columns = [x ** int(p) for p in (powers if increasing else powers[::-1])]
    return stack(columns, 1) if columns else finished(np.zeros((x.shape[0], 0), array_of(x).dtype))
