"""Real problems, small enough to be differentiated in full by both engines in a second or two.

``scenario.py`` says what a scenario is, and how to add one; each other file has a family of them.
"""

from __future__ import annotations

from dualrev.problems import brusselator, collocation, fitting, linear, loops_to_convergence, lstm, mixture, network, stationarity
from dualrev.problems.scenario import Scenario as Scenario
from dualrev.problems.scenario import Scenarios

__all__ = ["PROBLEMS", "SCENARIOS", "Scenario"]

#: What ships.
SCENARIOS = Scenarios(linear.SCENARIOS, mixture.SCENARIOS, brusselator.SCENARIOS, network.SCENARIOS, lstm.SCENARIOS,
                      collocation.SCENARIOS, stationarity.SCENARIOS, fitting.SCENARIOS,
                      loops_to_convergence.SCENARIOS)
#: What ``python -m dualrev`` shows.
PROBLEMS = SCENARIOS.select("tour")
