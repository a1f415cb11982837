"""Functions of the user's own, of values that a transformation from outside traces: their ``backward`` is the rule it goes by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dualrev._jax.avals import is_differentiable, typeof
from dualrev.eager.autograd.context import Context
from dualrev.eager.core.modes import mode, no_grad
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.generator import default_generator
from dualrev.functional.ruled_functions import Statement, with_rule


class Call:
    """One call: its arguments, of which the tensors are operands."""

    def __init__(self, function: Any, args: Sequence[Any]):
        self.function, self.args = function, args
        self.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        #: What forward returned: whether a tuple, and for each result the fixed value, or that it is an array.
        self.is_tuple = False
        self.kinds: list[tuple[Any] | None] = []
        #: Results that are arguments changed in place: result to argument.
        self.dirty: dict[int, int] = {}
        #: Whether forward draws random numbers.
        self.draws = False
        #: Results without a derivative.
        self.constant: set[int] = set()

    def run(self, arrays: Sequence[Any]) -> tuple[Context, list[Any], jax.Array]:
        """Forward on arrays, the last of which is the state of the random numbers: the context, the results, and the state after."""
        args = list(self.args)
        for i, array in zip(self.places, arrays, strict=False):
            args[i] = wrap(array)
        ctx = Context()
        ctx.needs_input_grad = tuple([isinstance(a, Tensor) and is_differentiable(typeof(array_of(a))) for a in args])
        before, mode.random = mode.random, wrap(arrays[-1])
        try:
            with no_grad():
                if hasattr(self.function, "setup_context"):
                    result = self.function.forward(*args)
                    self.function.setup_context(ctx, tuple(args), result)
                else:
                    result = self.function.forward(ctx, *args)
            state, self.draws = array_of(mode.random), bool(mode.random._counter.version)
        finally:
            mode.random = before
        self.is_tuple = isinstance(result, tuple)
        outs = list(result) if self.is_tuple else [result]
        self.kinds = [None if isinstance(x, Tensor) else (x,) for x in outs]
        self.dirty = {j: i for j, x in enumerate(outs) if id(x) in ctx._dirty for i, a in enumerate(args) if a is x}
        self.constant = {j for j, x in enumerate(outs) if id(x) in ctx._fixed}
        return ctx, outs, state

    def forward(self, *arrays: Any) -> list[Any]:
        _, outs, state = self.run(arrays)
        return [*[array_of(x) for x in outs if isinstance(x, Tensor)], state]

    def adjoint(self, cts: list[Any], *arrays: Any, out: list[Any]) -> tuple[Any, ...]:
        ctx, outs, _ = self.run(arrays)
        for x, value in zip([x for x in outs if isinstance(x, Tensor)], out, strict=False):
            x._storage.array = value  # a result that is kept has the derivative that is stated here
        given = iter(cts)
        grads = []
        for j, x in enumerate(outs):
            ct: Any = next(given) if isinstance(x, Tensor) else None
            is_float = isinstance(x, Tensor) and j not in self.constant and is_differentiable(typeof(array_of(x)))
            grads.append(wrap(ct) if is_float else wrap(np.zeros(np.shape(array_of(x)), np.float32)) if isinstance(x, Tensor)
                         and ctx._materialize else None)
        cuts, mode.cuts = mode.cuts, False
        try:
            with no_grad():
                found = self.function.backward(ctx, *grads)
        finally:
            mode.cuts = cuts
        pulled = list(found) if isinstance(found, tuple) else [found]
        return (*[self._fitted(pulled[i], arrays[k]) for k, i in enumerate(self.places)], None)

    def _fitted(self, given: Tensor | None, x: Any) -> Any:
        """A gradient with the shape and dtype of its argument."""
        if given is None or not is_differentiable(typeof(x)):
            return None
        extra = given.ndim - np.ndim(x)
        wide = [d for d, n in enumerate(given.shape) if d < extra or (np.shape(x)[d - extra] == 1 and n != 1)]
        return array_of(given.sum(wide) if wide else given).reshape(np.shape(x)).astype(x.dtype)


def apply_traced(function: Any, args: Sequence[Any]) -> Any:
    """What ``function`` returns, with ``backward`` as its derivative, which forward mode transposes.

    ``backward`` runs forward once more, on the same random numbers, for what forward keeps in its context.
    """
    call = Call(function, args)
    ruled = with_rule(call.forward, Statement("adjoint", call.adjoint), ())
    state = default_generator.state()
    *arrays, after = ruled(*[array_of(args[i]) for i in call.places], array_of(state))
    if call.draws:
        write(state, after)
    given = iter(arrays)
    outs = [wrap(next(given)) if kind is None else kind[0] for kind in call.kinds]
    for j, i in call.dirty.items():
        write(args[i], array_of(outs[j]))
        outs[j] = args[i]
    return tuple(outs) if call.is_tuple else outs[0]
