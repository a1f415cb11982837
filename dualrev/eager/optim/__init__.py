"""Optimizers with PyTorch's numbers, and schedules of their rates: ``torch.optim``.

May import: ``core`` and ``graph``.  Start reading at :mod:`dualrev.eager.optim.optimizer`: an optimizer defines the update of one
parameter, and one compiled program updates all; then ``algorithms``, which has the updates.
"""

from dualrev.eager.optim import lr_scheduler as lr_scheduler
from dualrev.eager.optim.algorithms import SGD as SGD
from dualrev.eager.optim.algorithms import Adagrad as Adagrad
from dualrev.eager.optim.algorithms import Adam as Adam
from dualrev.eager.optim.algorithms import AdamW as AdamW
from dualrev.eager.optim.algorithms import RMSprop as RMSprop
from dualrev.eager.optim.optimizer import Optimizer as Optimizer

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
