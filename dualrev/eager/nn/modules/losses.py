"""Losses as modules."""

from __future__ import annotations

from typing import Any

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.module import Module

# ------------------------------------------------------------------------------------------------------------------ losses

class _Loss(Module):
    function = ""

    def __init__(self, reduction: str = "mean", **settings: Any):
        super().__init__()
        if reduction not in ("mean", "sum", "none", "batchmean"):
            raise ValueError(f"{reduction} is not a valid value for reduction")
        self.settings = {"reduction": reduction, **{k: v for k, v in settings.items() if not isinstance(v, Tensor)}}
        for name, value in settings.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        return getattr(F, self.function)(input, target, **self.settings, **self._buffers)


def _loss(class_name: str, function: str, *names: str) -> Any:
    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(names, args, strict=False)) | kwargs
        for name in given:
            if name not in (*names, "reduction"):
                raise TypeError(f"{class_name}.__init__() got an unexpected keyword argument '{name}'")
        _Loss.__init__(self, **{k: v for k, v in given.items() if v is not None})

    return type(class_name, (_Loss,), {"function": function, "__init__": start, "__module__": __name__,
                                       "__doc__": f"``functional.{function}`` as a module."})


MSELoss = _loss("MSELoss", "mse_loss")
L1Loss = _loss("L1Loss", "l1_loss")
SmoothL1Loss = _loss("SmoothL1Loss", "smooth_l1_loss", "beta")
HuberLoss = _loss("HuberLoss", "huber_loss", "delta")
CrossEntropyLoss = _loss("CrossEntropyLoss", "cross_entropy", "weight", "ignore_index", "label_smoothing")
NLLLoss = _loss("NLLLoss", "nll_loss", "weight", "ignore_index")
BCELoss = _loss("BCELoss", "binary_cross_entropy")
BCEWithLogitsLoss = _loss("BCEWithLogitsLoss", "binary_cross_entropy_with_logits", "weight", "pos_weight")
KLDivLoss = _loss("KLDivLoss", "kl_div", "log_target")
