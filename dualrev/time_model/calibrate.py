"""Measuring the constants of the time model on this machine: about two seconds of small programs, and their compilation.

Each constant is the slope, or the difference, of programs that differ in one thing: the number of kernels, of entries, of bytes.
Constants that small programs do not determine well keep their shipped values: see :func:`measured`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.time_model.machine import BySize, Constants, shipped

#: Seconds of rounds for each program; their median counts.
BUDGET = 0.02
STEPS = 100
DTYPES = ("float32", "float64")

FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "div": lambda x: lax.div(lax.full_like(x, 1.5), x), "sqrt": lax.sqrt, "rsqrt": lax.rsqrt, "exp": lax.exp, "log": lax.log,
    "sin": lax.sin, "cos": lax.cos, "tanh": lax.tanh, "logistic": lax.logistic, "log1p": lax.log1p, "expm1": lax.expm1,
    "pow": lambda x: lax.pow(x, lax.full_like(x, 1.3)), "erf": lax.erf, "exp2": lax.exp2, "tan": lax.tan}


def seconds(fun: Callable[..., Any], *args: Any) -> float:
    """The median time of a compiled function, warm, each result waited for."""
    run = jax.jit(fun).lower(*args).compile()
    jax.block_until_ready(run(*args))
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    calls = max(1, int(2e-3 / max(time.perf_counter() - start, 1e-7)))
    rounds: list[float] = []
    end = time.perf_counter() + BUDGET
    while len(rounds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            result = run(*args)
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - start) / calls)
    return statistics.median(rounds)


def _each_step(body: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    return seconds(lambda x: lax.fori_loop(0, STEPS, lambda _, c: body(c), x), x) / STEPS


def _numbers(shape: tuple[int, ...] | int, dtype: str) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape) + 0.5, dtype)


def _step_with(function: Callable[[jax.Array], jax.Array], n: int, dtype: str) -> float:
    """Seconds of a step that applies a function to ``n`` numbers, and keeps them between 0.5 and 2."""
    x, scale = _numbers(n, dtype), lax.full((n,), 1e-3, dtype)
    return _each_step(lambda c: lax.add(lax.mul(function(c), scale), x), x)


def _functions() -> tuple[dict[str, BySize], float]:
    """Seconds for an entry of each function, where it is one of many; and what the first one takes besides."""
    n = 2048
    base = {dtype: _step_with(lambda x: x, n, dtype) for dtype in DTYPES}
    found: dict[str, BySize] = {}
    for name, function in FUNCTIONS.items():
        small, large = (max((_step_with(function, n, dtype) - base[dtype]) / n, 1e-12) for dtype in DTYPES)
        found[name] = (small, large)
    one = _step_with(lambda x: x, 1, "float64")
    first = [_step_with(FUNCTIONS[name], 1, "float64") - one - found[name][1] for name in ("exp", "log", "tanh", "sqrt")]
    return found, max(statistics.median(first), 1e-11)


def _simple() -> tuple[float, BySize, float]:
    """Seconds of a first entry, of an entry among many, and the rate of near memory."""
    def chain(k: int) -> Callable[[jax.Array], jax.Array]:
        def body(c: jax.Array) -> jax.Array:
            x = c
            for _ in range(k):
                x = lax.add(lax.mul(x, c), c)
            return x
        return body

    many, few = {}, {}
    for dtype in DTYPES:
        x = lax.mul(_numbers(4096, dtype), lax.full_like(_numbers(4096, dtype), 0.3))
        many[dtype], few[dtype] = _each_step(chain(17), x), _each_step(chain(1), x)
    one = _numbers(1, "float64")
    first = (_each_step(chain(17), one) - _each_step(chain(1), one)) / 32
    entries = [max((many[d] - few[d]) / 32 / 4096, 1e-13) for d in DTYPES]
    near = 2 * 8 * 4096 / max(few["float64"] - 2 * 4096 * entries[1], 1e-9)
    return first, (entries[0], entries[1]), near


def _streams() -> float:
    """The rate of memory that no cache holds."""
    n = 2**22
    x = _numbers(n, "float64")
    return 2 * 8 * n / _each_step(lambda c: lax.neg(c), x)


def _kernels() -> tuple[float, float]:
    """Seconds of a kernel of a program, and of one in a loop that is not one kernel."""
    def links(k: int) -> Callable[[jax.Array], jax.Array]:
        def chained(x: jax.Array) -> jax.Array:
            for _ in range(k):
                x = lax.sub(x, lax.broadcast(lax.reduce_max(x, (0,)), x.shape))
            return x
        return chained

    x = _numbers(64, "float64")
    straight = (seconds(links(41), x) - seconds(links(1), x)) / 80

    # A sort keeps the loop from being one kernel.
    def loop(k: int) -> float:
        return _each_step(lambda c: links(k)(lax.sort(c)), x)

    return max(straight, 1e-8), max((loop(9) - loop(1)) / 16, 1e-9)


def _dots() -> tuple[BySize, float]:
    rates = []
    for dtype in DTYPES:
        a = _numbers((256, 256), dtype)
        rates.append(2 * 256**3 / seconds(lambda a: a @ a, a))
    small = _numbers((4, 4), "float32")

    def chained(a: jax.Array, k: int) -> jax.Array:
        x = a
        for _ in range(k):
            x = x @ a
        return x

    return (rates[0], rates[1]), max((seconds(lambda a: chained(a, 21), small) - seconds(lambda a: chained(a, 1), small)) / 20, 1e-8)


def _calls(shipped_calls: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Factorizations: what a small one takes, and each unit of work of a larger one."""
    def positive(n: int) -> jax.Array:
        a = _numbers((n, n), "float64")
        return a @ a.T + jnp.eye(n, dtype=a.dtype) * n

    found = dict(shipped_calls)
    programs: dict[str, Callable[[jax.Array], Any]] = {
        "cholesky": lax.linalg.cholesky, "lu": lax.linalg.lu, "qr": lax.linalg.qr, "eigh": lax.linalg.eigh,
        "triangular_solve": lambda a: lax.linalg.triangular_solve(a, a, left_side=True, lower=True)}
    empty = seconds(lambda a: lax.neg(a), positive(4))
    for name, fun in programs.items():
        base = max(seconds(fun, positive(4)) - empty, 1e-8)
        found[name] = (base, max((seconds(fun, positive(96)) - base - empty) / 96**3, 1e-13))
    return found


def measured(backend: str | None = None) -> Constants:
    """The constants of the current backend.  What is not measured is shipped: gathers, scatters, sorts, joins, random bits, special
    functions, the rules of fusion, and the sizes of caches.
    """
    with jax.enable_x64(True):
        name = backend or jax.default_backend()
        start = shipped(name if name in ("cpu", "tpu") else "gpu")
        functions, first_function = _functions()
        first, simple, near = _simple()
        far = _streams()
        kernel, loop_kernel = _kernels()
        dots, dot = _dots()
        x = _numbers(8, "float64")
        one, many = seconds(lambda x: lax.neg(x), x), seconds(lambda *xs: [lax.neg(x) for x in xs], *[x] * 32)
        leaf = max((many - one - 31 * kernel) / 62, 1e-8)
        step = _each_step(lambda c: lax.neg(c), x[:1]) - first - one / STEPS
    levels = ((start.levels[0][0], near), *start.levels[1:-1], (start.levels[-1][0], far)) if len(start.levels) > 1 else start.levels
    return start.replace(
        name=f"{start.name}, calibrated", call_s=max(one - 2 * leaf, 1e-7), leaf_s=leaf, kernel_s=kernel, loop_kernel_s=loop_kernel,
        one_kernel_step_s=max(step, 1e-10), levels=levels, entry_s={**start.entry_s, **functions, "simple": simple},
        first_s=(max(first, 1e-11), first_function), dot_per_s=dots, dot_s=dot, calls=_calls(dict(start.calls)))
