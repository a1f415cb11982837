"""Backward hooks of modules."""

from __future__ import annotations

from typing import Any

from dualrev.eager.graph.node import Node
from dualrev.eager.graph.tensor import Tensor, array_of, wrap


class Barrier(Node):
    """A node before or after a module: passes cotangents on, and calls ``tell`` with them."""

    __slots__ = ("tell",)

    tell: Any

    def pull_custom(self, cts: list[Any], backward_pass: Any) -> list[tuple[int, Any]]:
        given = self.tell(tuple([backward_pass.tensor(ct) for ct in cts]))
        if given is not None:
            cts = [backward_pass.value(ct) for ct in (given if isinstance(given, tuple) else (given,))]
        return list(enumerate(cts))


def passed(tensors: tuple[Any, ...], tell: Any) -> tuple[Any, ...]:
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


def call_watched(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a module between two barriers, which call its backward hooks."""
    grad_out: list[Any] = []

    def at_inputs(grads: tuple[Any, ...]) -> Any:
        for hook in list(module._backward_hooks.values()):
            given = hook(module, grads, grad_out[-1] if grad_out else ())
            if given is not None:
                grads = given if isinstance(given, tuple) else (given,)
        return grads

    def at_outputs(grads: tuple[Any, ...]) -> Any:
        grad_out[:] = [grads]
        if not inside:
            for hook in list(module._backward_hooks.values()):
                hook(module, (None,), grads)

    args = passed(args, at_inputs)
    inside = any(isinstance(a, Tensor) and isinstance(a._node, Barrier) for a in args)
    result = module._finish(args, module.forward(*args, **kwargs))
    outs = passed(result if isinstance(result, tuple) else (result,), at_outputs)
    return outs if isinstance(result, tuple) else outs[0]
