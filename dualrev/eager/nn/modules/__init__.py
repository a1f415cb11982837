"""Layers, losses and containers: the classes of ``torch.nn``.

May import: ``nn.functional``, ``nn.init``, ``nn.parameter``, and what these may.  Start reading at
:mod:`dualrev.eager.nn.modules.module`, then ``linear``.
"""

from dualrev.eager.nn.modules import (
    adaptive,
    attention,
    containers,
    convolution,
    dropout,
    embeddings,
    lazy,
    linear,
    losses,
    module,
    normalization,
    padding,
    parallel,
    parameter_containers,
    pooling,
    recurrent,
    recurrent_cells,
    resizing,
    stateless,
    transformer,
)

_PARTS = (adaptive, attention, containers, convolution, dropout, embeddings, lazy, linear, losses, normalization, padding, parallel,
          parameter_containers, pooling, recurrent, recurrent_cells, resizing, stateless, transformer)
_CLASSES = {name: x for part in _PARTS for name, x in vars(part).items()
            if isinstance(x, type) and x.__module__ == part.__name__ and name[0] != "_"}
#: The names of the layers.
LAYERS = list(_CLASSES)
globals().update(_CLASSES)
Module = module.Module
# The names that PyTorch gives to these modules.
activation, batchnorm, container, conv = attention, normalization, containers, convolution
loss, rnn, sparse = losses, recurrent, embeddings
