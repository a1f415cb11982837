"""The whole list of scenarios: programs to differentiate, each stated once, for tests, benchmarks and figures.

``dualrev/problems/scenario.py`` says what a scenario is, and how to add one.  A file here is a family: its functions, what makes a
scenario of them at any size, and a list of those that are run.  ``networks`` and ``science`` are written in an array namespace
(``namespaces``), so that other libraries can run them; the others use what only jax has.  ``loops_ode``, ``loops_series``,
``loops_by_counter``, ``fields``, ``straight`` and ``held_out`` are written as users write them, and ``python -m benchmarks.corpus``
measures them.

>>> from benchmarks.scenarios import SCENARIOS
>>> SCENARIOS["LSTM scan"].tags
('tour', 'correctness', 'compiled')
>>> [scenario.name for scenario in SCENARIOS.select("residuals")]
['3-layer transformer block', 'dense network', 'ten sines of a million numbers']
"""

from __future__ import annotations

from benchmarks.scenarios import (
    fields,
    gradbench,
    held_out,
    in_jax,
    loops_by_counter,
    loops_ode,
    loops_series,
    networks,
    science,
    straight,
)
from dualrev import problems
from dualrev.problems.scenario import Scenarios

SCENARIOS = Scenarios(problems.SCENARIOS, networks.SCENARIOS, science.SCENARIOS, in_jax.SCENARIOS, gradbench.SCENARIOS,
                      loops_ode.SCENARIOS, loops_series.SCENARIOS, loops_by_counter.SCENARIOS, fields.SCENARIOS,
                      straight.SCENARIOS, held_out.SCENARIOS)
