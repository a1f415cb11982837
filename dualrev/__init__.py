"""Forward- and reverse-mode automatic differentiation on one table of rules, for any JAX function."""

from dualrev import errors, policies, testing
from dualrev.api import jvp, linear_transpose, linearize, vjp
from dualrev.checkpointing import checkpoint
from dualrev.custom import rule
from dualrev.gradients import grad, hessian, hvp, jacfwd, jacobian, jacrev, value_and_grad
from dualrev.installing import install, installed, uninstall
from dualrev.regions import region
from dualrev.roots import implicit
from dualrev.rules import families as _families  # noqa: F401  (fills the table)
from dualrev.schedules import Bytes, Revolve

__all__ = [
    "Bytes",
    "Revolve",
    "checkpoint",
    "errors",
    "grad",
    "hessian",
    "hvp",
    "implicit",
    "install",
    "installed",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linear_transpose",
    "linearize",
    "policies",
    "region",
    "rule",
    "testing",
    "uninstall",
    "value_and_grad",
    "vjp",
]
__version__ = "0.1.0"
