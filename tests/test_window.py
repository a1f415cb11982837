"""Windowed selections that jax cannot transpose: the pull is held against the push, entry by entry."""

from __future__ import annotations

from typing import Any

import cases  # noqa: F401  (first: it imports every family's cases)
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases_window import HARD_FRAMES, window_max, window_min

import dualrev as dr


@pytest.mark.parametrize("window", [window_max, window_min])
@pytest.mark.parametrize(("label", "shape", "frame"), HARD_FRAMES, ids=[label for label, _, _ in HARD_FRAMES])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.thorough
def test_pull_is_the_transpose_of_the_push(window: Any, label: str, shape: tuple[int, ...], frame: tuple[Any, ...],
                                           ties: bool) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-1, 2, shape) * 1.0 if ties else rng.standard_normal(shape))
    function = window(*frame)
    pushed = jax.jacfwd(function)(x)
    np.testing.assert_array_equal(dr.jacfwd(function)(x), pushed)
    np.testing.assert_array_equal(dr.jacrev(function)(x), pushed)
    np.testing.assert_array_equal(jax.jit(dr.jacrev(function))(x), pushed)


def test_second_order_of_a_dilated_window() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal(9))

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(window_max((3,), (1,), [(1, 0)], (1,), (2,))(x**3) ** 2)

    expected = jax.jacfwd(jax.jacfwd(loss))(x)
    np.testing.assert_allclose(dr.hessian(loss)(x), expected, rtol=1e-12)
    np.testing.assert_allclose(dr.jacrev(dr.jacrev(loss))(x), expected, rtol=1e-12)
