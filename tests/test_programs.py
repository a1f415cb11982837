"""Random programs over the whole table: both engines and jax agree, to order 2.  ``python -m tests.fuzz`` tries more of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from agreement import assert_close, check
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax
from jax import numpy as jnp
from scenarios_random import Array, scenarios

import dualrev
from dualrev.problems.scenario import Scenario

SETTINGS = settings(max_examples=50, deadline=None, database=None,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


@pytest.mark.promotes
@pytest.mark.thorough
@pytest.mark.parametrize("part", range(4))
def test_random_programs(part: int) -> None:
    """Two hundred of them, in four parts that can run side by side."""
    compared = []

    @seed(part)
    @SETTINGS
    @given(scenarios(longest=3), st.integers(0, 100), st.permutations(("forward", "reverse")))
    def run(scenario: Scenario, which: int, engines: list[str]) -> None:
        compared.append(check(scenario, which, tuple(engines)))

    run()
    assert np.mean(compared) > 0.5, "too few programs have finite derivatives in jax"


@pytest.mark.promotes
@pytest.mark.thorough
@settings(SETTINGS, max_examples=3, derandomize=True)
@given(scenarios(longest=4), st.integers(0, 100))
def test_random_programs_without_jit(scenario: Scenario, which: int) -> None:
    check(dataclasses.replace(scenario, order=1), which, compiled=False)


@pytest.mark.parametrize("engine", ["forward", "reverse"])
def test_inner_product_identity(engine: Any) -> None:
    """⟨J t, u⟩ = ⟨t, Jᵀ u⟩ for a map with every kind of step."""
    def f(x: Any) -> Array:
        return lax.cumsum(lax.sort(lax.sin(x) * 2)[::2]) @ jnp.arange(6.0).reshape(3, 2)

    x, t, u = np.linspace(-1, 1, 5), np.arange(5.0), np.array([1.0, -2.0])
    moved = dualrev.jvp(f, (x,), (t,), engine=engine)[1]
    assert_close(jnp.vdot(moved, u), jnp.vdot(t, dualrev.vjp(f, x, engine=engine)[1](u)[0]))
