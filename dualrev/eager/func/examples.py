"""Functions of one example as functions of many: ``vmap``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.tree_util import tree_map

from dualrev.eager.core.evaluation import wide
from dualrev.eager.core.modes import mode
from dualrev.eager.func.arrays import arrays, in_graph, lowered, tensors
from dualrev.eager.func.ordered import Ordered, aligned, ordered, plain
from dualrev.eager.func.whole_programs import evaluated
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.joining import cat

#: The dimension of the examples: one for all arguments, or a tree of them.
InDims: TypeAlias = int | Sequence[Any] | None
OutDims: TypeAlias = int | Sequence[Any] | None


def vmap(func: Callable[..., object], in_dims: InDims = 0, out_dims: OutDims = 0, randomness: str = "error", *,
         chunk_size: int | None = None) -> Callable[..., Any]:
    """A function of one example as a function of many, along a dimension of each argument.

    Args:
      func: takes and returns pytrees of tensors.
      in_dims: the dimension of the examples in each argument; None, where all examples share it.
      out_dims: the dimension of the examples in each result.
      randomness: "error" refuses random numbers inside; "same" draws them once for all examples, "different" for each.
      chunk_size: how many examples run at once; by default all.

    Raises:
      ValueError: ``chunk_size`` is not positive.
      RuntimeError: random numbers are drawn inside, and ``randomness`` is "error".

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> torch.func.vmap(torch.func.grad(lambda x: (x ** 2).sum()))(x)
    tensor([[2., 4.],
            [6., 8.]])
    """
    if randomness not in ("error", "same", "different"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    inner = lowered(func)
    outs = ordered(out_dims)
    #: What the function returns, for the order of its dictionaries: jax wants that of ``out_dims``.
    seen: list[Any] = []

    def of_one(example: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before, mode.examples = mode.examples, (*mode.examples, (randomness, example))
        try:
            out = inner(*args, **kwargs)
            for leaf in jax.tree.leaves(out):
                if not hasattr(leaf, "shape"):
                    name = getattr(func, "__name__", type(func).__name__)
                    raise ValueError(f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(leaf)}. Did you mean to "
                                     "set out_dims= to None for output?")
            seen[:] = [tree_map(lambda _: 0, out)]
            return aligned(out, outs)
        finally:
            mode.examples = before

    @functools.wraps(func)
    def call(*args: object, **kwargs: object) -> Any:
        given, named = arrays(args), arrays(kwargs)
        dims = tuple(in_dims) if isinstance(in_dims, list) else in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        dims = aligned(ordered(dims), given)
        _check(func, dims, args, given)
        sizes = [leaf.shape[d] for d, arg in zip(dims, given, strict=True) if isinstance(d, int) for leaf in jax.tree.leaves(arg)]
        numbers = np.arange(sizes[0]) if randomness == "different" and sizes else None

        def at_once(numbers: Any, given: Any, named: Any) -> Any:
            each = (None if numbers is None else 0, dims, 0)
            found = evaluated(jax.vmap(of_one, each, outs), (numbers, given, named), each)
            return aligned(found, seen[0])

        recorded = mode.grad and any(isinstance(x, Tensor) and x.requires_grad for x in jax.tree.leaves((args, kwargs)))
        if recorded:  # as one operation, whatever ``chunk_size`` says
            return in_graph(lambda *a, **k: aligned(jax.vmap(of_one, (None if numbers is None else 0, dims, 0), outs)(numbers, a, k),
                                                    seen[0]), args, kwargs)
        with wide():
            if chunk_size is not None and sizes and sizes[0] > chunk_size:
                parts = [in_parts(dims, given, named, k, chunk_size) for k in range(0, sizes[0], chunk_size)]
                found = [ordered(tensors(at_once(np.arange(k, k + n), *part))) for k, n, part in parts]
                ends = out_dims if isinstance(out_dims, (tuple, list)) else None
                if ends is not None and isinstance(found[0], (tuple, list)):
                    return type(found[0])([plain(tree_map(lambda *xs, d=d: cat(xs, d), *column))
                                          for d, column in zip(ends, zip(*found, strict=True), strict=True)])
                return plain(tree_map(lambda *xs: cat(xs, out_dims if isinstance(out_dims, int) else 0), *found))
            return tensors(at_once(numbers, given, named))

    return call


def _check(func: Any, dims: tuple[Any, ...], args: tuple[Any, ...], given: tuple[Any, ...]) -> None:
    """Refuse dimensions that do not fit the arguments, in PyTorch's words."""
    name = getattr(func, "__name__", type(func).__name__)
    if len(dims) != len(args):
        raise ValueError(f"vmap({name}, in_dims={dims}, ...)(<inputs>): in_dims is not compatible with the structure of `inputs`.\n"
                         f"there are {len(dims)} dimensions for {len(args)} arguments")
    if not args:
        raise ValueError(f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a "
                         "function with no inputs. The latter is unsupported.")
    sizes = []
    for d, arg in zip(dims, given, strict=True):
        if not isinstance(d, int) or isinstance(d, bool):
            continue
        for leaf in jax.tree.leaves(arg):
            n = np.ndim(leaf)
            if not -n <= d < n:
                given_dims = dims if len(dims) > 1 else d
                raise ValueError(f"vmap({name}, in_dims={given_dims}, ...)(<inputs>): Got in_dim={d} for some input, but that input is "
                                 f"a Tensor of dimensionality {n} so expected in_dim to satisfy -{n} <= in_dim < {n}.")
            sizes.append(np.shape(leaf)[d])
    if len({*sizes}) > 1:
        raise ValueError("vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
                         f"{list(dict.fromkeys(sizes))} for the mapped dimension")


def in_parts(dims: Any, given: Any, named: Any, start: int, n: int) -> tuple[int, int, tuple[Any, Any]]:
    """The first number, the number and the arguments of some of the examples."""
    def cut(x: Any, d: int) -> Any:
        return jax.lax.slice_in_dim(x, start, min(start + n, x.shape[d]), axis=d % x.ndim)

    def each(d: Any, x: Any) -> Any:
        if d is None:
            return x
        if isinstance(d, int):
            return tree_map(lambda y: cut(y, d), x)
        if isinstance(d, dict):
            return Ordered({k: each(d[k], y) for k, y in x.items()})
        return type(x)([each(a, b) for a, b in zip(d, x, strict=True)])

    parts = tuple([each(d, x) for d, x in zip(dims, given, strict=True)])
    cut_named = tree_map(lambda y: cut(y, 0), named)
    size = next(leaf.shape[d] for d, part in zip(dims, parts, strict=True) if isinstance(d, int) for leaf in jax.tree.leaves(part))
    return start, size, (parts, cut_named)
