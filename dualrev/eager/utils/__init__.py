"""Datasets and checkpointing: ``torch.utils``.

May import: ``core``, ``graph``, ``ops`` and ``autograd``.  Start reading at :mod:`dualrev.eager.utils.data`.
"""

from dualrev.eager.utils import checkpoint as checkpoint
from dualrev.eager.utils import data as data
