"""Modules, layers and losses: ``torch.nn``."""

from __future__ import annotations

from dualrev.eager.nn import functional as functional
from dualrev.eager.nn import init as init
from dualrev.eager.nn import utils as utils
from dualrev.eager.nn.modules import attention as _attention
from dualrev.eager.nn.modules import containers as _containers
from dualrev.eager.nn.modules import layers as _layers
from dualrev.eager.nn.modules import losses as _criteria
from dualrev.eager.nn.modules import normalization as _norms
from dualrev.eager.nn.modules import recurrent as _recurrent
from dualrev.eager.nn.modules import stateless as _plain
from dualrev.eager.nn.modules.attention import *  # noqa: F403
from dualrev.eager.nn.modules.containers import *  # noqa: F403
from dualrev.eager.nn.modules.layers import *  # noqa: F403
from dualrev.eager.nn.modules.losses import *  # noqa: F403
from dualrev.eager.nn.modules.module import Module as Module
from dualrev.eager.nn.modules.module import Parameter as Parameter
from dualrev.eager.nn.modules.normalization import *  # noqa: F403
from dualrev.eager.nn.modules.recurrent import *  # noqa: F403
from dualrev.eager.nn.modules.stateless import *  # noqa: F403

__all__ = ["Module", "Parameter", "functional", "init", "utils",
           *[name for part in (_attention, _containers, _criteria, _layers, _norms, _plain, _recurrent)
           for name, x in vars(part).items()
             if isinstance(x, type) and x.__module__ == part.__name__ and name[0] != "_"]]
