"""``backward`` and ``grad``: the roots of a backward pass, and where its gradients go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.compiled.backward_programs import replayed
from dualrev.eager.core import dtypes
from dualrev.eager.core.caches import caches
from dualrev.eager.core.evaluation import cast, wide
from dualrev.eager.core.size import Size
from dualrev.eager.graph.accumulation import accumulate
from dualrev.eager.graph.backward_pass import BackwardPass, Place
from dualrev.eager.graph.tensor import Cotangent, Tensor, array_of, described, wrap
from dualrev.eager.ops.joining import stack
from dualrev.eager.ops.registry import method, renamed

#: A tensor, or several.
Tensors: TypeAlias = Tensor | Sequence[Tensor]


def backward(tensors: Tensors, grad_tensors: Tensor | Sequence[Tensor | None] | None = None, retain_graph: bool | None = None,
             create_graph: bool = False, grad_variables: object = None, inputs: Tensors | None = None) -> None:
    """Add to ``.grad`` of each leaf the sum of the derivatives of several tensors: see :meth:`Tensor.backward`."""
    outputs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given: list[Any]
    if grad_tensors is None:
        given = [None] * len(outputs)
    else:
        given = [grad_tensors] if isinstance(grad_tensors, (Tensor, float, int)) else list(grad_tensors)
    if len(given) != len(outputs):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(given)} gradients")
    captured = None
    if inputs is not None:
        inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if not inputs:
            raise RuntimeError("'inputs' argument to backward cannot be empty.\nleave it out to accumulate into all leaves")
        captured = capture(inputs)
    backward_pass = BackwardPass(create_graph if retain_graph is None else retain_graph, create_graph, captured)
    found = backward_pass.run(roots_of(outputs, given, create_graph), replayed)
    if inputs is None:
        for (leaf, _), ct in found.items():  # nothing is captured: these are leaves
            if leaf._requires_grad:  # type: ignore[union-attr]  # requires_grad may have been set to False since
                accumulate(leaf, ct, create_graph)  # type: ignore[arg-type]
    else:
        for t in {id(t): t for t in inputs}.values():
            ct = found.get(edge_of(t))
            if ct is not None:
                accumulate(t, ct, create_graph)


def grad(outputs: Tensors, inputs: Tensors, grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
         retain_graph: bool | None = None, create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Tensor | None, ...]:
    """The derivative of the outputs, weighted with ``grad_outputs``, with respect to each input; ``.grad`` stays as it is.

    Args:
      outputs, inputs: a tensor or several.
      grad_outputs: weights for the outputs, as ``gradient`` of ``backward``.
      retain_graph, create_graph: as of ``backward``.
      only_inputs: accepted for compatibility, as PyTorch has it.
      allow_unused: give None for an input that the outputs do not depend on, instead of raising.
      is_grads_batched: the first axis of ``grad_outputs`` is a batch of weights, and that of each result the batch of gradients.
      materialize_grads: give zeros instead of None.

    Raises:
      RuntimeError: an input does not require grad, or was not used.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> g, = torch.autograd.grad(x ** 3, x, create_graph=True)
    >>> torch.autograd.grad(g, x)
    (tensor(18.),)
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [None] * len(outputs) if grad_outputs is None else (
        [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)[:None if is_grads_batched else len(outputs)])
    if len(given) < len(outputs) or (is_grads_batched and len(given) > len(outputs)):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(given)} gradients")
    if is_grads_batched:
        return batched_grad(outputs, inputs, given, bool(retain_graph), create_graph, allow_unused, materialize_grads)
    if not all(isinstance(out, Tensor) for out in outputs):
        raise AssertionError("Expected output to be a torch.Tensor\nthe outputs are "
                             + ", ".join(type(out).__name__ for out in outputs))
    for t in inputs:
        if not isinstance(t, Tensor):
            raise TypeError(f"inputs to grad must be tensors, but got {type(t).__name__}")
    roots = roots_of(outputs, given, create_graph)
    for t in inputs:
        if not t.requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad\n" + described(t))
    backward_pass = BackwardPass(create_graph if retain_graph is None else retain_graph, create_graph, capture(inputs))
    found = backward_pass.run(roots, replayed)
    results = []
    for i, t in enumerate(inputs):
        ct = found.get(edge_of(t))
        if ct is None and materialize_grads:
            ct = np.zeros(t.shape, array_of(t).dtype)
        elif ct is None and not allow_unused:
            raise RuntimeError(f"The differentiated Tensor at index {i} appears to not have been used in the graph. Set "
                               "allow_unused=True if this is the desired behavior.\n" + described(t))
        results.append(ct if ct is None or isinstance(ct, Tensor) else wrap(ct))
    return tuple(results)


def batched_grad(outputs: Sequence[Tensor], inputs: Sequence[Tensor], given: Sequence[Tensor | None], retain: bool, create: bool,
                 allow_unused: bool | None, materialize: bool) -> tuple[Tensor | None, ...]:
    """``grad`` for several weights at once: one backward pass under ``vmap``, or one for each weight where it is recorded."""
    if create:
        n = next(g for g in given if g is not None).shape[0]
        rows = [grad(outputs, inputs, [None if g is None else g[i] for g in given], True, True, True, allow_unused, False, materialize)
                for i in range(n)]
        return tuple([None if column[0] is None else stack(column) for column in zip(*rows, strict=True)])
    captured = capture(inputs)
    weights = _batches(outputs, given)

    def pull(cts: list[jax.Array]) -> list[jax.Array | None]:
        roots = [(edge_of(out), ct) for out, ct in zip(outputs, cts, strict=True)]
        found = BackwardPass(True, False, captured).run(roots)
        return [found.get(edge_of(t)) for t in inputs]

    with wide():
        results = jax.vmap(pull)(weights)
    for i, (t, r) in enumerate(zip(inputs, results, strict=True)):
        if r is None and not (allow_unused or materialize):
            raise RuntimeError(f"The differentiated Tensor at index {i} appears to not have been used in the graph. Set "
                               f"allow_unused=True if this is the desired behavior.\nit has the shape {list(t.shape)}")
    n = weights[0].shape[0]
    return tuple([wrap(np.zeros((n, *t.shape), array_of(t).dtype)) if r is None and materialize else None if r is None else wrap(r)
                  for t, r in zip(inputs, results, strict=True)])


def _batches(outputs: Sequence[Tensor], given: Sequence[Tensor | None]) -> list[jax.Array]:
    """The values of batches of weights, one for each output, in its dtype."""
    found = []
    for i, (out, weight) in enumerate(zip(outputs, given, strict=True)):
        if weight is None and out.numel() != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs\n" + described(out))
        if weight is None:
            raise ValueError("vmap(vjp, in_dims=0, ...)(<inputs>): Got in_dim=0 for some input, but that input is a Tensor of "
                             "dimensionality 0 so expected in_dim to satisfy 0 <= in_dim < 0.\nis_grads_batched=True takes a batch of "
                             f"weights for each output, and grad_outputs[{i}] is None")
        if tuple(weight.shape[1:]) != tuple(out.shape):
            raise RuntimeError("If `is_grads_batched=True`, we interpret the first dimension of each grad_output as the batch "
                               "dimension. The sizes of the remaining dimensions are expected to match the shape of corresponding "
                               f"output, but a mismatch was detected: grad_output[{i}] has a shape of {Size(weight.shape[1:])} and "
                               f"output[{i}] has a shape of {out.shape}. If you only want some tensors in "
                               "`grad_output` to be considered batched, consider using vmap.")
        _check_complex(i, weight, out)
        value = array_of(weight)
        found.append(value if value.dtype == array_of(out).dtype else cast(value, array_of(out).dtype))
    sizes = list(dict.fromkeys([x.shape[0] for x in found]))
    if len(sizes) > 1:
        raise ValueError(f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the mapped "
                         "dimension")
    for i, out in enumerate(outputs):
        _check_recorded(i, out)
    return found


def _check_recorded(i: int, out: Tensor) -> None:
    if not out.requires_grad:
        raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn\n" + described(out)
                           + "; none of what it was computed from requires grad, or it was computed under no_grad or detached")


def _check_complex(i: int, weight: Tensor, out: Tensor) -> None:
    if weight.is_complex() != out.is_complex():
        raise RuntimeError("For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in dtype: "
                           f"grad_output[{i}] has a dtype of {weight.dtype} and output[{i}] has a dtype of {out.dtype}.\n"
                           + described(out))


def edge_of(t: Tensor) -> Place:
    """The target that a tensor is in a backward pass: its node and slot, or itself."""
    node = t.grad_fn
    return (t, 0) if node is None else (node, t._slot)


def capture(inputs: Sequence[Tensor]) -> dict[Place, int]:
    """The targets of a backward pass that is to give the gradients of some tensors only."""
    return {edge_of(t): i for i, t in enumerate(inputs)}


def roots_of(outputs: Sequence[Tensor], given: Sequence[Tensor | None], create: bool) -> list[tuple[Place, Cotangent]]:
    """The roots of a backward pass: ``((target, slot), gradient)`` of each output."""
    roots = []
    for i, (out, weight) in enumerate(zip(outputs, given, strict=True)):
        if isinstance(weight, Tensor):
            if weight.shape != out.shape:
                raise RuntimeError(f"Mismatch in shape: grad_output[{i}] has a shape of torch.Size({list(weight.shape)}) and "
                                   f"output[{i}] has a shape of torch.Size({list(out.shape)}).\n" + described(out))
            _check_complex(i, weight, out)
        _check_recorded(i, out)
        array = array_of(out)
        ct: Cotangent
        if weight is None:
            if array.size != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs\n" + described(out)
                                   + "; call .sum().backward(), or .backward(gradient=v) with a weight v of this shape")
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise RuntimeError(f"grad can be implicitly created only for real scalar outputs but got {dtypes.of(array.dtype)!r}")
            ct = ones(array.shape, array.dtype)
        elif not isinstance(weight, Tensor):
            raise TypeError(f"gradients can be either Tensors or None, but got {type(weight).__name__}\n"
                            f"wrap it: gradient=torch.tensor({weight!r})")
        else:
            value = array_of(weight)
            ct = weight if create else value
            if value.dtype != array.dtype:
                ct = weight.to(dtypes.of(array.dtype)) if create else cast(value, array.dtype)
        roots.append((edge_of(out), _root_value(ct, create)))
    return roots


_ones = caches.table()


def ones(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Ones of the shape of a scalar, kept for the next backward."""
    found = _ones.get((shape, dtype))
    if found is None:
        found = _ones.keep((shape, dtype), np.ones(shape, dtype))
    return found


def _root_value(ct: Cotangent, create: bool) -> Cotangent:
    return wrap(ct) if create and not isinstance(ct, Tensor) else ct


def backward_of(self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False,
                inputs: Tensors | None = None) -> None:
    """Add to ``.grad`` of each leaf the derivative of this tensor, weighted with ``gradient``: v^T J.

    Args:
      gradient: a weight for each entry, of the same shape; only a scalar may do without.
      retain_graph: keep the saved values of the graph, for another backward; default ``create_graph``.
      create_graph: record the derivative's own operations, to differentiate it again.
      inputs: the tensors to accumulate into, instead of all leaves.

    Raises:
      RuntimeError: nothing requires grad, the gradient does not fit, the graph was freed, or a saved value was changed.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).backward(torch.tensor([1.0, 10.0]))
    >>> x.grad
    tensor([ 2., 40.])
    """
    backward(self, gradient, retain_graph, create_graph, inputs=inputs)


method(renamed(backward_of, "backward", backward_of.__doc__ or ""))
