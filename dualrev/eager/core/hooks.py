"""Handles of hooks, and a count of what changes how modules run."""

from __future__ import annotations

import itertools
from typing import Any


class _Changes:
    """How often a module's attributes, members or hooks have been changed in this process."""

    count = 0


changes = _Changes()


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook away."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any], hook: Any):
        self._hooks = hooks
        self.id = next(self._ids)
        hooks[self.id] = hook
        changes.count += 1

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        self._hooks.pop(self.id, None)
        changes.count += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
