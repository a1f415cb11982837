"""Losses of what a linear layer gives: the two as one function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dualrev.eager.core.annotations import DType
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.functions.linear import linear
from dualrev.eager.nn.functions.losses import cross_entropy


@dataclass
class LinearCrossEntropyOptions:
    """How PyTorch divides the work of :func:`linear_cross_entropy`: accepted, the numbers don't depend on it."""

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: Literal["accurate", "balanced", "compact", "auto"] = "auto"
    acc_dtype: DType | None = None


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,  # noqa: A002
                         weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: LinearCrossEntropyOptions | None = None) -> Tensor:
    """The cross entropy of a linear layer's results, ``cross_entropy(linear(input, linear_weight, linear_bias), target)``.

    Args:
      input: ``(in_features,)`` or ``(N, in_features)``.
      linear_weight: ``(classes, ..., in_features)``; further dimensions are those of a loss at several places.
      target: numbers of classes, or their probabilities.
      options: accepted for compatibility.

    Raises:
      RuntimeError: shapes do not match, or ``ignore_index`` is given for probabilities.

    >>> from dualrev import eager as torch
    >>> torch.nn.functional.linear_cross_entropy(torch.ones(1, 2), torch.zeros(3, 2), torch.tensor([1]))
    tensor(1.0986)
    """
    if input.ndim not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.ndim}")
    if linear_weight.ndim < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {linear_weight.ndim}")
    n = input.shape[-1]
    if n != linear_weight.shape[-1]:
        raise RuntimeError(f"expected equal input and linear_weight last dimensions (in_features), got {n} and "
                           f"{linear_weight.shape[-1]}, respectively")
    classes = tuple(linear_weight.shape[:-1])
    if linear_bias is not None and tuple(linear_bias.shape) != classes:
        raise RuntimeError(f"expected linear_bias shape {classes}, got {tuple(linear_bias.shape)}")
    if len(classes) > 1 and input.ndim == 1:
        raise RuntimeError(f"K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} requires batched input, "
                           f"(N, {n}), got unbatched input with shape {tuple(input.shape)}")
    shape = (*input.shape[:-1], *classes)
    if tuple(target.shape) == shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = linear(input, linear_weight.reshape(-1, n), bias).reshape(shape)
    return cross_entropy(logits, target, weight=weight, reduction=reduction, label_smoothing=label_smoothing,
                         ignore_index=-100 if ignore_index is None else ignore_index)
