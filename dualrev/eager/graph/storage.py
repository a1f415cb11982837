"""The values that tensors hold: storages, and views of a part of a storage."""

from __future__ import annotations

from typing import Any

from dualrev.eager.core.operation import Op


class Storage:
    """A value that tensors share, the number of its changes in place, and the line of the last one."""

    __slots__ = ("__weakref__", "array", "changed", "version")

    def __init__(self, array: Any):
        self.array = array
        self.version = 0
        self.changed: Any = None


class View:
    """What makes a tensor a view: its base, and the path of operations from the base's value to its own."""

    __slots__ = ("array", "base", "generation", "made", "path", "seen")

    def __init__(self, base: Any, path: tuple[Op, ...], array: Any, made: str | None = None):
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
