"""Layers, losses and containers: the classes of ``torch.nn``.

May import: ``nn.functional``, ``nn.init``, ``nn.parameter``, and what these may.  Start reading at
:mod:`dualrev.eager.nn.modules.module`, then ``linear``.
"""

from dualrev.eager.nn.modules import attention, containers, convolution, linear, losses, normalization, recurrent, stateless

#: The names of the layers.
LAYERS = [name for part in (attention, containers, convolution, linear, losses, normalization, recurrent, stateless)
          for name, x in vars(part).items() if isinstance(x, type) and x.__module__ == part.__name__ and name[0] != "_"]
