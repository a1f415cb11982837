"""``torch.compile``: ``jit`` where it gives what running the function gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jax.tree_util import tree_leaves

from dualrev.eager.compiled.step import jit
from dualrev.eager.core.modes import mode as modes
from dualrev.eager.graph.tensor import Tensor


def compile(model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None, backend: Any = "inductor",  # noqa: A001
            mode: str | None = None, options: dict[str, Any] | None = None, disable: bool = False) -> Any:
    """Compile a function by :func:`jit`, if nothing that it returns can still be differentiated; without one, a decorator.

    The first call runs the function as it is written.  If its results need no gradient any more, as those of a whole training step
    with its backward, later calls run a compiled program; otherwise, and where the function decides by values of tensors, they run as
    written too.  A module is returned as it is.  What ``jit`` does not check is not checked here either.

    Args:
      model: a function or a module.
      fullgraph: raise where a function decides by values of tensors.
      disable: leave the function as it is.
      dynamic, backend, mode, options: choose among PyTorch's compilers; accepted for compatibility.

    >>> from dualrev import eager as torch
    >>> @torch.compile
    ... def f(x):
    ...     return x.sin() ** 2 + x.cos() ** 2
    >>> f(torch.ones(2)), f(torch.zeros(2))
    (tensor([1., 1.]), tensor([1., 1.]))
    """
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified at the same time.")
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, options=options,
                                 disable=disable)
    if not callable(model):
        raise RuntimeError(f"torch.compile expects a function or a module, but got {type(model).__name__}")
    return model if disable or hasattr(model, "named_parameters") else _settled(model, fullgraph)


def _settled(fun: Callable[..., Any], fullgraph: bool) -> Callable[..., Any]:
    """The function, compiled in the modes in which a first call gave results that need no gradient any more."""
    program = jit(fun)
    compiles: dict[tuple[object, ...], bool] = {}

    @functools.wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        if modes.watcher is not None or modes.examples or modes.dual_level:
            return fun(*args, **kwargs)
        given = any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves((args, kwargs)))
        key = modes.grad, modes.inference, modes.autocast, given
        if key not in compiles:
            result = fun(*args, **kwargs)
            compiles[key] = not any(_needs_grad(x) for x in tree_leaves(result))
            return result
        if not compiles[key]:
            return fun(*args, **kwargs)
        try:
            return program(*args, **kwargs)
        except (RuntimeError, TypeError):
            if fullgraph:
                raise
            compiles[key] = False  # the values are as before the call: the function runs again, as it is written
            return fun(*args, **kwargs)

    return call


def _needs_grad(x: object) -> bool:
    """Whether a result may still be differentiated: it has a graph that no backward has freed, or is a leaf."""
    return isinstance(x, Tensor) and x.requires_grad and (x._node is None or x._node.freed is None)
