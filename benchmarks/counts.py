"""What can be counted of a derivative, and does not depend on how fast a machine is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import jax

import dualrev
from benchmarks.scenarios.namespaces import JAX, on
from dualrev.problems.scenario import Scenario


def equations(jaxpr: Any) -> int:
    """The equations of a program and of the programs inside it."""
    inside = [x for equation in jaxpr.eqns for value in equation.params.values()
              for x in (value if isinstance(value, (tuple, list)) else (value,))]
    programs = [getattr(x, "jaxpr", x) for x in inside]
    return len(jaxpr.eqns) + sum(equations(p) for p in programs if hasattr(p, "eqns"))


def tape_bytes(program: Scenario, policy: Callable[[Any], Any] = lambda f: f) -> int:
    """Bytes that the tape of a program's function keeps; its data is no part of them where it stands for itself."""
    f = on(JAX, program)
    p, *data = jax.tree.map(jax.numpy.asarray, program.draw())
    return int(dualrev.linearize(policy(lambda p: f(p, *data)), p)[1].residual_bytes)


def python_calls(run: Callable[[], Any]) -> int:
    """Calls of Python functions during one run."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    # What the collector would call depends on what was allocated before.
    gc.disable()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def compiled_counts(run: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, int]:
    """Equations, floating-point operations, bytes read and written, and bytes for temporary values of a compiled function."""
    traced = jax.jit(run).trace(*arguments)
    compiled = traced.lower().compile()
    cost = compiled.cost_analysis()
    return {"equations": equations(traced.jaxpr.jaxpr), "flops": int(cost.get("flops", 0)), "bytes": int(cost.get("bytes accessed", 0)),
            "temporary bytes": int(compiled.memory_analysis().temp_size_in_bytes)}
