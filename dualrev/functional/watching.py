"""Who looks at the results of public functions: nobody, unless a block such as ``with dr.finite():`` is open in this thread.

The watcher is a setting that jax's own caches know of, so that a function that ``jit`` compiled outside of a block is traced anew in
it, and used again as it was outside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, Protocol, TypeVar

import jax

P = ParamSpec("P")
Result = TypeVar("Result")


class Watcher(Protocol):
    """What looks at results; compiled programs are told apart by it."""

    def watch(self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``call(*args, **kwargs)``, looked at."""


class _Context(Protocol):
    """What ``jax.make_user_context`` returns."""

    value: Watcher | None

    def __call__(self, value: Watcher | None) -> AbstractContextManager[None]: ...


@functools.cache
def _made() -> _Context:
    # Made when it is first asked for: jax then traces all functions anew once.
    context: _Context = jax.make_user_context(None)
    return context


#: Whether a block was ever opened in this process: nobody is asked before.
is_made = False


def watched_by(watcher: Watcher | None) -> AbstractContextManager[None]:
    """``with watched_by(watcher):`` it looks at results of public functions in this thread; None for nobody."""
    global is_made
    is_made = True
    return _made()(watcher)


def watcher() -> Watcher | None:
    """Who looks at results now."""
    return _made().value if is_made else None


def watched(name: str, call: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """``call(*args, **kwargs)``, looked at if somebody does."""
    found = watcher()
    if found is None:
        return call(*args, **kwargs)
    result: Result = found.watch(name, call, args, kwargs)
    return result


def is_watched(name: str) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """A public function whose results may be looked at."""

    def decorate(function: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            return watched(name, function, *args, **kwargs) if is_made else function(*args, **kwargs)

        return call

    return decorate
