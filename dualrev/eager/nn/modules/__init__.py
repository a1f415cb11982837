"""Layers, losses and containers: the classes of ``torch.nn``.

Imports ``nn.functional``, ``nn.init`` and below.  Start with ``module.py``, then ``linear.py``.
"""

from dualrev.eager.nn.modules import attention, containers, convolution, linear, losses, normalization, recurrent, stateless

#: The names of the layers.
LAYERS = [name for part in (attention, containers, convolution, linear, losses, normalization, recurrent, stateless)
          for name, x in vars(part).items() if isinstance(x, type) and x.__module__ == part.__name__ and name[0] != "_"]
