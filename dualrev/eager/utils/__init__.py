"""``torch.utils``."""

from dualrev.eager.utils import checkpoint as checkpoint
from dualrev.eager.utils import data as data
