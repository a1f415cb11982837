"""Waiting for compiled programs that have been called.

- ``LoadedExecutable.execute_sharded(arguments, with_tokens=True)`` and the token's ``block_until_ready`` are not public: jax runs
  programs with effects by them.  They are used on CPUs, where a program without results takes half as long to call so as a function
  of ``jit`` with one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@functools.cache
def waiting() -> Callable[[], object]:
    """What waits for the programs that this thread has called on the one device that there is: it runs one more, and waits for that.

    A device runs programs in the order in which a thread calls them.
    """
    if jax.default_backend() != "cpu":
        last = jax.jit(lambda: jnp.zeros((), bool))
        return lambda: last().block_until_ready()
    empty: Any = jax.jit(lambda: ()).lower().compile().runtime_executable()
    run = empty.execute_sharded
    return lambda: run([], with_tokens=True).consume_token().block_until_ready()
