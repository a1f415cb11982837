"""Modules, layers and losses: ``torch.nn``."""

from __future__ import annotations

from dualrev.eager.nn import containers as _containers
from dualrev.eager.nn import criteria as _criteria
from dualrev.eager.nn import functional as functional
from dualrev.eager.nn import init as init
from dualrev.eager.nn import layers as _layers
from dualrev.eager.nn.containers import *  # noqa: F403
from dualrev.eager.nn.criteria import *  # noqa: F403
from dualrev.eager.nn.layers import *  # noqa: F403
from dualrev.eager.nn.module import Module as Module
from dualrev.eager.nn.module import Parameter as Parameter

__all__ = ["Module", "Parameter", "functional", "init",
           *[name for part in (_containers, _criteria, _layers) for name, x in vars(part).items()
             if isinstance(x, type) and x.__module__ == part.__name__ and name[0] != "_"]]
