"""A softmax over many classes, of which rare ones stand in clusters."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.containers import ModuleList, Sequential
from dualrev.eager.nn.modules.linear import Linear
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.ops.creation import zeros
from dualrev.eager.ops.joining import cat
from dualrev.eager.ops.ternary import where

__all__ = ["AdaptiveLogSoftmaxWithLoss"]

_ASMoutput = namedtuple("_ASMoutput", ["output", "loss"])


class AdaptiveLogSoftmaxWithLoss(Module):
    """The logarithm of a softmax by a head, of frequent classes and clusters, and a tail for each cluster.

    Source: [GraveEtAl2017].
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0, head_bias: bool = False,
                 device: Device | None = None, dtype: DType | None = None):
        super().__init__()
        bounds = list(cutoffs)
        if not bounds:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if bounds != sorted(bounds) or min(bounds) <= 0 or max(bounds) > n_classes - 1 or len({*bounds}) != len(bounds) or any(
                int(c) != c for c in bounds):
            raise ValueError("cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where each "
                             "value is between 1 and n_classes-1")
        self.in_features, self.n_classes, self.div_value, self.head_bias = in_features, n_classes, div_value, head_bias
        self.cutoffs = [*bounds, n_classes]
        self.shortlist_size, self.n_clusters = bounds[0], len(bounds)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, dtype=dtype)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            hidden = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(Sequential(Linear(in_features, hidden, bias=False, dtype=dtype),
                                        Linear(hidden, size, bias=False, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        self.head.reset_parameters()
        for module in self.tail.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def log_prob(self, input: Tensor) -> Tensor:  # noqa: A002
        """The logarithms of the probabilities of all classes."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            parts.append(F.log_softmax(cluster(input), 1) + head[:, self.shortlist_size + i].unsqueeze(1))
        return cat(parts, 1).to(input.dtype)

    def predict(self, input: Tensor) -> Tensor:  # noqa: A002
        """The most probable class of each example."""
        return self.log_prob(input).argmax(1)

    def forward(self, input: Tensor, target: Tensor) -> _ASMoutput:  # noqa: A002
        if target.ndim == 0:
            if input.ndim != 1:
                raise RuntimeError("0D target tensor should be paired with 1D input tensor")
            output, loss = self.forward(input.unsqueeze(0), target.unsqueeze(0))
            return _ASMoutput(output.squeeze(0), loss)
        if target.ndim != 1 or input.ndim != 2:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if input.shape[0] != target.shape[0]:
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        if bool(((target < 0) | (target >= self.n_classes)).any()):
            raise RuntimeError(f"Target values should be in [0, {self.n_classes - 1}], but values in range [{target.min().item()}, "
                               f"{target.max().item()}] were found. ")
        head = F.log_softmax(self.head(input), 1)
        choose: Any = where
        place, inside = choose(target < self.shortlist_size, target, 0), zeros(target.shape[0], dtype=head.dtype)
        for i, cluster in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            mine = (target >= low) & (target < high)
            place = choose(mine, self.shortlist_size + i, place)
            logs = F.log_softmax(cluster(input), 1)
            found = logs.gather(1, choose(mine, target - low, 0).unsqueeze(1)).squeeze(1)
            inside = inside + choose(mine, found, 0.0)
        output = head.gather(1, place.unsqueeze(1)).squeeze(1) + inside
        return _ASMoutput(output, (-output).mean())
