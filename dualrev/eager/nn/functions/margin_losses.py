"""Losses of margins, distances and distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn.functions.distances import pairwise_distance
from dualrev.eager.nn.functions.reducing import reduced, reduction_of
from dualrev.eager.ops.checks import first_outside


def _positive(x: jax.Array) -> jax.Array:
    """The positive part, with derivative 1 at zero, as that of ``clamp_min``."""
    return jnp.where(x >= 0, x, 0)


def _hinge_of(x: jax.Array, y: jax.Array, margin: Any, reduction: str) -> jax.Array:
    return reduced(jnp.where(y != 1, _positive(margin - x), 0) + jnp.where(y != -1, x, 0), reduction)


def _cosine_of(x: jax.Array, y: jax.Array, target: jax.Array, margin: Any, reduction: str) -> jax.Array:
    cosine = jnp.sum(x * y, -1) / jnp.sqrt((jnp.sum(x * x, -1) + 1e-12) * (jnp.sum(y * y, -1) + 1e-12))
    return reduced(jnp.where(target == 1, 1 - cosine, 0) + jnp.where(target == -1, _positive(cosine - margin), 0), reduction)


def _poisson_of(x: jax.Array, y: jax.Array, eps: Any, log_input: bool, full: bool, reduction: str) -> jax.Array:
    loss = jnp.exp(x) - y * x if log_input else x - y * jnp.log(x + eps)
    if full:
        several = jnp.where(y > 1, y, 2)
        loss = loss + jnp.where(y > 1, several * jnp.log(several) - several + 0.5 * jnp.log(2 * math.pi * several), 0)
    return reduced(loss, reduction)


def _gaussian_of(x: jax.Array, y: jax.Array, var: jax.Array, eps: Any, full: bool, reduction: str) -> jax.Array:
    # The variance is clamped without a trace in the derivative.
    var = var + lax.stop_gradient(jnp.maximum(var, eps) - var)
    loss = 0.5 * (jnp.log(var) + (x - y) ** 2 / var)
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def _log_sigmoid(x: jax.Array) -> jax.Array:
    return -jnp.logaddexp(-x, jnp.zeros_like(x))


def _labels_of(x: jax.Array, y: jax.Array, *rest: Any) -> jax.Array:
    *weight, reduction = rest
    loss = -(y * _log_sigmoid(x) + (1 - y) * _log_sigmoid(-x))
    return reduced(jnp.mean(loss * weight[0] if weight else loss, -1), reduction)


def _multi_margin_of(x: jax.Array, target: jax.Array, *rest: Any) -> jax.Array:
    *numbers, p, reduction = rest
    margin, *weight = numbers
    own = jnp.take_along_axis(x, target[..., None], -1)
    z = margin - own + x
    other = jnp.arange(x.shape[-1]) != target[..., None]
    loss = jnp.where((z > 0) & other, z ** p, 0)
    return reduced(jnp.sum(loss * weight[0][target][..., None] if weight else loss, -1) / x.shape[-1], reduction)


def _multilabel_margin_of(x: jax.Array, target: jax.Array, reduction: str) -> jax.Array:
    counts = jnp.cumprod((target >= 0).astype(jnp.int32), -1) == 1
    index = jnp.where(counts, target, 0)
    wanted = jnp.any(counts[..., None] & (index[..., None] == jnp.arange(x.shape[-1])), -2)
    z = 1 - jnp.take_along_axis(x, index, -1)[..., None] + x[..., None, :]
    loss = jnp.where((z > 0) & counts[..., None] & ~wanted[..., None, :], z, 0)
    return reduced(jnp.sum(loss, (-2, -1)) / x.shape[-1], reduction)


_ranking = family("MarginRankingLoss", lambda x, y, target, margin, reduction: reduced(
    _positive(-target * (x - y) + margin), reduction))
_triplet = family("TripletMarginLoss", lambda near, far, margin, reduction: reduced(_positive(margin + near - far), reduction))
_soft = family("SoftMarginLoss", lambda x, y, reduction: reduced(jnp.log1p(jnp.exp(-y * x)), reduction))
_hinge, _cosine = family("HingeEmbeddingLoss", _hinge_of), family("CosineEmbeddingLoss", _cosine_of)
_poisson, _gaussian = family("PoissonNllLoss", _poisson_of), family("GaussianNllLoss", _gaussian_of)
_labels = family("MultilabelSoftMarginLoss", _labels_of)
_multi_margin, _multilabel_margin = family("MultiMarginLoss", _multi_margin_of), family("MultilabelMarginLoss", _multilabel_margin_of)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: bool | None = None,
                        reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """How far the wrong one of two scores is ahead; ``target`` is 1 where the first shall be the larger one, else -1."""
    if input1.ndim != input2.ndim or input1.ndim != target.ndim:
        raise RuntimeError("margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
                           f"{input1.size()}, input2: {input2.size()}, target: {target.size()} ")
    return apply(_ranking(reduction_of(reduction, size_average, reduce)), (input1, input2, target, margin))


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,  # noqa: A002
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Distances where ``target`` is 1, and what they lack of a margin where it is -1."""
    return apply(_hinge(reduction_of(reduction, size_average, reduce)), (input, target, margin))


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: bool | None = None,
                          reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """``1 - cosine`` where ``target`` is 1, and how far the cosine is above a margin where it is -1."""
    if target.ndim not in (0, 1):
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise RuntimeError(f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found inputs with sizes "
                           f"{list(input1.shape)} and {list(input2.shape)}.")
    return apply(_cosine(reduction_of(reduction, size_average, reduce)), (input1, input2, target, margin))


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
                        swap: bool = False, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
                        ) -> Tensor:
    """How much nearer than a margin the negative is to the anchor, compared with the positive."""
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(f"The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
                           f"anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs")
    return triplet_margin_with_distance_loss(anchor, positive, negative, margin=margin, swap=swap,
                                             distance_function=lambda x, y: pairwise_distance(x, y, p, eps),
                                             reduction=reduction_of(reduction, size_average, reduce))


def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
                                      swap: bool = False, reduction: str = "mean") -> Tensor:
    """The triplet loss of any distance."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    distance = distance_function or pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return apply(_triplet(reduction), (near, far, margin))


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, size_average: bool | None = None,  # noqa: A002
                     eps: float = 1e-8, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Minus the log likelihood of counts; ``full`` adds Stirling's approximation of ``log(target!)``."""
    reduction = reduction_of(reduction, size_average, reduce)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return apply(_poisson(log_input, full, reduction), (input, target, eps))


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,  # noqa: A002
                      reduction: str = "mean") -> Tensor:
    """Minus the log likelihood of normal variables with means ``input`` and variances ``var``."""
    if not isinstance(var, Tensor):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = input.new_full((), var).expand(input.shape)
    elif var.shape != input.shape:
        if input.shape[:-1] == var.shape:
            var = var.unsqueeze(-1)
        elif input.ndim != var.ndim or sum(a != b for a, b in zip(input.shape, var.shape, strict=True)) != 1 or not any(
                b == 1 != a for a, b in zip(input.shape, var.shape, strict=True)):
            raise ValueError("var is of incorrect size")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(reduction + " is not valid")
    values = array_of(var)
    if isinstance(values, np.ndarray) and (values < 0).any():
        raise ValueError("var has negative entry/entries")
    return apply(_gaussian(full, reduction), (input, target, var, eps))


def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,  # noqa: A002
                     reduction: str = "mean") -> Tensor:
    """``log(1 + exp(-target * input))``, with targets 1 and -1."""
    return apply(_soft(reduction_of(reduction, size_average, reduce)), (input, target))


def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,  # noqa: A002
                                reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """The cross entropy of the logits of several labels, the mean over the labels."""
    op = _labels(reduction_of(reduction, size_average, reduce))
    return apply(op, (input, target, *(() if weight is None else (weight,))))


def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,  # noqa: A002
                      size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """How far other classes come within a margin of the right one."""
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise ValueError("weight must be one-dimensional")
    if first_outside(array_of(target), input.shape[-1]) is not None:
        raise RuntimeError("target out of range")
    op = _multi_margin(int(p), reduction_of(reduction, size_average, reduce))
    return apply(op, (input, target, margin, *(() if weight is None else (weight,))))


def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,  # noqa: A002
                           reduction: str = "mean") -> Tensor:
    """How far other classes come within a margin of the right ones, which ``target`` lists up to the first -1."""
    return apply(_multilabel_margin(reduction_of(reduction, size_average, reduce)), (input, target))
