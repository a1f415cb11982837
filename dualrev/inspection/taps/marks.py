"""``tap``: a value gets a name."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

import jax
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import is_array_like
from dualrev._jax.new_primitives import tap_p
from dualrev.programs.functions import as_arrays

Value = TypeVar("Value")

#: Whether a function is being traced for its taps.
_is_asked: ContextVar[bool] = ContextVar("taps are asked for", default=False)
_making = threading.Lock()


def tap(x: Value, name: str) -> Value:
    r"""Give a value in the middle of a function a name, by which :func:`taps` finds it; the value is returned.

    :math:`x \mapsto x`.  Use what it returns: the cotangent of a tap is that of all uses of the returned value.

    Outside :func:`taps` nothing happens: the traced program has no operation for a tap, so that it costs nothing, compiled or not.

    Args:
      x: an array, a number, or a pytree of them; leaves that are no arrays are left as they are.
      name: the name; several taps may have the same one.

    Returns:
      The value, with its shapes and dtypes.

    Raises:
      TypeError: the name is not a string.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def loss(w):
    ...     h = dr.tap(jnp.tanh(w), "hidden")
    ...     return jnp.sum(h ** 2)
    >>> float(loss(jnp.zeros(3)))
    0.0

    Source: [GriewankWalther2008, ch. 3]: the cotangent of an intermediate value is its adjoint.
    """
    if not isinstance(name, str):
        raise TypeError(f"tap: the name must be a string; got {name!r}. Write tap(value, \"name\").")
    if not _is_asked.get():
        return x
    leaves, tree = tree_flatten(x)
    which = [i for i, leaf in enumerate(leaves) if is_array_like(leaf)]
    held = set(which)
    # None is no leaf: the structure has those leaves alone that are arrays.
    arrays = tree_structure(tree_unflatten(tree, [0 if i in held else None for i in range(len(leaves))]))
    values = as_arrays([leaves[i] for i in which])
    for k, (i, value) in enumerate(zip(which, values, strict=True)):
        leaves[i] = tap_p.bind(value, name=name, leaf=k, tree=arrays, axes=())
    found: Value = tree_unflatten(tree, leaves)
    return found


def is_asked() -> bool:
    """Whether a function that runs now is traced for its taps."""
    return _is_asked.get()


@functools.cache
def _traced_for() -> Callable[[object], AbstractContextManager[object]]:
    # Programs that were traced with taps and without are kept apart by jax, which traces anew where this value is another.  It is not
    # made when the module is imported: all that is compiled is traced anew after it is made.
    context: Callable[[object], AbstractContextManager[object]] = jax.make_user_context(None)
    return context


def prepare_jax() -> None:
    """Have jax keep programs with taps and without apart."""
    with _making:
        _traced_for()


@contextmanager
def asking() -> Iterator[None]:
    """Functions that are traced inside the block have an operation for each tap."""
    prepare_jax()
    token = _is_asked.set(True)
    try:
        with _traced_for()("taps"):
            yield
    finally:
        _is_asked.reset(token)


def unknown(name: str, tapped: list[str]) -> errors.TapError:
    """The error for a name that no tap has."""
    known = ", ".join(map(repr, tapped)) if tapped else "none: it has no tap"
    return errors.TapError(f"{errors.CALL}: no tap of the function has the name {name!r}; its taps are {known}. Write "
                           f"dr.tap(value, {name!r}) in the function, and use the value that it returns.")
