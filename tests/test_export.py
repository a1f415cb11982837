"""Derivatives of programs with lengths that are symbols, as ``jax.export`` keeps them for later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close
from jax import export, lax

import dualrev as dr

Function = Callable[[Any], Any]

FUNCTIONS: dict[str, Function] = {
    "layers": lambda x: jnp.mean(jax.nn.log_softmax(jnp.tanh(x @ jnp.ones((3, 4))) + x[:, :1]) ** 2),
    "contractions": lambda x: jnp.sum(jnp.einsum("kji,nj->kin", jnp.ones((5, 3, 4)), x) ** 2) + jnp.sum(jax.nn.softmax(x @ x.T) @ x),
    "order": lambda x: jnp.sum(jnp.sort(x, 0) * x) + jnp.sum(jnp.max(x, 0)),
    "moves": lambda x: jnp.sum(jnp.concatenate([x[::-1], 2 * x]).at[0].multiply(3.0) ** 2) + jnp.sum(jnp.pad(x, 1).reshape(-1) ** 3),
    "scan": lambda x: jnp.sum(lax.scan(lambda c, y: (jnp.sin(c + y), c * y), jnp.ones(3), x)[1]),
    "loop": lambda x: jnp.sum(lax.while_loop(lambda c: jnp.sum(c) < 50.0, lambda c: c * (1 + x**2), 1 + x**2)),
    "checkpoint": lambda x: jnp.sum(dr.checkpoint(lambda x: jnp.sin(jnp.sin(x)), policy="auto")(x)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", FUNCTIONS)
def test_symbolic_length(name: str) -> None:
    f = FUNCTIONS[name]
    (n,) = export.symbolic_shape("n")

    def derivatives(x: Any) -> list[Any]:
        return [dr.grad(f)(x), dr.jvp(f, (x,), (x,))[1], dr.jvp(dr.grad(f), (x,), (x,))[1]]

    exported = export.export(jax.jit(derivatives))(jax.ShapeDtypeStruct((n, 3), "float64"))
    x = np.random.default_rng(0).standard_normal((4, 3))
    for got, expected in zip(exported.call(x), derivatives(x), strict=True):
        assert_close(got, expected)


def test_what_needs_a_number_says_so() -> None:
    (n,) = export.symbolic_shape("n")
    gradient = jax.jit(dr.grad(FUNCTIONS["scan"], schedule="sqrt"))
    with pytest.raises(ValueError, match=r"schedule.*needs the number of steps.*n"):
        export.export(gradient)(jax.ShapeDtypeStruct((n, 3), "float64"))
