"""Modules, layers and losses: ``torch.nn``.

May import: ``core``, ``graph`` and ``ops``.  Start reading at :mod:`dualrev.eager.nn.modules.module`, then ``modules/linear`` and
``functions/linear``: layers stand in ``modules``, and the functions that they call, those of ``torch.nn.functional``, in ``functions``.
"""

from __future__ import annotations

from dualrev.eager.nn import functional as functional
from dualrev.eager.nn import init as init
from dualrev.eager.nn import modules as modules
from dualrev.eager.nn import parameter as parameter
from dualrev.eager.nn import utils as utils
from dualrev.eager.nn.modules import LAYERS
from dualrev.eager.nn.modules.adaptive import *  # noqa: F403
from dualrev.eager.nn.modules.attention import *  # noqa: F403
from dualrev.eager.nn.modules.containers import *  # noqa: F403
from dualrev.eager.nn.modules.convolution import *  # noqa: F403
from dualrev.eager.nn.modules.dropout import *  # noqa: F403
from dualrev.eager.nn.modules.embeddings import *  # noqa: F403
from dualrev.eager.nn.modules.lazy import *  # noqa: F403
from dualrev.eager.nn.modules.linear import *  # noqa: F403
from dualrev.eager.nn.modules.linear_losses import *  # noqa: F403
from dualrev.eager.nn.modules.losses import *  # noqa: F403
from dualrev.eager.nn.modules.module import Module as Module
from dualrev.eager.nn.modules.module import factory_kwargs as factory_kwargs
from dualrev.eager.nn.modules.normalization import *  # noqa: F403
from dualrev.eager.nn.modules.padding import *  # noqa: F403
from dualrev.eager.nn.modules.parallel import *  # noqa: F403
from dualrev.eager.nn.modules.parameter_containers import *  # noqa: F403
from dualrev.eager.nn.modules.pooling import *  # noqa: F403
from dualrev.eager.nn.modules.recurrent import *  # noqa: F403
from dualrev.eager.nn.modules.recurrent_cells import *  # noqa: F403
from dualrev.eager.nn.modules.resizing import *  # noqa: F403
from dualrev.eager.nn.modules.stateless import *  # noqa: F403
from dualrev.eager.nn.modules.transformer import *  # noqa: F403
from dualrev.eager.nn.parameter import Buffer as Buffer
from dualrev.eager.nn.parameter import Parameter as Parameter
from dualrev.eager.nn.parameter import UninitializedBuffer as UninitializedBuffer
from dualrev.eager.nn.parameter import UninitializedParameter as UninitializedParameter

__all__ = ["Buffer", "Module", "Parameter", "UninitializedBuffer", "UninitializedParameter", "factory_kwargs", "functional", "init",
           "modules",
           "parameter", "utils", *LAYERS]
