"""What is measured: parts of the list of scenarios, each chosen by what it is for.

``PROGRAMS`` is measured with every library.  Most of it is portable, that is, a function of an array namespace; GradBench's problems
and the Brusselator are in jax, and other libraries leave them out.  The lists below are those of dualrev's own figures.
"""

from __future__ import annotations

from benchmarks.scenarios import SCENARIOS, science
from dualrev.problems.scenario import Scenario

# ------------------------------------------------------------------------------------------------------- every library

PROGRAMS = SCENARIOS.select("libraries")
#: Functions of one array, small enough for all their second derivatives.
HESSIANS = SCENARIOS.select("hessian")
#: Functions of one array to another.
JACOBIANS = SCENARIOS.select("jacobian")

SIZES = tuple(2**k for k in range(4, 17, 3))


def growing(n: int) -> Scenario:
    """A program of n inputs: its gradient should cost as many times the function, whatever n is."""
    return science.rosenbrock(n)


#: Chains of so many operations on a number.
OPERATIONS = tuple(2**k for k in range(3, 10, 3))

# ------------------------------------------------------------------------------------------------- dualrev's own figures

COMPILED = SCENARIOS.select("compiled")
LOOPS = SCENARIOS.select("loops")
WHILE = SCENARIOS.select("while")
SECOND_ORDER = SCENARIOS.select("second order")
RESIDUALS = SCENARIOS.select("residuals")
#: Programs as users write them, whose gradients are measured over jax's and over their own function.
CORPUS = tuple(program for tag in ("tuning", "Runge-Kutta", "straight") for program in SCENARIOS.select(tag))
#: Programs whose gradients the guard counts.
GUARDED = PROGRAMS + SCENARIOS.select("guarded")
TRACED = SCENARIOS.select("tracing")
EAGER = SCENARIOS.select("un-jitted")
