"""Clipping of gradients, and parameters as one vector: part of ``torch.nn.utils``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.caches import caches
from dualrev.eager.core.evaluation import TreeEvaluation
from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.joining import cat


def _grads(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given: Iterable[Tensor] = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in given if p.grad is not None]


@caches.memoized
def _norm(p: float) -> TreeEvaluation:
    def norm_of(arrays: list[jax.Array]) -> jax.Array:
        return jnp.linalg.norm(jnp.stack([jnp.linalg.norm(jnp.ravel(g), p) for g in arrays]), p)

    return TreeEvaluation(norm_of)


def _shrunk_of(arrays: list[jax.Array], norm: jax.Array, bound: float | jax.Array) -> list[jax.Array]:
    factor = jnp.minimum(bound / (norm + 1e-6), 1.0)
    return [(g * factor).astype(g.dtype) for g in arrays]


_shrunk = TreeEvaluation(_shrunk_of)


def get_total_norm(tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0) -> Tensor:
    """The norm of all entries of some tensors."""
    given = [array_of(t) for t in ([tensors] if isinstance(tensors, Tensor) else tensors)]
    return wrap(_norm(float(norm_type))(given) if given else np.zeros((), np.float32))


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> Tensor:
    """Scale the gradients by one factor, so that their norm is at most ``max_norm``; return the norm before.

    Raises:
      RuntimeError: the norm is not finite, with ``error_if_nonfinite=True``.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> (x * x / 2).sum().backward()
    >>> torch.nn.utils.clip_grad_norm_(x, 1.0)
    tensor(5.)
    >>> x.grad
    tensor([0.6000, 0.8000])
    """
    grads = _grads(parameters)
    total = get_total_norm(grads, norm_type)
    if error_if_nonfinite and not np.isfinite(array_of(total)):
        raise RuntimeError(f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it cannot be "
                           "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
                           "`error_if_nonfinite=False`")
    if grads:
        for g, array in zip(grads, _shrunk([array_of(g) for g in grads], array_of(total), float(max_norm)), strict=True):
            write(g, array)
    return total


def clip_grad_norm(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
                   ) -> Tensor:
    """The older name of :func:`clip_grad_norm_`."""
    warnings.warn("torch.nn.utils.clip_grad_norm is now deprecated in favor of torch.nn.utils.clip_grad_norm_.", FutureWarning,
                  stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite)


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor) -> None:
    """Scale the gradients by one factor, for a norm of all that is known."""
    grads = _grads(parameters)
    if grads:
        for g, array in zip(grads, _shrunk([array_of(g) for g in grads], array_of(total_norm), float(max_norm)), strict=True):
            write(g, array)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clamp the entries of the gradients to ``[-clip_value, clip_value]``."""
    with no_grad():
        for g in _grads(parameters):
            g.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one vector."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Set the parameters to the parts of one vector, as new values: what shared the old ones keeps them."""
    place = 0
    for p in parameters:
        n = p.numel()
        p.data = wrap(array_of(vec)[place: place + n].reshape(p.shape))
        place += n
