"""``torch.utils``."""

from dualrev.eager.utils import checkpoint as checkpoint
