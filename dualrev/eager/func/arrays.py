"""Functions of tensors as functions of arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.tree_util import tree_leaves, tree_map

from dualrev._jax.avals import is_array_like
from dualrev._jax.traces import Tracer
from dualrev.eager.core.evaluation import wide
from dualrev.eager.core.modes import ModeBlock, mode
from dualrev.eager.func.ordered import ordered, plain
from dualrev.eager.graph.interception import apply_intercepted
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.lifting import lift


class Inside(ModeBlock):
    """A block for the body of a function of arrays: ``detach`` and ``no_grad`` cut the derivatives of whatever transforms it.

    Its values have jax's dtypes: without ``jax_enable_x64``, what is traced has at most 32 bits.  Recording starts on, as PyTorch has
    it: a ``no_grad`` around the transformation is not one inside the function.
    """

    def __init__(self, cuts: bool = True, random: Any = None):
        self._cuts, self._random = cuts, mode.random if random is None else random
        self.narrow = jax.dtypes.canonicalize_dtype(np.int64) != np.int64

    def settings(self) -> dict[str, object]:
        return {"functional": True, "cuts": self._cuts, "narrow": self.narrow, "random": self._random, "grad": True,
                "handler": apply_intercepted}


def in_graph(fun: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """``fun``, of trees of arrays, applied to trees of tensors; where one requires grad, as an operation of the graph of backward."""
    recorded = mode.grad and any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves((args, kwargs)))
    if recorded:
        return plain(lift(fun, getattr(fun, "__name__", "Transformed").title())(*ordered(args), **ordered(kwargs)))
    with wide():
        return tensors(fun(*arrays(args), **arrays(kwargs)))


def lower(fun: Callable[..., object], *, cuts: bool = True) -> Callable[..., Any]:
    """A function of tensors as one of jax arrays: for ``dualrev.grad`` and its kin, ``jax.vmap`` and ``jax.jit``.

    ``detach`` and ``no_grad`` inside stop derivatives, and functions of ``autograd.Function`` have their own.  Without jax's
    ``jax_enable_x64``, values have at most 32 bits, as those of other functions of arrays.  A module with its parameters as an argument
    is :func:`dualrev.eager.lower`.

    Args:
      fun: takes and returns pytrees of tensors; it may call backward inside.
      cuts: whether ``no_grad`` stops derivatives.

    >>> import jax.numpy as jnp
    >>> import dualrev as dr
    >>> from dualrev import eager as torch
    >>> def f(x):                                  # of tensors
    ...     return (x ** 2).sum()
    >>> dr.grad(torch.func.lower(f))(jnp.array([1.0, 2.0]))
    Array([2., 4.], dtype=float32)
    """
    found = lowered(fun, cuts)

    @functools.wraps(fun)
    def of_arrays(*args: object, **kwargs: object) -> Any:
        return plain(found(*args, **kwargs))

    return of_arrays


def lowered(fun: Callable[..., object], cuts: bool = True) -> Callable[..., Any]:
    """As :func:`lower`; dictionaries in what it returns keep their order."""
    @functools.wraps(fun)
    def of_arrays(*args: object, **kwargs: object) -> Any:
        with Inside(cuts) as inside:
            args, kwargs = operands((args, kwargs))
            return results(ordered(fun(*args, **kwargs)), inside.narrow)

    return of_arrays


def operands(tree: Any) -> Any:
    """The arguments of a function of tensors, for those of a function of arrays: tensors in place of arrays."""
    return plain(tree_map(lambda x: wrap(held(x)) if is_array_like(x) and hasattr(x, "shape") and not isinstance(x, Tensor) else x,
                          tree))


def held(array: Any) -> Any:
    """An array inside: what is traced has jax's dtypes where it has no 64 bits."""
    if mode.narrow and isinstance(array, Tracer):
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        return array if dtype == array.dtype else lax.convert_element_type(array, dtype)
    return array


def tensors(tree: Any) -> Any:
    """A tree with tensors in place of arrays."""
    return plain(tree_map(lambda x: wrap(x) if isinstance(x, (jax.Array, np.ndarray)) else x, tree))


def arrays(tree: Any) -> Any:
    """A tree with arrays in place of tensors, and dictionaries that keep their order."""
    return tree_map(lambda x: array_of(x) if isinstance(x, Tensor) else x, ordered(tree))


def results(tree: Any, narrow: bool) -> Any:
    """What a function returned, with arrays in place of tensors; those that are not traced get jax's dtypes where it has no 64 bits."""
    def array(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        found = array_of(x)
        if not narrow or isinstance(found, Tracer):
            return found
        return jax.numpy.asarray(found, jax.dtypes.canonicalize_dtype(found.dtype))

    return tree_map(array, tree)
