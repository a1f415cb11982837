"""Where the entries of tensors stand in their storages: strides, and whether they stand one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core.evaluation import is_on_host
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.graph.views import REINTERPRETATIONS
from dualrev.eager.ops.arguments import memory_format
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.layout import in_order, offset_of, strides_of
from dualrev.eager.ops.registry import method


def places_of(t: Tensor) -> np.ndarray:
    """Where the entries of a tensor stand in its storage."""
    if t._view is None:
        return np.arange(t.numel()).reshape(t.shape)
    places: Any = np.arange(t._view.base.numel()).reshape(t._view.base.shape)
    for step in t._view.path:
        other = REINTERPRETATIONS.get(step.op)
        places = step.plain(places) if other is None else other.places(np.asarray(places))
    return np.asarray(places)


def _steps(t: Tensor) -> tuple[int, ...]:
    """How far apart neighbours stand in the storage, along each dimension."""
    dense = [int(np.prod(t.shape[d + 1:], dtype=np.int64)) for d in range(t.ndim)]
    if t._view is None or t.numel() == 0:
        return tuple([max(s, 1) for s in dense])
    places = places_of(t)
    first = places[(0,) * t.ndim]
    found = list(dense)
    for d in reversed(range(t.ndim)):
        if t.shape[d] > 1:
            found[d] = int(places[tuple([int(k == d) for k in range(t.ndim)])] - first)
        else:
            found[d] = found[d + 1] * t.shape[d + 1] if d + 1 < t.ndim else 1
    return tuple(found)


@method
def stride(self: Tensor, dim: int | None = None) -> Any:
    """How far apart neighbours stand in the storage, along each dimension or along one."""
    steps = _steps(self)
    return steps if dim is None else steps[dim_of(dim, self.ndim)]


@method
def storage_offset(self: Tensor) -> int:
    """Where the first entry stands in the storage."""
    known = offset_of(self)
    if known is not None:
        return known
    places = places_of(self) if self._view is not None and self.numel() else None
    return 0 if places is None else int(places[(0,) * self.ndim])


#: The largest base for whose views all places are computed, and the operations that leave entries in their order.
_SMALL, _ORDERLY = 4096, {"View", "Squeeze", "Unsqueeze", "ViewAsReal", "ViewAsComplex", "Slice", "Select"}


def _takes_in_order(index: tuple[Any, ...]) -> bool:
    """Whether a part of a dense array is dense: one range of its first dimension of several entries, and all that is below."""
    inside = False
    for p in index:
        if p is None or p is Ellipsis:
            continue
        if inside and p != slice(None):
            return False
        if isinstance(p, slice):
            if p.step not in (None, 1):
                return False
            inside = True
    return True


def _is_dense(t: Tensor) -> bool:
    """Whether the entries stand in the storage one after the other."""
    view = t._view
    if view is None or t.numel() <= 1:
        return True
    known = strides_of(t)
    if known is not None:
        return all(n == 1 or s == dense for n, s, dense in zip(t.shape, known, in_order(t.shape), strict=True))
    if all(s.op.name in _ORDERLY and (s.index is None or _takes_in_order(s.index)) for s in view.path):
        return True
    base = array_of(view.base)
    if base.size > _SMALL or isinstance(base, Tracer) or not is_on_host(base):
        return False
    places = places_of(t).ravel()
    return bool(np.array_equal(places, np.arange(places[0], places[0] + places.size)))


@method
def is_contiguous(self: Tensor, memory_format: memory_format | None = None) -> bool:
    """Whether the entries stand in the storage one after the other."""
    return _is_dense(self)


@method
def contiguous(self: Tensor, memory_format: memory_format | None = None) -> Tensor:
    """The tensor itself, or a copy where its entries do not stand in the storage one after the other."""
    return self if _is_dense(self) else self.clone()
