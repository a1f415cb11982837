"""``torch.func``: derivatives of functions of tensors, and functions of tensors as functions of arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jax.tree_util import tree_map

from dualrev._jax.avals import is_array_like
from dualrev.eager.core.evaluation import wide
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.functional import api, gradients, jacobians

if TYPE_CHECKING:
    from dualrev.eager.nn.modules.module import Module

#: The dimension of the examples: one for all arguments, or a tree of them.
InDims: TypeAlias = int | Sequence[Any] | None
OutDims: TypeAlias = int | Sequence[Any] | None
#: Tensors by name.
Values: TypeAlias = Mapping[str, Tensor]


def lower(fun: Callable[..., object]) -> Callable[..., Any]:
    """A function of tensors as one of jax arrays: for ``dualrev.grad`` and its kin, ``jax.vmap`` and ``jax.jit``.

    Args:
      fun: takes and returns pytrees of tensors; it may call backward inside.

    >>> import jax.numpy as jnp
    >>> import dualrev as dr
    >>> from dualrev import eager as torch
    >>> def f(x):                                  # of tensors
    ...     return (x ** 2).sum()
    >>> dr.grad(torch.func.lower(f))(jnp.array([1.0, 2.0]))
    Array([2., 4.], dtype=float32)
    """
    @functools.wraps(fun)
    def lowered(*args: object, **kwargs: object) -> Any:
        args, kwargs = tree_map(_tensor, (args, kwargs))
        return _arrays(fun(*args, **kwargs))

    return lowered


def _tensor(x: Any) -> Any:
    return wrap(x) if is_array_like(x) and hasattr(x, "shape") else x  # type: ignore[arg-type]


def _tensors(tree: Any) -> Any:
    return tree_map(lambda x: wrap(x) if isinstance(x, (jax.Array, np.ndarray)) else x, tree)


def _arrays(tree: Any) -> Any:
    return tree_map(lambda x: array_of(x) if isinstance(x, Tensor) else x, tree)


def _of(transform: Callable[..., Any], words: str) -> Callable[..., Any]:
    """A functional transformation of dualrev, for functions of tensors."""
    def transformed(func: Callable[..., object], argnums: int | Sequence[int] = 0, has_aux: bool = False, *,
                    chunk_size: int | None = None, randomness: str = "error") -> Callable[..., Any]:
        inner = transform(lower(func), argnums, has_aux)

        @functools.wraps(func)
        def call(*args: object, **kwargs: object) -> Any:
            for i in (argnums,) if isinstance(argnums, int) else argnums:
                if not -len(args) <= i < len(args):
                    raise RuntimeError(f"Got argnum={i}, but only {len(args)} positional inputs")
            with wide():
                return _tensors(inner(*_arrays(args), **_arrays(kwargs)))

        return call

    transformed.__name__ = transformed.__qualname__ = transform.__name__
    transformed.__doc__ = (f"{words}  Its results are not part of the graph of backward; nest these functions "
                           "instead.  ``chunk_size`` and ``randomness`` have no effect: all rows are computed at once, with the same "
                           "random numbers.")
    return transformed


grad = _of(gradients.grad, "The gradient of a scalar function of tensors.")
jacrev = _of(jacobians.jacrev, "The Jacobian of a function of tensors, row by row.")
jacfwd = _of(jacobians.jacfwd, "The Jacobian of a function of tensors, column by column.")
hessian = _of(jacobians.hessian, "The Hessian of a scalar function of tensors.")
_value_and_grad = _of(gradients.value_and_grad, "")


def grad_and_value(func: Callable[..., object], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a scalar function of tensors, and its value."""
    inner = _value_and_grad(func, argnums, has_aux)

    @functools.wraps(func)
    def call(*args: object, **kwargs: object) -> Any:
        value, gradient = inner(*args, **kwargs)
        return gradient, value

    return call


def jvp(func: Callable[..., object], primals: Sequence[object], tangents: Sequence[object], *, strict: bool = False,
        has_aux: bool = False) -> tuple[Any, ...]:
    """The value and the Jacobian times tangents.

    Raises:
      NotImplementedError: ``strict``.
    """
    if strict:
        raise NotImplementedError("torch.func.jvp: strict=True is not offered\nan output that does not depend on the primals gets "
                                  "zeros")
    with wide():
        return tuple([_tensors(x) for x in api.jvp(lower(func), _arrays(tuple(primals)), _arrays(tuple(tangents)), has_aux)])


def vjp(func: Callable[..., object], *primals: object, has_aux: bool = False) -> tuple[Any, ...]:
    """The value, and the pull: a function from cotangents of the value to cotangents of each primal."""
    with wide():
        out, pull, *aux = api.vjp(lower(func), *_arrays(primals), has_aux=has_aux)

    def pulled(*cotangents: object) -> Any:
        given = _arrays(cotangents if len(cotangents) > 1 else cotangents[0])
        with wide():
            return _tensors(pull(given))

    return (_tensors(out), pulled, *[_tensors(a) for a in aux])


def vmap(func: Callable[..., object], in_dims: InDims = 0, out_dims: OutDims = 0, randomness: str = "error", *,
         chunk_size: int | None = None) -> Callable[..., Any]:
    """A function of one example as a function of many, along a dimension of each argument.

    Args:
      func: takes and returns pytrees of tensors.
      in_dims: the dimension of the examples in each argument; None, where all examples share it.
      out_dims: the dimension of the examples in each result.
      randomness: "error" refuses random numbers inside; "same" draws them once for all examples, "different" for each.
      chunk_size: accepted for compatibility: all examples run at once.

    Raises:
      RuntimeError: random numbers are drawn inside, and ``randomness`` is "error".

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> torch.func.vmap(torch.func.grad(lambda x: (x ** 2).sum()))(x)
    tensor([[2., 4.],
            [6., 8.]])
    """
    if randomness not in ("error", "same", "different"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    inner = lower(func)

    def of_one(example: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before, mode.examples = mode.examples, (*mode.examples, (randomness, example))
        try:
            return inner(*args, **kwargs)
        finally:
            mode.examples = before

    @functools.wraps(func)
    def call(*args: object, **kwargs: object) -> Any:
        given, named = _arrays(args), _arrays(kwargs)
        dims = tuple(in_dims) if isinstance(in_dims, list) else in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        sizes = [leaf.shape[d] for d, arg in zip(dims, given, strict=True) if isinstance(d, int) for leaf in jax.tree.leaves(arg)]
        with wide():
            if randomness != "different" or not sizes:
                return _tensors(jax.vmap(of_one, (None, dims, 0), out_dims)(None, given, named))
            return _tensors(jax.vmap(of_one, (0, dims, 0), out_dims)(np.arange(sizes[0]), given, named))

    return call


def functional_call(module: Module, parameter_and_buffer_dicts: Values | Sequence[Values], args: object = (),
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False) -> Any:
    """Call a module with other parameters and buffers, by name, in place of its own.

    Raises:
      ValueError: it has no parameter or buffer of a name.
      RuntimeError: ``strict``, and not all of its own are given.
    """
    given = parameter_and_buffer_dicts
    values: dict[str, Tensor] = dict(given) if isinstance(given, Mapping) else {k: v for part in given for k, v in part.items()}
    places: dict[str, tuple[dict[str, Any], str]] = {
        f"{prefix}.{name}" if prefix else name: (place, name) for prefix, m in module.named_modules()
              for place in (m._parameters, m._buffers) for name in place}
    unknown = [name for name in values if name not in places]
    if unknown:
        raise ValueError(f"functional_call: the module has no parameter or buffer {', '.join(map(repr, unknown))}\n"
                         f"it has {', '.join(places)}")
    missing = [name for name in places if name not in values]
    if strict and missing:
        raise RuntimeError(f"Missing key(s): {', '.join(map(repr, missing))}.\ngive all parameters and buffers, or leave out "
                           "strict=True")
    before = [(place, name, place[name]) for place, name in (places[key] for key in values)]
    try:
        for key, value in values.items():
            place, name = places[key]
            place[name] = value
        return module(*(args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
    finally:
        for place, name, value in before:
            place[name] = value
