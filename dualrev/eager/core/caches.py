"""The caches of the imperative face: one bound, and one call that empties them all.

They hold operations with static arguments, their compiled evaluations and pulls, constants, and whole compiled programs.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax

#: How many entries a cache holds at most.
BOUND = 1024
#: A whole program counts as so many entries, for it takes as much memory.
PROGRAM = 16

V = TypeVar("V")


class Cache(Protocol):
    """What can be emptied."""

    def cache_clear(self) -> None: ...


class Table(dict[Any, Any]):
    """A dictionary with a bound: a new entry takes the place of the oldest one where it is full."""

    __slots__ = ("__weakref__", "bound")

    def __init__(self, bound: int = BOUND):
        super().__init__()
        self.bound = bound

    def keep(self, key: Any, value: V) -> V:
        """Add an entry, and return its value."""
        while len(self) >= self.bound and key not in self:
            self.pop(next(iter(self)), None)
        self[key] = value
        return value

    def cache_clear(self) -> None:
        """Forget all entries."""
        self.clear()


class Caches:
    """All caches of the imperative face, by weak references: a cache lives as long as what it belongs to."""

    def __init__(self) -> None:
        self._caches: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._compiled: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def add(self, cache: Cache) -> None:
        """A cache, to be emptied with the others."""
        self._caches[id(cache)] = cache

    def table(self, weight: int = 1) -> Table:
        """A new table, for entries that count as ``weight``."""
        table = Table(BOUND // weight)
        self.add(table)
        return table

    def memoized(self, fun: Callable[..., V]) -> Callable[..., V]:
        """The function, with its latest results kept by their arguments and the types of these."""
        kept = functools.lru_cache(maxsize=BOUND, typed=True)(fun)
        self.add(kept)
        return kept

    def jit(self, fun: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        """``jax.jit`` of a function, with its programs among the caches."""
        compiled = jax.jit(fun, **settings)
        self._compiled[id(compiled)] = compiled
        return compiled

    def clear(self) -> None:
        """Empty all caches."""
        for cache in list(self._caches.values()):
            cache.cache_clear()
        for compiled in list(self._compiled.values()):
            compiled.clear_cache()


caches = Caches()


def clear_caches() -> None:
    """Forget all that the imperative face has compiled or kept for later: operations, pulls, steps, backward passes, constants.

    Results stay the same; what is needed again is compiled again.  Tensors, graphs and optimizers keep their values.  Each cache has
    a bound, so that a program does not need to call this; it is for measuring, and for giving memory back.

    >>> from dualrev import eager as torch
    >>> torch.clear_caches()
    """
    caches.clear()
