"""Optimizers with PyTorch's numbers, and schedules of their rates: ``torch.optim``.

May import: ``core``, ``graph``, ``ops`` and, in ``swa_utils``, ``nn``.  Start reading at :mod:`dualrev.eager.optim.optimizer`: an
optimizer defines the update of one parameter, and one compiled program updates all; then ``algorithms``, which has the updates.
"""

from dualrev.eager.optim import lr_scheduler as lr_scheduler
from dualrev.eager.optim import swa_utils as swa_utils
from dualrev.eager.optim.adam_variants import Adamax as Adamax
from dualrev.eager.optim.adam_variants import NAdam as NAdam
from dualrev.eager.optim.adam_variants import RAdam as RAdam
from dualrev.eager.optim.algorithms import SGD as SGD
from dualrev.eager.optim.algorithms import Adagrad as Adagrad
from dualrev.eager.optim.algorithms import Adam as Adam
from dualrev.eager.optim.algorithms import AdamW as AdamW
from dualrev.eager.optim.algorithms import RMSprop as RMSprop
from dualrev.eager.optim.lbfgs import LBFGS as LBFGS
from dualrev.eager.optim.matrices import Adafactor as Adafactor
from dualrev.eager.optim.matrices import Muon as Muon
from dualrev.eager.optim.optimizer import Optimizer as Optimizer
from dualrev.eager.optim.sign_and_average import ASGD as ASGD
from dualrev.eager.optim.sign_and_average import Adadelta as Adadelta
from dualrev.eager.optim.sign_and_average import Rprop as Rprop

__all__ = ["ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "Optimizer", "RAdam",
           "RMSprop", "Rprop", "lr_scheduler", "swa_utils"]
