"""``torch.func``: functions of tensors as functions of arrays, their derivatives, and modules as pure functions.

May import: ``nn`` and all below it, and ``dualrev.functional``.  Start reading at :mod:`dualrev.eager.func.arrays`.
"""

from __future__ import annotations

from dualrev.eager.func.arrays import lower as lower
from dualrev.eager.func.examples import vmap as vmap
from dualrev.eager.func.modules import functional_call as functional_call
from dualrev.eager.func.modules import replace_all_batch_norm_modules_ as replace_all_batch_norm_modules_
from dualrev.eager.func.modules import stack_module_state as stack_module_state
from dualrev.eager.func.patterns import rearrange as rearrange
from dualrev.eager.func.transforms import functionalize as functionalize
from dualrev.eager.func.transforms import grad as grad
from dualrev.eager.func.transforms import grad_and_value as grad_and_value
from dualrev.eager.func.transforms import hessian as hessian
from dualrev.eager.func.transforms import jacfwd as jacfwd
from dualrev.eager.func.transforms import jacrev as jacrev
from dualrev.eager.func.transforms import jvp as jvp
from dualrev.eager.func.transforms import linearize as linearize
from dualrev.eager.func.transforms import vjp as vjp
