"""Derivatives compared with finite differences: ``gradcheck``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualrev.eager.autograd.functional import jacobian
from dualrev.eager.autograd.gradients import grad
from dualrev.eager.core.modes import enable_grad, no_grad
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.creation import tensor
from dualrev.eager.ops.sampling import randn


class GradcheckError(RuntimeError):
    """Derivatives and differences disagree."""


def _outputs(func: Callable[..., Any], inputs: list[Any]) -> list[Tensor]:
    out = func(*inputs)
    return list(out) if isinstance(out, (tuple, list)) else [out]


def gradcheck(func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
              raise_exception: bool = True, **_: Any) -> bool:
    """Compare the Jacobians of a function, with respect to the inputs that require grad, with finite differences.

    Raises:
      ValueError: no input requires grad.
      GradcheckError: they disagree; the message shows both.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> torch.autograd.gradcheck(torch.sin, x, eps=1e-2, atol=1e-2)
    True
    """
    given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    places = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    if not places:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of the them have "
                         "requires_grad=True.")

    def at(*active: Tensor) -> tuple[Tensor, ...]:
        values = list(given)
        for i, x in zip(places, active, strict=True):
            values[i] = x
        return tuple(_outputs(func, values))

    xs = [given[i].detach() for i in places]
    analytic = jacobian(at, tuple(xs))
    with no_grad():
        for k, x in enumerate(xs):
            base = np.asarray(array_of(x))
            for j, by_input in enumerate(analytic):
                exact = np.asarray(array_of(by_input[k]))
                numeric = np.zeros(exact.shape, exact.dtype).reshape(-1, base.size)
                for e in range(base.size):
                    step = np.zeros(base.size, base.dtype)
                    step[e] = eps
                    ends = [np.asarray(array_of(at(*xs[:k], tensor(base + s * step.reshape(base.shape)), *xs[k + 1:])[j])).ravel()
                            for s in (1, -1)]
                    numeric[:, e] = (ends[0] - ends[1]) / (2 * eps)
                if not np.allclose(numeric, exact.reshape(numeric.shape), rtol, atol):
                    if not raise_exception:
                        return False
                    raise GradcheckError(f"Jacobian mismatch for output {j} with respect to input {places[k]},\nnumerical:{numeric}\n"
                                         f"analytical:{exact.reshape(numeric.shape)}\n")
    return True


def gradgradcheck(func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, **settings: Any) -> bool:
    """As :func:`gradcheck`, of the gradients of a function."""
    given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    places = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    outs = _outputs(func, given)
    vs = grad_outputs if grad_outputs is not None else [randn(*o.shape, dtype=o.dtype, requires_grad=True) for o in outs]
    vs = list(vs) if isinstance(vs, (tuple, list)) else [vs]

    def gradients(*args: Any) -> Any:
        values, weights = list(args[: len(given)]), list(args[len(given):])
        with enable_grad():
            active = [values[i] if values[i].requires_grad else values[i].detach().requires_grad_() for i in places]
            for i, x in zip(places, active, strict=True):
                values[i] = x
            return grad(_outputs(func, values), active, weights, create_graph=True, allow_unused=True, materialize_grads=True)

    return gradcheck(gradients, (*given, *vs), **settings)
