"""What the compiler makes of loops: the facts that the time model and the loops' plans rely on.

Where a new compiler breaks one of them, the message names the constant to look at.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from test_loop_storing import PARAMETERS, STEPS, lorenz

import dualrev as dr
from dualrev import time_model
from dualrev.time_model.fusion import program
from dualrev.time_model.pricing import is_one_kernel_step

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the facts are those of XLA:CPU")

#: The shipped constants: what this machine was calibrated to is its own affair.
SHIPPED = time_model.shipped("cpu")


def compiled(f: Any, *args: Any) -> str:
    return str(jax.jit(f).lower(*args).compile().as_text())


def is_one_kernel(text: str) -> bool:
    """XLA:CPU moves a loop that is small enough into a function of its own, which is compiled as one kernel."""
    return re.search(r" call\(.*to_apply=%while", text) is not None


@pytest.mark.parametrize("n", [4, 40, 80, 2000])
def test_which_loops_are_one_kernel(n: int) -> None:
    def step(x: Any) -> Any:
        return jnp.sin(x) + 1.0

    found = is_one_kernel(compiled(lambda x: lax.fori_loop(0, 50, lambda _, x: step(x), x), jnp.ones(n)))
    assert found == is_one_kernel_step(jax.make_jaxpr(step)(jnp.ones(n)), SHIPPED), (
        f"a loop over {n} numbers is {'one kernel' if found else 'several kernels'}: look at one_kernel_bytes of "
        "dualrev.time_model.constants for this release")


@pytest.mark.parametrize("n", [1024, 65536])
def test_a_sum_by_the_library_keeps_a_loop_from_being_one_kernel(n: int) -> None:
    def step(x: Any) -> Any:
        return x * 0.5 + jnp.sum(x)

    found = is_one_kernel(compiled(lambda x: lax.fori_loop(0, 50, lambda _, x: step(x), x), jnp.ones(n)))
    assert found == is_one_kernel_step(jax.make_jaxpr(step)(jnp.ones(n)), SHIPPED), (
        f"a sum of {n} entries: look at library_sum of dualrev.time_model.constants")


SHORT, LONG = jnp.linspace(0.1, 1.0, 4000), jnp.linspace(0.1, 1.0, 5000)
BOOKKEEPING = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast")


def n_kernels(text: str) -> int:
    """What a compiled program without loops launches."""
    entry = re.split(r"\n\n", text[text.index("\nENTRY "):])[0]
    operations = re.findall(r"^  (?:ROOT )?%\S+ = \S+ ([\w\-]+)\(", entry, re.MULTILINE)
    return sum(name not in BOOKKEEPING for name in operations)


def joined(n: int, dtype: str = "float64", axis: int = 1) -> Any:
    x = jnp.ones((7, n), dtype)
    return lambda x, y: jnp.sin(jnp.concatenate([x * 2, y * 3], axis)), x, x


@pytest.mark.parametrize(("constant", "f", "args"), [
    ("WINDOW", jnp.sum, (SHORT[:32],)), ("WINDOW", jnp.sum, (SHORT[:33],)), ("WINDOW", jnp.sum, (SHORT[:1024],)),
    ("WINDOW", jnp.sum, (SHORT[:1025],)), ("WINDOW", lambda x: jnp.sum(x, 1), (jnp.ones((3, 1025)),)),
    ("LIBRARY_SUM", lambda x: jnp.sum(x * x), (SHORT,)), ("LIBRARY_SUM", lambda x: jnp.sum(x * x), (LONG,)),
    ("LIBRARY_SUM", jnp.max, (LONG,)), ("LIBRARY_SUM", jnp.prod, (LONG,)), ("is_real", jnp.sum, (jnp.arange(5000),)),
    *[("WITHIN_LIBRARY", lambda x, f=f: jnp.sum(f(x)), (LONG,)) for f in (
        jnp.exp, jnp.log, jnp.sin, jnp.cos, jnp.tan, jnp.tanh, lax.erf, jnp.cbrt, lax.round, lambda x: x**3, lambda x: x[1:] * x[:-1],
        lambda x: jnp.where(x > 0.5, x, 0.0), lambda x: (x > 0.5).astype(x.dtype) * x,
        lambda x: x / (x + 2.0), lambda x: x[:80, None] * x[None, :80])],
    *[("LONG_JOIN", f, args) for f, *args in (
        joined(16), joined(18), joined(20), joined(63), joined(64), joined(36, "float32"), joined(38, "float32"), joined(200, axis=0))],
], ids=itertools.count())
def test_kernels_are_cut_as_the_compiler_does(constant: str, f: Any, args: Any) -> None:
    model = program(jax.make_jaxpr(f)(*args))
    assert n_kernels(compiled(f, *args)) == len(model.kernels) + len(model.calls), (
        f"look at {constant} of dualrev.time_model.fusion_rules")


def bodies(text: str) -> list[str]:
    """The bodies of the loops of a compiled program."""
    names = re.findall(r" while\(.*?body=(%[\w.\-]+)", text)
    return [next(part for part in re.split(r"\n\n", text) if part.startswith(name + " ")) for name in names]


def test_the_stack_of_the_state_alone_is_filled() -> None:
    """A gradient's forward loop fills what it stacks; nothing else is as long as the loop."""
    text = compiled(dr.grad(lorenz(200), recompute_residuals=True), PARAMETERS)
    stacks = set(re.findall(rf"f64\[{STEPS},[\d,]*\]", text))
    assert stacks == {f"f64[{STEPS},3,200]"}, f"stacks of {sorted(stacks)}: look at dualrev.calls.loops.storing"


def test_the_pull_of_a_loop_has_few_kernels() -> None:
    """Cotangents of the rows of the state are joined, not padded and added; sums over entries run after the loop."""
    text = compiled(dr.grad(lorenz(200), recompute_residuals=True), PARAMETERS)
    pull = max(bodies(text), key=len)
    kernels = len(re.findall(r" = .* (?:fusion|reduce|dot)\(", pull))
    assert kernels <= 16, f"{kernels} kernels in the body of the pull: look at dualrev.linear.joining"
    assert " reduce(" not in pull
