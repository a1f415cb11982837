"""Lines of the user's where two functions have equal programs: each is told its own, whichever was differentiated first."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import dualrev as dr

HERE = pathlib.Path(__file__)


def one(x: Any) -> Any:
    return jnp.sin(jnp.sqrt(x) * 0.0) * x  # one


def two(x: Any) -> Any:
    return jnp.sin(jnp.sqrt(x) * 0.0) * x  # two


LINES = {name: number for name in ("one", "two") for number, text in enumerate(HERE.read_text().splitlines(), 1)
         if text.endswith(f"# {name}")}

# What is traced at one line, with equal equations, is one program to all that is derived from programs.
WRAPPED: dict[str, Callable[[Any], Any]] = {
    "jit": lambda op: lambda x: jnp.sum(jax.jit(lambda u: op(u))(x)),
    "scan": lambda op: lambda x: lax.scan(lambda c, a: (c + op(a), None), jnp.float64(0.0), x)[0],
    "checkpoint": lambda op: lambda x: jnp.sum(jax.checkpoint(lambda u: op(u))(x)),
}

ASKED: dict[str, Callable[[Any, Any], str]] = {
    "explain": lambda f, x: str(dr.explain(f, x).to_dict()),
    "explain, of a gradient": lambda f, x: str(dr.explain(jax.jit(dr.grad(f)), x).to_dict()),
    "draw": lambda f, x: dr.draw(dr.grad(f), x).svg,
    "draw, compiled": lambda f, x: dr.draw(jax.jit(dr.grad(f)), x).svg,
    "where_nan": lambda f, x: str(dr.where_nan(dr.grad(f))(x)),
    "where_nan, compiled": lambda f, x: str(dr.where_nan(jax.jit(dr.grad(f)))(x)),
}


LINEARIZED: dict[str, Callable[[Callable[[Any], Any]], Callable[[Any], Any]]] = {
    "jit": WRAPPED["jit"],
    "jit in jit": lambda op: lambda x: jax.jit(lambda u: jnp.sum(jax.jit(lambda v: op(v))(u)))(x),
    "scan": WRAPPED["scan"],
    "while": lambda op: lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, op(s[1])), (0, x))[1],
    "cond": lambda op: lambda x: lax.cond(x[0] > 0, lambda u: op(u), lambda u: u, x),
    "in a checkpoint": lambda op: lambda x: jax.checkpoint(
        lambda u: jax.jit(lambda v: op(v))(u), policy=jax.checkpoint_policies.everything_saveable)(x),
}


@pytest.mark.parametrize("wrapped", LINEARIZED)
def test_unjitted_linear_maps_have_the_lines_of_their_own_function(wrapped: str) -> None:
    """What they keep is that of the first; lines are found by tracing the calls once more."""
    x = jnp.array([1.0, 2.0, 0.5])
    for name in ("one", "two"):
        _, J = dr.linearize(LINEARIZED[wrapped](one if name == "one" else two), x)
        kept, before = J.residuals(), J.residual_bytes
        assert kept.nbytes == before
        for text in ("".join(r.line for r in kept), dr.draw(J).svg):
            assert {int(n) for n in re.findall(rf"{HERE.name}:(\d+)", text)} & set(LINES.values()) <= {LINES[name]}, text
        assert any(str(LINES[name]) in r.line for r in kept) or wrapped in ("while", "cond")  # which know the call alone


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_each_function_has_its_own_lines(wrapped: str, asked: str) -> None:
    x = jnp.array([1.0, 2.0, 0.0])
    functions = {name: WRAPPED[wrapped](op) for name, op in (("one", one), ("two", two))}
    for f in functions.values():
        dr.grad(f)(x)
    for name, f in functions.items():
        text = ASKED[asked](f, x)
        found = {int(n) for n in re.findall(rf"{HERE.name}:(\d+)", text)} & set(LINES.values())
        assert found == {LINES[name]}, text
