"""Functions of jax arrays as operations on tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jax.tree_util import tree_flatten, tree_unflatten

from dualrev._jax.avals import is_array_like, typeof
from dualrev.eager.core.caches import caches
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of


def lift(fun: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """Any function of jax arrays as one operation on tensors, with derivatives of every order from the table of rules.

    Args:
      fun: takes and returns pytrees of arrays; arguments that are neither tensors nor arrays are static, and must be hashable.
      name: the name of its node; by default that of the function.

    Raises:
      MissingRuleError: in backward, if the function uses a primitive that has no row in the table.

    >>> import jax.numpy as jnp
    >>> from dualrev import eager as torch
    >>> wave = torch.lift(lambda x: jnp.sin(x) * x, name="Wave")
    >>> x = torch.tensor(0.0, requires_grad=True)
    >>> y = wave(x)
    >>> y
    tensor(0., grad_fn=<WaveBackward0>)
    """
    label = name or getattr(fun, "__name__", type(fun).__name__).strip("<>_").title().replace("_", "") or "Lifted"

    @caches.memoized
    def made(tree: Any, fixed: tuple[Any, ...]) -> tuple[Op, dict[Any, Any]]:
        out_trees: dict[Any, Any] = {}

        def flat(*arrays: Any) -> list[Any]:
            values = iter(arrays)
            args, kwargs = tree_unflatten(tree, [next(values) if f is None else f[0] for f in fixed])
            outs, out_trees[_key(arrays)] = tree_flatten(fun(*args, **kwargs))
            return outs

        return Op(label, flat, many=True, promotes=False), out_trees

    @functools.wraps(fun)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = tree_flatten((args, kwargs))
        fixed = tuple([None if isinstance(x, Tensor) or (is_array_like(x) and not isinstance(x, bool)) else (x,) for x in leaves])
        op, out_trees = made(tree, fixed)
        tensors = [x for x, f in zip(leaves, fixed, strict=True) if f is None]
        results = apply(op, tensors)
        key = _key([array_of(x) if isinstance(x, Tensor) else x for x in tensors])
        if key not in out_trees:  # traced earlier, for numbers that were passed as arrays
            key = next(iter(out_trees))
        return tree_unflatten(out_trees[key], results)

    return lifted


def _key(arrays: Any) -> Any:
    return tuple([(typeof(x).shape, typeof(x).dtype) for x in arrays])
