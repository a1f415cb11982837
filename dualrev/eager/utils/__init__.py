"""Datasets and checkpointing: ``torch.utils``.

Imports ``core``, ``graph``, ``ops`` and ``autograd``.  Start with ``data.py``.
"""

from dualrev.eager.utils import checkpoint as checkpoint
from dualrev.eager.utils import data as data
