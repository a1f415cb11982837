"""Handles of hooks, and a count of what changes how modules run."""

from __future__ import annotations

import itertools
from typing import TypeVar

H = TypeVar("H")


class _Changes:
    """How often a module's attributes, members or hooks have been changed in this process."""

    count = 0


changes = _Changes()


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook away."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, H], hook: H, prepend: bool = False):
        self._hooks = hooks
        self.id = next(self._ids)
        others = dict(hooks) if prepend else {}
        if prepend:
            hooks.clear()
        hooks[self.id] = hook
        hooks.update(others)
        changes.count += 1

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        self._hooks.pop(self.id, None)
        changes.count += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
