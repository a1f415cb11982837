"""Subgradients and limits: the documented values, by both engines, and jax's beside them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edges import EDGES, Edge

import dualrev
from dualrev._jax.avals import JAX_VERSION


def identify(edge: Edge) -> str:
    return edge.what


@pytest.mark.parametrize("edge", EDGES, ids=identify)
def test_edge(edge: Edge) -> None:
    point = [jnp.asarray(x, "float64") for x in edge.point]
    argnums = tuple(range(len(point)))
    for engine in ("forward", "reverse"):
        found = dualrev.grad(edge.fun, argnums, engine=engine, **edge.options)(*point)  # type: ignore[arg-type] # both are engines
        for got, expected in zip(found, edge.value, strict=True):
            np.testing.assert_array_equal(got, expected, err_msg=engine)


@pytest.mark.thorough
@pytest.mark.parametrize("edge", EDGES, ids=identify)
def test_value_in_jax(edge: Edge) -> None:
    point = [jnp.asarray(x, "float64") for x in edge.point]
    expected: Any = edge.value if edge.jax is None else (edge.jax,)
    if isinstance(edge.jax, dict):
        expected = (edge.jax[max(release for release in edge.jax if release <= JAX_VERSION)],)
    if expected == ("none",):
        with pytest.raises(NotImplementedError):
            jax.grad(edge.fun)(*point)
        return
    for got, value in zip(jax.grad(edge.fun, tuple(range(len(point))))(*point), expected, strict=True):
        np.testing.assert_array_equal(got, value)
