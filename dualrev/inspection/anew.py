"""Programs that are traced once more, to be read: nothing in them was made for another program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from dualrev._jax.batches import recording_batches
from dualrev.calls.derived_programs import apart
from dualrev.functional.watching import watched_by


class _Nobody:
    """Looks at nothing.  jax keeps what it traces under a watcher for that one: under a new one, it traces everything."""

    def watch(self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return call(*args, **kwargs)


def as_written(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside of ``jax.jit``, which keeps what it traced: derivatives in it may stand at the lines of others."""
    while type(fun).__name__ == "PjitFunction":
        fun = fun.__wrapped__  # type: ignore[attr-defined]
    return fun


@contextlib.contextmanager
def anew() -> Iterator[None]:
    """Functions that are traced in the block are traced in full, compiled ones too, and tell the axes of ``vmap``.

    Elsewhere, programs of equal content share their derivatives, at the user's lines of the first, and jax keeps what it traced.
    """
    with apart(), watched_by(_Nobody()), recording_batches():
        yield
