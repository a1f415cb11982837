"""Forward- and reverse-mode automatic differentiation on one table of rules, for any JAX function."""

from dualrev import errors, estimators, policies, sparse, testing, time_model
from dualrev.calls import families as _families  # noqa: F401  (fills the table)
from dualrev.engines.elimination.orders import Search
from dualrev.functional.api import jvp, linear_transpose, linearize, vjp
from dualrev.functional.checkpointing import checkpoint
from dualrev.functional.eliminated import eliminate
from dualrev.functional.gradients import grad, hvp, value_and_grad
from dualrev.functional.implicit import implicit
from dualrev.functional.jacobians import hessian, jacfwd, jacobian, jacrev
from dualrev.functional.laplacians import biharmonic, hessian_diagonal, laplacian, weighted_laplacian
from dualrev.functional.regions import region
from dualrev.functional.series import derivatives, jet, taylor
from dualrev.functional.user_rules import rule
from dualrev.inspection.checking import CheckReport, check
from dualrev.inspection.drawing.api import draw
from dualrev.inspection.explanation import explain
from dualrev.inspection.finiteness.finite import finite
from dualrev.inspection.finiteness.where_nan import where_nan
from dualrev.inspection.taps import cotangents
from dualrev.inspection.taps.api import Tap, taps
from dualrev.inspection.taps.intercepting import intercept
from dualrev.inspection.taps.marks import tap
from dualrev.inspection.timeline.api import timeline
from dualrev.installed.replacing import install, installed, uninstall
from dualrev.options.schedules import Bytes, Revolve

__all__ = [
    "Bytes",
    "CheckReport",
    "Revolve",
    "Search",
    "Tap",
    "biharmonic",
    "check",
    "checkpoint",
    "cotangents",
    "derivatives",
    "draw",
    "eliminate",
    "errors",
    "estimators",
    "explain",
    "finite",
    "grad",
    "hessian",
    "hessian_diagonal",
    "hvp",
    "implicit",
    "install",
    "installed",
    "intercept",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jet",
    "jvp",
    "laplacian",
    "linear_transpose",
    "linearize",
    "policies",
    "region",
    "rule",
    "sparse",
    "tap",
    "taps",
    "taylor",
    "testing",
    "time_model",
    "timeline",
    "uninstall",
    "value_and_grad",
    "vjp",
    "weighted_laplacian",
    "where_nan",
]
__version__ = "0.2.0"
