"""Losses as functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core.dtypes import type_name
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn.functions.activations import log_softmax
from dualrev.eager.ops.checks import broadcast, first_outside
from dualrev.eager.ops.precision import full_precision
from dualrev.eager.ops.unary import abs_of


def _reduced(x: jax.Array, reduction: str) -> jax.Array:
    if reduction == "mean":
        return jnp.mean(x)
    if reduction == "sum":
        return jnp.sum(x)
    if reduction == "none":
        return x
    raise ValueError(f"{reduction} is not a valid value for reduction")


def _huber_of(x: jax.Array, y: jax.Array, reduction: str, delta: float, scale: float) -> jax.Array:
    broadcast(x, y)
    d = jnp.abs(x - y)
    return _reduced(jnp.where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta)) / scale, reduction)


def _logits_of(x: jax.Array, y: jax.Array, *rest: Any) -> jax.Array:
    *weights, reduction, has_weight, has_pos = rest
    values = iter(weights)
    weight = next(values) if has_weight else 1
    positive = next(values) if has_pos else 1
    softplus = jnp.logaddexp(-x, jnp.zeros_like(x))
    return _reduced(weight * ((1 - y) * x + ((positive - 1) * y + 1) * softplus), reduction)


def _nll_of(logs: jax.Array, target: jax.Array, *rest: Any) -> jax.Array:
    *weight, reduction, ignore, smoothing = rest
    n_classes = logs.shape[1 if logs.ndim > 1 else 0]
    dim = 1 if logs.ndim > 1 else 0
    counted = target != ignore
    index = jnp.where(counted, target, 0)
    w = weight[0] if weight else jnp.ones(n_classes, logs.dtype)
    each = jnp.where(counted, w[index], 0)
    loss = -jnp.squeeze(jnp.take_along_axis(logs, jnp.expand_dims(index, dim), dim), dim) * each
    if smoothing:
        shape = [1] * logs.ndim
        shape[dim] = n_classes
        smooth = jnp.where(counted, -jnp.sum(logs * w.reshape(shape), dim), 0)
        loss = (1 - smoothing) * loss + smoothing / n_classes * smooth
    if reduction == "mean":
        return jnp.sum(loss) / jnp.sum(each)
    return _reduced(loss, reduction)


def _soft_of(logs: jax.Array, target: jax.Array, *rest: Any) -> jax.Array:
    *weight, reduction, smoothing = rest
    dim = 1 if logs.ndim > 1 else 0
    target = target * (1 - smoothing) + smoothing / logs.shape[dim]
    shape = [1] * logs.ndim
    shape[dim] = logs.shape[dim]
    loss = -jnp.sum(logs * target * (weight[0].reshape(shape) if weight else 1), dim)
    return jnp.sum(loss) / max(loss.size, 1) if reduction == "mean" else _reduced(loss, reduction)


def _kl_of(x: jax.Array, y: jax.Array, reduction: str, log_target: bool) -> jax.Array:
    each = jnp.exp(y) * (y - x) if log_target else jnp.where(y > 0, y * (jnp.log(jnp.where(y > 0, y, 1)) - x), 0)
    return jnp.sum(each) / x.shape[0] if reduction == "batchmean" else _reduced(each, reduction)


def _difference(x: jax.Array, y: jax.Array) -> jax.Array:
    broadcast(x, y)
    return x - y


_mse = family("MseLoss", lambda x, y, reduction: _reduced(jnp.square(_difference(x, y)), reduction))
_l1 = family("L1Loss", lambda x, y, reduction: _reduced(abs_of(_difference(x, y)), reduction), guards="nothing")
_huber = family("SmoothL1Loss", _huber_of)
_bce = family("BinaryCrossEntropy", lambda x, y, reduction: _reduced(
    -(y * jnp.maximum(jnp.log(x), -100) + (1 - y) * jnp.maximum(jnp.log1p(-x), -100)), reduction))
_logits = family("BinaryCrossEntropyWithLogits", _logits_of)
_nll, _soft, _kl = family("NllLoss", _nll_of), family("SoftCrossEntropy", _soft_of), family("KlDiv", _kl_of)


def _same_shape(x: Tensor, y: Tensor, name: str) -> None:
    if x.shape != y.shape:
        raise ValueError(f"Target size ({y.shape}) must be the same as input size ({x.shape})\n{name} compares entry by entry")


def _check_classes(input: Tensor, target: Tensor, ignore: int) -> None:  # noqa: A002
    """Refuse classes that are out of range, or not one for each example."""
    classes, shape = array_of(target), array_of(input).shape
    if classes.dtype not in (np.uint8, np.int64):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {type_name(classes.dtype)}\ntarget.long() converts it")
    if len(shape) > 1 and classes.shape[:1] != shape[:1]:
        raise ValueError(f"Expected input batch_size ({shape[0]}) to match target batch_size ({classes.shape[0]}).")
    n = shape[1 if len(shape) > 1 else 0]
    wrong = first_outside(classes, n, ignore=ignore)
    if wrong is not None:
        raise IndexError(f"Target {wrong} is out of bounds.\nthere are {n} classes, from 0 to {n - 1}")


@full_precision
def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:  # noqa: A002
    """Squares of differences."""
    return apply(_mse(reduction), (input, target))


@full_precision
def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:  # noqa: A002
    """Absolute differences."""
    return apply(_l1(reduction), (input, target))


@full_precision
def smooth_l1_loss(input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:  # noqa: A002
    """Squares of small differences, and absolute values of large ones."""
    return apply(_huber(reduction, beta, beta), (input, target))


@full_precision
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:  # noqa: A002
    """Squares of differences below ``delta``, multiples of absolute values above."""
    return apply(_huber(reduction, delta, 1.0), (input, target))


@full_precision
def binary_cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:  # noqa: A002
    """The cross entropy of probabilities."""
    if input.shape != target.shape:
        raise ValueError(f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
                         "Please ensure they have the same size.")
    values = array_of(input)
    if not isinstance(values, Tracer) and not bool(np.all((np.asarray(values) >= 0) & (np.asarray(values) <= 1))):
        raise RuntimeError("all elements of input should be between 0 and 1\nthe largest is "
                           f"{values.max()}, the smallest {values.min()}; binary_cross_entropy_with_logits takes any number")
    return apply(_bce(reduction), (input, target))


@full_precision
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean",  # noqa: A002
                                     pos_weight: Tensor | None = None) -> Tensor:
    """The cross entropy of probabilities whose logits are given."""
    _same_shape(input, target, "binary_cross_entropy_with_logits")
    more = [x for x in (weight, pos_weight) if x is not None]
    return apply(_logits(reduction, weight is not None, pos_weight is not None), (input, target, *more))


@full_precision
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> Tensor:  # noqa: A002
    """Minus the logarithms of the probabilities of the classes."""
    _check_classes(input, target, ignore_index)
    return apply(_nll(reduction, ignore_index, 0.0), (input, target, *(() if weight is None else (weight,))))


@full_precision
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",  # noqa: A002
                  label_smoothing: float = 0.0) -> Tensor:
    """The cross entropy of logits, with classes or probabilities as target."""
    dim = 1 if input.ndim > 1 else 0
    more = () if weight is None else (weight,)
    if jnp.issubdtype(array_of(target).dtype, jnp.floating):
        return apply(_soft(reduction, label_smoothing), (log_softmax(input, dim), target, *more))
    _check_classes(input, target, ignore_index)
    logs = log_softmax(input, dim)
    return apply(_nll(reduction, ignore_index, label_smoothing), (logs, target, *more))


@full_precision
def kl_div(input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:  # noqa: A002
    """The divergence of ``input``, logarithms of probabilities, from ``target``."""
    return apply(_kl(reduction, log_target), (input, target))
