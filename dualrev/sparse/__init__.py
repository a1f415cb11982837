"""Sparse derivatives: patterns by propagation, colouring, compressed evaluation.

May import: ``functional``, ``calls`` and what they may import.  Start reading at :mod:`dualrev.sparse.patterns`, then
:mod:`dualrev.sparse.graph`.
"""

from dualrev.sparse.detection import PatternReport as PatternReport
from dualrev.sparse.detection import hessian_pattern as hessian_pattern
from dualrev.sparse.detection import jacobian_pattern as jacobian_pattern
from dualrev.sparse.detection import pattern_report as pattern_report
