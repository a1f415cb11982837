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
from dualrev.eager.ops.joining import cat, stack
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
            if chunk_size is not None and sizes and sizes[0] > chunk_size:
                parts = [in_parts(dims, given, named, k, chunk_size) for k in range(0, sizes[0], chunk_size)]
                outs = [_tensors(jax.vmap(of_one, (0, dims, 0), out_dims)(np.arange(k, k + n), *part)) for k, n, part in parts]
                ends = out_dims if isinstance(out_dims, (tuple, list)) else None
                if ends is not None and isinstance(outs[0], (tuple, list)):
                    return type(outs[0])([tree_map(lambda *xs, d=d: cat(xs, d), *column)
                                          for d, column in zip(ends, zip(*outs, strict=True), strict=True)])
                return tree_map(lambda *xs: cat(xs, out_dims if isinstance(out_dims, int) else 0), *outs)
            if randomness != "different" or not sizes:
                return _tensors(jax.vmap(of_one, (None, dims, 0), out_dims)(None, given, named))
            return _tensors(jax.vmap(of_one, (0, dims, 0), out_dims)(np.arange(sizes[0]), given, named))

    return call


def in_parts(dims: Any, given: Any, named: Any, start: int, n: int) -> tuple[int, int, tuple[Any, Any]]:
    """The first number, the number and the arguments of some of the examples."""
    def cut(x: Any, d: int) -> Any:
        return jax.lax.slice_in_dim(x, start, min(start + n, x.shape[d]), axis=d % x.ndim)

    def each(d: Any, x: Any) -> Any:
        if d is None:
            return x
        if isinstance(d, int):
            return tree_map(lambda y: cut(y, d), x)
        return type(x)([each(a, b) for a, b in zip(d, x, strict=True)])

    parts = tuple([each(d, x) for d, x in zip(dims, given, strict=True)])
    cut_named = tree_map(lambda y: cut(y, 0), named)
    size = next(leaf.shape[d] for d, part in zip(dims, parts, strict=True) if isinstance(d, int) for leaf in jax.tree.leaves(part))
    return start, size, (parts, cut_named)


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters, and the buffers, of models of one class, stacked by name: for ``vmap`` over ``functional_call``.

    >>> from dualrev import eager as torch
    >>> models = [torch.nn.Linear(2, 3) for _ in range(4)]
    >>> params, buffers = torch.func.stack_module_state(models)
    >>> torch.vmap(lambda p, x: torch.func.functional_call(models[0], p, (x,)), (0, None))(params, torch.ones(5, 2)).shape
    torch.Size([4, 5, 3])
    """
    if not len(models):
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if any(type(m) is not type(models[0]) for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def stacked(name: str, tensors: Sequence[Tensor]) -> Tensor:
        if len({t.requires_grad for t in tensors}) > 1:
            raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
        return stack([t.detach() for t in tensors]).requires_grad_(tensors[0].requires_grad)

    params, buffers = [dict(m.named_parameters()) for m in models], [dict(m.named_buffers()) for m in models]
    return ({k: stacked(k, [p[k] for p in params]) for k in params[0]}, {k: stacked(k, [b[k] for b in buffers]) for k in buffers[0]})


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
