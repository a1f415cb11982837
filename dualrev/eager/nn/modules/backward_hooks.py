"""Backward hooks of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from dualrev.eager.graph.backward_pass import BackwardPass
from dualrev.eager.graph.node import Node, Pulled
from dualrev.eager.graph.tensor import Cotangent, Tensor, array_of, wrap

#: The gradients that a module's backward hooks get.
Grads: TypeAlias = tuple[Tensor | None, ...]
Tell: TypeAlias = Callable[[Grads], Grads | None]


class Watched(Protocol):
    """A module with backward hooks."""

    _backward_hooks: dict[int, Callable[..., Any]]
    _backward_pre_hooks: dict[int, Callable[..., Any]]

    @property
    def forward(self) -> Callable[..., Any]: ...

    def _finish(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> Any: ...


class Barrier(Node):
    """A node before or after a module: passes cotangents on, and calls ``tell`` with them."""

    __slots__ = ("tell",)

    tell: Tell

    def pull_custom(self, cts: list[Cotangent | None], backward_pass: BackwardPass) -> Pulled:
        given = self.tell(tuple([backward_pass.tensor(ct) for ct in cts]))
        if given is not None:
            cts = [backward_pass.value(ct) for ct in (given if isinstance(given, tuple) else (given,))]
        return list(enumerate(cts))


def passed(tensors: tuple[Any, ...], tell: Tell) -> tuple[Any, ...]:
    """The values, with the tensors among them passed through one barrier."""
    places = [i for i, x in enumerate(tensors) if isinstance(x, Tensor) and x.requires_grad]
    if not places:
        return tensors
    edges = [(tensors[i], 0) if tensors[i].grad_fn is None else (tensors[i]._node, tensors[i]._slot) for i in places]
    node = Barrier(None, "BackwardHookFunction", edges, (), (), None, len(places))
    node.tell = tell
    results = list(tensors)
    for slot, i in enumerate(places):
        t = wrap(array_of(tensors[i]))
        t._node, t._slot, t._requires_grad = node, slot, True
        results[i] = t
    return tuple(results)


def call_watched(module: Watched, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a module between two barriers, which call its backward hooks."""
    grad_out: list[Grads] = []

    def at_inputs(grads: Grads) -> Grads:
        for hook in list(module._backward_hooks.values()):
            given = hook(module, grads, grad_out[-1] if grad_out else ())
            if given is not None:
                grads = given if isinstance(given, tuple) else (given,)
        return grads

    def at_outputs(grads: Grads) -> Grads:
        for hook in list(module._backward_pre_hooks.values()):
            given = hook(module, grads)
            if given is not None:
                grads = given if isinstance(given, tuple) else (given,)
        grad_out[:] = [grads]
        if not inside:
            for hook in list(module._backward_hooks.values()):
                hook(module, (None,), grads)
        return grads

    args = passed(args, at_inputs)
    inside = any(isinstance(a, Tensor) and isinstance(a._node, Barrier) for a in args)
    result = module._finish(args, kwargs, module.forward(*args, **kwargs))
    outs = passed(result if isinstance(result, tuple) else (result,), at_outputs)
    return outs if isinstance(result, tuple) else outs[0]
