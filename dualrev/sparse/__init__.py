"""Sparse derivatives: patterns by propagation, colouring, compressed evaluation.

May import: ``functional`` but for its Jacobians, ``calls``, and what they may import.  Start reading at
:mod:`dualrev.sparse.derivatives`; patterns start at :mod:`dualrev.sparse.patterns`, colours at
:mod:`dualrev.sparse.colouring.greedy`.
"""

from dualrev.sparse.api import hessian as hessian
from dualrev.sparse.api import jacobian as jacobian
from dualrev.sparse.api import plan as plan
from dualrev.sparse.api import value_and_hessian as value_and_hessian
from dualrev.sparse.api import value_and_jacobian as value_and_jacobian
from dualrev.sparse.detection import PatternReport as PatternReport
from dualrev.sparse.detection import hessian_pattern as hessian_pattern
from dualrev.sparse.detection import jacobian_pattern as jacobian_pattern
from dualrev.sparse.detection import pattern_report as pattern_report
from dualrev.sparse.plans import Plan as Plan
from dualrev.sparse.plans import load as load

__all__ = [
    "PatternReport", "Plan", "hessian", "hessian_pattern", "jacobian", "jacobian_pattern",
    "load", "pattern_report", "plan", "value_and_hessian", "value_and_jacobian",
]
