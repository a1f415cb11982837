"""Derivatives compared with finite differences: ``gradcheck``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dualrev.eager.autograd.functional import TensorFunction, Tensors
from dualrev.eager.autograd.gradients import grad
from dualrev.eager.core.modes import enable_grad, no_grad
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.creation import tensor
from dualrev.eager.ops.sampling import randn


class GradcheckError(RuntimeError):
    """Derivatives and differences disagree."""


def _outputs(func: TensorFunction, inputs: Sequence[object]) -> list[Tensor]:
    out = func(*inputs)
    return list(out) if isinstance(out, (tuple, list)) else [out]


def gradcheck(func: TensorFunction, inputs: Tensors, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
              raise_exception: bool = True, **_: object) -> bool:
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
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of them have "
                         "requires_grad=True.")

    def at(*active: Tensor) -> tuple[Tensor, ...]:
        values = list(given)
        for i, x in zip(places, active, strict=True):
            values[i] = x
        return tuple([o for o in _outputs(func, values) if isinstance(o, Tensor)])

    xs = [given[i].detach() for i in places]
    with enable_grad():
        active = [x.clone().requires_grad_() for x in xs]
        outs = at(*active)
    exact = [_rows(o, active) for o in outs]
    with no_grad():
        for k, x in enumerate(xs):
            numeric = _differences(functools.partial(_with, at, xs, k), np.asarray(array_of(x)), eps)
            for j, by_input in enumerate(exact):
                if not np.allclose(numeric[j], by_input[k], rtol, atol):
                    if not raise_exception:
                        return False
                    raise GradcheckError(f"Jacobian mismatch for output {j} with respect to input {places[k]},\n"
                                         f"numerical:{numeric[j]}\nanalytical:{by_input[k]}\n")
    return True


def _with(at: Callable[..., tuple[Tensor, ...]], xs: Sequence[Tensor], k: int, x: Tensor) -> tuple[Tensor, ...]:
    """The outputs with one input replaced."""
    return at(*xs[:k], x, *xs[k + 1:])


def _parts(x: np.ndarray) -> np.ndarray:
    """The entries of an array as real numbers, the imaginary parts behind the real ones."""
    return np.concatenate([x.real.ravel(), x.imag.ravel()]) if x.dtype.kind == "c" else x.ravel()


def _units(x: np.ndarray) -> Iterator[np.ndarray]:
    """One for each real number in an array: one there, zero elsewhere; ``1j`` for an imaginary part."""
    for one in (1, 1j) if x.dtype.kind == "c" else (1,):
        for e in range(x.size):
            unit = np.zeros(x.size, x.dtype)
            unit[e] = one
            yield unit.reshape(x.shape)


def _rows(out: Tensor, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """The Jacobian of an output by each input, of real numbers, row by row."""
    if not out.requires_grad:
        return [np.zeros((_parts(np.asarray(array_of(out))).size, _parts(np.asarray(array_of(x))).size)) for x in inputs]
    rows: list[list[np.ndarray]] = [[] for _ in inputs]
    for unit in _units(np.asarray(array_of(out))):
        found = grad(out, inputs, tensor(unit), retain_graph=True, allow_unused=True, materialize_grads=True)
        for row, g in zip(rows, found, strict=True):
            row.append(_parts(np.asarray(array_of(g))))  # type: ignore[arg-type]  # zeros stand for None
    return [np.stack(row) if row else np.zeros((0, x.numel())) for row, x in zip(rows, inputs, strict=True)]


def _differences(at: Callable[[Tensor], Sequence[Tensor]], base: np.ndarray, eps: float) -> list[np.ndarray]:
    """The Jacobian of each output by one input, by central differences."""
    columns = []
    for unit in _units(base):
        ends = [[_parts(np.asarray(array_of(o))) for o in at(tensor(base + s * eps * unit))] for s in (1, -1)]
        columns.append([(a - b) / (2 * eps) for a, b in zip(*ends, strict=True)])
    return [np.stack(column, 1) for column in zip(*columns, strict=True)]


def gradgradcheck(func: TensorFunction, inputs: Tensors, grad_outputs: Tensors | None = None, **settings: Any) -> bool:
    """As :func:`gradcheck`, of the gradients of a function."""
    given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    places = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    outs = _outputs(func, given)
    vs = grad_outputs if grad_outputs is not None else [randn(*o.shape, dtype=o.dtype, requires_grad=True) for o in outs]
    vs = list(vs) if isinstance(vs, (tuple, list)) else [vs]

    def gradients(*args: Tensor) -> Any:
        values, weights = list(args[: len(given)]), list(args[len(given):])
        with enable_grad():
            active = [values[i] if values[i].requires_grad else values[i].detach().requires_grad_() for i in places]
            for i, x in zip(places, active, strict=True):
                values[i] = x
            return grad(_outputs(func, values), active, weights, create_graph=True, allow_unused=True, materialize_grads=True)

    return gradcheck(gradients, (*given, *vs), **settings)
