"""Calibration: what this machine takes for a few programs, over what the machine took on which the shipped constants were fitted.

The constants fall into groups that differ between machines by about one factor: calls, kernels, arithmetic, memory, and products of
matrices.  A program stands for each; what the constants of a group are to each other is shipped with the release.  About two seconds,
most of them compilation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.time_model.machine import Constants, shipped
from dualrev.time_model.pricing import time_of

#: Seconds of rounds for each program.
BUDGET = 0.03
STEPS = 100


def seconds_of(run: Callable[[], Any], budget: float) -> float:
    """The lower quartile of so many seconds of rounds of at least a millisecond, each round waited for: what else runs on the machine
    changes it little."""
    jax.block_until_ready(run())
    start = time.perf_counter()
    jax.block_until_ready(run())
    calls = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-6)))
    rounds: list[float] = []
    end = time.perf_counter() + budget
    while len(rounds) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            result = run()
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - start) / calls)
    return sorted(rounds)[len(rounds) // 4]


def seconds(fun: Callable[[jax.Array], Any], x: jax.Array) -> float:
    """The time of a compiled function."""
    compiled = jax.jit(fun).lower(x).compile()
    return seconds_of(lambda: compiled(x), BUDGET)


def _numbers(shape: tuple[int, ...], dtype: str) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random(shape) + 0.5, dtype)


def _kernels(x: jax.Array) -> jax.Array:
    """A loop of many kernels: a sort keeps it from being one."""
    def step(_: Any, c: jax.Array) -> jax.Array:
        c = lax.sort(c)
        for _ in range(6):
            c = lax.sub(c, lax.broadcast(lax.reduce_max(c, (0,)), c.shape))
        return c

    result: jax.Array = lax.fori_loop(0, STEPS, step, x)
    return result


def _each_step(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: lax.fori_loop(0, STEPS, lambda _, c: function(c), x)


#: A group of constants -> the program that stands for it, and the shape and dtype of its argument.
PROGRAMS: Mapping[str, tuple[Callable[[jax.Array], Any], tuple[int, ...], str]] = {
    "call": (lax.neg, (8,), "float32"),
    "kernel": (_kernels, (64,), "float32"),
    "work": (_each_step(lambda c: lax.exp(lax.neg(c))), (2048,), "float32"),
    "memory": (lax.neg, (2**23,), "float32"),
    "product": (lambda a: lax.dot(a, a), (384, 384), "float32"),
}
#: What they took where the shipped constants of that name were fitted (processor time; the last two, on two threads, half of it); of
#: others, what the model predicts stands in.
REFERENCE: Mapping[str, Mapping[str, float]] = {
    "XLA:CPU of jax 0.10": {"call": 4.9e-6, "kernel": 3.9e-4, "work": 9.5e-5, "memory": 8.4e-3, "product": 5.2e-4},
    "XLA:CPU of jax 0.12": {"call": 4.9e-6, "kernel": 3.8e-4, "work": 8.3e-5, "memory": 7.9e-3, "product": 5.3e-4},
}
#: Constants in proportion to the time of a group.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "call": ("call_s", "leaf_s", "result_s", "hand_s"),
    "kernel": ("kernel_s", "graph_s", "split_s", "loop_kernel_s", "graph_kernel_s", "argument_s", "step_s", "dot_s",
               "library_s", "conv_s"),
    "work": ("within_s", "one_kernel_step_s", "first_s", "join_s", "pad_s", "scalar_s", "entry_s", "reduce_s", "reduce_rows_s",
             "gather_s", "scatter_s", "sort_s", "library_sum_s", "library_entry_s", "calls", "written_dot_s"),
    "memory": ("fresh_s",),
}


def measured(backend: str | None = None, told: Callable[[int], None] | None = None) -> Constants:
    """The constants of the current backend: the shipped ones, each group of them slower or faster by a factor.

    ``told`` hears how many of :data:`PROGRAMS` are done.
    """
    name = backend or jax.default_backend()
    start = shipped(name if name in ("cpu", "tpu") else "gpu")
    expected = REFERENCE.get(start.name, {})
    slower: dict[str, float] = {}
    for done, (group, (fun, shape, dtype)) in enumerate(PROGRAMS.items()):
        if told is not None:
            told(done)
        x = _numbers(shape, dtype)
        slower[group] = seconds(fun, x) / (expected.get(group) or time_of(jax.make_jaxpr(fun)(x), start))
    changes: dict[str, Any] = {key: _times(getattr(start, key), slower[group]) for group, keys in GROUPS.items() for key in keys}
    *caches, (holds, rate) = start.levels
    changes["levels"] = (*[(n, near / slower["work"]) for n, near in caches], (holds, rate / slower["memory"]))
    for rates in ("dot_per_s", "conv_per_s"):
        changes[rates] = tuple([rate / slower["product"] for rate in getattr(start, rates)])
    return start.replace(name=f"{start.name}, calibrated", **changes)


def _times(value: Any, factor: float) -> Any:
    """A number, or the numbers in it, times a factor."""
    if isinstance(value, Mapping):
        return {key: _times(inner, factor) for key, inner in value.items()}
    return tuple([_times(x, factor) for x in value]) if isinstance(value, tuple) else value * factor
