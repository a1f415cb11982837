"""The values that tensors hold: storages, and views of a part of a storage."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dualrev._jax.source_lines import SourceInfo
from dualrev.eager.core.annotations import Values
from dualrev.eager.core.evaluation import is_on_host
from dualrev.eager.core.operation import Op


class Storage:
    """A value that tensors share, the number of its changes in place, and the line of the last one."""

    __slots__ = ("__weakref__", "array", "changed", "version")

    def __init__(self, array: Values):
        #: Declared as jax's array: numpy's has the same attributes, as far as they are used.
        self.array: jax.Array = array  # type: ignore[assignment]
        self.version = 0
        self.changed: SourceInfo | None = None


class Step:
    """One operation on the way from the value of a base to that of its view, with the numbers that it takes.

    Where a part starts is an operand: the operation is the same for all ``starts``.  ``index`` is the same step as numpy writes it,
    where it takes a part.
    """

    __slots__ = ("index", "op", "starts")

    def __init__(self, op: Op, starts: tuple[int, ...] | None = None, index: tuple[Any, ...] | None = None):
        self.op = op
        self.starts = starts
        self.index = index

    @property
    def numbers(self) -> tuple[np.ndarray, ...]:
        """The operands beside the array."""
        return () if self.starts is None else (np.array(self.starts, np.int64),)

    def plain(self, array: Any) -> Any:
        """The step on a value."""
        if self.index is not None and is_on_host(array):
            return np.asarray(array)[self.index]
        return self.op.plain(array, *self.numbers)


class View:
    """What makes a tensor a view: its base, and the path of steps from the base's value to its own."""

    __slots__ = ("array", "base", "generation", "made", "path", "seen")

    def __init__(self, base: Any, path: tuple[Step, ...], array: jax.Array, made: str | None = None):
        #: Why in-place changes cannot be recorded: "several" for one of several outputs, "no_grad" if made without recording, or None.
        self.made = made
        self.base = base
        self.path = path
        self.array = array
        #: The base's value that ``array`` was computed from, and the base's generation that the tensor's node belongs to.
        self.seen = base._storage.array
        self.generation = base._generation

    def renew(self, t: Any) -> None:
        """Record the view's operations anew, for ``t``, from the base as it is now."""
        raise NotImplementedError(f"{type(self).__name__} must define renew()")
