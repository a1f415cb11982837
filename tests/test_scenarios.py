"""The list of scenarios: each is what it says, and the small ones are differentiated as jax does.

``python -m benchmarks.compare`` and the figures differentiate the others, and compare them before they are timed.
"""

from __future__ import annotations

import doctest
from typing import Any

import jax
import numpy as np
import pytest
import scenarios_gradients
import scenarios_products
from agreement import check
from jax.extend.core import jaxprs_in_params

from benchmarks import scenarios
from benchmarks.scenarios import SCENARIOS
from dualrev.problems.scenario import TAGS, Scenario, Scenarios, alone

pytestmark = pytest.mark.promotes  # programs of an array namespace add a bias as NumPy does

FACE = [*scenarios_products.SCENARIOS, *scenarios_gradients.SCENARIOS]
EVALUATED = [scenario for scenario in SCENARIOS if scenario.program is not None]
#: What is measured and nothing else has a small copy with the tag "correctness", which says in a second what it says in a minute.
MEASURED = {"tuning", "held out", "Runge-Kutta", "straight", "guards", "guarded"}
BY_SIZE = [pytest.param(scenario, id=scenario.name, marks=[pytest.mark.thorough] if set(scenario.tags) <= MEASURED else [])
           for scenario in EVALUATED]


def name_of(scenario: Scenario) -> str:
    return scenario.name


def count(arrays: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(arrays))


def longest_scan(jaxpr: Any) -> int:
    lengths = [0]
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            lengths.append(equation.params["length"])
        lengths += [longest_scan(inside) for inside in jaxprs_in_params(equation.params)]
    return max(lengths)


def test_names_are_unique() -> None:
    found = Scenarios(SCENARIOS, FACE)
    assert len(found) == len(SCENARIOS) + len(FACE)
    with pytest.raises(ValueError, match="two scenarios of the name 'LSTM scan'"):
        Scenarios(SCENARIOS, [SCENARIOS["LSTM scan"]])


def test_every_tag_is_said_and_used() -> None:
    for_something = [set(scenario.tags) for scenario in (*SCENARIOS, *FACE)]
    assert all(for_something)
    assert set.union(*for_something) == set(TAGS) - {"random"}
    with pytest.raises(ValueError, match="no tag quick"):
        Scenario("square", np.square, alone(lambda: np.ones(3)), tags=("quick",))
    with pytest.raises(ValueError, match="no tag quick"):
        SCENARIOS.select("tour", "quick")


def test_scenarios_are_selected_by_all_of_the_tags() -> None:
    assert [name_of(scenario) for scenario in SCENARIOS.select("un-jitted", "correctness")] == [
        "scalar function of 10 operations", "two-layer network, 64 wide, batch 32"]


def test_examples() -> None:
    assert doctest.testmod(scenarios).failed == 0


@pytest.mark.parametrize("scenario", BY_SIZE)
def test_sizes_are_true(scenario: Scenario) -> None:
    inputs = scenario.draw()[0]
    traced, out = jax.make_jaxpr(scenario.function, return_shape=True)(inputs)
    if scenario.derivative is None:
        assert (scenario.inputs, scenario.outputs, scenario.steps) == (count(inputs), count(out), longest_scan(traced.jaxpr))
    else:
        assert (scenario.inputs, scenario.outputs) == (None, None)


@pytest.mark.parametrize("scenario", list(SCENARIOS), ids=name_of)
def test_draws_are_the_same_each_time(scenario: Scenario) -> None:
    assert jax.tree.all(jax.tree.map(np.array_equal, scenario.draw(), scenario.draw()))


@pytest.mark.parametrize("scenario", BY_SIZE)
def test_scenario_evaluates(scenario: Scenario) -> None:
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.jit(scenario.function)(scenario.make_inputs())))


@pytest.mark.thorough
@pytest.mark.parametrize("scenario", SCENARIOS.select("correctness"), ids=name_of)
def test_derivatives_are_those_of_jax(scenario: Scenario) -> None:
    assert check(scenario, seed=0)
