"""The programs that operations on sparse arrays stand for: jax evaluates some of these operations by one only when it compiles them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualrev._jax.primitives import Primitive


def sparse_program(primitive: Primitive) -> Callable[..., Any] | None:
    """The function over arrays ``(*operands, **params)`` that an operation on sparse arrays computes; None where jax has none.

    The module is imported already: an operation of it has been used.
    """
    from jax.experimental.sparse import bcoo, bcsr, coo, csr

    name = f"_{primitive}_impl"
    return next((getattr(module, name) for module in (bcoo, bcsr, coo, csr) if hasattr(module, name)), None)
