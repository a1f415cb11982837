"""Operations whose derivative the user states: ``torch.autograd.Function``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from dualrev._jax.source_lines import source
from dualrev._jax.traces import Tracer
from dualrev.eager.autograd.context import Context
from dualrev.eager.autograd.traced_function import apply_traced
from dualrev.eager.core import dtypes
from dualrev.eager.core.caches import caches
from dualrev.eager.core.modes import mode, no_grad
from dualrev.eager.graph.backward_pass import BackwardPass
from dualrev.eager.graph.inplace import rebase
from dualrev.eager.graph.node import Node, Pulled
from dualrev.eager.graph.tensor import Cotangent, Tensor, array_of, wrap

R = TypeVar("R")

class FunctionNode(Node):
    """The node of a :class:`Function`."""

    __slots__ = ("ctx", "function", "shapes", "taken")

    ctx: Context
    function: type[Function]
    shapes: list[tuple[tuple[int, ...], np.dtype | None]]
    #: Shape and dtype of each argument that gets a gradient.
    taken: list[tuple[tuple[int, ...], np.dtype] | None]

    def name(self) -> str:
        return self.op_name + "Backward"

    def __repr__(self) -> str:
        return f"<torch.autograd.function.{self.name()} object at {hex(id(self))}>"

    def pull_custom(self, cts: list[Cotangent | None], backward_pass: BackwardPass) -> Pulled:
        ctx = self.ctx
        grads = [backward_pass.tensor(ct) for ct in cts]
        if ctx._materialize:
            grads = [wrap(np.zeros(shape, dtype)) if g is None else g for g, (shape, dtype) in zip(grads, self.shapes, strict=True)]
        before, mode.grad = mode.grad, backward_pass.create
        try:
            results = self.function.backward(ctx, *grads)
        finally:
            mode.grad = before
        results = results if isinstance(results, tuple) else (results,)
        if len(results) > len(self.edges) and all(r is None for r in results[len(self.edges):]):
            results = results[: len(self.edges)]
        if len(results) != len(self.edges):
            raise RuntimeError(f"function {self.name()} returned an incorrect number of gradients (expected {len(self.edges)}, got "
                               f"{len(results)})\nbackward returns one for each argument of forward, None where there is none")
        if not backward_pass.retain:
            ctx._freed = True
        return [(i, backward_pass.value(self._fitted(i, r))) for i, (r, edge) in enumerate(zip(results, self.edges, strict=True))
                if r is not None and edge is not None]

    def _fitted(self, i: int, given: Any) -> Tensor:
        """A gradient with the shape of its input: summed over the dimensions along which the input was broadcast."""
        if not isinstance(given, Tensor):
            raise RuntimeError(f"expected Variable or None (got {type(given).__name__})\nthe backward of {self.name()} returned it for "
                               f"argument {i}; wrap it: torch.tensor(...)")
        shape, dtype = self.taken[i]  # type: ignore[misc]  # it has an edge
        got = tuple(given.shape)
        if got != shape:
            extra = len(got) - len(shape)
            if extra < 0 or any(n not in (1, m) for n, m in zip(shape, got[extra:], strict=True)):
                raise RuntimeError(f"Function {self.name()} returned an invalid gradient at index {i} - got {list(got)} but expected "
                                   f"shape compatible with {list(shape)}"
                                   + (f"\nit ran forward at {self.line()}" if self.line() else ""))
            wide = [d for d, m in enumerate(got) if d < extra or (shape[d - extra] == 1 and m != 1)]
            given = given.sum(wide).reshape(shape)
        return given if array_of(given).dtype == dtype else given.to(dtypes.of(dtype))


@caches.memoized
def _node_type(name: str) -> type[FunctionNode]:
    """The class of the nodes of functions of this name, for what PyTorch users see in ``type(y.grad_fn).__name__``."""
    return type(f"{name}Backward", (FunctionNode,), {"__slots__": ()})


class Function:
    """An operation with a forward and a backward of its own; derive from it, and call ``apply``.

    ``forward(ctx, *args)`` computes, ``backward(ctx, *grads)`` returns a gradient for each argument; ``jvp(ctx, *tangents)``, if
    defined, serves forward mode.  ``setup_context(ctx, inputs, output)`` may fill ctx instead, after ``forward(*args)``.

    >>> from dualrev import eager as torch
    >>> class Square(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         x, = ctx.saved_tensors
    ...         return 2 * x * g
    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> Square.apply(x).backward()
    >>> x.grad
    tensor(6.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("You must implement either the backward or vjp method for your custom autograd.Function to use "
                                  "it with backward mode AD.")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward, and record it."""
        if mode.functional and any(isinstance(a, Tensor) and isinstance(array_of(a), Tracer) for a in args):
            return apply_traced(cls, args)
        ctx = Context()
        active = [isinstance(a, Tensor) and a.requires_grad for a in args]
        ctx.needs_input_grad = tuple(active)
        tangents = [a._tangent[1] if isinstance(a, Tensor) and a._tangent is not None and a._tangent[0] == mode.dual_level else None
                    for a in args] if mode.dual_level else []
        with no_grad():
            if hasattr(cls, "setup_context"):
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args)
        outs = list(result) if isinstance(result, tuple) else [result]
        for i, out in enumerate(outs):
            if isinstance(out, Tensor) and any(out is a for a in args) and id(out) not in ctx._dirty:
                outs[i] = out.detach()
        if any(active) and mode.grad:
            outs = cls._record(ctx, args, active, outs)
        if any(t is not None for t in tangents):
            pushed = cls.jvp(ctx, *tangents)  # type: ignore[attr-defined]
            for out, t in zip(outs, pushed if isinstance(pushed, tuple) else (pushed,), strict=True):
                out._tangent = (mode.dual_level, t)
        return tuple(outs) if isinstance(result, tuple) else outs[0]

    @classmethod
    def _record(cls, ctx: Context, args: Sequence[Any], active: Sequence[bool], outs: list[Any]) -> list[Any]:
        edges = [((a, 0) if a._node is None else (a._node, a._slot)) if m else None for a, m in zip(args, active, strict=True)]
        node = _node_type(cls.__name__)(None, cls.__name__, edges, (), (), source(), len(outs))
        ctx._node, node.ctx, node.function = node, ctx, cls
        node.taken = [(tuple(array_of(a).shape), array_of(a).dtype) if m else None for a, m in zip(args, active, strict=True)]
        node.shapes = [(array_of(o).shape, array_of(o).dtype) if isinstance(o, Tensor) else ((), None) for o in outs]
        for slot, out in enumerate(outs):
            if isinstance(out, Tensor) and id(out) not in ctx._fixed and array_of(out).dtype.kind in "fcV":
                # A saved output is kept detached, and joined to its node later: a reference to itself would be a cycle.
                ctx._kept = [(out.detach(), e[1], slot) if e is not None and e[0] is out else e for e in ctx._kept]
                if id(out) in ctx._dirty:
                    rebase(out, node, slot)
                else:
                    out._node, out._slot, out._requires_grad = node, slot, True
        return outs


class Refusal(Node):
    """The node of results that must not be differentiated again."""

    __slots__ = ()

    def pull_custom(self, cts: list[Cotangent | None], backward_pass: BackwardPass) -> NoReturn:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable\n"
                           "remove the decorator from backward, and write it with operations on tensors")


def once_differentiable(fun: Callable[..., R]) -> Callable[..., R | tuple[Any, ...]]:
    """Declare that a backward cannot be differentiated: trying to raises."""
    @functools.wraps(fun)
    def backward(ctx: Context, *grads: Tensor | None) -> R | tuple[Any, ...]:
        records = mode.grad
        with no_grad():
            results = fun(ctx, *grads)
        if not records:
            return results
        marked = []
        for r in results if isinstance(results, tuple) else (results,):
            if isinstance(r, Tensor):
                r = r.detach()
                edges = [(g, 0) if g._node is None else (g._node, g._slot) for g in grads if isinstance(g, Tensor) and g.requires_grad]
                edges += [e for e in ctx._node.edges if e is not None]  # type: ignore[union-attr]  # it was recorded
                r._node, r._requires_grad = Refusal(None, "Error", edges, (), (), None, 1), True
            marked.append(r)
        return tuple(marked)

    return backward
