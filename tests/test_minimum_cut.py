"""The minimum cut between storing and computing again, against the cheapest of all choices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualrev._jax.jaxprs import JaxprEqn, Literal, Var, is_literal
from dualrev.programs.minimum_cut import minimum_cut
from dualrev.programs.partition import Graph, graph_of

X = jax.ShapeDtypeStruct((3,), "float32")


def random_program(seed: int) -> Graph:
    """Seven operations on two inputs, some with two results."""
    rng = np.random.default_rng(seed)

    def program(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        values = [x, y]
        for _ in range(7):
            a, b = (values[i] for i in rng.integers(len(values), size=2))
            values.extend(jax.lax.sort([a, b], num_keys=2) if rng.random() < .3 else [a * b])
        return values[2:]

    return graph_of(jax.make_jaxpr(program)(X, X))


def price(graph: Graph, wanted: set[Var], stored: set[Var], store: Callable[[Var], float],
          recompute: Callable[[JaxprEqn], float]) -> float:
    """What a choice costs: what is stored, and each equation that then has to run."""
    makers = {v: i for i, eqn in enumerate(graph.eqns) for v in eqn.outvars}
    total, pending, ran, seen = 0.0, list(wanted), set(), set()
    while pending:
        v = pending.pop()
        if v in seen:
            continue
        seen.add(v)
        if v in stored:
            total += store(v)
        elif v not in makers:
            return math.inf
        elif makers[v] not in ran:
            ran.add(makers[v])
            total += recompute(graph.eqns[makers[v]])
            pending.extend(a for a in graph.eqns[makers[v]].invars if not is_literal(a))
    return total


@pytest.mark.parametrize("seed", range(30))
def test_no_choice_is_cheaper(seed: int) -> None:
    graph = random_program(seed)
    rng = np.random.default_rng(1000 + seed)
    everything: list[Var] = [*graph.invars, *[v for eqn in graph.eqns for v in eqn.outvars]]
    kinds = rng.choice([0.0, 1e-9, 1.0, math.inf], size=len(graph.eqns), p=[.2, .2, .4, .2])
    again = {id(eqn): float(kind * rng.random()) if math.isfinite(kind) else kind for eqn, kind in zip(graph.eqns, kinds, strict=True)}
    stores = {v: float(rng.random() * rng.choice([0.0, 1e-9, 1.0])) for v in everything}
    wanted = {v for v in everything if rng.random() < .4}

    def store(v: Var) -> float:
        return stores[v]

    def recompute(eqn: JaxprEqn) -> float:
        return again[id(eqn)]

    found = minimum_cut(graph, wanted, store, recompute)
    best = min(price(graph, wanted, set(chosen), store, recompute)
               for n in range(len(everything) + 1) for chosen in itertools.combinations(everything, n))
    assert price(graph, wanted, found, store, recompute) == pytest.approx(best, rel=1e-6, abs=1e-15)


def chain() -> Graph:
    return graph_of(jax.make_jaxpr(lambda x: jnp.cos(jnp.exp(jnp.sin(x))))(X))


def test_of_equally_cheap_choices_the_one_that_runs_least() -> None:
    graph = chain()
    sine, exponential, _ = (eqn.outvars[0] for eqn in graph.eqns)
    assert minimum_cut(graph, {exponential}, lambda v: 2.0 if v is exponential else 1.0, lambda eqn: 1.0) == {exponential}
    assert minimum_cut(graph, {exponential}, lambda v: 2.5 if v is exponential else 1.0, lambda eqn: 1.0) == {sine}
    assert minimum_cut(graph, {exponential}, lambda v: 9.0 if v in graph.invars else math.inf, lambda eqn: 1.0) == set(graph.invars)


def test_costs_of_very_different_sizes_stay_apart() -> None:
    graph = chain()
    last = graph.eqns[-1].outvars[0]
    assert minimum_cut(graph, {last}, lambda v: 0.0 if v in graph.invars else 1e-12, lambda eqn: 1e6) == {last}
    assert minimum_cut(graph, {last}, lambda v: 0.0 if v in graph.invars else 1e6, lambda eqn: 1e-12) == set(graph.invars)


def test_nothing_wanted_is_nothing_stored() -> None:
    assert minimum_cut(chain(), set(), lambda v: 1.0, lambda eqn: 1.0) == set()


def test_what_has_an_effect_does_not_run_again() -> None:
    def program(x: jax.Array) -> jax.Array:
        return jax.experimental.io_callback(lambda x: x, X, x) * 2.0

    graph = graph_of(jax.make_jaxpr(program)(X))
    called = graph.eqns[0].outvars[0]
    assert minimum_cut(graph, {graph.eqns[1].outvars[0]}, lambda v: 0.0 if v in graph.invars else 2.0 - (v is called),
                       lambda eqn: 0.0) == {called}


def test_a_value_that_can_neither_be_stored_nor_computed() -> None:
    graph = chain()
    with pytest.raises(ValueError, match="neither be stored nor be computed"):
        minimum_cut(graph, {graph.eqns[1].outvars[0]}, lambda v: math.inf, lambda eqn: 1.0)

def test_a_maximum_is_stored_with_what_it_is_the_maximum_of() -> None:
    """Else the entries that equal it are looked for among numbers that were computed again, and rounded differently."""
    graph = graph_of(jax.make_jaxpr(lambda x: jnp.max(x * x - 0.1))(X))
    _, entries, largest = (eqn.outvars[0] for eqn in graph.eqns)

    def cut(recompute: Callable[[JaxprEqn], float]) -> set[Var]:
        return minimum_cut(graph, {entries, largest}, lambda v: 1.0 if v is largest else 3.0, recompute)

    assert cut(lambda eqn: 0.0) in ({entries}, {*graph.invars})
    assert cut(lambda eqn: math.inf if eqn.primitive is jax.lax.reduce_max_p else 0.0) == {entries, largest}


def test_a_comparison_does_not_run_again_on_new_numbers_and_old_ones() -> None:
    def program(x: jax.Array) -> jax.Array:
        entries = x * x - 0.1
        return entries == jnp.broadcast_to(jnp.cumsum(entries)[0], (3,))

    graph = graph_of(jax.make_jaxpr(program)(X))
    is_equal = graph.outvars[0]
    assert not isinstance(is_equal, Literal)
    (cumulative,) = (eqn.outvars[0] for eqn in graph.eqns if eqn.primitive is jax.lax.cumsum_p)
    costs = {is_equal: 9.0, cumulative: 1.0}
    assert minimum_cut(graph, {is_equal}, lambda v: costs.get(v, 1.0 if v in graph.invars else 100.0),
                       lambda eqn: 100.0 if eqn.primitive is jax.lax.cumsum_p else 0.0) == {is_equal}
