"""The list of what a linear map stores: bytes, operations, lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev

W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
X = jnp.ones(4)
LAYERS = [W, W / 2, W / 3]
ROWS = jnp.ones((5, 4))


def network(layers: Any, x: Any) -> Any:
    for w in layers:
        x = jnp.tanh(x @ w)
    return x


def test_residuals_are_listed() -> None:
    constant = np.arange(4.0)

    def f(p: Any, x: Any) -> Any:
        y = jnp.exp(p["w"] @ x)
        return y, jnp.sum(jnp.sin(y) * constant)

    out, J = dualrev.linearize(f, {"w": W}, X)
    found = J.residuals()
    assert sum(r.nbytes for r in found) == found.nbytes == J.residual_bytes == J.T.residuals().nbytes
    by_kind = {(r.kind, r.name): r for r in found}
    w = by_kind["input", "[0]['w']"]
    assert (w.nbytes, w.shape, w.dtype, w.op) == (128, (4, 4), "float64", "dot_general")
    assert by_kind["output", "[0]"].op == "exp"
    assert {r.op for r in found if r.kind == "constant"} == {"mul"}
    assert all("test_residuals.py" in r.line and "f)" in r.line for r in found)
    assert dualrev.vjp(f, {"w": W}, X)[1].residuals() == found
    text = repr(found)
    assert "dot_general" in text and "input [1]" in text and "128 B" in text.replace("  ", " ")
    assert len(out) == 2


def repeated(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda layers, x: lax.scan(lambda c, _: (f(layers, c), None), x, None, length=3)[0]


def checkpointed(f: Callable[..., Any]) -> Callable[..., Any]:
    return dualrev.checkpoint(f, policy="auto")


@pytest.mark.parametrize("wrap", [jax.jit, dualrev.checkpoint, checkpointed, repeated], ids=lambda wrap: wrap.__name__)
def test_residuals_inside_programs(wrap: Any) -> None:
    J = dualrev.linearize(wrap(network), LAYERS, ROWS)[1]
    found = J.residuals()
    assert found.nbytes == J.residual_bytes and all("test_residuals.py" in r.line for r in found)
    assert wrap is not jax.jit or all("(network)" in r.line for r in found)
    assert {r.name for r in found if r.kind == "input"} >= {"[0][0]", "[0][1]", "[0][2]"}


@pytest.mark.parametrize("loop", [
    lambda w: lax.scan(lambda h, _: (jnp.tanh(jnp.sin(h) @ w), None), ROWS, None, length=3)[0],
    lambda w: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(jnp.sin(c[1]) @ w)), (0, ROWS))[1],
], ids=["scan", "while"])
def test_residuals_of_the_steps_of_a_loop(loop: Any) -> None:
    J = dualrev.linearize(loop, W)[1]
    found = J.residuals()
    assert found.nbytes == J.residual_bytes and {"dot_general", "sin"} <= {r.op for r in found}
    assert all("<lambda>" in r.line for r in found)


def test_a_carry_is_stored_once() -> None:
    """As a step leaves it, it is what the next step finds."""
    def f(w: Any) -> Any:
        return lax.scan(lambda h, _: (jnp.tanh(h @ w), None), ROWS, None, length=30)[0]

    assert dualrev.linearize(f, W)[1].residual_bytes == 30 * ROWS.nbytes + W.nbytes + ROWS.nbytes


def test_residuals_of_a_map_that_left_jit() -> None:
    J = jax.jit(lambda x: dualrev.linearize(network, LAYERS, x)[1])(ROWS)
    assert {(r.op, r.kind) for r in J.residuals()} == {("dot_general", "intermediate"), ("tanh", "intermediate")}
    assert J.residuals().nbytes == J.residual_bytes
