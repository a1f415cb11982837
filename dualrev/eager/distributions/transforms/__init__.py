"""Invertible functions of random variables: ``torch.distributions.transforms``.

May import: ``distributions.constraints`` and what ``distributions`` may import.  Start reading at
:mod:`dualrev.eager.distributions.transforms.base`.
"""

from dualrev.eager.distributions.transforms.base import Transform as Transform
from dualrev.eager.distributions.transforms.combined import ComposeTransform as ComposeTransform
from dualrev.eager.distributions.transforms.combined import IndependentTransform as IndependentTransform
from dualrev.eager.distributions.transforms.combined import ReshapeTransform as ReshapeTransform
from dualrev.eager.distributions.transforms.entrywise import AbsTransform as AbsTransform
from dualrev.eager.distributions.transforms.entrywise import AffineTransform as AffineTransform
from dualrev.eager.distributions.transforms.entrywise import CumulativeDistributionTransform as CumulativeDistributionTransform
from dualrev.eager.distributions.transforms.entrywise import ExpTransform as ExpTransform
from dualrev.eager.distributions.transforms.entrywise import PowerTransform as PowerTransform
from dualrev.eager.distributions.transforms.entrywise import SigmoidTransform as SigmoidTransform
from dualrev.eager.distributions.transforms.entrywise import SoftplusTransform as SoftplusTransform
from dualrev.eager.distributions.transforms.entrywise import TanhTransform as TanhTransform
from dualrev.eager.distributions.transforms.vectors import CatTransform as CatTransform
from dualrev.eager.distributions.transforms.vectors import CorrCholeskyTransform as CorrCholeskyTransform
from dualrev.eager.distributions.transforms.vectors import LowerCholeskyTransform as LowerCholeskyTransform
from dualrev.eager.distributions.transforms.vectors import PositiveDefiniteTransform as PositiveDefiniteTransform
from dualrev.eager.distributions.transforms.vectors import SoftmaxTransform as SoftmaxTransform
from dualrev.eager.distributions.transforms.vectors import StackTransform as StackTransform
from dualrev.eager.distributions.transforms.vectors import StickBreakingTransform as StickBreakingTransform

identity_transform = ComposeTransform([])

__all__ = ["AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform", "CorrCholeskyTransform",
           "CumulativeDistributionTransform", "ExpTransform",
           "IndependentTransform", "LowerCholeskyTransform", "PositiveDefiniteTransform", "PowerTransform", "ReshapeTransform",
           "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StackTransform", "StickBreakingTransform", "TanhTransform",
           "Transform", "identity_transform"]
