"""Derivatives of recorded operations: ``torch.autograd``.

May import: ``core``, ``graph``, ``ops`` and ``compiled``.  Start reading at :mod:`dualrev.eager.autograd.gradients`: ``backward`` and
``grad`` run a backward pass; then ``function``: operations with a backward of the user's.
"""

from __future__ import annotations

from dualrev.eager.autograd import forward_ad as forward_ad
from dualrev.eager.autograd import functional as functional
from dualrev.eager.autograd import graph as graph
from dualrev.eager.autograd.checking import GradcheckError as GradcheckError
from dualrev.eager.autograd.checking import gradcheck as gradcheck
from dualrev.eager.autograd.checking import gradgradcheck as gradgradcheck
from dualrev.eager.autograd.function import Function as Function
from dualrev.eager.autograd.function import once_differentiable as once_differentiable
from dualrev.eager.autograd.gradients import backward as backward
from dualrev.eager.autograd.gradients import grad as grad
from dualrev.eager.autograd.graph import detect_anomaly as detect_anomaly
from dualrev.eager.autograd.graph import set_detect_anomaly as set_detect_anomaly
from dualrev.eager.core.modes import enable_grad as enable_grad
from dualrev.eager.core.modes import inference_mode as inference_mode
from dualrev.eager.core.modes import no_grad as no_grad
from dualrev.eager.core.modes import set_grad_enabled as set_grad_enabled
from dualrev.eager.core.modes import set_multithreading_enabled as set_multithreading_enabled
from dualrev.eager.graph.tensor import Tensor as Variable

__all__ = ["Function", "GradcheckError", "Variable", "backward", "detect_anomaly", "enable_grad", "forward_ad", "functional", "grad",
           "gradcheck", "gradgradcheck", "graph", "inference_mode", "no_grad", "once_differentiable", "set_detect_anomaly",
           "set_grad_enabled", "set_multithreading_enabled"]
