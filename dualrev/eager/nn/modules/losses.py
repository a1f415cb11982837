"""Losses as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.functions.reducing import reduction_of
from dualrev.eager.nn.modules.module import Module

_OLDER = ("size_average", "reduce")
#: The settings that are tensors, and buffers of the module.
_TENSORS = ("weight", "pos_weight")


class _Loss(Module):
    """Base class of losses: the arguments of a function of ``nn.functional``, in PyTorch's order, as attributes."""

    function = ""
    arguments: ClassVar[dict[str, Any]] = {"size_average": None, "reduce": None, "reduction": "mean"}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        if len(args) > len(self.arguments):
            raise TypeError(f"{type(self).__name__}.__init__() takes from 1 to {len(self.arguments) + 1} positional arguments but "
                            f"{len(args) + 1} were given")
        for name in kwargs:
            if name not in self.arguments:
                raise TypeError(f"_Loss.__init__() got an unexpected keyword argument '{name}'")
        given = {**self.arguments, **dict(zip(self.arguments, args, strict=False)), **kwargs}
        self.reduction = reduction_of(given.pop("reduction"), given.pop("size_average", None), given.pop("reduce", None))
        for name, value in given.items():
            if name in _TENSORS:
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *tensors: Any, **named: Any) -> Tensor:
        settings = {name: getattr(self, name) for name in self.arguments if name not in _OLDER}
        return getattr(F, self.function)(*tensors, **named, **settings)


def _loss(class_name: str, function: str, before: dict[str, Any] | None = None, between: dict[str, Any] | None = None,
          after: dict[str, Any] | None = None) -> type[_Loss]:
    """A loss with settings before, between and after the two older arguments."""
    arguments = {**(before or {}), "size_average": None, **(between or {}), "reduce": None, "reduction": "mean", **(after or {})}
    return type(class_name, (_Loss,), {"function": function, "arguments": arguments, "__module__": __name__,
                                       "__doc__": f"``functional.{function}`` as a module."})


def _newer(class_name: str, function: str, **arguments: Any) -> type[_Loss]:
    """A loss without the older arguments."""
    return type(class_name, (_Loss,), {"function": function, "arguments": arguments, "__module__": __name__,
                                       "__doc__": f"``functional.{function}`` as a module."})


MSELoss = _loss("MSELoss", "mse_loss")
L1Loss = _loss("L1Loss", "l1_loss")
SmoothL1Loss = _loss("SmoothL1Loss", "smooth_l1_loss", after={"beta": 1.0})
HuberLoss = _newer("HuberLoss", "huber_loss", reduction="mean", delta=1.0)
CrossEntropyLoss = _loss("CrossEntropyLoss", "cross_entropy", {"weight": None}, {"ignore_index": -100}, {"label_smoothing": 0.0})
NLLLoss = _loss("NLLLoss", "nll_loss", {"weight": None}, {"ignore_index": -100})
BCELoss = _loss("BCELoss", "binary_cross_entropy", {"weight": None})
BCEWithLogitsLoss = _loss("BCEWithLogitsLoss", "binary_cross_entropy_with_logits", {"weight": None}, after={"pos_weight": None})
KLDivLoss = _loss("KLDivLoss", "kl_div", after={"log_target": False})
MarginRankingLoss = _loss("MarginRankingLoss", "margin_ranking_loss", {"margin": 0.0})
HingeEmbeddingLoss = _loss("HingeEmbeddingLoss", "hinge_embedding_loss", {"margin": 1.0})
CosineEmbeddingLoss = _loss("CosineEmbeddingLoss", "cosine_embedding_loss", {"margin": 0.0})
PoissonNLLLoss = _loss("PoissonNLLLoss", "poisson_nll_loss", {"log_input": True, "full": False}, {"eps": 1e-8})
SoftMarginLoss = _loss("SoftMarginLoss", "soft_margin_loss")
MultiLabelMarginLoss = _loss("MultiLabelMarginLoss", "multilabel_margin_loss")
MultiLabelSoftMarginLoss = _loss("MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss", {"weight": None})
MultiMarginLoss = _loss("MultiMarginLoss", "multi_margin_loss", {"p": 1, "margin": 1.0, "weight": None})
CTCLoss = _newer("CTCLoss", "ctc_loss", blank=0, reduction="mean", zero_infinity=False)


class TripletMarginLoss(_Loss):
    """``functional.triplet_margin_loss`` as a module."""

    function = "triplet_margin_loss"
    arguments: ClassVar[dict[str, Any]] = {"margin": 1.0, "p": 2.0, "eps": 1e-6, "swap": False, **_Loss.arguments}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.margin <= 0:
            raise ValueError(f"TripletMarginLoss: expected margin to be greater than 0, got {self.margin} instead")


class TripletMarginWithDistanceLoss(_Loss):
    """``functional.triplet_margin_with_distance_loss`` as a module."""

    function = "triplet_margin_with_distance_loss"
    arguments: ClassVar[dict[str, Any]] = {"distance_function": None, "margin": 1.0, "swap": False, "reduction": "mean"}

    def __init__(self, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0, swap: bool = False,
                 reduction: str = "mean"):
        if margin <= 0:
            raise ValueError(f"TripletMarginWithDistanceLoss: expected margin to be greater than 0, got {margin} instead")
        distance = F.pairwise_distance if distance_function is None else distance_function
        super().__init__(distance, margin, swap, reduction)


class GaussianNLLLoss(_Loss):
    """``functional.gaussian_nll_loss`` as a module: ``loss(input, target, var)``."""

    function = "gaussian_nll_loss"
    arguments: ClassVar[dict[str, Any]] = {"full": False, "eps": 1e-6, "reduction": "mean"}

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(full, eps, reduction)
