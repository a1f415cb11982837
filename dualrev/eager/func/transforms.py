"""Derivatives of functions of tensors, as PyTorch's ``torch.func`` names them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jax.tree_util import tree_leaves, tree_structure

from dualrev.eager.core.evaluation import wide
from dualrev.eager.func.arrays import arrays, in_graph, lowered, tensors
from dualrev.eager.func.ordered import aligned
from dualrev.eager.graph.tensor import Tensor
from dualrev.functional import api, gradients, jacobians

R = TypeVar("R")


def _of(transform: Callable[..., Any], words: str, cuts: bool = True) -> Callable[..., Any]:
    """A functional transformation of dualrev, for functions of tensors."""
    def transformed(func: Callable[..., object], argnums: int | Sequence[int] = 0, has_aux: bool = False, *,
                    chunk_size: int | None = None, randomness: str = "error") -> Callable[..., Any]:
        checked = _scalar(func, has_aux) if transform in (gradients.grad, gradients.value_and_grad) else func
        inner = transform(lowered(checked, cuts=cuts), argnums, has_aux)

        @functools.wraps(func)
        def call(*args: object, **kwargs: object) -> Any:
            for i in (argnums,) if isinstance(argnums, int) else argnums:
                if not -len(args) <= i < len(args):
                    raise RuntimeError(f"Got argnum={i}, but only {len(args)} positional inputs")
            return in_graph(inner, args, kwargs)

        return call

    transformed.__name__ = transformed.__qualname__ = transform.__name__
    transformed.__doc__ = (f"{words}  It is an operation of the graph of backward too, where an argument requires grad; other "
                           "tensors that the function reads are constants to that graph.  "
                           "``chunk_size`` and ``randomness`` have no effect: all rows are computed at once, with the same random "
                           "numbers.")
    return transformed


def _scalar(func: Callable[..., object], has_aux: bool) -> Callable[..., object]:
    """The function, refused where its value is not a tensor without dimensions."""
    @functools.wraps(func)
    def checked(*args: object, **kwargs: object) -> object:
        result: Any = func(*args, **kwargs)
        out = result[0] if has_aux else result
        if not isinstance(out, Tensor):
            raise RuntimeError(f"grad_and_value(f)(*args): Expected f(*args) to return a Tensor, got {type(out)}")
        if out.ndim:
            raise RuntimeError(f"grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor, got tensor with {out.ndim} "
                               "dims. Maybe you wanted to use the vjp or jacrev APIs instead?")
        return result

    return checked


grad = _of(gradients.grad, "The gradient of a scalar function of tensors.")
jacrev = _of(jacobians.jacrev, "The Jacobian of a function of tensors, row by row.")
jacfwd = _of(jacobians.jacfwd, "The Jacobian of a function of tensors, column by column.", cuts=False)
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
    if not isinstance(primals, tuple):
        raise RuntimeError("jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    given = arrays(tuple(primals))
    pushed = aligned(arrays(tuple(tangents)), given)
    structures: list[Any] = [tree_structure(given), tree_structure(pushed)]
    if structures[0] != structures[1]:
        raise RuntimeError("jvp(f, primals, tangents): Expected primals and tangents to have the same python structure. For example, "
                           "if primals is a tuple of 3 tensors, tangents also must be. Got primals with structure "
                           f"{structures[0]} and tangents with structure {structures[1]}")
    for x, v in zip(tree_leaves(given), tree_leaves(pushed), strict=True):
        if x.shape != v.shape:
            raise RuntimeError("Trying to set a forward gradient that has a different size than that of the original Tensor, this is "
                               f"not supported. Tensor is of size {list(x.shape)} while the given forward gradient is of size "
                               f"{list(v.shape)}.")
    with wide():
        return tuple([tensors(x) for x in api.jvp(lowered(func, cuts=False), given, pushed, has_aux)])


def vjp(func: Callable[..., object], *primals: object, has_aux: bool = False) -> tuple[Any, ...]:
    """The value, and the pull: a function from cotangents of the value to cotangents of each primal."""
    with wide():
        out, pull, *aux = api.vjp(lowered(func), *arrays(primals), has_aux=has_aux)

    def pulled(*cotangents: object) -> Any:
        given = aligned(arrays(cotangents if len(cotangents) > 1 else cotangents[0]), out)
        with wide():
            return tensors(pull(given))

    return (tensors(out), pulled, *[tensors(a) for a in aux])


def linearize(func: Callable[..., object], *primals: object) -> tuple[Any, Callable[..., Any]]:
    """The value, and the push: a function from tangents of the primals to the tangent of the value."""
    with wide():
        given = arrays(primals)
        out, push = api.linearize(lowered(func, cuts=False), *given)

    def pushed(*tangents: object) -> Any:
        with wide():
            return tensors(push(*aligned(arrays(tangents), given)))

    return tensors(out), pushed


def functionalize(func: Callable[..., R], *, remove: str = "mutations") -> Callable[..., R]:
    """The function itself: arrays never change, so that what changes a tensor in place is functional already."""
    return func
