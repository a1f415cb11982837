"""Gradients that are added to those of leaves, and the hooks of that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core.evaluation import Evaluation
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Cotangent, Tensor, array_of, wrap

add: Callable[..., jax.Array] = Evaluation(jnp.add)
ADD = Op("Add", jnp.add)
#: Held while a gradient is added: several threads may accumulate into one leaf.
_lock = threading.Lock()


def accumulate(t: Tensor, ct: Cotangent, create: bool) -> None:
    """Add a gradient to ``.grad`` of a tensor, and run its hooks for that."""
    before, after = t._accumulate_hooks or ({}, {})
    for hook in list(before.values()):
        given = hook((ct if isinstance(ct, Tensor) else wrap(ct),))
        if given is not None:
            given = given[0] if isinstance(given, tuple) else given
            ct = given if create else array_of(given)
    _add_to(t, ct, create)
    for hook in list(after.values()):
        hook((), (ct if isinstance(ct, Tensor) else wrap(ct),))


def _add_to(t: Tensor, ct: Cotangent, create: bool) -> None:
    if mode.watcher is not None:
        mode.watcher.leaf(t)
    with _lock:
        grad = t._grad
        if grad is None:
            t._grad = ct if isinstance(ct, Tensor) else wrap(ct)
        elif create:
            t._grad = apply(ADD, (grad, ct))
        else:
            write(grad, add(array_of(grad), ct))
    if t._after_hooks:
        for hook in list(t._after_hooks.values()):
            result: Any = hook(t)  # type: ignore[func-returns-value]
            if result is not None:
                raise RuntimeError("Tensor post accumulate grad hooks should return None.\nthe hook may change the gradient in place: "
                                   f"{getattr(hook, '__name__', hook)} returned a {type(result).__name__}")
