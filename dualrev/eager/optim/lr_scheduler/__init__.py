"""Schedules of learning rates with PyTorch's numbers: ``torch.optim.lr_scheduler``.

May import: ``optim.optimizer`` and what ``optim`` may import.  Start reading at ``base``; ``factors`` has schedules that multiply the
rate, ``cycles`` those that go up and down, ``combined`` those that run others, and ``plateau`` the one that looks at a loss.
"""

from dualrev.eager.optim.lr_scheduler.base import LRScheduler as LRScheduler
from dualrev.eager.optim.lr_scheduler.combined import ChainedScheduler as ChainedScheduler
from dualrev.eager.optim.lr_scheduler.combined import SequentialLR as SequentialLR
from dualrev.eager.optim.lr_scheduler.cycles import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from dualrev.eager.optim.lr_scheduler.cycles import CyclicLR as CyclicLR
from dualrev.eager.optim.lr_scheduler.cycles import OneCycleLR as OneCycleLR
from dualrev.eager.optim.lr_scheduler.factors import ConstantLR as ConstantLR
from dualrev.eager.optim.lr_scheduler.factors import CosineAnnealingLR as CosineAnnealingLR
from dualrev.eager.optim.lr_scheduler.factors import ExponentialLR as ExponentialLR
from dualrev.eager.optim.lr_scheduler.factors import LambdaLR as LambdaLR
from dualrev.eager.optim.lr_scheduler.factors import LinearLR as LinearLR
from dualrev.eager.optim.lr_scheduler.factors import MultiplicativeLR as MultiplicativeLR
from dualrev.eager.optim.lr_scheduler.factors import MultiStepLR as MultiStepLR
from dualrev.eager.optim.lr_scheduler.factors import PolynomialLR as PolynomialLR
from dualrev.eager.optim.lr_scheduler.factors import StepLR as StepLR
from dualrev.eager.optim.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau

#: The name that older programs derive their own schedules from.
_LRScheduler = LRScheduler

__all__ = ["ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR",
           "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau",
           "SequentialLR", "StepLR"]
