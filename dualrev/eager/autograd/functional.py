"""Derivatives of functions of tensors: ``torch.autograd.functional``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from dualrev.eager.autograd import forward_ad
from dualrev.eager.autograd.gradients import batched_grad, grad
from dualrev.eager.core.modes import enable_grad
from dualrev.eager.graph.tangents import tangent_of
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.creation import ones_like, zeros_like

#: A tensor, or several, as the user's function takes and returns them.
Tensors: TypeAlias = Tensor | list[Tensor] | tuple[Tensor, ...]
TensorFunction: TypeAlias = Callable[..., Tensors]
#: A derivative for each output and each input.
Nested: TypeAlias = Tensors | tuple[Tensors, ...]
V = TypeVar("V")


def _start(inputs: Tensors, create: bool) -> tuple[bool, list[Tensor]]:
    is_tuple = isinstance(inputs, (tuple, list))
    given: list[Any] = list(inputs) if is_tuple else [inputs]
    for i, x in enumerate(given):
        if not isinstance(x, Tensor):
            raise TypeError(f"The inputs given to a function of torch.autograd.functional must be either a Tensor or a tuple of "
                            f"Tensors but the value at index {i} has type {type(x).__name__}.")
    return is_tuple, [x.view(x.shape) if create and x.requires_grad else x.detach().requires_grad_() for x in given]


def _run(func: TensorFunction, inputs: list[Tensor], name: str) -> tuple[bool, list[Tensor]]:
    with enable_grad():
        out: Any = func(*inputs)
    is_tuple = isinstance(out, (tuple, list))
    for i, x in enumerate(out if is_tuple else [out]):
        if not isinstance(x, Tensor):
            which = f"value at index {i} has" if is_tuple else "given outputs of the user-provided function has"
            raise TypeError(f"The outputs of the user-provided function given to {name} must be either a Tensor or a tuple of Tensors "
                            f"but the {which} type {type(x)}.")
    return is_tuple, list(out) if is_tuple else [out]


#: What has to be a single entry where no vector is given.
_OUTPUT, _INPUT = "user-provided function returns", "input to the user-provided function is"


def _weights(v: Tensors | None, like: list[Tensor], is_tuple: bool, whose: str) -> list[Tensor]:
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(f"The vector v can only be None if the {whose} a single Tensor with a single element.")
        return [ones_like(like[0])]
    vs = list(v) if isinstance(v, (tuple, list)) else [v]
    if len(vs) != len(like):
        raise RuntimeError(f"v is a tuple of invalid length: should be {len(like)} but got {len(vs)}." if is_tuple else
                           "The given v should contain a single Tensor.")
    for i, (a, b) in enumerate(zip(vs, like, strict=True)):
        if a.shape != b.shape:
            raise RuntimeError(f"{f'Entry {i} in ' if is_tuple else ''}v has invalid size: should be {b.shape} but got {a.shape}.")
    return vs


def _packed(is_tuple: bool, values: Sequence[V]) -> V | tuple[V, ...]:
    return tuple(values) if is_tuple else values[0]


#: The refusals of strict mode.
_DEPENDS = ("Output {} of the user-provided function does not require gradients. The outputs must be computed in a differentiable "
            "manner from the input when running in strict mode.")
_UNUSED = "The output of the user-provided function is independent of input {}. This is not allowed in strict mode."
_FLAT = ("While computing the hessian, found that the jacobian of the user-provided function with respect to input {} is independent "
         "of the input. This is not allowed in strict mode. You should ensure that your function is twice differentiable and that the "
         "jacobian depends on the inputs (this would be violated by a linear function for example).")


def _check_strict(strict: bool, live: Sequence[bool], message: str = _DEPENDS) -> None:
    """Raise in strict mode if something does not depend on the inputs."""
    if strict and not all(live):
        raise RuntimeError(message.format(list(live).index(False)))


def _pull(outs: list[Tensor], inputs: list[Tensor], vs: Sequence[Tensor | None], create: bool, strict: bool = False) -> list[Tensor]:
    live = [(o, v) for o, v in zip(outs, vs, strict=True) if o.requires_grad]
    if not live:
        return [zeros_like(x) for x in inputs]
    found = grad([o for o, _ in live], inputs, [v for _, v in live], True, create, allow_unused=True)
    _check_strict(strict, [g is not None for g in found], _UNUSED)
    return [zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def vjp(func: TensorFunction, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Tensors, Tensors]:
    """``(func(inputs), v^T J)``."""
    is_tuple, xs = _start(inputs, create_graph)
    many, outs = _run(func, xs, "vjp")
    _check_strict(strict, [o.requires_grad for o in outs])
    pulled = _pull(outs, xs, _weights(v, outs, many, _OUTPUT), create_graph, strict)
    return _packed(many, outs if create_graph else [o.detach() for o in outs]), _packed(is_tuple, pulled)


def jvp(func: TensorFunction, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Tensors, Tensors]:
    """``(func(inputs), J v)``, by pushing the tangents ``v`` forward.

    >>> from dualrev import eager as torch
    >>> torch.autograd.functional.jvp(lambda x: x * x, torch.tensor(3.0), torch.tensor(1.0))
    (tensor(9.), tensor(6.))
    """
    is_tuple, xs = _start(inputs, create_graph)
    vs = _weights(v, xs, is_tuple, _INPUT)
    with forward_ad.dual_level():
        many, outs = _run(func, [forward_ad.make_dual(x if create_graph else x.detach(), t) for x, t in zip(xs, vs, strict=True)],
                          "jvp")
        tangents = [tangent_of(o) for o in outs]
    if strict:  # reverse mode finds the inputs that are not used
        vjp(func, inputs, [ones_like(o) for o in outs], strict=True)
    for o in outs:
        o._tangent = None
    pushed = [zeros_like(o) if t is None else t for o, t in zip(outs, tangents, strict=True)]
    return _packed(many, outs), _packed(many, pushed)


def _rows(out: Tensor, xs: list[Tensor], create: bool) -> list[Tensor]:
    """The Jacobian of one output by each input."""
    n = out.numel()
    basis = wrap(np.eye(n, dtype=array_of(out).dtype).reshape(n, *out.shape))
    if not out.requires_grad:
        return [wrap(np.zeros((*out.shape, *x.shape), array_of(x).dtype)) for x in xs]
    rows = batched_grad([out], xs, [basis], True, create, True, True)
    return [r.reshape(*out.shape, *x.shape) for r, x in zip(rows, xs, strict=True) if r is not None]


def jacobian(func: TensorFunction, inputs: Tensors, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
             strategy: str = "reverse-mode") -> Nested:
    """The Jacobian of each output by each input, with the shape of the output followed by that of the input.

    >>> from dualrev import eager as torch
    >>> torch.autograd.functional.jacobian(lambda x: x * x[0], torch.tensor([2.0, 3.0]))
    tensor([[4., 0.],
            [3., 2.]])
    """
    is_tuple, xs = _start(inputs, create_graph)
    many, outs = _run(func, xs, "jacobian")
    _check_strict(strict, [o.requires_grad for o in outs])
    for i, out in enumerate(outs if strict else ()):
        found = grad(out, xs, ones_like(out), True, False, allow_unused=True)
        _check_strict(True, [g is not None for g in found], f"Output {i} of the user-provided function is independent of input {{}}. "
                                                            "This is not allowed in strict mode.")
    return _packed(many, [_packed(is_tuple, _rows(out, xs, create_graph)) for out in outs])


def _check_scalar(outs: list[Tensor], call: str) -> None:
    if len(outs) != 1 or outs[0].numel() != 1:
        raise RuntimeError(f"The Tensor returned by the function given to {call} should contain a single element")


def hessian(func: TensorFunction, inputs: Tensors, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Nested:
    """The Hessian of a function with a single value, for each pair of inputs.

    ``vectorize`` and ``outer_jacobian_strategy`` change nothing but how long PyTorch takes.

    >>> from dualrev import eager as torch
    >>> torch.autograd.functional.hessian(lambda x: (x ** 3).sum(), torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    is_tuple, xs = _start(inputs, create_graph)
    _, outs = _run(func, xs, "hessian")
    _check_scalar(outs, "hessian")
    _check_strict(strict, [o.requires_grad for o in outs])
    first = _pull(outs, xs, _weights(None, outs, False, _OUTPUT), True, strict)
    _check_strict(strict, [g.requires_grad for g in first], _FLAT)
    return _packed(is_tuple, [_packed(is_tuple, [r.reshape(*g.shape, *x.shape) for r, x in zip(_rows(g, xs, create_graph), xs,
                                                                                               strict=True)])
                              for g in first])


def vhp(func: TensorFunction, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Tensors, Tensors]:
    """``(func(inputs), v^T H)``."""
    is_tuple, xs = _start(inputs, create_graph)
    many, outs = _run(func, xs, "vhp")
    _check_scalar(outs, "vhp")
    _check_strict(strict, [o.requires_grad for o in outs])
    first = _pull(outs, xs, _weights(None, outs, False, _OUTPUT), True, strict)
    _check_strict(strict, [g.requires_grad for g in first], _FLAT)
    second = _pull(first, xs, _weights(v, xs, is_tuple, _INPUT), create_graph)
    return _packed(many, outs if create_graph else [o.detach() for o in outs]), _packed(is_tuple, second)


def hvp(func: TensorFunction, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Tensors, Tensors]:
    """``(func(inputs), H v)``; the Hessian is symmetric, and so it is ``vhp``."""
    return vhp(func, inputs, v, create_graph, strict)
