"""What it costs to look for NaN: ``where_nan`` and ``finite`` over the plain gradient, compiled: ``python -m benchmarks.finiteness``.

Medians of ratios of interleaved rounds in one process; each call is waited for.  *finite* is a block around many calls, *a block
each* one around every call, which is left when what it started is done.  *off* is the compiled gradient after a block was open, over
one that never met any.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from rich.console import Console
from rich.table import Table

import dualrev as dr
from benchmarks.timing import calls_in, checked, rounds, seconds

#: Seconds for each program.
BUDGET = 4.0


def network(w: jax.Array) -> jax.Array:
    x = jnp.linspace(-1.0, 1.0, 256 * 128).reshape(256, 128)
    for layer in w:
        x = jnp.tanh(x @ layer)
    return jnp.mean(x**2)


def recurrent(w: jax.Array) -> jax.Array:
    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(w @ h + x)
        return h, jnp.sum(h)

    return jnp.sum(lax.scan(step, jnp.zeros(w.shape[0]), jnp.ones((200, w.shape[0])))[1])


def attention(x: jax.Array) -> jax.Array:
    scores = x @ x.T / jnp.sqrt(float(x.shape[1]))
    masked = jnp.where(jnp.tri(x.shape[0], dtype=bool), scores, -jnp.inf)
    return jnp.sum((jax.nn.softmax(masked) @ x) ** 2)


def gaussian(a: jax.Array) -> jax.Array:
    covariance = a @ a.T + jnp.eye(a.shape[0])
    factor = jnp.linalg.cholesky(covariance)
    return 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))


def orbit(x: jax.Array) -> jax.Array:
    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        i, y = state
        return i + 1, y + 0.001 * jnp.sin(y) * jnp.cos(jnp.roll(y, 1))

    return jnp.sum(lax.while_loop(lambda state: state[0] < 500, step, (jnp.int32(0), x))[1])


def wave(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(x) * x)


PROGRAMS: Sequence[tuple[str, Callable[[jax.Array], jax.Array], Callable[[], jax.Array]]] = (
    ("network 128-128-128, 256 examples", network, lambda: jnp.full((2, 128, 128), 0.05)),
    ("recurrent network, 200 steps", recurrent, lambda: jnp.full((64, 64), 0.02)),
    ("masked attention, 256 tokens", attention, lambda: jnp.ones((256, 64)) * jnp.linspace(0.1, 1.0, 64)),
    ("log-determinant, 200 x 200", gaussian, lambda: jnp.eye(200) * 0.5),
    ("while loop, 500 steps", orbit, lambda: jnp.linspace(0.0, 1.0, 1000)),
    ("x sin x, 3 entries", wave, lambda: jnp.ones(3)),
    ("x sin x, 100,000 entries", wave, lambda: jnp.ones(100_000)),
)


def ratio(run: Callable[[int], float], plain: Callable[[int], float], calls: int, budget: float) -> float:
    """The median over rounds of the time of ``calls`` calls of the one over that of the other."""
    times = rounds([lambda: run(calls), lambda: plain(calls)], budget)
    return statistics.median(a / b for a, b in times)


def waited(run: Callable[[], Any]) -> Callable[[int], float]:
    """Seconds for each of a number of calls."""
    jax.block_until_ready(run())
    return lambda calls: seconds(lambda: jax.block_until_ready(run()), calls)


def measured(fun: Callable[[jax.Array], jax.Array], x: jax.Array, budget: float) -> tuple[float, ...]:
    """Microseconds of the plain gradient, and over that: ``where_nan``, ``finite``, a block for each call, and no block any more."""
    plain = jax.jit(dr.grad(fun))
    alone = waited(lambda: plain(x))
    calls = calls_in(5e-3, lambda: plain(x))
    ask = dr.where_nan(dr.grad(fun))
    report = ask(x)
    assert not report
    checked(report.value, plain(x))
    other = jax.jit(dr.grad(fun))
    with dr.finite():
        checked(other(x), plain(x))

    def in_a_block(calls: int) -> float:
        with dr.finite():
            return seconds(lambda: jax.block_until_ready(other(x)), calls)

    def watched() -> Any:
        with dr.finite():
            return other(x)

    ways = waited(lambda: ask(x).value), in_a_block, waited(watched), waited(lambda: other(x))
    return 1e6 * alone(calls), *[ratio(way, alone, calls, budget / 4) for way in ways]


def main(budget: float = BUDGET) -> None:
    table = Table("gradient of", "plain, µs", "where_nan", "finite", "a block each", "off")
    for name, fun, inputs in PROGRAMS:
        alone, *ratios = measured(fun, inputs(), budget)
        table.add_row(name, f"{alone:.0f}", *[f"{r:.2f}" for r in ratios])
    Console().print(table)


if __name__ == "__main__":
    main()
