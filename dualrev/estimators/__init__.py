"""``dr.estimators``: unbiased estimates of derivatives that cost less than the derivatives, from random directions and random entries.

Each takes a function, and returns a function of a random key and of the function's arguments.
May import: ``functional`` and what is below.  Start reading at ``directions.py``.
"""

from dualrev.estimators.curvature import curvature_propagation
from dualrev.estimators.first_order import forward_gradient
from dualrev.estimators.randomized import randomized_vjp
from dualrev.estimators.second_order import hutchinson, stde
from dualrev.estimators.stochastic_checkpoints import stochastic_checkpoint

__all__ = ["curvature_propagation", "forward_gradient", "hutchinson", "randomized_vjp", "stde", "stochastic_checkpoint"]
