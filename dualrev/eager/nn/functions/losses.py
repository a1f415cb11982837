"""Losses as functions."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core.dtypes import long_dtype, type_name
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn.functions.activations import log_softmax
from dualrev.eager.nn.functions.reducing import reduced, reduction_of
from dualrev.eager.ops.checks import broadcast, first_outside
from dualrev.eager.ops.precision import full_precision
from dualrev.eager.ops.unary import abs_of


def _huber_of(x: jax.Array, y: jax.Array, reduction: str, delta: float, scale: float) -> jax.Array:
    broadcast(x, y)
    d = jnp.abs(x - y)
    return reduced(jnp.where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta)) / scale, reduction)


def _bce_of(x: jax.Array, y: jax.Array, *rest: Any) -> jax.Array:
    *weight, reduction = rest
    loss = -(y * jnp.maximum(jnp.log(x), -100) + (1 - y) * jnp.maximum(jnp.log1p(-x), -100))
    return reduced(loss * weight[0] if weight else loss, reduction)


def _weighted_of(x: jax.Array, y: jax.Array, weight: jax.Array, *statics: Any) -> jax.Array:
    *kind, reduction = statics
    each = _ENTRIES[kind[0]](x, y, *kind[1:]) * weight
    # PyTorch's mean is over the weights, and for the Huber loss over the entries.
    return jnp.sum(each) / jnp.sum(weight) if reduction == "mean" and kind[0] != "huber" else reduced(each, reduction)


def _logits_of(x: jax.Array, y: jax.Array, *rest: Any) -> jax.Array:
    *weights, reduction, has_weight, has_pos = rest
    values = iter(weights)
    weight = next(values) if has_weight else 1
    positive = next(values) if has_pos else 1
    softplus = jnp.logaddexp(-x, jnp.zeros_like(x))
    return reduced(weight * ((1 - y) * x + ((positive - 1) * y + 1) * softplus), reduction)


def _nll_of(logs: jax.Array, target: jax.Array, *rest: Any) -> jax.Array:
    *weight, reduction, ignore, smoothing = rest
    n_classes = logs.shape[1 if logs.ndim > 1 else 0]
    dim = 1 if logs.ndim > 1 else 0
    counted = target != ignore
    # Numbers without a sign need no test whether they count from the end; a negative class becomes one that is out of range.
    index = jnp.where(counted, target, 0).astype(jnp.uint32)
    each = jnp.where(counted, weight[0][index], 0) if weight else counted.astype(logs.dtype)
    loss = -jnp.squeeze(jnp.take_along_axis(logs, jnp.expand_dims(index, dim), dim), dim) * each
    if smoothing:
        shape = [1] * logs.ndim
        shape[dim] = n_classes
        smooth = jnp.where(counted, -jnp.sum(logs * weight[0].reshape(shape) if weight else logs, dim), 0)
        loss = (1 - smoothing) * loss + smoothing / n_classes * smooth
    if reduction == "mean":
        return jnp.sum(loss) / jnp.sum(each)
    return reduced(loss, reduction)


def _soft_of(logs: jax.Array, target: jax.Array, *rest: Any) -> jax.Array:
    *weight, reduction, smoothing = rest
    dim = 1 if logs.ndim > 1 else 0
    target = target * (1 - smoothing) + smoothing / logs.shape[dim]
    shape = [1] * logs.ndim
    shape[dim] = logs.shape[dim]
    loss = -jnp.sum(logs * target * (weight[0].reshape(shape) if weight else 1), dim)
    return jnp.sum(loss) / max(loss.size, 1) if reduction == "mean" else reduced(loss, reduction)


def _kl_of(x: jax.Array, y: jax.Array, reduction: str, log_target: bool) -> jax.Array:
    each = jnp.exp(y) * (y - x) if log_target else jnp.where(y == 0, 0, y * jnp.log(jnp.where(y == 0, 1, y))) - y * x
    return jnp.sum(each) / x.shape[0] if reduction == "batchmean" else reduced(each, reduction)


def _difference(x: jax.Array, y: jax.Array) -> jax.Array:
    broadcast(x, y)
    return x - y


_mse = family("MseLoss", lambda x, y, reduction: reduced(jnp.square(_difference(x, y)), reduction))
_l1 = family("L1Loss", lambda x, y, reduction: reduced(abs_of(_difference(x, y)), reduction))
_ENTRIES: dict[str, Any] = dict(mse=lambda x, y: jnp.square(_difference(x, y)), l1=lambda x, y: abs_of(_difference(x, y)),
                               huber=lambda x, y, delta, scale: _huber_of(x, y, "none", delta, scale))
_weighted = family("WeightedLoss", _weighted_of)
_huber = family("SmoothL1Loss", _huber_of)
_bce = family("BinaryCrossEntropy", _bce_of)
_logits = family("BinaryCrossEntropyWithLogits", _logits_of)
_nll, _soft, _kl = family("NllLoss", _nll_of), family("SoftCrossEntropy", _soft_of), family("KlDiv", _kl_of)


def _same_shape(x: Tensor, y: Tensor, name: str) -> None:
    if x.shape != y.shape:
        raise ValueError(f"Target size ({y.shape}) must be the same as input size ({x.shape})\n{name} compares entry by entry")


def _check_classes(input: Tensor, target: Tensor, ignore: int) -> None:  # noqa: A002
    """Refuse classes that are out of range, or not one for each example."""
    classes, shape = array_of(target), array_of(input).shape
    if classes.dtype not in (np.uint8, np.int64, long_dtype()):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {type_name(classes.dtype)}\ntarget.long() converts it")
    if len(shape) > 1 and classes.shape[:1] != shape[:1]:
        raise ValueError(f"Expected input batch_size ({shape[0]}) to match target batch_size ({classes.shape[0]}).")
    n = shape[1 if len(shape) > 1 else 0]
    wrong = first_outside(classes, n, ignore=ignore)
    if wrong is not None:
        raise IndexError(f"Target {wrong} is out of bounds.\nthere are {n} classes, from 0 to {n - 1}")


def _entrywise(op: Any, kind: tuple[Any, ...], x: Tensor, y: Tensor, reduction: str, weight: Tensor | None) -> Tensor:
    """A loss of pairs of entries; with weights, the mean is divided by their sum."""
    if x.shape != y.shape:
        broadcast(array_of(x), array_of(y))
        warnings.warn(f"Using a target size ({y.size()}) that is different to the input size ({x.size()}). This will likely lead to "
                      "incorrect results due to broadcasting. Please ensure they have the same size.", stacklevel=3)
    if weight is not None and weight.shape != x.shape:
        raise ValueError("Weights and input must have the same size.")
    return apply(op, (x, y)) if weight is None else apply(_weighted(*kind, reduction), (x, y, weight))


@full_precision
def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",  # noqa: A002
             weight: Tensor | None = None) -> Tensor:
    """Squares of differences."""
    reduction = reduction_of(reduction, size_average, reduce)
    return _entrywise(_mse(reduction), ("mse",), input, target, reduction, weight)


@full_precision
def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",  # noqa: A002
            weight: Tensor | None = None) -> Tensor:
    """Absolute differences."""
    reduction = reduction_of(reduction, size_average, reduce)
    return _entrywise(_l1(reduction), ("l1",), input, target, reduction, weight)


@full_precision
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,  # noqa: A002
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Squares of small differences, and absolute values of large ones."""
    reduction = reduction_of(reduction, size_average, reduce)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    op = _huber(reduction, beta, beta) if beta else _l1(reduction)
    return _entrywise(op, (), input, target, reduction, None)


@full_precision
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None) -> Tensor:  # noqa: A002
    """Squares of differences below ``delta``, multiples of absolute values above."""
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    return _entrywise(_huber(reduction, delta, 1.0), ("huber", delta, 1.0), input, target, reduction, weight)


@full_precision
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,  # noqa: A002
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """The cross entropy of probabilities."""
    reduction = reduction_of(reduction, size_average, reduce)
    if input.shape != target.shape:
        raise ValueError(f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
                         "Please ensure they have the same size.")
    values = array_of(input)
    if not isinstance(values, Tracer) and not bool(np.all((np.asarray(values) >= 0) & (np.asarray(values) <= 1))):
        raise RuntimeError("all elements of input should be between 0 and 1\nthe largest is "
                           f"{values.max()}, the smallest {values.min()}; binary_cross_entropy_with_logits takes any number")
    return apply(_bce(reduction), (input, target, *(() if weight is None else (weight,))))


@full_precision
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,  # noqa: A002
                                     reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
    """The cross entropy of probabilities whose logits are given."""
    reduction = reduction_of(reduction, size_average, reduce)
    _same_shape(input, target, "binary_cross_entropy_with_logits")
    more = [x for x in (weight, pos_weight) if x is not None]
    return apply(_logits(reduction, weight is not None, pos_weight is not None), (input, target, *more))


@full_precision
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,  # noqa: A002
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Minus the logarithms of the probabilities of the classes."""
    reduction = reduction_of(reduction, size_average, reduce)
    _check_classes(input, target, ignore_index)
    return apply(_nll(reduction, ignore_index, 0.0), (input, target, *(() if weight is None else (weight,))))


@full_precision
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,  # noqa: A002
                  ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """The cross entropy of logits, with classes or probabilities as target."""
    reduction = reduction_of(reduction, size_average, reduce)
    dim = 1 if input.ndim > 1 else 0
    more = () if weight is None else (weight,)
    if jnp.issubdtype(array_of(target).dtype, jnp.floating) and (input.ndim < 2 or target.ndim == input.ndim):
        if target.shape != input.shape:
            raise RuntimeError(f"input and target shapes must match for probabilities: {list(input.shape)}, {list(target.shape)}")
        return apply(_soft(reduction, label_smoothing), (log_softmax(input, dim), target, *more))
    _check_classes(input, target, ignore_index)
    logs = log_softmax(input, dim)
    return apply(_nll(reduction, ignore_index, label_smoothing), (logs, target, *more))


@full_precision
def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",  # noqa: A002
           log_target: bool = False) -> Tensor:
    """The divergence of ``input``, logarithms of probabilities, from ``target``."""
    if array_of(input).dtype.kind in "biu" and array_of(target).dtype.kind in "biu":
        raise RuntimeError("kl_div: Integral inputs not supported.")
    reduction = reduction_of(reduction, size_average, reduce)
    if reduction == "mean":
        warnings.warn("reduction: 'mean' divides the total loss by both the batch size and the support size.'batchmean' divides only "
                      "by the batch size, and aligns with the KL div math definition.'mean' will be changed to behave the same as "
                      "'batchmean' in the next major release.", stacklevel=2)
    return apply(_kl(reduction, log_target), (input, target))
