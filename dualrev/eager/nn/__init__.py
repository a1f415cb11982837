"""Modules, layers and losses: ``torch.nn``.

May import: ``core``, ``graph`` and ``ops``.  Start reading at :mod:`dualrev.eager.nn.modules.module`, then ``modules/linear`` and
``functions/linear``: layers stand in ``modules``, and the functions that they call, those of ``torch.nn.functional``, in ``functions``.
"""

from __future__ import annotations

from dualrev.eager.nn import functional as functional
from dualrev.eager.nn import init as init
from dualrev.eager.nn import utils as utils
from dualrev.eager.nn.modules import LAYERS
from dualrev.eager.nn.modules.attention import *  # noqa: F403
from dualrev.eager.nn.modules.containers import *  # noqa: F403
from dualrev.eager.nn.modules.convolution import *  # noqa: F403
from dualrev.eager.nn.modules.linear import *  # noqa: F403
from dualrev.eager.nn.modules.losses import *  # noqa: F403
from dualrev.eager.nn.modules.module import Module as Module
from dualrev.eager.nn.modules.normalization import *  # noqa: F403
from dualrev.eager.nn.modules.recurrent import *  # noqa: F403
from dualrev.eager.nn.modules.stateless import *  # noqa: F403
from dualrev.eager.nn.parameter import Buffer as Buffer
from dualrev.eager.nn.parameter import Parameter as Parameter

__all__ = ["Buffer", "Module", "Parameter", "functional", "init", "utils", *LAYERS]
