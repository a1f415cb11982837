"""Figures beside peers other than jax's gradient, in groups of ``python -m benchmarks.figures``.

- ``hand``: gradients of scans over what a person writes who knows the program;
- ``equinox``: reverse through a while loop over Equinox's checkpointed loop, where Equinox is installed;
- ``hvp``: products with a Hessian over the gradient, in three orders of modes;
- ``residuals``: bytes that a derivative keeps, and time to compile.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import dualrev as dr
from benchmarks.by_hand import lstm_gradient
from benchmarks.programs import RESIDUALS, SECOND_ORDER, WHILE
from benchmarks.scenarios.networks import LSTM_SIZES, recurrent, sequence
from benchmarks.timing import Figure, checked, compare, temporary


def by_hand(budget: float) -> list[Figure]:
    figures = []
    for size in LSTM_SIZES:
        program = recurrent("LSTM", *size)
        inputs = program.make_inputs()
        ours = jax.jit(dr.grad(program.function)).lower(inputs).compile()
        theirs = jax.jit(lstm_gradient(jnp.asarray(sequence(*size[:3])), size[3])).lower(inputs).compile()
        label = f"{program.name} (room {temporary(ours) / temporary(theirs):.2f})"
        difference = checked(ours(inputs), theirs(inputs))
        figures.append(compare("scan over hand-written", label, partial(ours, inputs), partial(theirs, inputs), budget, 1.0,
                               difference))
    return figures


def equinox(budget: float) -> list[Figure]:
    if importlib.util.find_spec("equinox") is None:
        Console(stderr=True).print("Equinox is not installed: its loops were not timed")
        return []
    from equinox.internal import while_loop

    figures = []
    for program in WHILE[:2]:
        inputs = program.make_inputs()
        (n,) = program.data
        for kept in (16, 64):
            def loss(moving: Any, n: Any = n, kept: int = kept) -> jax.Array:
                weights, h = moving

                def body(c: Any) -> Any:
                    return c[0] + 1, jnp.tanh(c[1] @ weights) + 0.1 * c[1]

                return jnp.sum(while_loop(lambda c: c[0] < n, body, (0, h), kind="checkpointed", checkpoints=kept)[1])

            theirs = jax.jit(jax.grad(loss)).lower(inputs).compile()
            for how in ("auto", False):
                gradient = dr.grad(program.function, loop_checkpoints=kept, stack_cotangents=how)
                ours = jax.jit(gradient).lower(inputs).compile()
                room = [temporary(run) // inputs[1].nbytes for run in (ours, theirs)]
                label = f"{program.name}, {kept} states, stacks: {how} (room for {room[0]:,} and {room[1]:,})"
                difference = checked(ours(inputs), theirs(inputs), 1e-3)
                figures.append(compare("while over Equinox", label, partial(ours, inputs), partial(theirs, inputs), budget, 1.0,
                                       difference))
    return figures


def products(function: Callable[[Any], Any]) -> dict[str, Callable[[Any, Any], Any]]:
    """Products of a function's Hessian with a vector, by dualrev."""

    def slope_along(p: Any, v: Any) -> Any:
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, dr.grad(function)(p), v)))

    return {
        "forward over reverse": lambda p, v: dr.jvp(dr.grad(function), (p,), (v,))[1],
        "reverse over forward": lambda p, v: dr.grad(lambda p: dr.jvp(function, (p,), (v,))[1])(p),
        "reverse over reverse": lambda p, v: dr.grad(slope_along)(p, v),
    }


def hvp(budget: float) -> list[Figure]:
    figures = []
    for program in SECOND_ORDER:
        p = program.make_inputs()
        v = jax.tree.map(jnp.cos, p)
        gradient = jax.jit(dr.grad(program.function))
        expected = jax.jit(lambda p, v, f=program.function: jax.jvp(jax.grad(f), (p,), (v,))[1])(p, v)
        for name, product in products(program.function).items():
            run = jax.jit(product)
            difference = checked(run(p, v), expected, 1e-3)
            figures.append(compare("hvp over gradient", f"{program.name}, {name}", partial(run, p, v), partial(gradient, p), budget,
                                   4.0, difference))
    return figures


def held_bytes(pull: Any) -> int:
    """Bytes of the distinct arrays in a pull function of jax."""
    arrays = {id(x): x for x in jax.tree.leaves(pull) if isinstance(x, jax.Array)}
    return sum(x.nbytes for x in arrays.values())


@dataclass(frozen=True)
class Kept:
    """Bytes that a derivative keeps, and the time to compile the gradient over jax's."""

    program: str
    ours: int
    auto: int
    jax: int
    compiling: float
    compiling_auto: float


def residuals() -> list[Kept]:
    """What dualrev keeps, as it is and with the automatic policy, and jax."""
    found = []
    for program in RESIDUALS:
        inputs = program.make_inputs()
        auto = dr.checkpoint(program.function, policy="auto")
        ours, chosen = (dr.linearize(f, inputs)[1].residual_bytes for f in (program.function, auto))
        gradients = dr.grad(program.function), dr.grad(auto), jax.grad(program.function)
        seconds = [compile_seconds(gradient, inputs) for gradient in gradients]
        theirs = held_bytes(jax.vjp(program.function, inputs)[1])
        found.append(Kept(program.name, ours, chosen, theirs, seconds[0] / seconds[2], seconds[1] / seconds[2]))
    return found


def residuals_table(found: list[Kept]) -> Table:
    table = Table(title="what a derivative keeps, and compiling its gradient over jax's")
    for heading in ("program", "dualrev, MB", "policy auto, MB", "jax, MB", "compiling", "compiling, auto"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for k in found:
        table.add_row(k.program, *[f"{b / 1e6:.2f}" for b in (k.ours, k.auto, k.jax)], f"{k.compiling:.2f}", f"{k.compiling_auto:.2f}")
    return table


def compile_seconds(function: Callable[..., Any], inputs: Any, times: int = 3) -> float:
    """The least of a few compilations."""
    found = []
    for _ in range(times):
        lowered = jax.jit(lambda x: function(x)).lower(inputs)
        start = time.perf_counter()
        lowered.compile()
        found.append(time.perf_counter() - start)
    return min(found)
