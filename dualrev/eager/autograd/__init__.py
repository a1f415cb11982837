"""Derivatives of recorded operations: ``torch.autograd``."""

from __future__ import annotations

from dualrev.eager.backward import backward as backward
from dualrev.eager.backward import grad as grad
from dualrev.eager.tensor import Tensor as Variable

__all__ = ["Variable", "backward", "grad"]
