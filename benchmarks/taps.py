"""What taps cost: the gradient of a function with taps, asked for and not, over the gradient of the function without them.

``python -m benchmarks.taps``.  Off: the compiled gradient of the function with taps in it, which is the same program.  On: one
compiled call that gives the value, the gradient, and values and cotangents of all taps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.console import Console
from rich.table import Table

import dualrev as dr
from benchmarks.timing import Figure, checked, compare

#: ``mark(value, name)``: a tap, or nothing.
Mark = Callable[[Any, str], Any]
BUDGET = 6.0


class Program(NamedTuple):
    """A loss ``f(mark, parameters)``, its parameters, and what the taps hold."""

    name: str
    loss: Callable[[Mark, Any], Any]
    params: Any
    taps: str


def normal(seed: int, *shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / max(shape[0], 1) ** 0.5, "float32")


def perceptron() -> Program:
    x = normal(9, 256, 128)

    def loss(mark: Mark, params: Any) -> Any:
        h = x
        for w in params[:-1]:
            h = mark(jnp.tanh(h @ w), "hidden")
        return jnp.mean((h @ params[-1]) ** 2)

    return Program("perceptron", loss, [normal(i, 128, 128) for i in range(5)], "4 hidden layers, 256 x 128")


def recurrent() -> Program:
    xs = normal(9, 100, 32, 64)

    def loss(mark: Mark, params: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = mark(jnp.tanh(h @ params["h"] + x @ params["x"]), "state")
            return h, None

        return jnp.mean(lax.scan(step, jnp.zeros((32, 64), "float32"), xs)[0] ** 2)

    return Program("recurrent network, scan", loss, {"h": normal(0, 64, 64), "x": normal(1, 64, 64)}, "100 states, 32 x 64")


def attention() -> Program:
    x = normal(9, 8, 64, 64)

    def loss(mark: Mark, params: Any) -> Any:
        q, k, v = (x @ w for w in params[:3])
        weights = mark(jax.nn.softmax(jnp.einsum("bij,bkj->bik", q, k) / 8.0), "weights")
        return jnp.mean((mark(weights @ v, "mixed") @ params[3]) ** 2)

    return Program("attention", loss, [normal(i, 64, 64) for i in range(4)], "weights and mixture, 8 x 64 x 64 each")


def checkpointed() -> Program:
    x = normal(9, 256, 128)

    def loss(mark: Mark, params: Any) -> Any:
        @jax.checkpoint
        def block(h: Any, w: Any) -> Any:
            return h + jnp.tanh(mark(jnp.tanh(h @ w), "inner") @ w.T)

        h = x
        for w in params:
            h = block(h, w)
        return jnp.mean(h ** 2)

    return Program("residual blocks, checkpointed", loss, [normal(i, 128, 128) for i in range(4)], "4 inner layers, 256 x 128")


def solver() -> Program:
    def loss(mark: Mark, params: Any) -> Any:
        a, b = params

        def body(state: Any) -> Any:
            i, x = state
            return i + 1, mark(jnp.cos(a @ x) + b, "iterate")

        return jnp.mean(lax.while_loop(lambda s: s[0] < 60, body, (jnp.zeros((), "int32"), b))[1] ** 2)

    return Program("fixed-point iteration, while", loss, (normal(0, 128, 128) * 0.5, normal(1, 128)), "the last iterate, 128")


PROGRAMS = (perceptron, recurrent, attention, checkpointed, solver)


def nothing(x: Any, name: str) -> Any:
    return x


def figures(program: Program, budget: float = BUDGET) -> list[Figure]:
    """The ratios off and on of one program."""
    plain = jax.jit(dr.value_and_grad(lambda params: program.loss(nothing, params)))
    off = jax.jit(dr.value_and_grad(lambda params: program.loss(dr.tap, params)))
    on = jax.jit(dr.taps(lambda params: program.loss(dr.tap, params), argnums=0))
    difference = checked(on(program.params)[:2], plain(program.params))

    def ratio(name: str, run: Callable[[Any], Any], goal: float | None) -> Figure:
        return compare("taps", f"{program.name}, {name}", lambda: run(program.params), lambda: plain(program.params), budget, goal,
                       difference)

    return [ratio("off", off, 1.02), ratio("on", on, None)]


def main() -> None:
    table = Table("program", "taps", "with", "without", *Figure.HEADINGS)
    for make in PROGRAMS:
        program = make()
        for figure in figures(program):
            table.add_row(figure.name, program.taps, *figure.cells())
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
