"""jax's own derivatives, for comparison: the one place in the package where they are named.

No engine, rule or face imports this module.  Each function returns a function of the primals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax

Function = Callable[..., Any]


def push(function: Function, tangents: tuple[Any, ...]) -> Function:
    """J·v, by ``jax.jvp``."""
    return lambda *primals: jax.jvp(function, primals, tangents)[1]


def pull(function: Function, cotangents: Any) -> Function:
    """Jᵀ·u, by ``jax.vjp``: one cotangent for each primal."""
    return lambda *primals: jax.vjp(function, *primals)[1](cotangents)


def jacobian(function: Function, n_primals: int, mode: Literal["forward", "reverse"]) -> Function:
    """The Jacobian by all primals, by ``jax.jacfwd`` or ``jax.jacrev``."""
    transform = jax.jacfwd if mode == "forward" else jax.jacrev
    return transform(function, argnums=tuple(range(n_primals)))
