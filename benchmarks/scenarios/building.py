"""What the families share: a scenario of a portable program, and the numbers that inputs and data are drawn from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.scenarios.namespaces import JAX
from dualrev.problems.scenario import Scenario


def portable(name: str, written: Callable[..., Any], draw: Callable[[], tuple[Any, ...]], **about: Any) -> Scenario:
    """A scenario of a function that takes an array namespace, and then the inputs and the data.

    Any library that has the namespace's operations runs it; in jax it is the scenario's program.
    """
    return Scenario(name, functools.partial(written, JAX), draw, portable=written, **about)


def drawn(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Normal numbers whose squares sum to 1 along the first axis, as weights begin."""
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype)


def near(values: list[float], n: int, seed: int = 0) -> np.ndarray:
    """A state (values, n), each column of which is near the values."""
    return np.array(values)[:, None] + 0.1 * np.random.default_rng(seed).uniform(-1.0, 1.0, (len(values), n))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)
